"""`localr1 verify --teacher`: figures of a drawn stand-in, told as a table, as JSON and as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from verifying.conftest import STUDENT

from backends.compare import Comparison
from backends.reference import agreement, fp8
from localr1 import cli, paths
from localr1.verifying import teacher
from localr1.verifying.lines import run_checks
from localr1.verifying.subject import Subject
from localr1.verifying.teacher import Measured, loss_error, teacher_checks


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    def recipe(*names: str, real=teacher.recipe) -> Iterator[ModuleType]:
        data, rewards = real(*names)
        data.FAMILIES = {name: data.FAMILIES[name] for name in ("letters", "add")}
        return data, rewards

    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(teacher, "recipe", recipe)
    monkeypatch.setattr(teacher, "NEW_TOKENS", 6)
    material = teacher.exam()
    monkeypatch.setattr(teacher, "exam", lambda: replace(material, windows=[w[:48] for w in material.windows[:2]]))
    monkeypatch.setattr("localr1.verifying.checkpoint.FP8_FULL", 0.3)
    monkeypatch.setattr("localr1.verifying.subject.WINDOW_TOKENS", 48)
    monkeypatch.setattr("localr1.verifying.subject.WINDOWS", 2)


NAMES = [
    "right: letters", "right: add", "right: all, --fp8 off", "right: all, --fp8 weights", "right: all, --fp8 full", "right: lost by --fp8 full",
    "FP8: KL of weights", "FP8: relative loss error of weights", "FP8: KL of full", "FP8: relative loss error of full",
    "MTP: second tokens accepted", "MTP: tokens a forward pass", "MTP: decoding is so many times as fast", "MTP: the same greedy text",
    "MLA: cache of a token", "MLA: keys and values of all heads", "MLA naive = absorbed",
    "routing, layer 1: busiest expert",
]  # fmt: skip


def test_figures_of_a_checkpoint(drawn_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["verify", str(drawn_teacher), "--teacher", "--problems", "1"]
    assert cli.main([*command, "--json", "--svg", str(tmp_path / "e.svg")]) == 0
    found = json.loads(capsys.readouterr().out)
    lines = {line["name"]: line for line in found["lines"]}
    assert list(lines) == NAMES and found["passed"]
    assert (lines["MLA: cache of a token"]["figure"], lines["MLA: keys and values of all heads"]["figure"]) == (
        2 * 4 * (136 + 16), 2 * 4 * 4 * (32 + 16 + 40),
    )  # fmt: skip
    assert 1 <= lines["routing, layer 1: busiest expert"]["figure"] <= 16 and lines["FP8: KL of weights"]["figure"] < 1e-9
    svg = (tmp_path / "e.svg").read_text()
    assert svg.count("<title>") == 2 * 16 and "layer 1, letters, expert 0" in svg
    assert cli.main([*command, "--markdown"]) == 0
    out = capsys.readouterr().out
    assert "| letters | 0.0% | 0.0% | 0.0% |" in out and "| MTP: the same greedy text | 0 texts differ | 0 | PASS; 2 replies" in out


def test_what_fails(drawn_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Measured(Subject("t", drawn_teacher, tmp_path), 1)
    monkeypatch.setattr(fp8, "block_linear", lambda x, codes, scale, real=fp8.block_linear: real(x * 1.1, codes, scale))
    monkeypatch.setattr(fp8, "quantize_tiles", lambda x, ue8m0, real=fp8.quantize_tiles: (real(x)[0], real(x)[1] * 3))
    monkeypatch.setattr(agreement, "speculate", lambda mtp, ids, new_tokens, count: iter([5] * new_tokens))
    failed = {line.name for line in run_checks(teacher_checks(found)) if line.status == "FAIL"}
    assert failed == {"FP8: KL of weights", "FP8: KL of full", "MTP: the same greedy text"}
    found.problems = 100
    found.right = {"off": {"add": 90.0}, "weights": {"add": 90.0}, "full": {"add": 85.0}}
    assert [line.status for line in teacher.accuracy_lost(found)] == ["measured", "measured", "measured", "FAIL"]


def test_a_reply_counts_by_its_answer_behind_the_thought(drawn_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Measured(Subject("t", drawn_teacher, tmp_path), 2)
    found.__dict__["drafter"] = None
    replies = iter(["It is **7**.</think>\n\n**8**"] * 3 + ["**8**"] * 3)
    monkeypatch.setattr(found.subject.reference, "decode", lambda ids: next(replies))
    problems = [SimpleNamespace(question="?")] * 2
    data = SimpleNamespace(evaluation=lambda seed, family: iter(problems))
    rewards = SimpleNamespace(right=lambda problem, answer: answer == "**8**")
    (line,) = teacher.accuracy(found, data, rewards, "add")
    assert line.figure == 50 and line.status == "measured" and "50.0% with --fp8 full" in line.note


def test_loss_error_is_of_the_logarithm() -> None:
    assert loss_error(Comparison(1, 0, 0, 1, baseline_perplexity=2.0, perplexity=4.0)) == pytest.approx(1.0)


def test_drafts_change_the_time_and_not_the_tokens(drawn_teacher: Path) -> None:
    from backends.reference.model import Model

    model, prompt = Model.open(drawn_teacher), [3, 1, 4]
    tokens, leads = agreement.greedy(model, prompt, 9)
    for draft in (tokens, tokens[:4], [*tokens[:4], 0, 0], [0], [*tokens, 5, 5], [0, *tokens]):
        again, leads_again = agreement.greedy(model, prompt, 9, draft=draft)
        assert again == tokens and leads_again == pytest.approx(leads, abs=1e-4)
    stopped, _ = agreement.greedy(model, prompt, 9, frozenset({tokens[3]}), tokens)
    assert stopped == tokens[: tokens.index(tokens[3])]


def test_what_cannot_be_measured(
    drawn_teacher: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["verify", str(STUDENT), "--teacher"]) == 1
    assert "is no DeepSeek-V3 model with the bundled tokens" in capsys.readouterr().err
    monkeypatch.setattr(paths, "assets", lambda: tmp_path)
    assert cli.main(["verify", "--teacher"]) == 1
    assert "the bundled teacher is missing" in capsys.readouterr().err
    for wrong in (["--teacher", "--against", "x"], ["--problems", "3"], ["--markdown"], ["--teacher", "--markdown", "--json"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(["verify", *wrong])
        assert ended.value.code == 2
