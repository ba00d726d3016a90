"""The trace beside the chat: it shows the last reply, and follows the one that is being written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from localr1.commands import Typed
from localr1.tui.turn import Turn

if TYPE_CHECKING:
    from localr1.tui.app import ChatApp, Handler


class TraceBeside:
    def __init__(self, app: ChatApp) -> None:
        self._app, self._view = app, app.trace
        self._fed = 0  # deltas of the turn that the view has

    def commands(self) -> dict[str, Handler]:
        async def trace(_: Typed) -> None:
            self.toggle()

        return {"trace": trace}

    def toggle(self) -> None:
        """Show the trace, go into it, and hide it."""
        if not self._view.display:
            self._view.display = True
            self.open()
        elif self._view.has_focus:
            self.hide()
            self._app.input.focus()
        else:
            self._view.focus()

    def hide(self) -> None:
        self._view.display = False

    def open(self) -> None:
        """Let it have the last reply, if it is shown."""
        turn, self._fed = self._app.last, 0
        if not self._view.display:
            return
        self._view.can_steer = True
        if turn is None:
            self._view.begin("")
        elif turn.over and turn.exchange.trace is not None:
            self._view.show(turn.exchange.trace)
        else:
            self._view.begin(turn.exchange.question)
            self.pump(turn)

    def pump(self, turn: Turn) -> None:
        """Show what has come, if it is shown."""
        if not self._view.display:
            return
        if self._fed < len(turn.deltas):
            self._view.feed(turn.deltas[self._fed :])
            self._fed = len(turn.deltas)
        if turn.over and turn.exchange.trace is not None:
            self._view.finish(turn.exchange.trace)
