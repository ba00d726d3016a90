"""`localr1 quantize` as people and programs see it: lines, tables, one JSON object, a page; exit codes."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backends.base import EngineError
from localr1 import converting, paths, student
from localr1.cli import main
from quantize import evaluate, sensitivity, unquantized
from quantize.convert import convert
from quantize.gguf_reader import read_gguf_header
from quantize.imatrix import ImportanceMatrix

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


@pytest.mark.parametrize("target", ["", "/"])
def test_a_target_without_a_name_with_calibration(run: Run, target: str) -> None:
    code, out, err = run(STUDENT, target, "--to", "Q8_0", "--calibrate")
    assert (code, out) == (1, "") and "is a folder" in err and len(err.splitlines()) == 1


def test_a_matrix_that_could_not_be_kept_is_told_before_it_is_made(run: Run, tmp_path: Path) -> None:
    code, out, err = run(STUDENT, tmp_path / ("x" * 230), "--to", "Q8_0", "--no-eval", "--calibrate")
    assert (code, out) == (1, "") and "shorter name" in err and len(err.splitlines()) == 1


def test_a_text_to_calibrate_with_whose_name_is_no_unicode(run: Run, brief: Path, tmp_path: Path) -> None:
    named = brief.rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt"))
    code, _, err = run(STUDENT, tmp_path / "m.gguf", "--to", "Q8_0", "--no-eval", "--calibrate", named)
    assert code == 0, err
    assert ImportanceMatrix.read(tmp_path / "m.gguf.imatrix.gguf").datasets == ("caf\ufffd.txt",)


def test_a_model_card_that_is_a_link_is_no_reason_against_a_gguf_file(run: Run, copy: Path, tmp_path: Path) -> None:
    card = (copy / "README.md").rename(tmp_path / "README.md")
    (copy / "README.md").symlink_to(card)
    code, _, err = run(copy, tmp_path / "m.gguf", "--to", "Q8_0")
    assert code == 0, err


def test_the_bundled_model_is_read_asked_and_told_of(run: Run, tmp_path: Path) -> None:
    code, out, err = run(STUDENT, tmp_path / "m.gguf", "--to", "Q4_K_M")
    assert code == 0, err
    first, *rest = out.splitlines()
    assert first.startswith(f"{tmp_path / 'm.gguf'}: qwen2, 51 tensors, 2.0 MB, 4.87 bits per weight (Q4_K_M), ")
    said = {line[:10].strip(): line[10:].strip() for line in rest if line[:10].strip()}
    assert list(said) == ["source", "error", "loss", "right"]
    assert said["source"] == "6.6 MB of weights, 3.27 times as large"
    assert (
        re.match(r"6\.3\d?% on average; most in blk\.0\.ffn_down 7\.3\d% \(Q4_K\), ", said["error"]) and said["error"].count("(Q4_K)") == 3
    )
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
    assert err == "localr1: --eval is not possible: of MLX folders, `localr1 verify SOURCE --against FOLDER` tells; leave it away\n"
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


# ------------------------------------------------------------------------------------------------------------- --fit


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A text to measure with that takes no time, and an empty cache."""
    monkeypatch.setattr(unquantized, "MOST_TOKENS", 128)
    monkeypatch.setattr(sensitivity, "SAMPLE", 1 << 14)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text = tmp_path / "text.txt"
    text.write_text("How many r's are in strawberry? Let me count them, one letter at a time. " * 30)
    return text


def test_fit_chooses_tells_and_notes(run: Run, brief: Path, tmp_path: Path) -> None:
    target = tmp_path / "m.gguf"
    code, out, err = run(STUDENT, target, "--fit", "1.9MB", "--calibrate", brief, "--no-eval")
    assert code == 0, err
    assert 1_850_000 < target.stat().st_size <= 1_900_000
    note = json.loads(read_gguf_header(target).metadata["localr1.fit"])
    held = {t.name: t.format.name for t in read_gguf_header(target).tensors if t.format is not None}
    assert note["budget_bytes"] == 1_900_000 and {name: held[name] for name in note["tensors"]} == {
        n: t[0] for n, t in note["tensors"].items()
    }
    lines = [line.split() for line in out.splitlines()]
    assert ["tensors", "formats", "(layers)", "MB", "bits", "expected", "KL", "share"] in lines
    assert any(line[:1] == ["blk.*.ffn_down"] for line in lines) and any(line[:2] == ["this", "plan"] for line in lines)
    assert any(line[:1] == ["IQ4_XS"] for line in lines)  # the nearest named mix
    assert "(fit)" in out and "source-F32.gguf" in err and not list(tmp_path.glob("*.part"))
    assert len(list((tmp_path / "cache").rglob("*gains.json"))) == 1

    code, out, err = run(STUDENT, tmp_path / "n.gguf", "--fit", "1.9MB", "--calibrate", brief, "--no-eval", "--json")
    plan = json.loads(out)["plan"]
    assert code == 0 and "source-F32.gguf" not in err  # measured already
    assert (tmp_path / "n.gguf").read_bytes() == target.read_bytes()
    assert plan["budget_bytes"] == 1_900_000 and plan["size_bytes"] >= target.stat().st_size
    assert plan["expected_kl"] < min(mix["expected_kl"] for mix in plan["named_mixes"])
    assert {t["name"]: t["format"] for t in plan["tensors"]} == {name: held[name] for name in note["tensors"]}


def test_fit_makes_a_folder_for_mlx(run: Run, brief: Path, tmp_path: Path) -> None:
    page = tmp_path / "r.html"
    code, _, err = run(STUDENT, tmp_path / "mlx", "--fit", "1.9MB", "--to", "mlx", "--calibrate", brief, "--report", page)
    assert code == 0, err
    assert sum(file.stat().st_size for file in (tmp_path / "mlx").iterdir()) <= 1_900_000
    assert "The plan for 1.9 MB" in page.read_text(encoding="utf-8")


def test_fit_auto_asks_the_machine(run: Run, brief: Path, tmp_path: Path) -> None:
    code, out, err = run(STUDENT, tmp_path / "m.gguf", "--fit", "auto", "--context", 1000, "--no-eval")
    assert code == 0 and "--fit auto: memory leaves" in err
    assert "room for more than the largest formats" in out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "give --to FORMAT"),
        (["--fit", "1MB", "--to", "Q4_K_M"], "--fit chooses the formats itself"),
        (["--to", "mlx"], "--to mlx goes with --fit SIZE"),
        (["--to", "Q99"], "Q99"),
        (["--to", "mlx-9bit"], "mlx-9bit"),
        (["--fit", "many"], "'many' is no size; give one such as 6GB"),
        (["--fit", "1MB", "--context", "10"], "--context goes with --fit auto"),
        (["--to", "fp8", "--calibrate"], "fp8 has no use for an importance matrix"),
    ],
)
def test_flags_that_do_not_go_together_are_wrong_usage(flags: list[str], said: str, run: Run, tmp_path: Path) -> None:
    code, out, err = run(STUDENT, tmp_path / "m.gguf", *flags)
    assert (code, out) == (2, "") and said in err


def test_a_size_too_small_says_what_the_smallest_is(run: Run, tmp_path: Path) -> None:
    code, out, err = run(STUDENT, tmp_path / "m.gguf", "--fit", "200kB")
    assert (code, out) == (1, "") and "the smallest that this model can be made is" in err and len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_calibrating_an_existing_target_is_told_before_it_starts(run: Run, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"mine")
    code, _, err = run(STUDENT, tmp_path / "m.gguf", "--to", "Q4_0", "--calibrate")
    assert code == 1 and "exists already" in err and (tmp_path / "m.gguf").read_bytes() == b"mine"
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


def test_weights_that_are_no_numbers_pass_when_allowed(run: Run, copy: Path, tmp_path: Path) -> None:
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-2:] = b"\xc0\x7f"  # NaN in BF16
    weights.write_bytes(data)
    code, _, err = run(copy, tmp_path / "m.gguf", "--to", "Q8_0")
    assert code == 1 and "--allow-nan" in err and len(err.splitlines()) == 1
    code, out, err = run(copy, tmp_path / "m.gguf", "--to", "Q8_0", "--allow-nan")
    assert code == 0 and "1 weight is infinite or not a number" in err and "predicts none" in out
    assert run(copy, tmp_path / "n.gguf", "--fit", "2MB", "--allow-nan")[0] == 2
