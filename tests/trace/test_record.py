"""A trace: what is kept of a reply, and its JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from backends.base import Sampling, Token
from localr1.chat import ChatSession
from localr1.trace.record import Made, Trace, TraceError, from_json, stats, to_json
from localr1.turn import TurnEnd, Written
from scripted import ScriptedBackend

PIECES = ["Two r's", ".\n\n", "Wait", ", three.", "\n\n", "</think>", "\n\n", "There are", " 3."]
MADE = Made("m", "gguf", "Base", "Q8_0", Sampling(seed=7), think_budget=9)


def trace() -> Trace:
    session = ChatSession(ScriptedBackend(PIECES))
    end = list(session.send("How many?"))[-1]
    assert isinstance(end, TurnEnd) and session.reply is not None
    return Trace.of(session.reply, MADE, "2026-01-02T03:04:05Z", end)


def test_a_trace_is_what_the_reply_was() -> None:
    found = trace()
    assert (found.question, found.thought, found.answer) == ("How many?", "Two r's.\n\nWait, three.\n\n", "There are 3.")
    assert [s.kind for s in found.steps] == ["restate", "backtrack"]
    assert [found.step_text(s) for s in found.steps] == ["Two r's.\n\n", "Wait, three.\n\n"]
    assert sum(s.tokens for s in found.steps) == len(found.thought_tokens) == 6 and len(found.answer_tokens) == 3
    assert (found.ended.reason, found.ended.thought_end, found.ended.new_tokens) == ("stop", "model", 9)


def test_a_trace_of_a_reply_that_is_being_written() -> None:
    session = ChatSession(ScriptedBackend(PIECES))
    events = session.send("How many?")
    for _ in range(3):
        next(events)
    assert session.reply is not None
    found = Trace.of(session.reply, MADE, "")
    assert found.thought == "Two r's.\n\nWait" and (found.ended.reason, found.ended.thought_end) == ("", "unclosed")
    events.close()  # type: ignore[attr-defined]


def test_statistics() -> None:
    found = trace()
    s = stats(found)
    assert (s.thought_tokens, s.answer_tokens, s.steps, s.backtracks, s.checks) == (6, 3, 2, 1, 0)
    assert (s.longest_step, s.longest_step_tokens) == (1, 4)
    assert s.tokens_per_s == pytest.approx(100) and s.mean_logprob == pytest.approx(-0.1)
    empty = stats(replace(found, thought="", answer="", tokens=()))
    assert (empty.longest_step, empty.tokens_per_s is None, empty.mean_logprob, empty.thought_s) == (-1, False, None, 0.0)


def test_kept_tokens_are_as_certain_as_they_were() -> None:
    sampled = Written(Token(1, "Hm", -2.0), "thought", "Hm", "", False, 0.1)
    kept, put_there = replace(sampled, given=True), Written(Token(2, "Wait,", math.nan), "thought", "Wait,", "", True, 0.1)
    assert [i for i, _ in replace(trace(), tokens=(kept, put_there, sampled)).least_certain(9)] == [0, 2]


def test_the_least_certain_tokens() -> None:
    found = trace()
    tokens = [replace(w, token=replace(w.token, logprob=-float(i == 2) - 0.1 * i)) for i, w in enumerate(found.tokens)]
    least = replace(found, tokens=tuple(tokens)).least_certain(2)
    assert [(i, w.token.text) for i, w in least] == [(2, "Wait"), (3, ", three.")]


def test_json_goes_there_and_back() -> None:
    found = trace()
    others = ((3, " four", -1.5), (4, "\ud800", -2.0))
    given = Written(Token(9, "x", math.nan), "thought", "x", "", True, 0.25)
    unsure = Written(Token(2, " three", -0.75, others), "thought", " three", "", False, 0.5)
    found = replace(found, thought=f"{found.thought}x three", tokens=(*found.tokens[:5], given, unsure, *found.tokens[5:]))
    found = replace(found, tokens=tuple(replace(w, at_s=0.25 * i) for i, w in enumerate(found.tokens)))
    value = json.loads(json.dumps(to_json(found)))
    again = from_json(value)
    assert to_json(again) == value
    assert (again.made, again.ended, again.thought, again.answer) == (found.made, found.ended, found.thought, found.answer)
    assert math.isnan(again.tokens[5].token.logprob) and again.tokens[5].given and again.tokens[6].token.alternatives == others
    assert [(w.token.id, w.token.text, w.part, w.thought, w.answer) for w in again.tokens] == [
        (w.token.id, w.token.text, w.part, w.thought, w.answer) for w in found.tokens
    ]
    assert [s["kind"] for s in value["steps"]] == ["restate", "backtrack", "work"] and value["version"] == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "version 2, and this program reads up to 1; update localr1"),
        ({"version": "1"}, "version '1'"),
        ({"thought": 3}, "this is no trace"),
        ({"tokens": [{}]}, "this is no trace"),
        ({"tokens": 3}, "this is no trace"),
        ({"made": {"model": "m", "backend": "b", "sampling": {"temperature": -1}}}, "this is no trace"),
        ({"made": {"whatever": 1, "sampling": {}}}, "this is no trace"),
    ],
)
def test_what_is_no_trace(change: dict[str, object], said: str) -> None:
    with pytest.raises(TraceError, match=said):
        from_json(to_json(trace()) | change)
    for value in (None, [], "x", {}, 3):
        with pytest.raises(TraceError):
            from_json(value)
