"""The table of `localr1 verify`: what passes, what fails, what cannot be checked."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from localr1.verifying.lines import Check, Line, Skipped, gate, measured, passed, run_checks, tell


def test_a_figure_passes_up_to_its_tolerance() -> None:
    assert [gate("", x, 0.5).status for x in (0.0, 0.5, 0.51, float("nan"), float("inf"))] == ["PASS", "PASS", "FAIL", "FAIL", "FAIL"]
    assert gate("", float("nan"), 0.5, note="x") == Line("", "FAIL", None, 0.5, "", "the figure is nan; x")


def test_what_a_check_raises_becomes_a_line_and_what_it_found_before_stays() -> None:
    def broken() -> Iterator[Line]:
        yield gate("first", 0, 0)
        raise ValueError("two\nlines")

    def missing() -> Iterator[Line]:
        raise Skipped("no engine")
        yield

    lines = run_checks([Check("a", broken), Check("b", missing), Check("c", lambda: [measured("c", 2.5)])])
    assert [(line.name, line.status, line.note) for line in lines] == [
        ("first", "PASS", ""), ("a", "FAIL", "ValueError: two lines"), ("b", "skipped", "no engine"), ("c", "measured", ""),
    ]  # fmt: skip
    assert not passed(lines) and passed([lines[0], *lines[2:]])


def test_told_as_a_table_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        gate("codes", 0, 0, "wrong"),
        gate("logits", 0.0123456, 0.001, "nats KL", "a\x1b[31m note"),
        Line("mlx", "skipped", note="none"),
    ]
    assert not tell(lines, "the bundle", 0.0, False)
    table = capsys.readouterr().out.splitlines()
    assert table[1].split() == ["codes", "PASS", "0", "wrong", "0"] and "0.0123 nats KL" in table[2] and "␛[31m" in table[2]
    assert table[-1].startswith("FAIL: 1 passed, 1 failed, 1 skipped in ")
    assert not tell(lines, "the bundle", 0.0, True)
    found = json.loads(capsys.readouterr().out)
    assert found.keys() == {"version", "model", "passed", "seconds", "lines"} and (found["version"], found["passed"]) == (2, False)
    assert found["lines"][1] == {
        "name": "logits", "status": "FAIL", "figure": 0.0123456, "tolerance": 0.001, "unit": "nats KL", "note": "a\x1b[31m note",
    }  # fmt: skip
