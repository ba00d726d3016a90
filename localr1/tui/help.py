"""The help: keys by the places where they hold, and the commands by their groups."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from localr1.commands import help_rows
from localr1.keys import PLACES, Keymap

_COLUMN = 28


class HelpScreen(ModalScreen[None]):
    """Keys, then commands; or the other way round."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,enter", "dismiss")]

    def __init__(self, keymap: Keymap, commands_first: bool = False) -> None:
        super().__init__()
        self._content = help_content(keymap, commands_first)

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield Static(self._content)


def help_content(keymap: Keymap, commands_first: bool = False) -> Content:
    keys = [_group(place, keymap.rows(place)) for place in PLACES]
    commands = [_group(title, rows) for title, rows in help_rows()]
    return Content("\n\n").join(commands + keys if commands_first else keys + commands)


def _group(title: str, rows: list[tuple[str, str]]) -> Content:
    lines = [Content.styled(title, "bold")]
    lines += [Content.assemble("  ", (f"{name:{_COLUMN}}", "dim"), " ", text) for name, text in rows]
    return Content("\n").join(lines)
