"""Where the person writes: Enter sends, Shift+Enter, Alt+Enter and Ctrl+J begin a new line, and so does Enter in a block of three quotes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, cast

from textual import events
from textual._ansi_sequences import ANSI_SEQUENCES_KEYS
from textual.binding import Binding, BindingType
from textual.keys import Keys
from textual.message import Message
from textual.widgets import TextArea

from localr1.attachments import pasted_paths, split
from localr1.completion import Choice, choices, unfinished
from localr1.keys import ACTIONS, INPUT, Keymap
from localr1.recall import Recall
from localr1.text import printable
from localr1.tui.choices import Choices

QUOTES = '"""'


class PromptInput(TextArea):
    """`questions`: those of before, the latest first, asked for at the first Up. `attach_pasted`: more characters become an attachment; 0: never."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding(ACTIONS["undo"].keys, "undo", id="undo")]  # redo: Ctrl+Y, as it was

    class Sent(Message):
        """Enter was pressed, and the input is empty. `typed`: to be given back if `text` cannot be asked. `is_question`: whatever it begins with."""

        def __init__(self, text: str, typed: str, is_question: bool) -> None:
            super().__init__()
            self.text, self.typed, self.is_question = text, typed, is_question

    class Pasted(Message):
        """What had better be attached than stand in the question: files, or a long text."""

        def __init__(self, text: str, paths: Sequence[Path]) -> None:
            super().__init__()
            self.text, self.paths = text, paths

    class Rubbed(Message):
        """Backspace, where there is nothing before it."""

    def __init__(self, questions: Callable[[], list[str]] = list, attach_pasted: int = 2000, keymap: Keymap | None = None) -> None:
        super().__init__(compact=True, highlight_cursor_line=False, soft_wrap=True)
        self._bindings.key_to_bindings.pop("ctrl+z", None)  # it suspends the program, here as everywhere
        self._keymap = keymap or Keymap()
        self.is_early = True  # what comes was typed before the terminal was ours, and that made a new line of Enter
        self.attach_pasted = attach_pasted
        self.choices = Choices()
        self._questions: Callable[[], list[str]] | None = questions
        self._recall = Recall()
        self._offered: list[Choice] = []
        self._offered_for: str | None = None
        self._chosen, self._has_moved = 0, False

    # keys

    async def _on_key(self, event: events.Key) -> None:
        """TextArea's own handler comes next, for what is not handled here."""
        self._offer()
        if await self._handled(event.key):
            event.stop()
            event.prevent_default()

    async def _handled(self, key: str) -> bool:
        match self._keymap.meant(key, INPUT) or key:
            case "send":
                self._enter()
            case "new_line" if key == "ctrl+j" and self.is_early:
                self._enter()
            case "new_line":
                self.insert("\n")
            case "question_mark" if not self.text:
                await self.run_action("app.help")
            case "up" | "down" if self._offered:
                self._chosen = (self._chosen + (1 if key == "down" else -1)) % len(self._offered)
                self._has_moved = True
                self.choices.show(self._offered, self._chosen)
            case "tab" if self._offered or self.text.startswith("/"):
                self._complete()
            case "up" if self._row == 0:
                await self._older()
            case "down" if self._row == self.wrapped_document.height - 1:
                self._put(self._recall.newer())
            case "backspace" if not self.text:
                self.post_message(self.Rubbed())
            case "up" | "down" | "backspace":  # at once: as bindings they would come after what is typed next
                {"up": self.action_cursor_up, "down": self.action_cursor_down, "backspace": self.action_delete_left}[key]()
            case _:
                return False
        return True

    @property
    def _row(self) -> int:
        """Of the cursor, as lines are wrapped."""
        return self.wrapped_document.location_to_offset(self.cursor_location).y

    def _enter(self) -> None:
        text = self.text
        if self._offered and (self._has_moved or unfinished(text)):
            self._complete()
        elif not text.lstrip().startswith(QUOTES):
            self._send(text.strip(), is_question=False)
        elif (inside := _unquoted(text)) is not None:
            self._send(inside, is_question=True)
        else:
            self.insert("\n")

    def _send(self, text: str, is_question: bool) -> None:
        self.post_message(self.Sent(text, self.text, is_question))
        self.drop()

    # what was sent before

    def drop(self) -> None:
        """Begin anew; Up brings back what was there."""
        self._recall.add(self.text)
        self.clear()

    async def _older(self) -> None:
        if self._questions is not None:
            questions, self._questions = self._questions, None
            self._recall.put_before(split(sent)[0] for sent in await asyncio.to_thread(questions))
        self._put(self._recall.older(self.text))

    def _put(self, text: str | None) -> None:
        if text is not None:
            self.rewrite(text)
            self._offered_for = self.text  # the arrows go on here
            self._show([])

    def rewrite(self, text: str) -> None:
        """Put it in the place of all that is there; it can be undone."""
        text = printable(text)
        if text != self.text:
            self.replace(text, (0, 0), self.document.end, maintain_selection_offset=False)
            self.move_cursor(self.document.end)

    def begin_command(self, text: str) -> None:
        """With `text` before whatever has been typed."""
        self.text = text + self.text
        self.move_cursor((0, len(text)))
        self.focus()

    def give_back(self, text: str) -> None:
        """Put a question back that could not be asked, before whatever has been typed since."""
        text = printable(text)
        self.text = f"{text}\n{self.text}" if self.text else text
        self.move_cursor(self.document.end)

    # completion

    def on_text_area_changed(self) -> None:
        self._offer()

    def _offer(self) -> None:
        """Look for what the text may become, unless that is known."""
        if self.text != self._offered_for:
            self._offered_for = self.text
            self._show(choices(self.text) if self.text.startswith("/") else [])

    def _show(self, offered: list[Choice]) -> None:
        self._offered, self._chosen, self._has_moved = offered, 0, False
        self.choices.show(offered, 0)

    def _complete(self) -> None:
        if not self._offered:
            self._show(choices(self.text))
        else:
            self.rewrite(self._offered[self._chosen].text)
            self._offer()

    def close_choices(self) -> bool:
        """False: none are open."""
        was_open = bool(self._offered)
        self._show([])
        return was_open

    # paste

    async def _on_paste(self, event: events.Paste) -> None:
        """TextArea's own handler comes next, and would draw escape sequences as they are."""
        event.stop()
        event.text = text = printable(re.sub("\r\n?", "\n", event.text))
        paths = [] if self.text.startswith("/") else pasted_paths(text)
        if paths or 0 < self.attach_pasted < len(text):
            event.prevent_default()
            self.post_message(self.Pasted(text, paths))


def _unquoted(text: str) -> str | None:
    """What stands in a block of three quotes; None: it goes on."""
    inside = text.strip().removeprefix(QUOTES)
    return inside.removesuffix(QUOTES).strip("\n") if inside.endswith(QUOTES) else None


def learn_alt_enter() -> None:
    """Most terminals send Alt+Enter as escape and return, which Textual takes for a plain Enter."""
    cast(dict[str, tuple[Keys, ...]], ANSI_SEQUENCES_KEYS).setdefault("\x1b\r", (Keys.ControlJ,))
