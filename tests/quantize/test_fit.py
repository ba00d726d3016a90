"""`--fit`: the least expected loss within a size, measured once, kept, and written."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends import hardware
from backends.base import Text
from backends.compare import compare, read
from backends.hardware import look
from backends.llamacpp import LlamaCppBackend
from backends.memory import plan
from backends.model_file import describe
from localr1 import paths
from quantize import calibrate, sensitivity
from quantize import fit as fit_module
from quantize import unquantized as unquantized_module
from quantize.convert import convert
from quantize.errors import QuantizeError, TargetError
from quantize.fit import Fitted, fit
from quantize.fit_plan import HEADER, table
from quantize.fit_size import auto_budget, parse_size
from quantize.gguf_reader import read_gguf_header
from quantize.live_model import LiveModel
from quantize.recipe import MIXES
from quantize.sensitivity import Measurements, Weight, gains, probed, relative_errors

CHUNKS = np.random.default_rng(0).integers(40, 300, (3, 32)).tolist()
# Rows of whole blocks of 256, but for two matrices.
WIDE = dict(hidden_size=256, intermediate_size=96, num_attention_heads=4, num_key_value_heads=1, num_hidden_layers=2)


MADE: dict[str, Path] = {}


@pytest.fixture
def wide(make_checkpoint: Callable[..., Any]) -> Callable[[str], Path]:
    """A checkpoint, made once; `shared` beside it keeps what was measured of it."""

    def wide(kind: str) -> Path:
        if kind not in MADE:
            MADE[kind] = make_checkpoint(kind, **WIDE).folder
        return MADE[kind]

    return wide


def shared(source: Path) -> Path:
    return source.parent / "shared"


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Fitted]:
    def run(source: Path, budget_bytes: int, target: str = "fit.gguf", **options: Any) -> Fitted:
        options = dict(cache=shared(source), material=CHUNKS, force=True) | options
        return fit(source, tmp_path / target, budget_bytes, **options)

    return run


def formats(path: Path) -> dict[str, str]:
    return {t.name: t.format.name for t in read_gguf_header(path).tensors if t.format is not None}


# ------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("6GB", 6 * 10**9), ("5.5GiB", 11 << 29), ("900MB", 900 * 10**6), ("900 mb", 900 * 10**6), ("2G", 2 * 10**9), ("1.5Ti", 3 << 39),
        ("70000", 70_000), ("70000B", 70_000), (".5kB", 500), ("1.k", 1000), ("auto", None), (" Auto ", None),
    ],
)  # fmt: skip
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "6 GBs", "1e9", "6iB", "0", "0.1B", "nan", "six", "9" * 400, "6GB 7GB", "٦GB"])
def test_what_is_no_size(text):
    with pytest.raises(QuantizeError, match="give one such as 6GB"):
        parse_size(text)


def test_auto_is_what_opening_the_result_finds_free(monkeypatch):
    source = paths.assets() / "r1-tiny"
    free = 10**9
    monkeypatch.setattr("backends.hardware.memory", lambda: (16 * 10**9, free))
    for context in (None, 100):
        tokens = context or 4096
        model = replace(describe(source), bytes=auto_budget(source, context))
        assert plan(look(), model, tokens).fits
        assert not plan(look(), replace(model, bytes=model.bytes + 1), tokens).fits
    free = 260 << 20
    with pytest.raises(QuantizeError, match=r"4\.19 MB of memory are free, and a context of 4,096 tokens takes that"):
        auto_budget(source)


# ------------------------------------------------------------------------------------------------------------- measuring


def weight(name: str, rows: np.ndarray, importance: np.ndarray | None = None) -> Weight:
    return Weight(name, rows.shape, (name,), lambda: iter([(name, rows.reshape(-1, rows.shape[-1]))]), lambda name: None, importance)


def test_errors_are_weighed_by_importance():
    rows = np.arange(1, 25, dtype=np.float32).reshape(2, 3, 4)
    importance = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)
    halved = dict(half=lambda rows, _: rows / 2, first=lambda rows, _: rows * [0, 1, 1, 1])
    found = relative_errors(weight("w", rows, importance), halved, 1 << 20)
    squares = rows**2 * importance[:, None]
    assert found == pytest.approx(dict(half=0.25, first=squares[..., 0].sum() / squares.sum()))
    assert relative_errors(weight("w", rows * 0), halved, 1 << 20) == dict(half=0, first=0)


def test_large_tensors_are_sampled_evenly():
    rows = np.random.default_rng(0).standard_normal((4000, 32)).astype(np.float32)
    seen = []

    def tenth(rows: np.ndarray, _: np.ndarray | None) -> np.ndarray:
        seen.append(len(rows))
        return rows * 0.9

    assert relative_errors(weight("w", rows), dict(x=tenth), 3200) == pytest.approx(dict(x=0.01))
    assert seen == [100]


def test_gains_between_probed_layers():
    weights = [weight(f"blk.{i}.{part}.weight", np.ones((2, 2))) for i in range(7) for part in ("a", "b")] + [
        weight("c.weight", np.ones((2, 2)))
    ]
    assert [w.name for w in probed(weights, False) if ".a." in w.name] == [f"blk.{i}.a.weight" for i in (0, 2, 4, 6)]
    assert len(probed(weights, True)) == 15
    found = gains(
        weights, {"blk.0.a.weight Q3_K": 1.0, "blk.0.a.weight Q5_K": 4.0, "blk.4.a.weight Q3_K": 32.0, "blk.2.b.weight Q3_K": 0.0}
    )
    assert found["blk.0.a.weight"] == pytest.approx(2) and found["blk.1.a.weight"] == pytest.approx(4)
    assert found["blk.6.a.weight"] == pytest.approx(32)  # as the nearest
    assert found["c.weight"] == found["blk.2.b.weight"] == pytest.approx(8)  # as the median of all
    assert set(gains(weights, {}).values()) == {1.0}


def test_measurements_outlive_the_process(tmp_path):
    kept, other = Measurements(tmp_path / "x.json"), tmp_path / "x.part"
    other.mkdir()  # as if in use by another process
    kept["a"] = 1.5
    assert "a" in Measurements(tmp_path / "x.json") and Measurements(tmp_path / "x.json")["a"] == 1.5
    (tmp_path / "x.json").write_text('{"a": 1.')
    assert "a" not in Measurements(tmp_path / "x.json")
    with pytest.raises(TargetError, match="cannot be written"):
        Measurements(tmp_path / "nowhere" / "x.json")["a"] = 1


class _Killed(Exception):
    pass


def test_goes_on_where_it_was_interrupted(make_checkpoint, run, tmp_path, monkeypatch):
    source, options = make_checkpoint("qwen2", **WIDE | dict(num_hidden_layers=1)).folder, dict(cache=tmp_path / "cache")
    measured: list[str] = []
    overwritten = LiveModel.overwritten
    monkeypatch.setattr(LiveModel, "overwritten", lambda self, name, new: measured.append(name) or overwritten(self, name, new))
    monkeypatch.setattr(fit_module, "TRIED_RIVALS", 0)

    def kill(what: str, done: int, total: int) -> None:
        if (what, done) == ("measuring what tensors matter", 7):
            raise _Killed

    with pytest.raises(_Killed):
        run(source, 300_000, on_progress=kill, **options)
    assert len(measured) == 7 and [p.name for p in tmp_path.iterdir() if "fit" in p.name] == []  # no temporary file is left
    first = run(source, 300_000, **options)
    matrices = [t.name for t in first.plan.tensors]
    assert len(measured) == 4 * len(matrices)  # three probes each, and once in the plan as a whole
    monkeypatch.setattr(unquantized_module, "convert", None)  # nothing is run any more
    again = run(source, 300_000, **options)
    assert again.plan == first.plan


# ------------------------------------------------------------------------------------------------------------- choosing


@pytest.mark.parametrize("budget", ["Q2_K", "Q3_K_M", "IQ4_XS", "Q5_K_M", 700_000])
def test_never_expected_worse_than_a_named_mix(budget, wide, run, tmp_path):
    source = wide("qwen2")
    size = budget
    if isinstance(budget, str):
        convert(source, tmp_path / "named.gguf", budget)
        size = (tmp_path / "named.gguf").stat().st_size
    fitted = run(source, size)
    report = convert(source, tmp_path / "fit.gguf", fitted.plan.target(), imatrix=fitted.imatrix)
    assert report.target_bytes == (tmp_path / "fit.gguf").stat().st_size <= fitted.plan.size_bytes <= size
    assert fitted.plan.size_bytes - report.target_bytes < 64
    assert fitted.plan.rivals and all(fitted.plan.loss <= rival.loss for rival in fitted.plan.rivals)
    assert not isinstance(budget, str) or budget in {r.name for r in fitted.plan.rivals if r.size_bytes == size}
    assert fitted.plan.measured is not None and all(fitted.plan.measured <= r.measured for r in fitted.plan.rivals if r.measured)


def test_the_file_says_what_was_chosen(wide, run, tmp_path):
    source = wide("llama")
    fitted = run(source, 520_000)
    convert(source, tmp_path / "fit.gguf", fitted.plan.target(), imatrix=fitted.imatrix)
    header, chosen = read_gguf_header(tmp_path / "fit.gguf"), fitted.plan.formats()
    assert {name: formats(tmp_path / "fit.gguf")[name] for name in chosen} == chosen
    note = json.loads(header.metadata["localr1.fit"])
    assert {name: form for name, (form, _) in note["tensors"].items()} == chosen
    assert note["budget_bytes"] == 520_000 and note["expected_kl"] == pytest.approx(fitted.plan.loss, rel=1e-3)
    sizes: dict[str, int] = {}
    for t in fitted.plan.tensors:
        sizes[t.format] = sizes.get(t.format, 0) + t.nbytes
    most = max(sizes, key=lambda name: sizes[name])
    assert header.metadata["general.file_type"] == (MIXES.get(most) or MIXES[most + "_M"]).file_type
    with LlamaCppBackend(tmp_path / "fit.gguf", 64) as backend:
        assert np.isfinite(backend.logits(CHUNKS[0])).all()
    convert(tmp_path / "fit.gguf", tmp_path / "other.gguf", "Q8_0")
    assert "localr1.fit" not in read_gguf_header(tmp_path / "other.gguf").metadata


def test_a_table_explains_the_plan(wide, run):
    plan = run(wide("qwen2"), 500_000).plan
    rows = {row[0]: row for row in table(plan)}
    assert all(len(row) == len(HEADER) for row in rows.values())
    assert set(rows) == {t.kind.removesuffix(".weight") for t in plan.tensors} | {"together"}
    first, second = (t.format for t in plan.tensors if t.kind == "blk.*.attn_q.weight")
    assert rows["blk.*.attn_q"][1] == (first if first == second else f"{first} 0; {second} 1")
    assert rows["together"][4:] == (f"{plan.loss:.2g}", "100%")


def test_a_gguf_file_is_fitted_as_it_is(wide, run, tmp_path):
    convert(wide("llama"), tmp_path / "source.gguf", "F16")
    said: list[str] = []
    fitted = run(tmp_path / "source.gguf", 500_000, say=said.append)
    report = convert(tmp_path / "source.gguf", tmp_path / "fit.gguf", fitted.plan.target(), imatrix=fitted.imatrix)
    assert said == [] and report.target_bytes <= 500_000
    with pytest.raises(QuantizeError, match="for MLX, give the checkpoint folder"):
        run(tmp_path / "source.gguf", 500_000, kind="mlx")


def test_too_small_and_more_than_enough(wide, run, monkeypatch):
    source = wide("qwen2")
    monkeypatch.setattr(fit_module, "Unquantized", None)  # neither measures anything
    with pytest.raises(QuantizeError, match=r"0\.10 MB are too few: .* \((\d+),(\d+) bytes\); give a larger size") as error:
        run(source, 100_000)
    assert "\n" not in str(error.value)
    plan = run(source, 10**9).plan
    assert {t.format for t in plan.tensors} == {"Q8_0"} and "room for more" in plan.notes[0]
    assert json.loads(plan.note())["expected_kl"] is None


def test_a_small_budget_calls_for_small_formats(make_checkpoint, run, tmp_path, monkeypatch):
    """As in a large model: fewer probes, and the plan is not tried out."""
    monkeypatch.setattr(sensitivity, "SLOW_SAMPLE", 4096)
    monkeypatch.setattr(unquantized_module, "SMALL", 0)
    source = make_checkpoint("qwen2", **WIDE | dict(num_hidden_layers=1, num_attention_heads=1)).folder
    said: list[str] = []
    fitted = run(source, 225_000, say=said.append)
    report = convert(source, tmp_path / "fit.gguf", fitted.plan.target(), imatrix=fitted.imatrix)
    assert {"IQ3_XXS", "IQ3_S"} & set(fitted.plan.formats().values()) and report.target_bytes <= 225_000
    assert "source-BF16.gguf" in said[0] and "4 layers probed with Q3_K" in fitted.plan.basis and fitted.plan.measured is None


@pytest.mark.slow
def test_the_smallest_budget_holds_the_smallest_formats(make_checkpoint, run, tmp_path):
    """The embedding, which no importances are known of, does without: ggml would end the process."""
    source = make_checkpoint("qwen2", **WIDE | dict(num_hidden_layers=1, num_attention_heads=1)).folder
    fitted = run(source, 165_000)
    report = convert(source, tmp_path / "fit.gguf", fitted.plan.target(), imatrix=fitted.imatrix)
    chosen = fitted.plan.formats()
    assert {"IQ2_XXS", "IQ2_XS", "IQ2_S"} & set(chosen.values()) and report.target_bytes <= 165_000
    assert chosen["token_embd.weight"] in {"Q2_K", "IQ3_S", "Q3_K"}


def test_formats_that_need_importances_are_not_for_tensors_without():
    rows = np.ones((2, 256), np.float32)
    assert not fit_module._possible(weight("token_embd.weight", rows), "IQ2_XXS")
    assert fit_module._possible(weight("token_embd.weight", rows), "IQ3_S")
    assert fit_module._possible(weight("blk.0.attn_q.weight", rows, np.ones((1, 256), np.float32)), "IQ2_XXS")


def test_a_model_that_memory_cannot_hold(wide, run, monkeypatch, tmp_path):
    source = wide("qwen2")
    options = dict(cache=tmp_path / "cache")
    monkeypatch.setattr(hardware, "memory", lambda: (10**9, 10**6))
    plan = run(source, 500_000, **options).plan
    assert plan.basis.startswith("errors alone") and plan.measured is None
    assert all(plan.loss <= rival.loss for rival in plan.rivals)


def test_no_room_for_the_temporary_file(wide, run, monkeypatch, tmp_path):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), dict(free=600_000)))
    with pytest.raises(TargetError, match=r"needs [\d,]+ bytes and 600,000 are free"):
        run(wide("qwen2"), 500_000, cache=tmp_path / "cache")
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_mlx_lm_loads_what_was_chosen(kind, wide, run, tmp_path):
    pytest.importorskip("mlx_lm", exc_type=ImportError)
    from mlx_lm import load

    source = wide(kind)
    fitted = run(source, 520_000, target="fit", kind="mlx")
    convert(source, tmp_path / "fit", fitted.plan.target())
    assert sum(path.stat().st_size for path in (tmp_path / "fit").iterdir()) <= fitted.plan.size_bytes <= 520_000
    assert all(fitted.plan.loss <= rival.loss for rival in fitted.plan.rivals)
    model, _ = load(str(tmp_path / "fit"))
    found = {f"{name}.weight": getattr(module, "bits", None) for name, module in model.named_modules()}
    # rows of 96 are no whole groups of 64: these stay as they are
    assert {name: f"{found[name]}bit-g64" if found[name] else "BF16" for name in fitted.plan.formats()} == fitted.plan.formats()
    assert len(set(fitted.plan.formats().values())) > 2
    note = json.loads(json.loads((tmp_path / "fit" / "config.json").read_text())["localr1_fit"])
    assert note["budget_bytes"] == 520_000


# ------------------------------------------------------------------------------------------------------------- the student


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Q2_K", "Q3_K_M", "IQ4_XS", "Q4_K_M", "Q6_K"])
def test_the_student_loses_less_than_in_the_named_mix(name, tmp_path_factory, tmp_path):
    """KL divergence on text that was not measured with. It is half to three quarters of the mix's, where this was written."""
    source = paths.assets() / "r1-tiny"
    cache = tmp_path_factory.getbasetemp() / "student-fits"
    convert(source, tmp_path / "plain.gguf", "F32")
    fitted = fit(source, tmp_path / "fit.gguf", 2_000_000, cache=cache)
    convert(source, tmp_path / "named.gguf", name, imatrix=fitted.imatrix)
    fitted = fit(source, tmp_path / "fit.gguf", (tmp_path / "named.gguf").stat().st_size, cache=cache)
    convert(source, tmp_path / "fit.gguf", fitted.plan.target(), imatrix=fitted.imatrix)
    with LlamaCppBackend(tmp_path / "plain.gguf", 512) as backend:
        windows = calibrate.cut(backend.encode([Text(calibrate.heldout())]), None, 512)
        base = read(backend, windows)
    found = {}
    for which in ("named", "fit"):
        with LlamaCppBackend(tmp_path / f"{which}.gguf", 512) as backend:
            found[which] = compare(base, backend)
    assert found["fit"].kl_mean < 0.85 * found["named"].kl_mean
    assert found["fit"].kl_p99 < found["named"].kl_p99


def test_a_source_that_is_quantized_already_is_measured_decoded(wide, run, tmp_path):
    """What a tensor matters does not depend on the format that it is held in; and what is copied as it is costs nothing."""
    basis, files = {}, {"original": wide("qwen2"), "q4": tmp_path / "q4.gguf"}
    convert(files["original"], files["q4"], "Q4_K_M")
    for name, source in files.items():
        said: list[str] = []
        run(source, 500_000, cache=tmp_path / name, say=said.append)
        assert any("source-F32.gguf" in line for line in said)
        (gains,) = (tmp_path / name).glob("*-gains.json")
        basis[name] = json.loads(gains.read_text())
    for weight, gain in basis["original"].items():
        assert basis["q4"][weight] == pytest.approx(gain, rel=0.5, abs=0.02), weight
    held = {t.name: t.format.name for t in read_gguf_header(files["q4"]).tensors}
    plan = run(files["q4"], files["q4"].stat().st_size, cache=tmp_path / "q4").plan
    kept = [t for t in plan.tensors if held[t.name] == t.format]
    assert kept and all(t.loss == 0 for t in kept)
