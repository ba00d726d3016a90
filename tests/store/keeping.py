"""What the tests of the store keep in it, and how they look at what came back."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from backends.base import Sampling, Token
from localr1.store import Store, StoreError
from localr1.trace.record import Ended, Made, Trace
from localr1.turn import Written

ROOT = Path(__file__).parents[2]
MADE = Made("r1.gguf", "llamacpp", "Qwen2.5-7B", "Q4_K_M", Sampling(temperature=0.6, seed=7), 500)
ENDED = Ended("stop", "model", 20, 5, 4, 0.25, 1.5)
STARTED = "2026-01-02T03:04:05+00:00"


def word(text: str, i: int = 0, part: str = "thought", given: bool = False) -> Written:
    logprob = math.nan if given else -0.001 * (i % 700)
    others = ((9, " other", -1.5 - i % 5), (10, "\n", -math.inf)) if i % 4 == 1 else ()
    own = {part: text}
    return Written(Token(1000 + len(text), text, logprob, others), part, own.get("thought", ""), own.get("answer", ""), given, 0.02 * i)


def reply(tokens: Sequence[Written], ended: Ended = ENDED, question: str = "Why?") -> Trace:
    thought, answer = "".join(w.thought for w in tokens), "".join(w.answer for w in tokens)
    return Trace(question, thought, answer, MADE, ended, STARTED, True, tuple(tokens))


def text_only(question: str, thought: str, answer: str) -> Trace:
    return Trace(question, thought, answer, MADE, ENDED, STARTED)


def keep(store: Store, trace: Trace, conversation: int | None = None, parent: int | None = None) -> int:
    if conversation is None:
        conversation = store.new()
    turn = store.add_turn(conversation, parent, trace.question, trace.made)
    store.save(turn, trace)
    return turn


def near(logprob: float) -> float:
    """What packing promises."""
    return (abs(logprob) + 1 / 64) / 255 if math.isfinite(logprob) else 0.0


def check_same(found: Trace, trace: Trace) -> None:
    """Everything exactly, but for numbers of tokens, which are within what packing promises."""
    assert replace(found, tokens=()) == replace(trace, tokens=())
    assert len(found.tokens) == len(trace.tokens)
    for a, b in zip(found.tokens, trace.tokens, strict=True):
        assert (a.token.id, a.token.text, a.part, a.thought, a.answer, a.given) == (
            b.token.id,
            b.token.text,
            b.part,
            b.thought,
            b.answer,
            b.given,
        )
        assert abs(a.at_s - b.at_s) < 0.0006
        assert [other[:2] for other in a.token.alternatives] == [other[:2] for other in b.token.alternatives]
        pairs = [(a.token.logprob, b.token.logprob)] + [
            (x[2], y[2]) for x, y in zip(a.token.alternatives, b.token.alternatives, strict=True)
        ]
        for x, y in pairs:
            assert x == y or (x != x and y != y) or abs(x - y) <= near(y), (x, y)


def said(caught: pytest.ExceptionInfo[StoreError], *parts: str) -> None:
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


def terms(store: Store) -> set[str]:
    """Every term that the index knows."""
    db = store._db
    db.execute("CREATE VIRTUAL TABLE IF NOT EXISTS temp.terms USING fts5vocab(main, words, row)")
    return {term for (term,) in db.execute("SELECT term FROM temp.terms")}


def run(script: str, *args: str | Path, wait: bool = True) -> subprocess.Popen[str]:
    head = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
    process = subprocess.Popen([sys.executable, "-c", head + script, *map(str, args)], stdout=subprocess.PIPE, text=True)
    if wait:
        process.communicate(timeout=30)
    return process
