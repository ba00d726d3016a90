"""Writing a reply to streams as it comes, a line-based program's way; Ctrl+C that ends the reply and not the program."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from localr1.text import printable
from localr1.turn import AnswerDelta, Event, LoopFound, ThoughtDelta, TurnEnd

if TYPE_CHECKING:
    from localr1.latex.stream import FormulaStream


class Writer:
    """Writes model text to a stream as it comes, white space at the end held back so that parts meet cleanly.

    `heading`: a line before it; `needed`: an error in writing ends the turn; otherwise it only ends the writing; `formulas`: as readable
    text, each when it is complete.
    """

    def __init__(self, stream: TextIO, style: str = "", heading: str = "", needed: bool = True, formulas: bool = False) -> None:
        self.stream = stream
        self.heading = heading
        self.needed = needed
        self.open = False
        self._lost = False
        self._styled = bool(style) and stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self._style = style
        self._held = ""
        self._formulas = _formula_stream() if formulas else None

    def write(self, text: str) -> None:
        text = self._held + text if self.open else (self._held + text).lstrip("\n")
        shown = text.rstrip()
        self._held = text[len(shown) :]
        if not shown:
            return
        if not self.open:
            self.open = True
            self._put((f"{self.heading}\n" if self.heading else "") + (f"\x1b[{self._style}m" if self._styled else ""))
        self._put(printable(shown if self._formulas is None else self._formulas.feed(shown)))

    def end(self, blank_line: bool = False) -> None:
        rest = "" if self._formulas is None else self._formulas.end()
        self.open, self._held = False, ""
        self._put(printable(rest) + ("\x1b[0m" if self._styled else "") + ("\n\n" if blank_line else "\n"))

    def line(self, text: str) -> None:
        self._put(text + "\n")

    def _put(self, text: str) -> None:
        if self._lost:
            return
        try:
            self.stream.write(text)
            self.stream.flush()
        except OSError:
            if self.needed:
                raise
            self._lost = True


def _formula_stream() -> FormulaStream:
    from localr1.latex.stream import FormulaStream  # `ask` has no use for it, and would start later

    return FormulaStream()


def write_reply(events: Iterator[Event], thought: Writer, answer: Writer, waits: bool, known: str = "") -> tuple[TurnEnd, list[str]]:
    """Its end, and what else there is to tell of it. `waits`: the answer is written at the end, because until then it may turn out to be
    thought. `known`: a thought that is on paper already; what a steered reply was given of it is not written again."""
    told: list[str] = []
    streamed = ""
    try:
        for event in events:
            match event:
                case ThoughtDelta(text, given=given):
                    streamed += text
                    if given and text and known.startswith(text):
                        known = known.removeprefix(text)
                        continue
                    known = "" if given and text else known
                    thought.write(text)
                case AnswerDelta(text):
                    if text and thought.open:
                        thought.end(blank_line=True)
                    if not waits:
                        answer.write(text)
                case LoopFound(loop, part):
                    where = "thought" if part == "thought" else "answer"
                    told.append(f"the {where} repeated itself every {loop.period} tokens")
                    waits = waits or part == "thought"  # which may be closed for the model now
                case TurnEnd():
                    if waits:
                        if more := _behind(streamed, event.message.thought or ""):  # the thought went on after it was closed
                            thought.write(more)
                            thought.end(blank_line=True)
                        answer.write(event.message.content)
                    return event, told
    finally:
        for writer in (thought, answer):
            if writer.open:
                writer.end()
    raise AssertionError("a turn ended without a TurnEnd")


def _behind(written: str, whole: str) -> str:
    """What `whole` has behind what was `written` of it; nothing if it is another text."""
    return whole.strip()[len(written.strip()) :].strip("\n") if whole.strip().startswith(written.strip()) else ""


@contextmanager
def interrupt_cancels(cancel: Callable[[], None]) -> Iterator[None]:
    """Ctrl+C ends the turn, so that what has come is printed whole; a second one ends the program."""

    def handler(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        cancel()

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
