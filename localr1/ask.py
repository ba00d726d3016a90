"""`localr1 ask`: one turn without a screen. The thought goes to stderr, the answer to stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from backends.base import Backend
from localr1.chat import ChatSession
from localr1.endings import why_it_ended
from localr1.history import History
from localr1.output import put_json
from localr1.turn import Event, Rules, TurnEnd
from localr1.writing import Writer, interrupt_cancels, write_reply

if TYPE_CHECKING:
    from localr1.models import ModelSpec, Wanted


@dataclass(frozen=True, slots=True)
class Loaded:
    """An open model, its name, and how long opening it took."""

    name: str
    backend: Backend
    load_s: float


def ask(model: Loaded, prompt: str, rules: Rules, history: Path | None = None, as_json: bool = False) -> bool:
    """Answer `prompt` on stdout; False when interrupted (Ctrl+C), with what had come printed all the same. `history`: where to keep it."""
    session, kept = ChatSession(model.backend, rules), History(history)
    with interrupt_cancels(session.cancel):
        events = kept.keep(session, session.send(prompt))
        turn = _print_json(model, events) if as_json else _print_text(events, rules)
    kept.close()
    if kept.problem:
        print(f"localr1: this is not kept: {kept.problem}", file=sys.stderr)
    return turn.end.reason != "cancelled"


def _print_text(events: Iterator[Event], rules: Rules) -> TurnEnd:
    """Where the thought may be closed for the model, the answer is printed at the end: until then it may turn out to be thought."""
    waits = rules.think_budget is not None or rules.thinking == "off"
    thought = Writer(sys.stderr, "2", needed=False)
    end, told = write_reply(events, thought, Writer(sys.stdout), waits)
    for note in filter(None, [*told, why_it_ended(end)]):
        thought.line(f"[{note}]")
    return end


def _print_json(model: Loaded, events: Iterator[Event]) -> TurnEnd:
    turn = next(e for e in events if isinstance(e, TurnEnd))
    put_json(_as_object(model, turn))
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


def load(spec: ModelSpec, wanted: Wanted) -> Loaded:
    """Open a model, telling stderr about work that takes time. Raises BackendError, QuantizeError."""
    from localr1.models import open_model

    began = perf_counter()
    told: list[str] = []

    def say(line: str) -> None:
        if not told:  # one line is enough where nothing can be redrawn
            print(f"localr1: {line}", file=sys.stderr)
        told.append(line)

    return Loaded(spec.name, open_model(spec, wanted, say), perf_counter() - began)
