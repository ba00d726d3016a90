"""What encoding cost, tensor by tensor, against the written files read back and decoded."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from backends.checkpoint import Checkpoint
from backends.reference.fp8 import dequantize_blocks
from localr1 import paths
from quantize import formats
from quantize.convert import convert
from quantize.formats import BF16, F16, F32, FORMATS, decode, encode
from quantize.gguf_reader import read_gguf_header
from quantize.loss import Loss, TensorLoss, measure

STUDENT = paths.assets() / "r1-tiny"
# Within a row squares are added in float32: a few units in its last place, far less than any use of an error needs.
PRECISE = 1e-5
MLX = "mlx-4bit", "mlx-mixed_2_6", "mlx-mxfp4"


def weights_of(folder: Path) -> dict[str, np.ndarray]:
    with Checkpoint.open(folder) as checkpoint:
        return {name: checkpoint.read(name).astype(np.float32) for name in checkpoint.names()}


def decoded_gguf(path: Path) -> dict[str, np.ndarray]:
    raw = path.read_bytes()
    tensors = read_gguf_header(path).tensors
    stored = {t.name: np.frombuffer(raw, np.uint8, t.nbytes or 0, t.begin) for t in tensors}
    return {t.name: decode(stored[t.name], t.format, t.shape) for t in tensors if t.format is not None}


def check(found: TensorLoss, weights: np.ndarray, stored: np.ndarray) -> None:
    error, squares = float(np.square(stored - weights, dtype=np.float64).sum()), float(np.square(weights, dtype=np.float64).sum())
    assert found.shape == weights.shape and found.parameters == weights.size
    assert found.rmse == pytest.approx(math.sqrt(error / weights.size), rel=PRECISE), found.name
    assert found.relative_error == pytest.approx(math.sqrt(error / squares), rel=PRECISE), found.name


def test_a_case_by_hand() -> None:
    """Weights 3, 4 stored as 3, 5: an error of 1 in 25."""
    lost = measure(np.array([[3.0], [4.0]], np.float32), np.array([[3.0], [5.0]], np.float32))
    assert (lost.squared_error, lost.squared_weights) == (1, 25)
    tensor = TensorLoss("x", (2, 1), "Q4_0", 8, lost.squared_error, lost.squared_weights)
    assert (tensor.rmse, tensor.relative_error) == (math.sqrt(1 / 2), 1 / 5)
    assert TensorLoss("x", (2,), "F32", 8, 0.0, 0.0).relative_error == 0


@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1.0, 1e18, 1e37])
def test_squares_beyond_float32s_range(scale: float) -> None:
    weights = (np.random.default_rng(0).standard_normal((4, 300)) * scale).astype(np.float32)
    stored = weights.astype(np.float64) * 1.01
    lost = measure(weights, stored.astype(np.float32))
    assert math.sqrt(lost.squared_error / lost.squared_weights) == pytest.approx(0.01, rel=1e-4)
    assert lost.squared_weights == pytest.approx(float(np.square(weights, dtype=np.float64).sum()), rel=PRECISE)


@pytest.mark.parametrize("to", ["Q8_0", "Q4_K_M", "Q2_K", "F16", "IQ4_XS"])
def test_gguf(to: str, tmp_path: Path) -> None:
    report = convert(STUDENT, tmp_path / "m.gguf", to)
    convert(STUDENT, tmp_path / "plain.gguf", "F32")
    weights, stored = decoded_gguf(tmp_path / "plain.gguf"), decoded_gguf(tmp_path / "m.gguf")
    tensors = {t.name: t for t in read_gguf_header(tmp_path / "m.gguf").tensors}
    assert [found.name for found in report.losses] == list(tensors)
    for found in report.losses:
        form = tensors[found.name].format
        assert form is not None and (found.format, found.nbytes) == (form.name, tensors[found.name].nbytes)
        if found.format == "F32":
            assert (found.rmse, found.relative_error) == (0, 0)
        else:
            check(found, weights[found.name], stored[found.name])
    if to != "F16":  # of which most of the student's weights are multiples
        assert min(found.relative_error for found in report.losses if found.format != "F32") > 1e-3


def test_experts_and_block_fp8_sources(make_golden: Any, tmp_path: Path) -> None:
    """A stack of experts is measured as one tensor, against the values that the FP8 codes stand for."""
    folder = make_golden("deepseek_v3-fp8").folder
    report = convert(folder, tmp_path / "m.gguf", "Q5_0")
    convert(folder, tmp_path / "plain.gguf", "F32")
    weights, stored = decoded_gguf(tmp_path / "plain.gguf"), decoded_gguf(tmp_path / "m.gguf")
    stacks = [found for found in report.losses if "_exps" in found.name]
    assert stacks and all(len(found.shape) == 3 for found in stacks)
    for found in report.losses:
        if found.format != "F32":
            check(found, weights[found.name], stored[found.name])


def test_a_gguf_file_as_the_source(tmp_path: Path) -> None:
    convert(STUDENT, tmp_path / "q8.gguf", "Q8_0")
    report = convert(tmp_path / "q8.gguf", tmp_path / "m.gguf", "Q4_K_M")
    weights, stored = decoded_gguf(tmp_path / "q8.gguf"), decoded_gguf(tmp_path / "m.gguf")
    for found in report.losses:
        if found.format != "F32":
            check(found, weights[found.name], stored[found.name])
    copied = convert(tmp_path / "q8.gguf", tmp_path / "copy.gguf", "Q8_0")
    assert all(found.relative_error == 0 for found in copied.losses)


def test_fp8_folder(tmp_path: Path) -> None:
    report = convert(STUDENT, tmp_path / "fp8", "fp8")
    weights = weights_of(STUDENT)
    with Checkpoint.open(tmp_path / "fp8") as stored:
        assert {found.name for found in report.losses} == set(weights)
        assert sum(found.nbytes for found in report.losses) == stored.bytes_total
        for found in report.losses:
            if found.format == "FP8":
                scale = stored.read(found.name + "_scale_inv")
                assert found.nbytes == stored.nbytes(found.name) + scale.nbytes
                check(found, weights[found.name], dequantize_blocks(stored.read(found.name).view(np.uint8), scale))
            else:
                assert (found.format, found.relative_error) == ("BF16", 0)


@pytest.mark.parametrize("to", MLX)
def test_mlx_folder(to: str, tmp_path: Path) -> None:
    mx = pytest.importorskip("mlx.core", exc_type=ImportError)
    report = convert(STUDENT, tmp_path / "mlx", to)
    weights, stored = weights_of(STUDENT), mx.load(str(tmp_path / "mlx" / "model.safetensors"))
    mode = "mxfp4" if to.endswith("mxfp4") else "affine"
    assert sum(found.nbytes for found in report.losses) == sum(part.nbytes for part in stored.values())
    packed = 0
    for found in report.losses:
        path = found.name.removesuffix("weight")
        scales = stored.get(path + "scales")
        if scales is None:
            assert (found.format, found.relative_error) == ("BF16", 0)
            continue
        group = found.shape[-1] // scales.shape[-1]
        bits = stored[found.name].shape[-1] * 32 // found.shape[-1]
        assert found.format == (mode if mode != "affine" else f"{bits}bit-g{group}")
        biases = stored.get(path + "biases")
        if biases is not None:  # in float32, as a matrix product takes them: rounding the weights is no part of the format
            scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
        decoded = mx.dequantize(stored[found.name], scales, biases, group, bits, mode)
        check(found, weights[found.name], np.array(decoded.astype(mx.float32)))
        packed += 1
    assert packed == 30


def test_mlx_weights_that_are_rounded_to_another_type(make_checkpoint: Any, edit: Any, tmp_path: Path) -> None:
    pytest.importorskip("mlx.core", exc_type=ImportError)
    made = make_checkpoint("qwen2", dtype=np.float32)
    edit(made.folder / "config.json", torch_dtype="bfloat16")
    report = convert(made.folder, tmp_path / "mlx", "mlx-8bit")
    norm = next(found for found in report.losses if found.name == "model.norm.weight")
    weights = made.tensors["model.norm.weight"]
    check(norm, weights, weights.astype(ml_dtypes.bfloat16).astype(np.float32))
    assert norm.relative_error > 1e-4


@pytest.mark.parametrize(
    ("dtype", "to", "exact"),
    [(ml_dtypes.bfloat16, BF16, True), (np.float16, F16, True), (np.float32, F32, True), (ml_dtypes.bfloat16, F32, True),
     (np.float16, F32, True), (np.float32, BF16, False), (np.float32, F16, False), (np.float16, BF16, False)],
)  # fmt: skip
def test_exact_copies_cost_nothing_and_are_not_measured(
    dtype: Any, to: formats.Format, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []
    monkeypatch.setattr(formats, "measure", lambda *arrays: measured.append(arrays) or measure(*arrays))
    weights, loss = np.random.default_rng(0).standard_normal((8, 64)).astype(dtype), Loss()
    with ThreadPoolExecutor(2) as pool:
        list(encode(weights, to, pool, loss))
    assert (not measured, loss.squared_error == 0, loss.squared_weights == 0) == (exact, exact, exact)


def test_who_does_not_ask_does_not_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "measure", lambda *arrays: pytest.fail("measured"))
    with ThreadPoolExecutor(2) as pool:
        list(encode(np.ones((8, 64), np.float32), FORMATS["Q8_0"], pool))


def test_the_same_sums_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever thread is done first: to the last bit."""
    monkeypatch.setattr(formats, "PIECE_ELEMENTS", 256)
    weights = np.random.default_rng(0).standard_normal((400, 256), np.float32)
    sums = set()
    for threads in (1, 3, 4, 4):
        loss = Loss()
        with ThreadPoolExecutor(threads) as pool:
            list(encode(weights, FORMATS["Q4_K"], pool, loss))
        sums.add((loss.squared_error, loss.squared_weights))
    assert len(sums) == 1
