"""Tape: a reply as the view of its trace reads it. It grows by events, or is taken from a trace; feeding costs what is fed."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from heapq import nsmallest

from backends.base import Token
from localr1.trace.record import Ended, Stats, Trace
from localr1.trace.steps import Step, StepCutter
from localr1.turn import AnswerDelta, ThoughtDelta

UNSURE = 0.9  # a token less likely than this is worth a look
MOST_MATCHES = 10_000


class Part:
    """The thought or the answer: its text, where in it its tokens begin, and their places among the tokens of the reply."""

    def __init__(self) -> None:
        self.length = 0
        self.logprob, self.scored = 0.0, 0  # a sum, over those whose likelihood is known
        self.tokens: list[Token] = []
        self.starts: list[int] = []
        self.places: list[int] = []
        self._text = ""
        self._pieces: list[str] = []

    def add(self, text: str, token: Token | None = None, place: int = 0) -> None:
        if token is not None:
            self.tokens.append(token)
            self.starts.append(self.length)
            self.places.append(place)
            if token.logprob <= 0:
                self.logprob += token.logprob
                self.scored += 1
        if text:
            self._pieces.append(text)
            self.length += len(text)

    @property
    def text(self) -> str:
        if self._pieces:
            self._text += "".join(self._pieces)
            self._pieces.clear()
        return self._text

    def span(self, i: int) -> tuple[int, int]:
        """The text of token `i`."""
        return self.starts[i], self.starts[i + 1] if i + 1 < len(self.starts) else self.length

    def spans(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Tokens with text in `start` to `end`: index, start, end."""
        for i in range(max(0, bisect_right(self.starts, start) - 1), len(self.starts)):
            first, last = self.span(i)
            if first >= end:
                break
            if last > start:
                yield i, max(first, start), min(last, end)


class Tape:
    """`steps`: none as long as the thought has no words. `ended`: None while it is being written."""

    def __init__(self) -> None:
        self.thought, self.answer = Part(), Part()
        self.ended: Ended | None = None
        self.notable: list[int] = []  # steps that are backtracks or checks
        self.backtracks: list[int] = []
        self._cutter = StepCutter()
        self._steps = self._cutter.steps
        self._cut_again = False  # the thought went on after the answer had begun
        self._words = False
        self._tallied, self._longest, self._longest_tokens = 0, -1, 0  # of the steps that are over
        self._thought_s = self._last_s = 0.0
        self._sampled, self._first_sampled_s = 0, 0.0

    @classmethod
    def of(cls, trace: Trace) -> Tape:
        tape = cls()
        tape._cut_again = True
        tape.finish(trace)
        return tape

    @property
    def steps(self) -> list[Step]:
        return self._steps if self._words else []

    @property
    def counted(self) -> bool:
        """Its tokens are known; else characters are counted."""
        return bool(self.thought.tokens or self.answer.tokens)

    def feed(self, events: Iterable[ThoughtDelta | AnswerDelta]) -> None:
        for event in events:
            token, text = event.token, event.text
            place = len(self.thought.tokens) + len(self.answer.tokens)
            if isinstance(event, ThoughtDelta):
                self._cut_again = self._cut_again or self.answer.length > 0
                known = None if token is None or math.isnan(token.logprob) else token.logprob
                seconds = max(0.0, event.at_s - self._thought_s)
                self._cutter.feed(text, logprob=known, seconds=seconds if token else 0.0, is_token=token is not None)
                self._words = self._words or (bool(text) and not text.isspace())
                self.thought.add(text, token, place)
                self._thought_s = max(self._thought_s, event.at_s)
            else:
                if text and not self.answer.length:
                    self._cutter.finish()
                self.answer.add(text, token, place)
            self._last_s = max(self._last_s, event.at_s)
            if token is not None and not event.given:
                self._first_sampled_s = self._first_sampled_s if self._sampled else event.at_s
                self._sampled += 1
        self._tally(len(self._steps) - 1)

    def finish(self, trace: Trace) -> None:
        """Take the places of all tokens from the trace; keep the steps, if they are of its text."""
        same = not self._cut_again and trace.thought == self.thought.text
        fed = len(self.thought.tokens)
        self.thought, self.answer = Part(), Part()
        for place, w in enumerate(trace.tokens):
            own, other = (self.thought, self.answer) if w.part == "thought" else (self.answer, self.thought)
            text, more = (w.thought, w.answer) if w.part == "thought" else (w.answer, w.thought)
            own.add(text, w.token, place)
            if more:
                other.add(more)
        if not trace.tokens:
            self.thought.add(trace.thought)
            self.answer.add(trace.answer)
        kept = self.thought.places
        if same and fed <= len(kept):
            for _ in kept[fed:]:  # the closing tag, where the program put it
                self._cutter.feed("", is_token=True)
            self._cutter.finish()
        else:
            self._steps = trace.steps
            self._tallied, self._longest, self._longest_tokens = 0, -1, 0
            self.notable, self.backtracks = [], []
        self._words = bool(trace.thought) and not trace.thought.isspace()
        self._thought_s = trace.tokens[kept[-1]].at_s if kept else 0.0
        self._last_s = trace.tokens[self.answer.places[-1]].at_s if self.answer.places else self._thought_s
        self.ended = trace.ended
        self._tally(len(self._steps))

    def _tally(self, over: int) -> None:
        """Count the steps that are new, and measure those that are over."""
        seen = max(self.notable[-1] + 1 if self.notable else 0, self._tallied)
        for i in range(seen, len(self._steps)):
            if self._steps[i].kind in ("backtrack", "check"):
                self.notable.append(i)
                if self._steps[i].kind == "backtrack":
                    self.backtracks.append(i)
        for i in range(self._tallied, over):
            if self._steps[i].tokens > self._longest_tokens:
                self._longest, self._longest_tokens = i, self._steps[i].tokens
        self._tallied = max(self._tallied, over)

    def stats(self) -> Stats:
        """Of what is there now, as record.stats counts it."""
        longest, tokens = self._longest, self._longest_tokens
        if self._tallied < len(self.steps) and self.steps[-1].tokens > tokens:
            longest, tokens = len(self.steps) - 1, self.steps[-1].tokens
        speed = None
        if self.ended is None:
            elapsed_s = self._last_s - self._first_sampled_s
            speed = (self._sampled - 1) / elapsed_s if self._sampled > 1 and elapsed_s > 0.3 else None
        elif self.ended.new_tokens and self.ended.decode_s > 0:
            speed = self.ended.new_tokens / self.ended.decode_s
        return Stats(
            thought_tokens=len(self.thought.tokens),
            answer_tokens=len(self.answer.tokens),
            thought_s=self._thought_s,
            answer_s=max(0.0, self._last_s - self._thought_s) if self.answer.tokens else 0.0,
            steps=len(self.steps),
            backtracks=len(self.backtracks) if self.steps else 0,
            checks=len(self.notable) - len(self.backtracks) if self.steps else 0,
            longest_step=longest,
            longest_step_tokens=tokens,
            tokens_per_s=speed,
            mean_logprob=None,
        )

    def step_at(self, offset: int) -> int:
        """The step that has this character of the thought."""
        return max(0, bisect_right(self.steps, offset, key=lambda step: step.start) - 1)

    def least_certain(self, count: int) -> list[int]:
        """Tokens of the thought that were UNSURE, the least likely first."""
        least, text, limit = [], self.thought.text, math.log(UNSURE)
        for i, token in enumerate(self.thought.tokens):
            if token.logprob < limit:  # NaN: it was put there
                start, end = self.thought.span(i)
                if start < end and not text[start:end].isspace():
                    least.append(i)
        return nsmallest(count, least, key=lambda i: self.thought.tokens[i].logprob)


class Search:
    """Where some words are, in any case; `update` looks at what is new only."""

    def __init__(self, tape: Tape, words: str) -> None:
        self.words = words
        self.current = -1
        self._tape = tape
        self._pattern = re.compile(re.escape(words), re.IGNORECASE)
        self._found: dict[Part, list[int]] = {}
        self._to: dict[Part, int] = {}
        self.update()

    def __len__(self) -> int:
        return len(self.places(self._tape.thought)) + len(self.places(self._tape.answer))

    def places(self, part: Part) -> list[int]:
        return self._found.get(part, [])

    def update(self) -> None:
        for part in (self._tape.thought, self._tape.answer):
            found = self._found.setdefault(part, [])
            after = found[-1] + len(self.words) if found else 0
            start = max(after, self._to.get(part, 0) - len(self.words) + 1)
            for match in self._pattern.finditer(part.text, start) if self.words else ():
                if len(found) >= MOST_MATCHES:
                    break
                found.append(match.start())
            self._to[part] = part.length

    def go(self, by: int) -> tuple[Part, int] | None:
        """The next match in this direction, round the end."""
        if not len(self):
            return None
        self.current = (self.current + by) % len(self)
        return self.at_current()

    def begin(self, part: Part, offset: int) -> None:
        """Let the next match be the first one from here on."""
        before = 0 if part is self._tape.thought else len(self.places(self._tape.thought))
        places = self.places(part)
        self.current = before + bisect_right(places, offset - 1) - 1

    def at_current(self) -> tuple[Part, int] | None:
        thought = self.places(self._tape.thought)
        if not 0 <= self.current < len(self):
            return None
        if self.current < len(thought):
            return self._tape.thought, thought[self.current]
        return self._tape.answer, self.places(self._tape.answer)[self.current - len(thought)]
