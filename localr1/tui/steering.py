"""Steering from the screen: the last reply goes on in another way. The old one stays, hidden, until the new one is there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from localr1 import steering
from localr1.commands import Typed
from localr1.editor import EditorError
from localr1.tui.editing import in_editor
from localr1.tui.turn import Turn

if TYPE_CHECKING:
    from localr1.tui.app import ChatApp, Handler
    from localr1.tui.trace_view import TraceView

_FROM_TRACE = {"answer_now": "answer", "reroll_answer": "again"}


class Steering:
    def __init__(self, app: ChatApp) -> None:
        self._app = app
        self._after: Callable[[], Awaitable[None]] | None = None  # what waits for the turn to end

    def commands(self) -> dict[str, Handler]:
        async def steer(typed: Typed) -> None:
            if typed.value:
                await self._app.conversations.reroll(typed.value)
            else:
                await self.steer(typed.name)

        return dict.fromkeys(("answer", "longer", "edit", "reroll", "again"), steer)

    async def from_trace(self, event: TraceView.Steer) -> None:
        await self.steer(_FROM_TRACE.get(event.action, event.action), event.token, event.choice)

    async def steer(self, what: str, token: int | None = None, choice: int | None = None) -> None:
        """Have the last reply go on in another way. One that is being written is stopped first, but to answer now."""
        app = self._app
        if app.last is None or (app.last.failure and app.turn is None):
            app.status.hint("There is no reply to steer yet")
        elif app.turn is None:
            await self._replace(what, token, choice)
        elif app.turn.exchange.started_at is None:
            app.status.hint("The model is not there yet")
        elif what == "answer":
            app.engine.answer_now()
        else:
            self._after = lambda: self._replace(what, token, choice)
            app.engine.cancel(app.turn.exchange)

    async def go_on(self) -> None:
        """The turn is over: what waited for that comes now."""
        after, self._after = self._after, None
        if after is not None:
            await after()

    async def over(self, turn: Turn) -> bool:
        """The turn is over, or was taken back: the one it was to replace goes, or comes back if it failed. False: it was to replace none."""
        app = self._app
        if not app.transcript.has_aside:
            return False
        if not turn.failure:
            await app.transcript.drop()
            return True
        await turn.remove()
        await app.transcript.bring_back()
        app.last = app.transcript.last
        app.beside.open()
        app.status.hint(turn.failure)
        if turn.exchange.after != -1:
            app.attaching.give_back(turn.exchange.question, turn.exchange.changes)
            app.conversations.go_on_revising(turn.exchange.after)
        return True

    def forget(self) -> None:
        self._after = None

    async def _replace(self, what: str, token: int | None, choice: int | None) -> None:
        old, session = self._app.last, self._app.engine.session
        if old is None or session is None:
            return
        engine, question = self._app.engine, old.exchange.question
        if what == "reroll" and token is None:
            await self._app.begin(Turn(engine.ask(question, after=-1)))
        elif what == "edit" and session.reply is not None:
            if (begin := self._edited(session.reply.thought)) is not None:
                await self._app.begin(Turn(engine.steer(question, begin)))
        else:
            await self._app.begin(Turn(engine.steer(question, steering.beginning(what, token, choice))))

    def _edited(self, thought: str) -> steering.Begin | None:
        """What the person made of the thought; None if it is as it was."""
        try:
            text = in_editor(self._app, thought, "thought.md")
        except EditorError as error:
            self._app.status.hint(str(error))
            return None
        if text == thought:
            self._app.status.hint("The thought is as it was")
            return None
        return lambda reply, backend: steering.edited(reply, text, backend)
