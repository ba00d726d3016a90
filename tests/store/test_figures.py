"""How little room the store takes, and how little work; `tests/bench_conversations.py` measures times."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from store.keeping import MADE, ROOT, check_same, reply, text_only

from backends.base import Token
from localr1.store import Store, schema
from localr1.trace.record import Ended
from localr1.turn import Written


def prose(tokens: int) -> list[Written]:
    """As a model with a large vocabulary writes English: 4 characters a token, 3.2 times smaller when zipped; every fifth token
    unsure, with four alternatives."""
    dice = random.Random(1)
    source = (ROOT / "tests" / "trace" / "paragraphs.py").read_text(encoding="utf-8")
    words = re.findall(r"\s?[!-~]+", re.sub(r"[ \t]+", " ", source[source.index('"""', 50) :]))
    follow: dict[str, list[str]] = {}
    for a, b in pairwise(words):
        follow.setdefault(a, []).append(b)
    names = [" " + "".join(dice.choice("bcdfglmnprst") + dice.choice("aeiou") for _ in range(dice.randint(2, 4))) for _ in range(2500)]
    pieces: list[str] = []
    now = words[0]
    while len(pieces) < tokens:
        now = dice.choice(names) if dice.random() < 0.1 else dice.choice(follow.get(now, words))
        pieces += re.findall(r"\s?[A-Za-z]{1,12}|\s?\d{1,3}|\s?[^\w\s]+|\s|\w", now)
    ids: dict[str, int] = {}
    at, written = 0.5, []
    for piece in pieces[:tokens]:
        at += max(0.001, dice.gauss(0.03, 0.003))
        logprob, others = -(10 ** dice.uniform(-5, -1)), []
        if dice.random() < 0.2:
            logprob = -0.11 - dice.expovariate(1)
            left = 1 - math.exp(logprob)
            for text in dice.sample(pieces, 4):
                chance = left * dice.uniform(0.4, 0.8)
                left -= chance
                others.append((ids.setdefault(text, dice.randrange(150_000)), text, math.log(chance)))
        token = Token(ids.setdefault(piece, dice.randrange(150_000)), piece, logprob, tuple(others))
        written.append(Written(token, "thought", piece, "", False, at))
    return written


def work(store: Store, call: Callable[[], object]) -> int:
    """Instructions of SQLite's virtual machine, which no other program's load changes; in thousands."""
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    store._db.set_progress_handler(count, 1000)
    call()
    store._db.set_progress_handler(None, 0)
    return counted


def test_a_long_trace_takes_twice_its_text_at_most(file: Path) -> None:
    tokens = prose(32_000)
    trace = reply(tokens)
    text_bytes = len((trace.question + trace.thought).encode())
    assert 3.7 <= text_bytes / len(tokens) <= 4.3
    with Store(file) as store:
        turn = store.add_turn(store.new(), None, trace.question, MADE)
    before = file.stat().st_size
    with Store(file) as store:
        for n in range(4000, 32_000, 4000):
            store.save(turn, reply(tokens[:n], Ended()))
        store.save(turn, trace)
    assert file.stat().st_size - before <= 2 * text_bytes
    with Store(file) as store:
        check_same(store.turn(turn).trace, trace)


def test_search_over_10_000_messages(file: Path) -> None:
    dice = random.Random(2)
    words = sorted(set(re.findall(r"[a-z]+", (ROOT / "README.md").read_text(encoding="utf-8").lower())))
    with Store(file) as store:
        conversations = [store.new() for _ in range(17)]
        with schema.transaction(store._db):
            for i in range(3334):
                texts = [" ".join(dice.choices(words, k=k)) for k in (10, 60, 30)]
                turn = store._replies.insert(conversations[i // 200], None, text_only(*texts))
                store._replies.write(turn, text_only(*texts), is_over=True)
        for typed in ("model tokens", "t", "the", words[0] + " " + words[5] + " " + words[10], "nowhere"):
            assert work(store, lambda typed=typed: store.search(typed)) < 10, typed
        assert len(store.search("model")) == 50
        assert work(store, lambda: store.conversation(conversations[0])) < 10
        assert len(store.conversation(conversations[0]).turns) == 200
