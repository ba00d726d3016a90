"""Exports of a trace in every form: harmless whatever a model wrote, quick; JSON and JSONL are read back."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace

import pytest

from backends.base import Token
from localr1.trace.export import FORMS, Form, export, from_jsonl
from localr1.trace.record import Trace, TraceError, from_json, to_json
from localr1.turn import Written
from tests.trace.traces import THOUGHT, UNUSUAL, harmless, long_trace, trace

SHORT_S = 3.0  # for 32,000 tokens, on a busy machine; measured: 0.1 to 0.9


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", UNUSUAL)
def test_whatever_the_model_wrote_an_export_is_text_that_nothing_obeys(name: str, form: Form) -> None:
    text = export(UNUSUAL[name], form)
    text.encode()
    assert harmless(text) and text.endswith("\n")


@pytest.mark.parametrize("form", FORMS)
def test_32_000_tokens_take_a_second_or_so(form: Form) -> None:
    of = long_trace()
    began = time.process_time()
    text = export(of, form)
    assert time.process_time() - began < SHORT_S
    if form not in ("json", "jsonl"):
        assert len(text) < 12 * len(of.thought)


@pytest.mark.parametrize("of", [trace(), long_trace(300), *UNUSUAL.values()])
def test_json_and_jsonl_are_read_back_as_they_were(of: Trace) -> None:
    strict = json.loads(export(of, "json"), parse_constant=pytest.fail)
    assert strict == to_json(of)
    assert to_json(from_json(strict)) == to_json(of) == to_json(from_jsonl(export(of, "jsonl")))


def test_json_is_indented_and_has_a_line_for_each_token() -> None:
    lines = export(trace(["Okay"] * 40), "json").split("\n")
    assert lines[1] == '  "version": 1,'
    assert sum('"text": "Okay"' in line for line in lines) == 40


def test_a_probability_of_zero_is_valid_json() -> None:
    never = Written(Token(1, "x", -math.inf, ((2, "y", -math.inf),)), "thought", "x", "", False, 0.0)
    of = replace(trace(), thought="x", tokens=(never,))
    for text in (export(of, "json"), *export(of, "jsonl").splitlines()):
        json.loads(text, parse_constant=pytest.fail)
    assert from_jsonl(export(of, "jsonl")).tokens[0].token.logprob < -1e6


def test_jsonl_can_be_read_before_its_end() -> None:
    lines = export(trace(), "jsonl").splitlines(keepends=True)
    assert [json.loads(line)["type"] for line in lines] == ["trace", *["token"] * len(trace().tokens), "end"]
    half = from_jsonl("".join(lines[:9]) + lines[9][:-8])  # cut within a line
    assert half.tokens == trace().tokens[:8] and half.ended.reason == ""
    assert half.thought == "".join(w.thought for w in half.tokens) and THOUGHT.startswith(half.thought)


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: [],
        lambda lines: lines[1:],
        lambda lines: [*lines[:2], "{", *lines[2:]],
        lambda lines: [*lines[:2], "[]", *lines[2:]],
        lambda lines: [*lines, lines[1]],
        lambda lines: [lines[0], *lines],
        lambda lines: [lines[0].replace('"version": 1', '"version": 99'), *lines[1:]],
        lambda lines: [lines[0].replace('"type"', '"tokens": 5, "type"'), '{"type": "token"}', *lines[1:]],
    ],
)
def test_jsonl_that_is_no_trace_is_refused(change: object) -> None:
    assert callable(change)
    with pytest.raises(TraceError):
        from_jsonl("\n".join(change(export(trace(), "jsonl").splitlines())) + "\n")
