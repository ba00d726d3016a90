"""What the command palette finds: every command and what of the keys is no command."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, cast

from textual.app import ComposeResult
from textual.command import CommandInput, CommandList, CommandPalette, DiscoveryHit, Hit, Hits, Provider
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.style import Style
from textual.widgets import LoadingIndicator

from localr1.commands import COMMANDS, NUMBER, PATH, TEXT
from localr1.keys import ACTIONS
from localr1.tui.options import seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from localr1.tui.app import ChatApp

_WRITTEN = (NUMBER, PATH, TEXT)  # to be typed behind the command
_COLUMN = 20
OTHERS = ("fold", "edit_question", "suspend")  # actions that are no commands


class Commands(Provider):
    async def discover(self) -> Hits:
        for line, run in self._entries():
            yield DiscoveryHit(Content(line), run, line)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for line, run in self._entries():
            if (score := matcher.match(line)) > 0:
                yield Hit(score, matcher.highlight(line), run, line)

    def _entries(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """A line each, and what it does."""
        app = cast("ChatApp", self.app)
        for command in COMMANDS.values():
            for value in sorted(command.takes, key=bool):
                name = f"/{command.name} {value}".rstrip()
                if value in _WRITTEN:
                    yield _line(f"/{command.name} …", command.help), partial(app.input.begin_command, f"/{command.name} ")
                else:
                    yield _line(name, command.help), partial(app.carry_out, name)
        for name in OTHERS:
            action = ACTIONS[name]
            yield _line(app.keymap.first(name), action.help), partial(app.run_action, f"app.{action.does or name}")


def _line(name: str, what: str) -> str:
    return f"{name:<{_COLUMN}} {what}"


class Found(CommandList, can_focus=False):
    def get_visual_style(self, *component_classes: str, partial: bool = False) -> Style:
        return seen(super().get_visual_style(*component_classes, partial=partial), component_classes)


class Palette(CommandPalette):
    def __init__(self) -> None:
        super().__init__([Commands])

    def compose(self) -> ComposeResult:
        """As Textual has it, with a list whose chosen line is seen."""
        with Vertical(id="--container"):
            with Horizontal(id="--input"):
                yield CommandInput(placeholder="Find a command", select_on_focus=False)
            with Vertical(id="--results"):
                yield Found()
                yield LoadingIndicator()
