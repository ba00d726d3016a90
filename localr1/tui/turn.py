"""One turn in the transcript: question, thought, answer, and a line on how it ended."""

from __future__ import annotations

from time import monotonic

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from localr1.endings import end_line, tokens_per_s
from localr1.trace.loops import Loop
from localr1.tui.answer import Answer
from localr1.tui.engine import Exchange, Failed
from localr1.tui.question import question_content
from localr1.tui.thought import Thought
from localr1.turn import AnswerDelta, LoopFound, ThoughtDelta, TurnEnd

EVENTS_A_FRAME = 400  # more would hold up the keys; 30 frames a second take in ten times what any model writes


class Turn(Vertical):
    """Shows what an Exchange has brought. `end` or `failure` is set once it is over."""

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
        self._note = Static(classes="note")

    def compose(self) -> ComposeResult:
        yield Static(question_content(self.exchange.question), classes="question")
        yield self._note

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
        if answer:
            await self._add_answer(answer)
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

    async def _add_answer(self, text: str) -> None:
        if self.answer is None:
            self.answer = Answer()
            await self.mount(self.answer, before=self._note)
        await self.answer.add(text)

    async def _finish(self, end: TurnEnd) -> None:
        self.end = end
        if self.thought is not None:
            trace = self.exchange.trace
            self.thought.tokens = len(trace.thought_tokens) if trace is not None else end.thought_tokens
            self.thought.finish(end.thought_end)
        if self.answer is not None:
            if self.answer.reads_on(end.message.content) and self.thought is not None:  # the model thought on after all
                self.thought.replace(end.message.thought or "")
            await self.answer.finish()
        self._say(end_line(end))

    async def _fail(self, message: str) -> None:
        self.failure = message
        if self.thought is not None:
            self.thought.finish("model" if self.answer else "unclosed")
        if self.answer is not None:
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
