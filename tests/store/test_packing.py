"""Traces come back from the store: any text, of any size, its numbers as near as packing promises."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from store.keeping import ENDED, MADE, STARTED, check_same, keep, near, reply, text_only, word

from backends.base import Token
from localr1.store import Store, packing
from localr1.trace.record import Trace
from localr1.turn import Written


def test_a_trace_comes_back(store: Store) -> None:
    tokens = [
        Written(Token(1, "<think>", math.nan), "thought", "", "", True, 0.0),  # a tag is no text
        Written(Token(2, " Hm", -0.5, ((3, " So", -1.25), (4, "嗯", -7.5))), "thought", "Hm", "", False, 0.1234),  # white space dropped
        Written(Token(5, "<", -0.01), "thought", "", "", False, 0.2),  # held back
        Written(Token(6, "x", -1e-9), "thought", "<x", "", False, 0.3),
        Written(Token(2, " Hm", -30.0), "thought", " Hm", "", False, 0.4),
        Written(Token(7, "</think> 4", -math.inf), "answer", " end", "4", True, 0.5),  # both parts at once
        Written(Token(8, "", 0.0), "answer", "", "", False, 0.6),
        Written(Token(9, "2", -2.0), "answer", "", "2", False, 0.6),
    ]
    trace = reply(tokens)
    turn = keep(store, trace)
    check_same(store.turn(turn).trace, trace)


@pytest.mark.parametrize(
    "text", ["", "\0a\0", "\ud800 \udc00\ud83d\ude00", "é\u0301\u202e\x1b[2J", "多少个 r？", '"; DROP TABLE turn; --', "\n\n"]
)
def test_any_text_comes_back(store: Store, text: str) -> None:
    by_tokens = reply([word(text, part="thought"), word(text, 1, part="answer")], question=text)
    known_as_text = Trace(text, text, text, MADE, ENDED, STARTED)
    for trace in (by_tokens, known_as_text):
        turn = keep(store, trace)
        check_same(store.turn(turn).trace, trace)
        store.search(text)
        json.dumps(store.export(store.turn(turn).conversation))
    store.rename(1, text)
    assert store.conversations()[-1].title == text.encode("utf-8", "replace").decode()


def test_a_huge_reply(store: Store) -> None:
    trace = text_only("Why?", "0123456789 " * 950_000, "x" * 500_000)
    turn = keep(store, trace)
    check_same(store.turn(turn).trace, trace)
    assert store.search("0123456789")[0].part == "thought"
    assert store.search("xxxx")[0].part == "answer"


def test_times_and_ids_of_any_size(store: Store) -> None:
    tokens = [
        Written(Token(i, "a", -1.0), "thought", "a", "", False, at_s)
        for i, at_s in ((0, 3.0), (-1, 2.5), (2**70, math.nan), (3, 1e30), (4, -math.inf))
    ]
    turn = keep(store, reply(tokens))
    found = store.turn(turn).trace.tokens
    assert [w.token.id for w in found] == [0, -1, 2**70, 3, 4]
    assert [w.at_s for w in found] == [3.0, 2.5, 0.0, 2**30 / 1000, 0.0]


def test_a_text_that_is_not_what_its_tokens_add_up_to(store: Store) -> None:
    tokens = tuple(word(f" {i}", i) for i in range(3))
    for thought in ("no such thing", " 0 9 2"):  # of another length, and of the same one
        trace = replace(reply(tokens), thought=thought)
        turn = keep(store, trace)
        check_same(store.turn(turn).trace, trace)
        assert store.path(turn)[-1].trace.thought == thought


def test_packing_says_how_near_the_numbers_are() -> None:
    for exponent in range(-12, 12):
        for mantissa in (1.0, 1.7, 3.1, 7.7):
            logprob = -mantissa * 10.0**exponent
            found = packing._logprob(packing._level(logprob))
            assert abs(found - logprob) <= near(logprob)
    assert packing._logprob(packing._level(-1e308)) == pytest.approx(-1e30, rel=0.01)  # no logprob of a model
    assert packing._logprob(packing._level(math.inf)) == 0.0
    assert packing._logprob(packing._level(0.0)) == 0.0
    assert math.copysign(1, packing._logprob(packing._level(-0.0))) == 1  # "-0.0" would be read aloud
