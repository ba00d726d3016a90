"""StepCutter: a thought that streams -> its steps, whatever the places at which the stream is cut.

What a step is. A paragraph: text after a blank line. It is cut further where a sentence begins with an opener that rules.py
allows anywhere ("Wait", "Let me check", "So the answer is"), and where a line ends in anything but work: models that write
a line for each thing they do keep their work together, but a remark ends with its line.

What goes on with the step before it, in spite of a blank line or line break: a list item after another one or right below its
paragraph, a table row, a display formula, a code block, a paragraph that begins with "which", "so" or the like in lower case; and
whatever follows a heading or a line that ends with a colon. Text in a fenced code block is neither cut nor classified.

A step begins at its line's first character, in the middle of a line at the blank before its first word (where byte-pair tokens
begin). It appears as soon as its first WINDOW characters or its first line are known, and has its kind for good by then. Only
the first step is there from the start, as work until its kind is known.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple, get_args

from localr1.trace.rules import RULES, WINDOW, Kind, Where

__all__ = ["KINDS", "MARKS", "Kind", "Step", "StepCutter", "cut"]

KINDS: tuple[Kind, ...] = get_args(Kind)

# one cell wide in every terminal and locale: Unicode's ambiguous width is avoided, so they are plain ASCII
MARKS: dict[Kind, str] = {"restate": '"', "plan": ">", "work": "-", "check": "?", "backtrack": "<", "conclude": "="}

# A blank after a Western full stop belongs to the next sentence. The longest end and its blank have 5 characters, so that the
# last 4 of a stream may yet turn out to begin one.
_SENTENCE_END = re.compile(r"\n|[.!?]['\"”’)\]*]{0,3}(?=[ \t])|[。！？；…][”’」）*]{0,3}")
_UNSURE = 4
_FENCE = re.compile(r"(`{3,})[^`]*$|(~{3,})")
_MARKUP = re.compile(r"^[^\w\\]*(?:(?:\d{1,3}|[a-zA-Z])[.)]\s[^\w\\]*)?[_*]*")
_ITEM = re.compile(r"(?:[-+*•–]|\(?(?:\d{1,3}|[a-zA-Z])[.)]|[①-⑳])\s")
_GOES_ON = re.compile(r"(?:which|where|and|or|so|because|since|with|that|then|giving|is)\b|\||\\[\[\]]|\$\$|\\(?:begin|end)\{")
_HEADING = re.compile(r"#{1,6}\s|(\*\*|__)[^*_]+\1$")
_NO = re.compile(r"\W*(?:no\b\W*|不，)", re.IGNORECASE)
_COLON = re.compile(r"[:：][*\s]{0,3}$")

# at which place rules for which places are tried: each takes in those before it
_PLACES: tuple[Where, ...] = get_args(Where)


@cache
def _openers(place: Where) -> list[tuple[Kind, re.Pattern[str]]]:
    """The rules for this place in the order of the table, one expression for each run of them."""
    found: dict[tuple[Kind, Where], list[str]] = {}
    for rule in RULES:
        if rule.where in _PLACES[: _PLACES.index(place) + 1]:
            found.setdefault((rule.kind, rule.where), []).append(rule.pattern)
    if place == "first":  # nothing has been done yet that could be tested, taken back or concluded
        found = {key: patterns for key, patterns in found.items() if key[0] in ("restate", "plan")}
    return [(kind, re.compile("|".join(patterns), re.IGNORECASE)) for (kind, _), patterns in found.items()]


def _kind(opening: str, place: Where) -> Kind | None:
    """What the rules make of a step that begins with `opening`, at most WINDOW characters of one line."""
    words = _MARKUP.sub("", opening, count=1).replace("’", "'")
    return next((kind for kind, pattern in _openers(place) if pattern.match(words)), None) if words else None


@dataclass(slots=True)
class Step:
    """A step of a thought: characters `start` to `end` of its text, and the tokens that begin there.

    `first_token` counts from the thought's first token; `logprob` is a sum in nats, over the `scored` tokens that came with one.
    """

    kind: Kind
    start: int
    end: int
    first_token: int
    tokens: int = 0
    seconds: float = 0.0
    logprob: float = 0.0
    scored: int = 0

    @property
    def mean_logprob(self) -> float | None:
        return self.logprob / self.scored if self.scored else None

    def _count(self, token: _Fed, sign: int = 1) -> None:
        self.tokens += sign
        self.seconds += sign * token.seconds
        if token.logprob is not None:
            self.logprob += sign * token.logprob
            self.scored += sign


class _Fed(NamedTuple):
    """A token that begins at `start` of the thought's text."""

    start: int
    seconds: float
    logprob: float | None


class StepCutter:
    """Feed it the thought as it streams; `steps` grows, and only the last one may still change.

    The steps cover the text without a gap at any moment. A token that straddles two steps counts for the one in which it begins.
    """

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._text = ""  # what is undecided
        self._offset = 0  # of _text[0] in the thought
        self._at = 0  # in _text, while feeding: what is before it is decided
        self._begins: Literal["line", "sentence", "nothing"] = "line"  # at _at
        self._fed: deque[_Fed] = deque()  # tokens that begin in _text
        self._tokens = 0
        self._fence = ""  # what has opened the code block that this is in
        self._blank = False  # a blank line came last
        self._open = False  # ... or a heading, or a line that ends with a colon
        self._item = False  # the last line was of a list
        self._asked = False  # the sentence before was a question
        self._where: Where = "first"  # of a paragraph that begins now: first, head, then start

    @property
    def undecided(self) -> int:
        """Characters kept, and read again at the next feed, because a step may yet begin among them: fewer than WINDOW."""
        return len(self._text)

    def feed(self, text: str, *, logprob: float | None = None, seconds: float = 0.0, is_token: bool = True) -> None:
        """More of the thought; `is_token` False for text that was not sampled as one token, which counts for none."""
        start = self._offset + len(self._text)
        if not self.steps:
            self.steps.append(Step("work", 0, 0, 0))
        self._text += text
        self.steps[-1].end = start + len(text)
        if is_token:
            token = _Fed(start, seconds, logprob)
            self._fed.append(token)
            self._tokens += 1
            self.steps[-1]._count(token)
        self._advance(final=False)

    def finish(self) -> None:
        """The thought is over: decide what was left open."""
        self._advance(final=True)

    def _advance(self, final: bool) -> None:
        while self._at < len(self._text):
            if self._begins == "nothing":
                if not self._next_place(final):
                    break
                continue
            opening = self._text[self._at : self._at + WINDOW]
            line, newline, _ = opening.partition("\n")
            if not newline and len(opening) < WINDOW and not final:
                break
            if self._begins == "line":
                self._line(line, bool(newline))
            else:
                self._sentence(line)
            self._begins = "nothing"
        self._text, self._offset, self._at = self._text[self._at :], self._offset + self._at, 0
        while self._fed and self._fed[0].start < self._offset:
            self._fed.popleft()

    def _next_place(self, final: bool) -> bool:
        """Go to where the next line or sentence begins; False when that is not known yet."""
        end = _SENTENCE_END.search(self._text, self._at)
        if end is None:
            self._at = len(self._text) if final else max(self._at, len(self._text) - _UNSURE)
            return False
        if end[0] == "\n":
            before = self._text[max(self._at, end.start() - _UNSURE) : end.start()]
            self._asked = before.rstrip().endswith(("?", "？")) if before.strip() else self._asked
            self._open = self._open or bool(not self._fence and _COLON.search(before))
            self._begins = "line"
        elif end.end() == len(self._text) and not final:  # quotes and brackets may follow
            self._at = end.start()
            return False
        elif not self._fence:
            self._begins = "sentence"
            self._asked = "?" in end[0] or "？" in end[0]
        self._at = end.end()
        return True

    def _line(self, line: str, whole: bool) -> None:
        """A line begins; `whole`: it ends within `line`."""
        text = line.strip()
        if self._fence:
            if whole and text.startswith(self._fence) and not text.strip(self._fence[0]):
                self._fence = ""
            return
        if not text:
            self._blank = True
            return
        blank, item, fence = self._blank, bool(_ITEM.match(text)), _FENCE.match(text)
        goes_on = self._open or fence or _GOES_ON.match(text) or (item and (self._item or not blank))
        self._blank, self._open = False, whole and bool(_HEADING.match(text))
        self._item = item or (self._item and line[0].isspace())
        if fence:
            self._fence = fence[1] or fence[2]
        if self._where == "first":
            self.steps[0].kind = _kind(line, "first") or "restate"
            self._where = "head" if self.steps[0].kind == "restate" else "start"
        elif goes_on:
            if not fence:
                self._sentence(line)
        else:
            kind = self._kind(line, self._where) or "work"
            if blank or kind != self.steps[-1].kind:
                self._begin(kind)

    def _sentence(self, line: str) -> None:
        """A sentence begins, or a line of the step before. Two openers of a kind in one breath make one step."""
        last = self.steps[-1]
        kind = self._kind(line, "restated" if last.kind == "restate" else "anywhere")
        if kind and (kind != last.kind or self._offset + self._at - last.start >= WINDOW):
            self._begin(kind)

    def _kind(self, line: str, place: Where) -> Kind | None:
        """A no to one's own question is no turn, unless it was whether all is right."""
        if self._asked and self.steps[-1].kind not in ("check", "backtrack"):
            line = _NO.sub("", line, count=1)
        return _kind(line, place)

    def _begin(self, kind: Kind) -> None:
        """A step begins where we are; the tokens that begin there or later are its own."""
        start, last = self._offset + self._at, self.steps[-1]
        own = [token for token in self._fed if token.start >= start]
        step = Step(kind, start, last.end, self._tokens - len(own))
        for token in own:
            last._count(token, -1)
            step._count(token)
        last.end = start
        self.steps.append(step)
        if kind != "restate":
            self._where = "start"


def cut(text: str) -> list[Step]:
    """The steps of a finished thought: those that any streaming of it gives. Its tokens are not known, and count as none."""
    cutter = StepCutter()
    if text:
        cutter.feed(text, is_token=False)
        cutter.finish()
    return cutter.steps
