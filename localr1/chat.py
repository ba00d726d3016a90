"""ChatSession: one turn of a conversation -> events; owns the history that is sent to the model.

A turn is a list of tokens. Everything that can be done to a turn is "continue from this other token list", and the
backend computes only what differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from backends.base import Backend, Cancel, End, PromptTooLong, Sampling, Special, Text, Token
from localr1.prompt import END_THINK, Message, render
from localr1.reasoning import Part, Piece, ReasoningSplitter

ThoughtEnd = Literal["model", "budget", "user", "loop", "unclosed", "bypassed"]

CLOSE_THOUGHT = (Special(END_THINK), Text("\n\n"))


@dataclass(frozen=True, slots=True)
class ThoughtDelta:
    """More of the thought. At least one event a token; `text` may be empty while a character or tag is undecided."""

    text: str
    token: Token | None


@dataclass(frozen=True, slots=True)
class AnswerDelta:
    """More of the answer."""

    text: str
    token: Token | None


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """The reply as the history keeps it. `thought_tokens` and `answer_tokens` add up to `end.new_tokens`."""

    message: Message
    end: End
    thought_end: ThoughtEnd
    thought_tokens: int
    answer_tokens: int


Event = ThoughtDelta | AnswerDelta | TurnEnd


class ChatSession:
    """A conversation with one model. `send` runs on one thread; `cancel` may be called from any other.

    `think_budget`: thought tokens after which the thought is closed and the answer begins; None for no limit.
    """

    def __init__(self, backend: Backend, sampling: Sampling = Sampling(), think_budget: int | None = None) -> None:
        self.backend = backend
        self.sampling = sampling
        self.think_budget = think_budget
        self.history: list[Message] = []
        self.context_tokens = 0  # what the last turn filled of the context
        self._turn: _Turn | None = None
        self.cancelled = False

    def send(self, text: str) -> Iterator[Event]:
        """Ask `text`; the events of the reply, a TurnEnd last. What has come before a cancel stays in the history.

        Raises PromptError, EngineError or PromptTooLong before the first event, with the history as it was.
        """
        self.cancelled = False
        question = Message("user", text)
        prompt = render([*self.history, question], self.backend.chat_format)
        self._turn = _Turn(self, self.backend.encode(prompt.segments), prompt.opens_thought)
        return self._play(question, self._turn)

    def _play(self, question: Message, turn: _Turn) -> Iterator[Event]:
        for event in turn.run():
            if isinstance(event, TurnEnd):
                self.history += [question, event.message]
                self.context_tokens = len(turn.ids)
            yield event

    def cancel(self) -> None:
        """End the turn that is being prepared or written, within a token."""
        self.cancelled = True
        if self._turn is not None:
            self._turn.stop()

    def reset(self) -> None:
        """Forget the conversation."""
        self.history.clear()
        self.context_tokens = 0


class _Turn:
    """One reply while it is being written: its tokens, and its text in two parts."""

    def __init__(self, session: ChatSession, ids: list[int], opens_thought: bool) -> None:
        self.session = session
        self.ids = ids
        self.text: dict[Part, str] = {"thought": "", "answer": ""}
        self.tokens: dict[Part, int] = {"thought": 0, "answer": 0}
        self._budget_used = 0  # tokens of the thought itself: an opening tag is not counted
        self._splitter = ReasoningSplitter(opens_thought)
        self._stop = Cancel()
        self._forced: ThoughtEnd | None = None

    def stop(self) -> None:
        """End the stream that is running, for whatever reason."""
        self._stop.set()

    def run(self) -> Iterator[Event]:
        ends: list[End] = []
        while True:
            if self._budget_spent():
                yield from self._close_thought("budget")
            if self.session.cancelled:  # while the turn was being prepared, or between two streams
                self.stop()
            try:
                for item in self.session.backend.stream(list(self.ids), self._sampling(), self._stop):
                    if isinstance(item, End):
                        ends.append(item)
                    else:
                        yield from self._token(item)
            except PromptTooLong:
                if not ends:
                    raise
                ends.append(replace(ends[-1], reason="context", new_tokens=0, prefill_s=0.0, decode_s=0.0))
                break
            if self.session.cancelled or not self._budget_spent():
                break
        yield from self._events(self._splitter.flush(), None)
        message = Message("assistant", self.text["answer"], self.text["thought"])
        yield TurnEnd(message, _total(ends), self._thought_end(), self.tokens["thought"], self.tokens["answer"])

    def _sampling(self) -> Sampling:
        """What is left to sample of the turn."""
        limit = self.session.sampling.max_tokens
        return self.session.sampling if limit is None else replace(self.session.sampling, max_tokens=limit - sum(self.tokens.values()))

    def _token(self, token: Token) -> Iterator[Event]:
        self.ids.append(token.id)
        part: Part = "thought" if self._splitter.in_thought else "answer"
        self._budget_used += part == "thought"
        pieces = self._splitter.feed(token.text)
        if part == "answer" and self._splitter.in_thought:  # the token that opened the thought
            part = "thought"
        self.tokens[part] += 1
        yield from self._events(pieces or [Piece(part, "")], token)
        if self._budget_spent():
            self.stop()

    def _events(self, pieces: Iterable[Piece], token: Token | None) -> Iterator[Event]:
        for piece in pieces:
            self.text[piece.part] += piece.text
            yield ThoughtDelta(piece.text, token) if piece.part == "thought" else AnswerDelta(piece.text, token)
            token = None

    def _budget_spent(self) -> bool:
        budget = self.session.think_budget
        return budget is not None and self._splitter.in_thought and self._budget_used >= budget

    def _close_thought(self, why: ThoughtEnd) -> Iterator[Event]:
        """Close the thought by its special token and go on from there."""
        self._forced = why
        self._stop = Cancel()
        self.ids += self.session.backend.encode(CLOSE_THOUGHT)
        yield from self._events(self._splitter.flush(), None)
        self._splitter.feed("".join(s.text for s in CLOSE_THOUGHT))

    def _thought_end(self) -> ThoughtEnd:
        if self._splitter.in_thought:
            return "unclosed"
        if not self.text["thought"].strip():
            return "bypassed"
        return self._forced or "model"


def _total(ends: list[End]) -> End:
    """One End for a turn that was continued in several streams."""
    return End(
        ends[-1].reason, ends[0].prompt_tokens, ends[0].reused_tokens, sum(e.new_tokens for e in ends),
        sum(e.prefill_s for e in ends), sum(e.decode_s for e in ends),
    )  # fmt: skip
