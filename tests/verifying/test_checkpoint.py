"""Every check of one checkpoint fails when a path computes something else; what cannot be checked is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import machines
import numpy as np
import pytest
from verifying.conftest import STUDENT, ran, statuses

from backends.base import Text
from backends.llamacpp import LlamaCppBackend
from backends.reference import attention, fp8, model
from backends.reference.backend import ReferenceBackend
from backends.tokenizer import Tokenizer
from localr1 import cli
from localr1.verifying import engines
from localr1.verifying import subject as subjects
from localr1.verifying.bundle import bundle_checks
from localr1.verifying.checkpoint import checkpoint_checks, near_ties
from localr1.verifying.engines import engine_checks, quantization_checks
from localr1.verifying.subject import Subject
from quantize.convert import convert

Made = Callable[[Path], Subject]
WAYS = {
    "tokenizer round trips", "prefill + decode = full", "MLA naive = absorbed", "computed from FP8 storage", "FP8 activations",
    "MTP speculative = greedy",
}  # fmt: skip


@pytest.fixture
def failing(subject: Made, drawn_teacher: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], set[str]]:
    monkeypatch.setattr("localr1.verifying.checkpoint.FP8_FULL", 0.3)  # random weights turn a little noise into more

    def failing() -> set[str]:
        found = statuses(checkpoint_checks(subject(drawn_teacher)))
        assert found.keys() == WAYS
        return {name for name, status in found.items() if status != "PASS"}

    return failing


def test_a_deepseek_v3_folder_passes(failing: Callable[[], set[str]]) -> None:
    assert failing() == set()


def test_a_wrong_naive_form(failing: Callable[[], set[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    real = attention.LatentAttention._naive
    monkeypatch.setattr(attention.LatentAttention, "_naive", lambda self, q, *rest: real(self, q * 1.01, *rest))
    assert failing() == {"MLA naive = absorbed"}


def test_only_ties_between_experts_are_excused() -> None:
    """And what lies behind such a token, as far as attending to it may pull it."""
    leads = np.array([0.5, 1e-4, 0.5, 0.5, 1e-4, 0.5])
    assert near_ties(leads, np.array([0.9, 0.9, 0.01, 0.9, 0, 0])).tolist() == [False, True, True, False, False, False]
    assert near_ties(leads, np.array([0, 1e-9, 0.01, 0, 0, 0.01])).tolist() == [False] * 6
    assert not near_ties(np.full(6, np.inf), np.full(6, 0.9)).any()


def test_a_model_without_a_chat_template(subject: Made, drawn_teacher: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(drawn_teacher, tmp_path / "base"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    base = subject(folder)
    assert base.prompt("Why?") == base.reference.encode([Text("Why?")])


def test_a_naive_form_that_is_wrong_for_the_last_tokens(failing: Callable[[], set[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Which ties between experts do not explain, few as they are."""
    real = attention.LatentAttention._naive

    def wrong(self: Any, q: Any, *rest: Any) -> Any:
        q = q.copy()
        q[..., -10:, :] *= 1.1
        return real(self, q, *rest)

    monkeypatch.setattr(attention.LatentAttention, "_naive", wrong)
    assert failing() == {"MLA naive = absorbed"}


def test_positions_that_begin_anew_behind_the_cache(failing: Callable[[], set[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "angles", lambda rope, start, n, real=model.angles: real(rope, 0, n))
    assert "prefill + decode = full" in failing()


def test_wrong_fp8_arithmetic(failing: Callable[[], set[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fp8, "block_linear", lambda x, codes, scale, real=fp8.block_linear: real(x * 1.01, codes, scale))
    monkeypatch.setattr(fp8, "quantize_tiles", lambda x, ue8m0, real=fp8.quantize_tiles: (real(x)[0], real(x)[1] * 3))
    assert failing() == {"computed from FP8 storage", "FP8 activations"}


def test_text_that_gets_lost(failing: Callable[[], set[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tokenizer, "decode", lambda self, ids, real=Tokenizer.decode: real(self, ids).strip())
    assert failing() == {"tokenizer round trips"}


def test_drafts_that_nobody_checks(failing: Callable[[], set[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.reference.agreement.speculate", lambda mtp, ids, new_tokens, count: iter([5] * new_tokens))
    assert failing() == {"MTP speculative = greedy"}


def test_engines_against_the_reference(subject: Made, drawn_teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ran(engine_checks(subject(drawn_teacher)))
    assert found["llama.cpp's tokenizer = ours"].status == "PASS"
    assert found["llama.cpp = reference"].status == "PASS" and "as GGUF, F32" in found["llama.cpp = reference"].note
    assert found["MLX = reference"].status in ("PASS", "skipped")  # as the test extra has it
    monkeypatch.setattr(ReferenceBackend, "logits", lambda self, ids, real=ReferenceBackend.logits: real(self, ids) * 1.5)
    monkeypatch.setattr(LlamaCppBackend, "encode", lambda self, segments: [1])
    found = ran(engine_checks(subject(drawn_teacher)))
    assert {line.status for line in found.values()} <= {"FAIL", "skipped"} and found["llama.cpp = reference"].status == "FAIL"


def test_quantizations_of_another_format(subject: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "exam", lambda: replace(exam, windows=[w[:64] for w in exam.windows[:3]]))
    exam = subjects.exam()
    made = subject(STUDENT)
    assert statuses(quantization_checks(made)[:2]) == {"Q8_0": "PASS", "Q6_K": "PASS"}
    convert(STUDENT, made.scratch / "r1-tiny-Q8_0.gguf", "Q4_K_M", force=True)
    assert statuses(quantization_checks(made)[:1]) == {"Q8_0": "FAIL"}


def test_an_engine_that_is_not_here_is_skipped_with_the_reason(subject: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = replace(machines.LINUX, llamacpp=machines.NO_LLAMACPP)
    monkeypatch.setattr("backends.hardware.look", lambda *_: bare)
    made = subject(STUDENT)
    found = ran(engine_checks(made) + quantization_checks(made))
    assert {line.status for line in found.values()} == {"skipped"}
    assert found["MLX = reference"].note == machines.NO_MLX.missing and found["Q8_0"].note == machines.NO_LLAMACPP.missing


def test_a_model_that_has_no_room_here(subject: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.hardware.disk_free", lambda folder: 1000)
    line = ran(engine_checks(subject(STUDENT)))["llama.cpp = reference"]
    assert line.status == "skipped" and "as F32 it takes 0.0 GB, and the temporary folder has 0.0 GB free" in line.note


def test_a_large_model_reads_little(subject: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subjects, "WORK", 10**7)
    made = subject(STUDENT)
    assert (made.tokens, made.steps, [len(w) for w in made.windows]) == (12, 2, [12])
    line = ran(checkpoint_checks(made))["longer texts"]
    assert line.status == "skipped" and line.note.startswith("1 x 12 tokens are read instead of 2 x 48: 3M parameters a token")


def test_a_bundle_without_its_teacher(tmp_path: Path) -> None:
    shutil.copytree(STUDENT.parent / "goldens", tmp_path / "assets" / "goldens")
    shutil.copytree(STUDENT, tmp_path / "assets" / "r1-tiny")
    (tmp_path / "assets" / "r1-tiny" / "config.json").write_text("{")
    last, teacher = (check.run() for check in bundle_checks(tmp_path / "assets", tmp_path)[-2:])
    assert [line.status for line in (*last, *teacher)] == ["FAIL", "skipped"]


def test_a_persons_own_checkpoint(drawn_teacher: Path, subject: Made, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("localr1.verifying.checkpoint.FP8_FULL", 0.3)
    subject(drawn_teacher)  # briefly
    assert cli.main(["verify", str(drawn_teacher), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == "r1-tiny-teacher" and found["passed"] and len(found["lines"]) == len(WAYS) + 3
    monkeypatch.setattr("localr1.verifying.checkpoint.FP8_FULL", 0)
    assert cli.main(["verify", str(drawn_teacher)]) == 1
    out, err = capsys.readouterr()
    assert "FAIL" in out and err == ""
    assert np.isfinite(found["lines"][0]["figure"])
