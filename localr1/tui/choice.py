"""A question that the program asks in the transcript: arrows and Enter choose, Esc takes the last answer. Typing goes on in the input."""

from __future__ import annotations

from typing import TypeVar

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from localr1.tui.options import Options

Key = TypeVar("Key", bound=str)


class Choice(Vertical):
    """`answers`: what it may be -> in words; the last one changes nothing. `waits`: until the person comes to it, who is writing."""

    class Chosen(Message):
        def __init__(self, choice: Choice, key: str) -> None:
            super().__init__()
            self.choice, self.key = choice, key

    def __init__(self, question: str, answers: dict[str, str], waits: bool) -> None:
        super().__init__(classes="notice choice")
        self._question = question
        self._answers, self._waits = answers, waits
        self._list = Options(*(Option(Content(text), key) for key, text in answers.items()), compact=True)

    def compose(self) -> ComposeResult:
        yield Static(Content(self._question))
        yield self._list

    def on_mount(self) -> None:
        self._list.highlighted = 0
        if not self._waits:
            self._list.focus()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        assert event.option.id is not None
        self.post_message(self.Chosen(self, event.option.id))

    def escape(self) -> None:
        """Take the last answer."""
        self.post_message(self.Chosen(self, list(self._answers)[-1]))
