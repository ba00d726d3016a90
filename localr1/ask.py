"""`localr1 ask`: one turn without a screen. The thought goes to stderr, the answer to stdout."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, TextIO

from backends.base import Backend
from localr1.chat import ChatSession
from localr1.history import History
from localr1.text import json_text, printable
from localr1.turn import AnswerDelta, Event, LoopFound, Rules, ThoughtDelta, TurnEnd

if TYPE_CHECKING:
    from localr1.models import Wanted


@dataclass(frozen=True, slots=True)
class Loaded:
    """An open model, its name, and how long opening it took."""

    name: str
    backend: Backend
    load_s: float


def ask(model: Loaded, prompt: str, rules: Rules, history: Path | None = None, as_json: bool = False) -> bool:
    """Answer `prompt` on stdout; False when interrupted (Ctrl+C), with what had come printed all the same. `history`: where to keep it."""
    session, kept = ChatSession(model.backend, rules), History(history)
    with _interrupt_cancels(session):
        events = kept.keep(session, session.send(prompt))
        turn = _print_json(model, events) if as_json else _print_text(events, rules)
    kept.close()
    if kept.problem:
        print(f"localr1: this is not kept: {kept.problem}", file=sys.stderr)
    return turn.end.reason != "cancelled"


def _print_text(events: Iterator[Event], rules: Rules) -> TurnEnd:
    """Where the thought may be closed for the model, the answer is printed at the end: until then it may turn out to be thought."""
    waits = rules.think_budget is not None or rules.thinking == "off"
    thought, answer = _Writer(sys.stderr, "2", needed=False), _Writer(sys.stdout)
    told: list[str] = []
    for event in events:
        match event:
            case ThoughtDelta(text):
                thought.write(text)
            case AnswerDelta(text):
                if text and thought.open:
                    thought.end(blank_line=True)
                if not waits:
                    answer.write(text)
            case LoopFound(loop, part):
                where = "thought" if part == "thought" else "answer"
                told.append(f"the {where} repeated itself every {loop.period} tokens")
            case TurnEnd():
                if waits:
                    answer.write(event.message.content)
                for writer in (thought, answer):
                    if writer.open:
                        writer.end()
                for note in filter(None, [*told, _why_it_ended(event)]):
                    thought.line(f"[{note}]")
                return event
    raise AssertionError("a turn ended without a TurnEnd")


class _Writer:
    """Writes model text to a stream as it comes, white space at the end held back so that parts meet cleanly.

    `needed`: an error in writing ends the turn; otherwise it only ends the writing.
    """

    def __init__(self, stream: TextIO, style: str = "", needed: bool = True) -> None:
        self.stream = stream
        self.needed = needed
        self.open = False
        self._lost = False
        self._styled = bool(style) and stream.isatty() and "NO_COLOR" not in os.environ
        self._style = style
        self._held = ""

    def write(self, text: str) -> None:
        text = self._held + text
        shown = text.rstrip()
        self._held = text[len(shown) :]
        if shown:
            start = f"\x1b[{self._style}m" if self._styled and not self.open else ""
            self.open = True
            self._put(start + printable(shown))

    def end(self, blank_line: bool = False) -> None:
        self.open, self._held = False, ""
        self._put(("\x1b[0m" if self._styled else "") + ("\n\n" if blank_line else "\n"))

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


def _why_it_ended(turn: TurnEnd) -> str:
    """In words, where the turn did not end by itself."""
    where = " mid-thought" if turn.thought_end == "unclosed" else ""
    match turn.end.reason:
        case "length":
            return f"stopped{where} at --max-tokens"
        case "context":
            return f"stopped{where}: the context is full"
        case "cancelled":
            return f"cancelled{where}"
        case "loop":
            return f"stopped{where}: the model repeats itself"
        case _:
            return "the model stopped mid-thought" if where else ""


def _print_json(model: Loaded, events: Iterator[Event]) -> TurnEnd:
    turn = next(e for e in events if isinstance(e, TurnEnd))
    print(json_text(_as_object(model, turn)), flush=True)
    return turn


def _as_object(model: Loaded, turn: TurnEnd) -> dict[str, Any]:
    end = turn.end
    return {
        "model": model.name,
        "backend": model.backend.name,
        "thought": turn.message.thought,
        "answer": turn.message.content,
        "finish_reason": end.reason,
        "usage": {
            "prompt_tokens": end.prompt_tokens, "reused_tokens": end.reused_tokens,
            "thought_tokens": turn.thought_tokens, "answer_tokens": turn.answer_tokens,
        },
        "timings": {
            "load_s": round(model.load_s, 4), "prefill_s": round(end.prefill_s, 4), "decode_s": round(end.decode_s, 4),
            "tokens_per_s": round(end.new_tokens / end.decode_s, 2) if end.decode_s > 0 else 0.0,
        },
    }  # fmt: skip


def load(name: str | None, wanted: Wanted) -> Loaded:
    """Open a model by name, telling stderr about work that takes time. Raises BackendError, QuantizeError."""
    from localr1.models import open_model, resolve

    spec, began = resolve(name, wanted.backend), perf_counter()
    told: list[str] = []

    def say(line: str) -> None:
        if not told:  # one line is enough where nothing can be redrawn
            print(f"localr1: {line}", file=sys.stderr)
        told.append(line)

    return Loaded(spec.name, open_model(spec, wanted, say), perf_counter() - began)


@contextmanager
def _interrupt_cancels(session: ChatSession) -> Iterator[None]:
    """Ctrl+C ends the turn, so that what has come is printed whole; a second one ends the program."""

    def handler(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        session.cancel()

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
