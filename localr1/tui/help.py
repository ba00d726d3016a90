"""The help: keys by the places where they hold, and the commands by their groups."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from localr1.commands import help_rows
from localr1.keys import PLACES, Keymap


class HelpScreen(ModalScreen[None]):
    """Keys, then commands; or the other way round."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,enter", "dismiss")]

    def __init__(self, keymap: Keymap, commands_first: bool = False) -> None:
        super().__init__()
        self._groups = groups(keymap, commands_first)

    def compose(self) -> ComposeResult:
        from rich.padding import Padding
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2, 0, 0))  # one for all, so that what is told of them begins in one column
        table.add_column(overflow="fold")
        table.add_column()
        for i, (title, rows) in enumerate(self._groups):
            table.add_row(Padding(Text(title, "underline"), (int(i > 0), 0, 0, 0)))
            for name, what in rows:
                table.add_row(Padding(Text(name, "bold"), (0, 0, 0, 2)), Text(what))
        with VerticalScroll():
            yield Static(table)


def groups(keymap: Keymap, commands_first: bool = False) -> list[tuple[str, list[tuple[str, str]]]]:
    """A title each, then keys, or how a command is written, and what they do."""
    keys = [(place, keymap.rows(place)) for place in PLACES]
    return help_rows() + keys if commands_first else keys + help_rows()
