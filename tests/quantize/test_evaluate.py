"""What a conversion changed in what the model says: sound figures, nothing left behind, and only where it was wanted."""

from __future__ import annotations

import math
import shutil
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends import compare
from backends.base import Backend, EngineError, ModelFileError, Special, Text
from backends.checkpoint import Checkpoint
from backends.llamacpp import LlamaCppBackend
from localr1 import paths
from quantize import evaluate as module
from quantize.calibrate import heldout
from quantize.convert import convert
from quantize.evaluate import Evaluation, Material, NotEvaluated, Plan, evaluate, plan

STUDENT = paths.assets() / "r1-tiny"
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def little_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_WINDOWS", {"gguf": 3, "reference": 2})


def converted(source: Path, target: Path, to: str) -> Evaluation:
    planned = plan(source, target, to)
    convert(source, target, to)
    return evaluate(planned)


def numbers(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


# ------------------------------------------------------------------------------------------------------- figures


def test_fewer_bits_lose_more(tmp_path: Path) -> None:
    """The same held-out text through four formats of the bundled student. KL at 8 bits is a thousandth of what it is at 2."""
    found = {to: converted(STUDENT, tmp_path / f"{to}.gguf", to).comparison for to in ("BF16", "Q8_0", "Q4_K_M", "Q2_K")}
    kl, agree = [c.kl_mean for c in found.values()], [c.top1_agreement for c in found.values()]
    assert kl == sorted(kl) and agree == sorted(agree, reverse=True)
    assert kl[0] < 1e-12 and agree[0] == 1  # the baseline is such a file
    assert 1e-4 < kl[1] < 0.02 and kl[3] > 50 * kl[1]
    assert all(c.kl_mean < c.kl_p99 < 50 and c.tokens == 3 * 255 for c in list(found.values())[1:])
    assert len({c.baseline_perplexity for c in found.values()}) == 1
    assert numbers(tmp_path) == sorted(f"{to}.gguf" for to in found)


def test_what_is_compared_is_what_the_two_files_say(tmp_path: Path) -> None:
    """The figures anew, from the logits of the source's own BF16 file and of the target: 512 tokens at a time, BOS in front."""
    found = converted(STUDENT, tmp_path / "q4.gguf", "Q4_0")
    convert(STUDENT, tmp_path / "plain.gguf", "BF16")
    logits = []
    for path in (tmp_path / "plain.gguf", tmp_path / "q4.gguf"):
        with LlamaCppBackend(path, 512) as backend:
            bos = backend.encode([Special(backend.chat_format.bos_token)])
            ids = bos + backend.encode([Text(heldout())])
            windows = [bos + ids[i + 1 : i + 512] for i in range(0, 3 * 512, 512)]
            logits.append(np.concatenate([backend.logits(window)[256:511] for window in windows]).astype(np.float64))
    log_p, log_q = (x - np.logaddexp.reduce(x, axis=1)[:, None] for x in logits)
    kl = (np.exp(log_p) * (log_p - log_q)).sum(1)
    came = np.concatenate([window[257:] for window in windows])
    assert found.comparison.kl_mean == pytest.approx(kl.mean(), rel=1e-4)
    assert found.comparison.kl_p99 == pytest.approx(np.percentile(kl, 99), rel=1e-4)
    assert found.comparison.top1_agreement == (log_p.argmax(1) == log_q.argmax(1)).mean()
    assert found.comparison.perplexity == pytest.approx(np.exp(-log_q[np.arange(765), came].mean()), rel=1e-6)
    assert (found.engine, found.baseline, found.windows, found.window_tokens) == ("gguf", "BF16", 3, 512)


def test_scores_that_do_not_fit_memory_go_through_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory = converted(STUDENT, tmp_path / "a.gguf", "Q4_0")
    monkeypatch.setattr(module, "MEMORY_BYTES", 1000)
    seen: list[Path | None] = []
    read = compare.read

    def watched(backend: Any, windows: Any, scratch: Path | None, told: Any) -> compare.Baseline:
        seen.append(scratch)
        return read(backend, windows, scratch, told)

    monkeypatch.setattr(compare, "read", watched)
    filed = converted(STUDENT, tmp_path / "b.gguf", "Q4_0")
    assert seen[0] is not None and seen[0].parent.parent == tmp_path
    assert filed.comparison.kl_mean == pytest.approx(in_memory.comparison.kl_mean, rel=1e-4)
    assert filed.comparison.perplexity == in_memory.comparison.perplexity
    assert numbers(tmp_path) == ["a.gguf", "b.gguf"]


def test_a_gguf_source_runs_as_it_is(tmp_path: Path) -> None:
    convert(STUDENT, tmp_path / "plain.gguf", "F32")
    planned = plan(tmp_path / "plain.gguf", tmp_path / "m.gguf", "Q4_0")
    assert (planned.baseline, planned.baseline_bytes, planned.vocabulary, planned.window_tokens) == (None, 0, 320, 512)
    convert(tmp_path / "plain.gguf", tmp_path / "m.gguf", "Q4_0")
    said: list[str] = []
    found = evaluate(planned, say=said.append)
    assert found.baseline is None and found.comparison.kl_mean > 0.01 and said == []


def test_an_fp8_folder_and_its_source_run_in_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from backends.reference.backend import ReferenceBackend

    opened: list[Path] = []
    real = ReferenceBackend.__init__
    monkeypatch.setattr(ReferenceBackend, "__init__", lambda self, folder, *rest: (opened.append(folder), real(self, folder, *rest))[1])
    material = Material("some", [[5, 6, 7, 8] * 8] * 9, lambda backend, told: pytest.fail("numpy would take minutes"))
    planned = plan(STUDENT, tmp_path / "fp8", "fp8")
    convert(STUDENT, tmp_path / "fp8", "fp8")
    found = evaluate(planned, material)
    assert opened == [STUDENT, tmp_path / "fp8"]
    assert (found.engine, found.baseline, found.windows, found.tasks) == ("reference", None, 2, {})
    assert 0 < found.comparison.kl_mean < 1


def test_material_of_the_models_own(tmp_path: Path) -> None:
    """Its windows are read, and both models are asked: one after the other, with the model's whole context."""
    asked: list[tuple[str, int]] = []

    def tasks(backend: Backend, told: Callable[[int, int], None]) -> dict[str, float]:
        told(1, 2)
        asked.append((backend.info.format, backend.info.context_length))
        return {"easy": 1.0, "hard": 0.5 if backend.info.format == "BF16" else 0.25}

    planned = plan(STUDENT, tmp_path / "m.gguf", "Q8_0")
    convert(STUDENT, tmp_path / "m.gguf", "Q8_0")
    told: list[tuple[str, int, int]] = []
    found = evaluate(planned, Material("riddles", [[7] * 64] * 5, tasks), on_progress=lambda *step: told.append(step))
    assert asked == [("BF16", 4096), ("Q8_0", 4096)]
    assert found.tasks == {"easy": (1.0, 1.0), "hard": (0.5, 0.25)}
    assert (found.material, found.windows, found.comparison.tokens) == ("riddles", 3, 3 * 31)
    what = [step[0] for step in told]
    assert (
        what.index("the source as BF16")
        < what.index("the source reads")
        < what.index("the source answers")
        < what.index("the target reads")
    )
    assert ("the target reads", 3, 3) in told and told[-1] == ("the target answers", 1, 2)


# ------------------------------------------------------------------------------------------------------- the temporary file


def test_the_sources_file_has_a_name_that_is_said_and_goes(tmp_path: Path) -> None:
    said: list[str] = []
    there: list[list[str]] = []

    def watch(what: str, done: int, total: int) -> None:
        if what == "the source reads":
            there.append(sorted(str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.gguf")))

    planned = plan(STUDENT, tmp_path / "m.gguf", "Q8_0")
    convert(STUDENT, tmp_path / "m.gguf", "Q8_0")
    evaluate(planned, say=said.append, on_progress=watch)
    assert len(said) == 1 and "removed afterwards" in said[0]
    name = next(name for name in there[0] if name != "m.gguf")
    assert str(tmp_path / name) in said[0] and name.startswith("m.gguf.") and name.endswith(".part/source-BF16.gguf")
    assert numbers(tmp_path) == ["m.gguf"]


@pytest.mark.parametrize("phase", ["the source as BF16", "the source reads", "the target reads"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_stop_leaves_the_target_alone(phase: str, error: type[BaseException], tmp_path: Path) -> None:
    planned = plan(STUDENT, tmp_path / "m.gguf", "Q8_0")
    convert(STUDENT, tmp_path / "m.gguf", "Q8_0")

    def stop(what: str, done: int, total: int) -> None:
        if what == phase:
            raise error

    with pytest.raises(error):
        evaluate(planned, on_progress=stop)
    assert numbers(tmp_path) == ["m.gguf"]


def test_a_killed_evaluations_file_goes_with_the_next(tmp_path: Path) -> None:
    left = tmp_path / "m.gguf.localr1-0123abcd.part"
    left.mkdir()
    (left / "source-BF16.gguf").write_bytes(b"GGUF")
    converted(STUDENT, tmp_path / "m.gguf", "Q8_0")
    assert numbers(tmp_path) == ["m.gguf"]


def test_a_target_that_does_not_run_is_an_error(tmp_path: Path) -> None:
    planned = plan(STUDENT, tmp_path / "m.gguf", "Q8_0")
    (tmp_path / "m.gguf").write_bytes(b"GGUF broken")
    with pytest.raises(ModelFileError, match=r"m\.gguf cannot be loaded"):
        evaluate(planned)
    assert numbers(tmp_path) == ["m.gguf"]


def test_a_full_disk_while_scores_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMORY_BYTES", 1000)
    planned = plan(STUDENT, tmp_path / "m.gguf", "Q8_0")
    convert(STUDENT, tmp_path / "m.gguf", "Q8_0")

    def full(*_: object, **__: object) -> Any:
        raise OSError(28, "No space left on device")

    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *rest, **more: full() if self.name == "scores" else real(self, *rest, **more))
    with pytest.raises(EngineError, match=r"scores: cannot be written \(No space left on device\)"):
        evaluate(planned)
    assert numbers(tmp_path) == ["m.gguf"]


# ------------------------------------------------------------------------------------------------------- the plan


def test_small_models_by_default_and_large_ones_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = 3_313_920
    monkeypatch.setattr(module, "DEFAULT_BELOW", parameters + 1)
    assert isinstance(plan(STUDENT, tmp_path / "m.gguf", "Q8_0"), Plan)
    monkeypatch.setattr(module, "DEFAULT_BELOW", parameters)
    with pytest.raises(NotEvaluated, match=r"3M parameters; --eval does it"):
        plan(STUDENT, tmp_path / "m.gguf", "Q8_0")
    assert isinstance(plan(STUDENT, tmp_path / "m.gguf", "Q8_0", asked=True), Plan)
    convert(STUDENT, tmp_path / "plain.gguf", "F32")
    with pytest.raises(NotEvaluated, match="--eval does it"):
        plan(tmp_path / "plain.gguf", tmp_path / "m.gguf", "Q8_0")


def test_scales_of_fp8_weights_are_no_parameters(make_golden: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_golden("deepseek_v3-fp8").folder
    with Checkpoint.open(folder) as checkpoint:
        parameters = sum(math.prod(checkpoint.shape(name)) for name in checkpoint.names() if not name.endswith("_scale_inv"))
    monkeypatch.setattr(module, "DEFAULT_BELOW", parameters + 1)
    assert plan(folder, tmp_path / "x.gguf", "Q8_0").baseline == "BF16"
    monkeypatch.setattr(module, "DEFAULT_BELOW", parameters)
    with pytest.raises(NotEvaluated):
        plan(folder, tmp_path / "x.gguf", "Q8_0")


def test_mlx_folders_are_not_run_yet(tmp_path: Path) -> None:
    for asked in (False, True):
        with pytest.raises(NotEvaluated, match="of MLX folders, `localr1 verify SOURCE --against FOLDER` tells"):
            plan(STUDENT, tmp_path / "mlx", "mlx-4bit", asked=asked)


@pytest.mark.parametrize(("dtype", "mix"), [("bfloat16", "BF16"), ("float16", "F16"), ("float32", "F32")])
def test_the_source_runs_without_being_rounded(make_checkpoint: Any, dtype: str, mix: str, tmp_path: Path) -> None:
    import ml_dtypes

    made = make_checkpoint("qwen2", dtype=np.dtype(getattr(ml_dtypes, dtype, dtype)))
    assert plan(made.folder, tmp_path / "m.gguf", "Q8_0").baseline == mix


def test_a_source_of_two_types_runs_in_one_that_holds_both(make_checkpoint: Any, rewrite: Any, tmp_path: Path) -> None:
    made = make_checkpoint("qwen2")
    wide = {name: t.astype(np.float16) if "down_proj" in name else t for name, t in made.tensors.items()}
    rewrite(made.folder, wide)
    assert plan(made.folder, tmp_path / "m.gguf", "Q8_0").baseline == "F32"
    norms = {name: t.astype(np.float32) if t.ndim == 1 else t for name, t in made.tensors.items()}
    rewrite(made.folder, norms)
    assert plan(made.folder, tmp_path / "m.gguf", "Q8_0").baseline == "BF16"  # vectors are F32 in any file


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_the_disk_is_checked_for_both_files_before_anything_starts(
    architecture: str, make_checkpoint: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is counted is never less than what they take, and not much more."""
    folder = make_checkpoint(architecture).folder
    planned = plan(folder, tmp_path / "m.gguf", "Q8_0")
    files = {to: convert(folder, tmp_path / f"{to}.gguf", to).target_bytes for to in ("BF16", "Q8_0")}
    small = sum(file.stat().st_size for file in folder.glob("*.json"))
    assert files["BF16"] <= planned.baseline_bytes <= files["BF16"] + small + 32 * 330
    needed = planned.baseline_bytes + files["Q8_0"]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, needed - 1))
    with pytest.raises(NotEvaluated, match=r"it takes .* MB are free"):
        plan(folder, tmp_path / "m.gguf", "Q8_0")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, needed + small + 32 * 330))
    assert plan(folder, tmp_path / "m.gguf", "Q8_0") == planned


def test_a_short_context_makes_short_windows(make_checkpoint: Any, tmp_path: Path) -> None:
    folder = make_checkpoint("qwen2", max_position_embeddings=64).folder
    planned = plan(folder, tmp_path / "m.gguf", "Q8_0")
    assert planned.window_tokens == 64
    convert(folder, tmp_path / "m.gguf", "Q8_0")
    assert evaluate(planned).comparison.tokens == 3 * 31


def test_large_vocabularies_are_counted_on_disk(tmp_path: Path) -> None:
    planned = plan(STUDENT, tmp_path / "m.gguf", "Q8_0")
    assert planned.scores_bytes == 0
    assert replace(planned, vocabulary=151_936).scores_bytes == 2 * 3 * 255 * 151_936
