"""One turn in the transcript: question, thought, answer, and a line on how it ended."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from textual import events
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widget import MountError
from textual.widgets import Static

from localr1.endings import end_line, ended, tokens_per_s
from localr1.history import Place
from localr1.trace.loops import Loop
from localr1.trace.record import Trace
from localr1.tui.engine import Exchange, Failed
from localr1.tui.question import question_content
from localr1.tui.thought import Thought
from localr1.turn import AnswerDelta, LoopFound, ThoughtDelta, TurnEnd

if TYPE_CHECKING:
    from localr1.tui.answer import Answer

EVENTS_A_FRAME = 400  # more would hold up the keys; 30 frames a second take in ten times what any model writes


@dataclass(frozen=True, slots=True)
class Kept:
    """A turn of a conversation that was kept. `number`: in it, from 1; `thought_tokens`: so many there were."""

    number: int
    trace: Trace
    thought_tokens: int
    place: Place


class Turn(Vertical):
    """Shows what an Exchange has brought. `end` or `failure` is set once it is over. `number`: in its conversation, from 1."""

    class Switch(Message):
        """A person wants the branch before (-1) or behind (1) this one."""

        def __init__(self, turn: Turn, step: int) -> None:
            super().__init__()
            self.turn, self.step = turn, step

    def __init__(self, exchange: Exchange) -> None:
        super().__init__()
        self.exchange = exchange
        self.end: TurnEnd | None = None
        self.failure = ""
        self.loop: Loop | None = None  # that was found
        self.deltas: list[ThoughtDelta | AnswerDelta] = []  # all of them
        self.thought: Thought | None = None
        self.answer: Answer | None = None
        self._tokens = 0
        self._first_token_at = 0.0
        self._unshown, self._shows_at = "", 0.0  # of the answer
        self._note = Static(classes="note")
        self._number = 0
        self._mark = _Mark(classes="mark")

    @classmethod
    def kept(cls, kept: Kept) -> Turn:
        exchange = Exchange(kept.trace.question)
        exchange.trace, exchange.place = kept.trace, kept.place
        turn = cls(exchange)
        trace, turn.end, turn.number = kept.trace, ended(kept.trace), kept.number
        if trace.thought.strip():
            seconds = trace.thought_tokens[-1].at_s if trace.thought_tokens else None
            turn.thought = Thought.kept(trace.thought, kept.thought_tokens, seconds, turn.end.thought_end)
        if trace.answer.strip():
            from localr1.tui.answer import Answer

            turn.answer = Answer()
        return turn

    @property
    def number(self) -> int:
        return self._number

    @number.setter
    def number(self, number: int) -> None:
        self._number = number
        self._mark.show(number, self.exchange.place)

    def compose(self) -> ComposeResult:
        yield Horizontal(Static(question_content(self.exchange.question), classes="question"), self._mark, classes="asked")
        yield from filter(None, (self.thought, self.answer))
        yield self._note

    async def on_mount(self) -> None:
        """What was kept is there at once."""
        if self.end is None:
            return
        if self.answer is not None:
            with suppress(MountError):  # another conversation has been chosen meanwhile
                await self.answer.show(self.end.message.content)
        self._say(end_line(self.end))

    @property
    def over(self) -> bool:
        return self.end is not None or bool(self.failure)

    @property
    def tokens_per_s(self) -> float | None:
        """Of the whole turn once it is over, else since its first token; None while too little has come to say."""
        if self.end is not None:
            return tokens_per_s(self.end)
        elapsed_s = monotonic() - self._first_token_at
        return (self._tokens - 1) / elapsed_s if self._tokens > 1 and elapsed_s > 0.3 else None

    @property
    def texts(self) -> tuple[str, str]:
        """Thought and answer, as far as they have come."""
        if self.end is not None:
            return self.end.message.thought or "", self.end.message.content
        parts = [(delta.text, isinstance(delta, AnswerDelta)) for delta in self.deltas]
        return "".join(text for text, is_answer in parts if not is_answer), "".join(text for text, is_answer in parts if is_answer)

    async def pump(self) -> None:
        """Show what has come since the last call, in one go; `deltas` grows by it."""
        thought, answer, thought_tokens, answer_tokens = "", "", 0, 0
        closing: TurnEnd | Failed | None = None
        for event in self.exchange.take(EVENTS_A_FRAME):
            match event:
                case ThoughtDelta():
                    self.deltas.append(event)
                    thought += event.text
                    thought_tokens += event.token is not None
                case AnswerDelta():
                    self.deltas.append(event)
                    answer += event.text
                    answer_tokens += event.token is not None
                case LoopFound():
                    self.loop = event.loop
                case _:
                    closing = event
        self._count(thought_tokens + answer_tokens)
        if thought or (thought_tokens and self.thought is not None):
            await self._add_thought(thought, thought_tokens)
        if answer_tokens and self.thought is not None:
            self.thought.finish("model")
        self._unshown += answer
        if self._unshown:
            await self._add_answer()
        if isinstance(closing, TurnEnd):
            await self._finish(closing)
        elif closing is not None:
            await self._fail(closing.message)
        self._tick()

    def _count(self, tokens: int) -> None:
        if tokens and not self._tokens:
            self._first_token_at = monotonic()
        self._tokens += tokens

    async def _add_thought(self, text: str, tokens: int) -> None:
        if self.thought is None:
            self.thought = Thought()
            await self.mount(self.thought, before=self._note)
        self.thought.add(text, tokens)

    async def _add_answer(self) -> None:
        """A long list takes long to show: it takes a fifth of the time at most, and the keys have the rest."""
        if self.answer is None:
            from localr1.tui.answer import Answer

            self.answer = Answer()
            await self.mount(self.answer, before=self._note)
        began = monotonic()
        if began >= self._shows_at:
            text, self._unshown = self._unshown, ""
            await self.answer.add(text)
            self._shows_at = monotonic() + 4 * (monotonic() - began)

    async def _finish(self, end: TurnEnd) -> None:
        self.end = end
        if self.thought is not None:
            trace = self.exchange.trace
            self.thought.tokens = len(trace.thought_tokens) if trace is not None else end.thought_tokens
            self.thought.finish(end.thought_end)
        if self.answer is not None:
            self.answer.take(self._unshown)
            if self.answer.reads_on(end.message.content) and self.thought is not None:  # the model thought on after all
                self.thought.replace(end.message.thought or "")
            await self.answer.finish()
        self.number = self.number  # its branches are known now
        self._say(end_line(end))

    async def _fail(self, message: str) -> None:
        self.failure = message
        self.number = 0
        if self.thought is not None:
            self.thought.finish("model" if self.answer else "unclosed")
        if self.answer is not None:
            self.answer.take(self._unshown)
            await self.answer.finish()
        self._note.add_class("error")
        self._say(message)

    def _tick(self) -> None:
        """What moves while nothing comes: the clocks."""
        if self.thought is not None:
            self.thought.tick()
        if self.over:
            return
        if self.exchange.started_at is None:
            self._say("Waiting for the model…")
        elif self.thought is None and self.answer is None:
            self._say(f"Reading… {monotonic() - self.exchange.started_at:.1f} s")
        else:
            self._say("")

    def _say(self, text: str) -> None:
        self._note.display = bool(text)
        self._note.update(Content(text), layout=self.over)


class _Mark(Static):
    """Which turn it is, and which of several branches: ‹ and ›, or the arrow keys, go to the others."""

    FOCUS_ON_CLICK = False  # typing goes on in the input

    def show(self, number: int, place: Place | None) -> None:
        several = place is not None and len(place.branches) > 1
        branch = f"‹ {place.branches.index(place.turn) + 1}/{len(place.branches)} ›" if several and place is not None else ""
        self.can_focus = several
        self.update(f"{branch}  {number}" if branch else str(number) if number else "")

    def on_click(self, event: events.Click) -> None:
        self._switch(-1 if event.x < self.content_size.width / 2 else 1)

    def on_key(self, event: events.Key) -> None:
        if event.key in ("left", "right"):
            event.stop()
            self._switch(-1 if event.key == "left" else 1)

    def _switch(self, step: int) -> None:
        turn = next((each for each in self.ancestors if isinstance(each, Turn)), None)
        if turn is not None and self.can_focus:
            self.post_message(Turn.Switch(turn, step))
