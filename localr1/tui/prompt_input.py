"""Where the person writes: Enter sends, Shift+Enter, Alt+Enter and Ctrl+J begin a new line."""

from __future__ import annotations

import re
from typing import cast

from textual import events
from textual._ansi_sequences import ANSI_SEQUENCES_KEYS
from textual.keys import Keys
from textual.message import Message
from textual.widgets import TextArea

from localr1.text import printable

NEW_LINE_KEYS = ("shift+enter", "alt+enter", "ctrl+j")


class PromptInput(TextArea):
    class Sent(Message):
        """Enter was pressed. The text stays until the app clears it."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self) -> None:
        super().__init__(compact=True, highlight_cursor_line=False, soft_wrap=True)

    async def _on_key(self, event: events.Key) -> None:
        if event.key != "enter" and event.key not in NEW_LINE_KEYS:
            return  # TextArea's own handler comes next
        event.stop()
        event.prevent_default()
        if event.key == "enter":
            self.post_message(self.Sent(self.text))
        else:
            self.insert("\n")

    async def _on_paste(self, event: events.Paste) -> None:
        """TextArea's own handler comes next, and would draw escape sequences as they are."""
        event.text = printable(re.sub("\r\n?", "\n", event.text))

    def give_back(self, text: str) -> None:
        """Put a question back that could not be asked, before whatever has been typed since."""
        self.text = f"{text}\n{self.text}" if self.text else text
        self.move_cursor(self.document.end)


def learn_alt_enter() -> None:
    """Most terminals send Alt+Enter as escape and return, which Textual takes for a plain Enter."""
    cast(dict[str, tuple[Keys, ...]], ANSI_SEQUENCES_KEYS).setdefault("\x1b\r", (Keys.ControlJ,))
