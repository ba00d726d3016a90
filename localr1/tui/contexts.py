"""The context, on the screen: how full it is, a warning near its end, a choice at it; the next prompt is prepared in time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual.content import Content
from textual.widgets import Static

from localr1.commands import Typed
from localr1.context import WARN_SHARE, told, used
from localr1.tui.choice import Choice
from localr1.tui.engine import Full
from localr1.tui.turn import Turn

if TYPE_CHECKING:
    from localr1.opening import Opener
    from localr1.tui.app import ChatApp, Handler


class Contexts:
    def __init__(self, app: ChatApp) -> None:
        self._app = app
        self._warned: Turn | None = None  # about this one
        self._choice: Choice | None = None
        self._about: Turn | None = None  # what the choice is about
        self._line: Static | None = None  # where the dropped turns end
        self._dropped = 0  # that it tells
        self._prepared = False  # since the last turn
        self._raised: Opener | None = None  # what was tried to make room for this turn

    def commands(self) -> dict[str, Handler]:
        return {"context": self._show}

    async def pump(self) -> None:
        """Bring the screen up to date."""
        session = self._app.engine.session
        if session is None:
            return
        if session.dropped != self._dropped:
            self._dropped = session.dropped
            await self._draw_line()
        turn, context = self._app.turn, session.backend.info.context_length
        if turn is not None and session.writing and turn is not self._warned and used(session) > WARN_SHARE * context:
            self._warned = turn
            self._app.status.hint(f"The context is {100 * used(session) // context}% full · /context shows what fills it")

    async def _draw_line(self) -> None:
        """Where the turns begin that are still sent."""
        if self._line is not None:
            await self._line.remove()
            self._line = None
        if self._dropped:
            turns = "turn above is" if self._dropped == 1 else f"{self._dropped} turns above are"
            self._line = Static(Content(f"── the {turns} no longer sent to the model ──"), classes="dropped")
            await self._app.transcript.divide(self._line, self._dropped)

    # what is prepared

    def typed(self, text: str) -> None:
        """The person writes the next question."""
        if text and not text.startswith("/"):
            self._prepare()

    def _prepare(self) -> None:
        app = self._app
        if not self._prepared and app.turn is None and app.engine.session is not None and app.settings.chat.prepare:
            self._prepared = True
            app.engine.prepare()

    # what is full

    async def over(self, turn: Turn) -> bool:
        """A turn has ended. True: because the context is full, and what comes of its question is seen to here.

        The next prompt leaves its thought out, and preparing that makes the engine forget the thought, which steering this reply would need.
        So it is done at once only where the thought is no longer than the answer; else when the next question is begun.
        """
        self._prepared = False
        full = turn.exchange.full
        if full is not None and not (turn.failure and turn.exchange.after is not None):
            await self._full(turn, full)
            return True
        self._raised = None
        if turn.end is not None and turn.end.thought_tokens <= turn.end.answer_tokens:
            self._prepare()
        self.typed(self._app.input.text)
        return False

    async def _full(self, turn: Turn, full: Full) -> None:
        wish, ways = self._app.engine.rules.when_full, full.ways()
        if full.larger is not None and full.larger == self._raised:
            del ways["raise"]  # it was not to be had
        self._about = turn
        if wish in ways or len(ways) == 1:
            await self._carry_out(wish if wish in ways else "stop")
        else:
            self._choice = Choice("The context is full. What shall be done?", ways, waits=bool(self._app.input.text))
            await self._app.transcript.add(self._choice)

    async def chosen(self, event: Choice.Chosen) -> None:
        if event.choice is not self._choice:
            return
        self._choice = None
        await event.choice.remove()
        self._app.input.focus()
        await self._carry_out(event.key)

    def escape(self) -> bool:
        """Esc; False: nothing is asked here."""
        if self._choice is None:
            return False
        self._choice.escape()
        return True

    async def close(self) -> None:
        """The person asks something else: what is asked here is settled."""
        if self._choice is not None:
            await self._choice.remove()
        self._choice = self._about = None

    async def forget(self) -> None:
        """A new chat begins."""
        await self.close()
        self._warned = self._line = None

    async def _carry_out(self, way: str) -> None:
        app, turn, self._about = self._app, self._about, None
        assert turn is not None and turn.exchange.full is not None
        question, larger = turn.exchange.question, turn.exchange.full.larger
        if way == "stop":
            if turn.failure:
                app.attaching.give_back(question, turn.exchange.changes)
            return
        if way == "raise" and larger is not None:
            self._raised = larger
            app.models.switch(larger)
        changes: dict[str, Any] = {**turn.exchange.changes, **({"when_full": "drop"} if way == "drop" else {})}
        if turn.end is not None:
            await app.begin(Turn(app.engine.go_on(question, **changes)))
        else:
            await turn.remove()
            await app.begin(Turn(app.engine.ask(question, **changes)))

    # what fills it

    async def _show(self, _: Typed) -> None:
        session = self._app.engine.session
        if session is None:
            self._app.status.hint("There is no model yet")
            return
        await self._app.transcript.notice(told(session))
