"""`localr1 quantize` as people and programs see it: lines, tables, one JSON object, a page; exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backends.base import EngineError
from localr1 import converting, paths, student
from localr1.cli import main
from quantize import evaluate
from quantize.convert import convert
from quantize.gguf_reader import read_gguf_header

STUDENT = paths.assets() / "r1-tiny"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """`localr1 quantize` in this process -> exit code, stdout, stderr. A small exam, and no signal handlers left behind."""
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(evaluate, "MOST_WINDOWS", {"gguf": 2, "reference": 1})
    monkeypatch.setattr(student, "PROBLEMS", 1)

    def call(*arguments: object) -> tuple[int, str, str]:
        try:
            code = main(["quantize", *map(str, arguments)])
        except SystemExit as error:
            code = int(error.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The student's weights in another folder: a small model that is not the bundled one."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in STUDENT.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_the_bundled_model_is_read_asked_and_told_of(run: Run, tmp_path: Path) -> None:
    code, out, err = run(STUDENT, tmp_path / "m.gguf", "--to", "Q4_K_M")
    assert code == 0, err
    first, *rest = out.splitlines()
    assert first.startswith(f"{tmp_path / 'm.gguf'}: qwen2, 51 tensors, 2.0 MB, 4.87 bits per weight (Q4_K_M), ")
    said = {line[:10].strip(): line[10:].strip() for line in rest if line[:10].strip()}
    assert list(said) == ["source", "error", "loss", "right"]
    assert said["source"] == "6.6 MB of weights, 3.27 times as large"
    assert said["error"].startswith("6.3% on average; most in blk.0.ffn_down 7.37% (Q4_K), ") and said["error"].count("(Q4_K)") == 3
    assert "nats on average" in said["loss"] and "perplexity" in out and "likeliest token the same for" in out
    assert "% of problems" in said["right"]
    assert "source-BF16.gguf" in err and "removed afterwards" in err
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


def test_json_is_one_object_alone_on_stdout(run: Run, tmp_path: Path) -> None:
    code, out, _ = run(STUDENT, tmp_path / "m.gguf", "--to", "Q8_0", "--json")
    found = json.loads(out)
    assert (code, found["version"], found["format"], found["target"]) == (0, 1, "Q8_0", str(tmp_path / "m.gguf"))
    evaluation = found["evaluation"]
    assert 0 < evaluation["kl_mean"] < 0.01 and evaluation["material"] == "conversations that r1-tiny was not trained on"
    assert evaluation["baseline_perplexity"] < 20  # of prose, which it does not know, it is thousands
    assert list(evaluation["tasks"]) == ["letters", "add", "subtract", "multiply", "compare", "filter", "talk"]
    assert all(shares.keys() == {"source", "target"} for shares in evaluation["tasks"].values())
    assert len(found["tensors"]) == len(read_gguf_header(tmp_path / "m.gguf").tensors)


def test_any_other_model_reads_the_held_out_text(run: Run, copy: Path, tmp_path: Path) -> None:
    code, out, _ = run(copy, tmp_path / "m.gguf", "--to", "Q8_0", "--json", "--eval")
    assert code == 0
    assert json.loads(out)["evaluation"]["material"] == "the held-out text" and json.loads(out)["evaluation"]["tasks"] == {}


def test_no_eval_runs_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converting, "evaluate", lambda *_, **__: pytest.fail("evaluated"))
    code, out, err = run(STUDENT, tmp_path / "m.gguf", "--to", "Q8_0", "--no-eval")
    assert (code, err) == (0, "") and "not measured: --no-eval" in out


def test_large_models_are_run_when_asked(run: Run, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "DEFAULT_BELOW", 1000)
    code, out, err = run(copy, tmp_path / "a.gguf", "--to", "Q8_0")
    assert (code, err) == (0, "") and "not measured: that runs two models of 3M parameters; --eval does it" in out
    code, out, _ = run(copy, tmp_path / "b.gguf", "--to", "Q8_0", "--eval")
    assert code == 0 and "KL divergence" in out


def test_what_cannot_be_evaluated_is_told_before_anything_starts(run: Run, tmp_path: Path) -> None:
    code, out, err = run(STUDENT, tmp_path / "mlx", "--to", "mlx-4bit", "--eval")
    assert (code, out) == (1, "")
    assert err == "localr1: --eval is not possible: nothing here runs MLX folders yet; leave it away\n"
    assert list(tmp_path.iterdir()) == []


def test_report_prints_every_tensor(run: Run, tmp_path: Path) -> None:
    code, out, _ = run(STUDENT, tmp_path / "m.gguf", "--to", "Q4_K_M", "--no-eval", "--report")
    lines = [line.split() for line in out.splitlines()]
    assert code == 0
    for tensor in read_gguf_header(tmp_path / "m.gguf").tensors:
        row = next(line for line in lines if line[:1] == [tensor.name])
        assert tensor.format is not None and tensor.format.name in row and f"{tensor.nbytes:,}" in row
    assert ["format", "tensors", "parameters", "bytes", "bits", "RMSE", "rel.", "error"] in lines
    assert next(line for line in lines if line[:1] == ["Q6_K"])[1:3] == ["5", "540,672"]


def test_report_writes_a_page(run: Run, tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    code, out, err = run(STUDENT, tmp_path / "m.gguf", "--to", "Q4_0", "--no-eval", "--report", page, "--json")
    assert code == 0 and json.loads(out) and f"the report is in {page}" in err
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>") and "Q5_K_M" in text and "blk.3.attn_v.weight" in text
    convert(STUDENT, tmp_path / "plain.gguf", "F32")
    code, _, err = run(tmp_path / "plain.gguf", tmp_path / "n.gguf", "--to", "Q4_0", "--no-eval", "--report", page)
    assert code == 1 and "exists already" in err and not (tmp_path / "n.gguf").exists()
    assert run(tmp_path / "plain.gguf", tmp_path / "n.gguf", "--to", "Q4_0", "--no-eval", "--report", page, "--force")[0] == 0
    assert "n.gguf" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["none/r.html", "folder.html"])
def test_a_page_that_cannot_be_made_is_told_before_anything_starts(name: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "folder.html").mkdir()
    code, out, err = run(STUDENT, tmp_path / "m.gguf", "--to", "Q4_0", "--report", tmp_path / name, "--force")
    assert (code, out) == (1, "") and len(err.splitlines()) == 1
    assert not (tmp_path / "m.gguf").exists()


def test_a_report_before_the_target_is_wrong_usage(run: Run, tmp_path: Path) -> None:
    """argparse gives --report the next word, which would be DST."""
    code, out, err = run(STUDENT, "--to", "Q4_0", "--report", tmp_path / "m.gguf")
    assert (code, out) == (2, "") and "write a --report without one behind SRC and DST" in err


def test_a_failing_evaluation_leaves_the_target_and_says_so(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise EngineError("the engine broke; try again")

    monkeypatch.setattr(converting, "evaluate", fail)
    code, out, err = run(STUDENT, tmp_path / "m.gguf", "--to", "Q8_0")
    assert code == 1 and (tmp_path / "m.gguf").exists()
    assert "8.53 bits per weight" in out and "not measured: the engine broke; try again" in out
    assert (
        err.splitlines()[-1]
        == f"localr1: {tmp_path / 'm.gguf'} is written; what it says could not be measured: the engine broke; try again"
    )


def test_ctrl_c_while_evaluating_keeps_the_target(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(converting, "evaluate", interrupt)
    code, out, _ = run(STUDENT, tmp_path / "m.gguf", "--to", "Q8_0", "--json")
    assert (code, json.loads(out)["not_evaluated"]) == (130, "interrupted")
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


def test_the_recipe_leaves_no_module_behind() -> None:
    """Its files are called data, model, compare: names that others use too."""
    before, path = set(sys.modules), list(sys.path)
    material = student.exam()
    assert {name for name in set(sys.modules) - before if "." not in name} & {
        "data",
        "evaluate",
        "problem",
        "talk",
        "tokenizer",
        "compare",
    } == set()
    assert sys.path == path
    assert len(material.windows) == 16 and {len(window) for window in material.windows} == {512}
    assert material.windows == student.exam().windows  # the same each time
