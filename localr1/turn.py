"""One reply while it is being written: the token list that grows, its text in two parts, what closes the thought, what ends it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Literal

from backends.base import Backend, Cancel, End, PromptTooLong, Sampling, Segment, Special, Text, Token
from localr1.prompt import END_THINK, THINK, Message
from localr1.reasoning import Part, Piece, ReasoningSplitter
from localr1.trace.loops import Loop, LoopGuard

ThoughtEnd = Literal["model", "budget", "user", "loop", "unclosed", "bypassed"]
Thinking = Literal["auto", "off", "force"]  # as the model likes; none at all; not without
OnLoop = Literal["answer", "warn", "ignore"]  # close the thought and answer; say so and go on; do not look
WhenFull = Literal["ask", "stop", "drop", "raise"]  # the oldest turns are dropped; the context is raised if memory allows

# How a thought begins that the model would not have had, in the language of the question.
FIRST_WORDS, FIRST_WORDS_CHINESE = "Okay", "嗯"


@dataclass(frozen=True, slots=True)
class ThoughtDelta:
    """More of the thought. At least one event a token; `text` may be empty while a character or tag is undecided. `given`: the token
    was not sampled now, but kept from an earlier reply or put there by a person. `at_s`: as of Written."""

    text: str
    token: Token | None
    given: bool = False
    at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class AnswerDelta:
    """More of the answer. As ThoughtDelta."""

    text: str
    token: Token | None
    given: bool = False
    at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class LoopFound:
    """The model repeats itself in this part of its reply; what is done about it follows."""

    loop: Loop
    part: Part


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """The reply as the history keeps it. `thought_tokens` and `answer_tokens` were sampled now: they add up to `end.new_tokens`.

    `given_tokens`: of the reply, but not sampled now. `continued`: where the reply was steered in mid-stream, the end of its last
    stream; what that computed anew is `prompt_tokens - reused_tokens`.
    """

    message: Message
    end: End
    thought_end: ThoughtEnd
    thought_tokens: int
    answer_tokens: int
    given_tokens: int = 0
    continued: End | None = None


Event = ThoughtDelta | AnswerDelta | LoopFound | TurnEnd


@dataclass(frozen=True, slots=True)
class Written:
    """A token of a reply, and the text that was decided with it. `given`: not sampled now, but put there; its logprob is NaN, unless
    it was sampled for an earlier reply.

    `at_s`: seconds after the turn began; of a kept token, after its own did, and what is written behind it goes on from there.
    """

    token: Token
    part: Part
    thought: str
    answer: str
    given: bool
    at_s: float


@dataclass(slots=True)
class Reply:
    """A reply as a list of tokens, which grows at its end, so that another thread may read it while it is written. What was taken for
    the answer may turn out to be thought."""

    question: str
    prompt_ids: tuple[int, ...]
    opens_thought: bool  # the prompt has opened the thought
    system_tokens: int = 0  # of the prompt
    question_tokens: int = 0  # with what is attached to it
    tokens: list[Written] = field(default_factory=list)
    by_text: bool = False  # the tokens were made of its text, which another model wrote, or a file brought

    @property
    def ids(self) -> list[int]:
        return [written.token.id for written in self.tokens]

    @property
    def thought(self) -> str:
        return "".join(written.thought for written in self.tokens)

    @property
    def answer(self) -> str:
        return "".join(written.answer for written in self.tokens)


@dataclass(frozen=True, slots=True)
class Start:
    """What a reply begins with, in place of nothing: tokens that were kept, then segments that are put behind them. `why`: how the
    thought ended, where this ends it."""

    kept: Sequence[Written] = ()
    segments: Sequence[Segment] = ()
    why: ThoughtEnd | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What a turn goes by. `think_budget`: thought tokens, sampled now, after which the answer is asked for. `system`: text before the
    conversation, in its first question or as a message of its own."""

    sampling: Sampling = Sampling()
    think_budget: int | None = None
    thinking: Thinking = "auto"
    on_loop: OnLoop = "answer"
    system: str = ""
    system_in_question: bool = True
    when_full: WhenFull = "ask"


def tag(text: str, backend: Backend) -> Segment:
    """A tag of the thought as the model writes it: one special token where its vocabulary has one."""
    return Special(text) if text in backend.chat_format.added_tokens else Text(text)


def closing(backend: Backend) -> list[Segment]:
    """Ends a thought, so that the answer comes next."""
    return [tag(END_THINK, backend), Text("\n\n")]


class Turn:
    """Writes a reply, in one stream of the backend's or in several. `run` is played on one thread; the others may be called from any."""

    def __init__(self, backend: Backend, reply: Reply, rules: Rules, start: Start, cancelled: Callable[[], bool]) -> None:
        self.reply = reply
        self._backend, self.rules, self._start, self._cancelled = backend, rules, start, cancelled
        self._sampled: dict[Part, int] = {"thought": 0, "answer": 0}
        self._given = 0
        self._budget_used = 0  # tokens of the thought itself: an opening tag is not counted
        self._splitter = ReasoningSplitter(reply.opens_thought)
        self._guard = LoopGuard()
        self._stop = Cancel()
        self._forced: ThoughtEnd | None = start.why
        self._close: ThoughtEnd | None = None  # why the thought is to be closed
        self._closed_at: int | None = None  # the token behind a close that the model did not choose
        self._looped = False  # the answer is to end
        self._held: list[Event] | None = [] if rules.thinking == "force" else None  # until there is a thought
        self._began = perf_counter()

    @property
    def ids(self) -> list[int]:
        return [*self.reply.prompt_ids, *self.reply.ids]

    def stop(self) -> None:
        """End the stream that is running, for whatever reason."""
        self._stop.set()

    def answer_now(self) -> None:
        """Close the thought as soon as the token that is being computed is there, and answer."""
        if self._splitter.in_thought:
            self._close = "user"
            self.stop()

    def run(self) -> Iterator[Event]:
        """Raises what the backend raises, and PromptTooLong, before the first event."""
        ends: list[End] = []
        begun = list(self.begin())
        while True:
            if self._budget_spent():
                self._close = "budget"
            if self._close is not None:
                yield from begun
                begun = []
                yield from self._close_thought(self._close)
            if self._cancelled():  # while the turn was being prepared, or between two streams
                self.stop()
            try:
                for item in self._backend.stream(self.ids, self._sampling(), self._stop):
                    yield from begun
                    begun = []
                    if isinstance(item, End):
                        ends.append(item)
                    else:
                        yield from self._sampled_token(item)
            except PromptTooLong:
                if not ends:
                    raise
                ends.append(replace(ends[-1], reason="context", new_tokens=0, prefill_s=0.0, decode_s=0.0))
                break
            if self._cancelled():
                break
            if self._bypassed():
                yield from self._insist()
            elif self._close is None and not self._budget_spent():
                break
        yield from self._released()
        yield from self._flushed()
        yield self._end(ends)

    # ---------------------------------------------------------------------------------------------- writing

    def begin(self) -> Iterator[Event]:
        """What the reply begins with."""
        for written in self._start.kept:
            yield from self._write(written.token, given=True, at_s=written.at_s)
            if written.given and written.token.text == END_THINK:
                self._closed_at = len(self.reply.tokens)
        if self._start.kept:  # the clock goes on from there
            self._began = perf_counter() - max(written.at_s for written in self._start.kept)
        segments = list(self._start.segments)
        if self.rules.thinking == "off" and not segments and not self._start.kept:
            opened = [] if self.reply.opens_thought else [tag(THINK, self._backend), Text("\n")]
            segments, self._forced = [*opened, *closing(self._backend)], "user"
        elif self.rules.thinking == "force" and not segments and not self._start.kept and not self.reply.opens_thought:
            segments = [tag(THINK, self._backend), Text("\n")]
        yield from self._put(segments)
        if self._forced is not None:
            self._closed_at = len(self.reply.tokens)

    def _put(self, segments: Iterable[Segment]) -> Iterator[Event]:
        """Segments that a person, or the program, wrote into the reply. The text counts as that of the last token."""
        for segment in segments:
            ids = self._backend.encode([segment])
            for i, token in enumerate(ids):
                yield from self._write(Token(token, segment.text if i == len(ids) - 1 else "", math.nan), given=True)

    def _write(self, token: Token, given: bool, at_s: float | None = None) -> Iterator[Event]:
        part: Part = "thought" if self._splitter.in_thought else "answer"
        if token.text == END_THINK and self._closed_at is not None and part == "answer":
            self._take_back()
            part, pieces = "thought", []
        else:
            pieces = self._splitter.feed(token.text)
        if part == "answer" and self._splitter.in_thought:  # the token that opened the thought
            part = "thought"
        texts: dict[Part, str] = {"thought": "", "answer": ""}
        for piece in pieces:
            texts[piece.part] += piece.text
        at_s = perf_counter() - self._began if at_s is None else at_s
        self.reply.tokens.append(Written(token, part, texts["thought"], texts["answer"], given, at_s))
        if given:
            self._given += 1
        else:
            self._sampled[part] += 1
        counted: Token | None = token
        for piece in pieces or [Piece(part, "")]:
            yield (ThoughtDelta if piece.part == "thought" else AnswerDelta)(piece.text, counted, given, at_s)
            counted = None

    def _take_back(self) -> None:
        """The model thought on after its thought was closed for it, and closes it now: what seemed to be the answer is thought."""
        assert self._closed_at is not None
        self._splitter.close_again()
        tokens, gap = self.reply.tokens, "\n\n" if self.reply.thought else ""
        for i in range(self._closed_at, len(tokens)):
            moved = tokens[i]
            if moved.answer:
                tokens[i] = replace(moved, part="thought", thought=gap + moved.answer, answer="")
                gap = ""
                self._sampled["answer"] -= not moved.given
                self._sampled["thought"] += not moved.given
        self._closed_at = None

    def _sampled_token(self, token: Token) -> Iterator[Event]:
        was_thought = self._splitter.in_thought
        events: Iterable[Event] = list(self._write(token, given=False))
        self._budget_used += was_thought
        if self._held is not None:
            self._held += events
            if self.reply.thought.strip():
                events = self._released()
            elif self._splitter.in_thought:
                return
            else:  # closed without a word, or bypassed
                self.stop()
                return
        yield from events
        loop = self._guard.feed(token.id) if self.rules.on_loop != "ignore" else None
        if loop is not None:
            part: Part = "thought" if self._splitter.in_thought else "answer"
            yield LoopFound(loop, part)
            if self.rules.on_loop == "answer":
                self._looped = part == "answer"
                self._close = "loop" if part == "thought" else self._close
                self.stop()
        if self._budget_spent() or (self._close is not None and self._splitter.in_thought):
            self.stop()

    def _released(self) -> Iterator[Event]:
        held, self._held = self._held or [], None
        yield from held

    def _flushed(self) -> Iterator[Event]:
        """What the splitter has held back, as text of the last token."""
        for piece in self._splitter.flush():
            tokens = self.reply.tokens
            if tokens:
                last = tokens[-1]
                thought, answer = (piece.text, "") if piece.part == "thought" else ("", piece.text)
                tokens[-1] = replace(last, thought=last.thought + thought, answer=last.answer + answer)
            yield ThoughtDelta(piece.text, None) if piece.part == "thought" else AnswerDelta(piece.text, None)

    # ---------------------------------------------------------------------------------------------- steering

    def _budget_spent(self) -> bool:
        budget = self.rules.think_budget
        return budget is not None and self._splitter.in_thought and self._budget_used >= budget

    def _close_thought(self, why: ThoughtEnd) -> Iterator[Event]:
        """Close the thought by its special token and go on from there."""
        self._close, self._stop = None, Cancel()
        if not self._splitter.in_thought:  # the model was faster
            return
        self._forced, self._guard = why, LoopGuard()
        yield from self._released()
        yield from self._flushed()
        before = self._given
        for _ in self._put(closing(self._backend)):  # tags are no text
            pass
        self._given, self._closed_at = before, len(self.reply.tokens)

    def _bypassed(self) -> bool:
        """The model has ended a thought that was wanted before it had one."""
        return self._held is not None and not self._splitter.in_thought

    def _insist(self) -> Iterator[Event]:
        """Take the close back, and begin the thought for the model. It may close it then."""
        self._held, self._stop = None, Cancel()
        kept = [written for written in self.reply.tokens if written.given]
        self._sampled, self._budget_used, self._given = {"thought": 0, "answer": 0}, 0, 0
        self.reply.tokens.clear()
        self._splitter = ReasoningSplitter(self.reply.opens_thought)
        for written in kept:
            yield from self._write(written.token, given=True)
        chinese = any("\u4e00" <= character <= "\u9fff" for character in self.reply.question)
        yield from self._put([Text(FIRST_WORDS_CHINESE if chinese else FIRST_WORDS)])

    def _sampling(self) -> Sampling:
        """What is left to sample of the turn."""
        sampling = self.rules.sampling
        limit = sampling.max_tokens
        return sampling if limit is None else replace(sampling, max_tokens=limit - sum(self._sampled.values()))

    # ---------------------------------------------------------------------------------------------- its end

    def _end(self, ends: list[End]) -> TurnEnd:
        thought, answer = self.reply.thought, self.reply.answer
        new = sum(self._sampled.values())
        end = End(
            "loop" if self._looped and not self._cancelled() else ends[-1].reason, ends[0].prompt_tokens, ends[0].reused_tokens, new,
            sum(e.prefill_s for e in ends), sum(e.decode_s for e in ends),
        )  # fmt: skip
        message = Message("assistant", answer, thought)
        continued = ends[-1] if len(ends) > 1 else None
        return TurnEnd(message, end, self._thought_end(thought), self._sampled["thought"], self._sampled["answer"], self._given, continued)

    def _thought_end(self, thought: str) -> ThoughtEnd:
        if self._splitter.in_thought:
            return "unclosed"
        if not thought.strip() and self._forced != "user":
            return "bypassed"
        return self._forced or "model"
