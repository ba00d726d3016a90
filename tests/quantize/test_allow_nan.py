"""`allow_nan`: weights that are infinite or not a number are kept where a format can hold them, are 0 in blocks, and are told of."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from llama_quantize import tensors

from backends.checkpoint import Checkpoint
from quantize.convert import convert
from quantize.errors import QuantizeError
from quantize.formats import FORMATS, decode
from quantize.gguf_reader import read_gguf_header

NAME, GGUF = "model.layers.1.mlp.up_proj.weight", "blk.1.ffn_up.weight"
NORM = "model.norm.weight"


@pytest.fixture
def broken(make_checkpoint, rewrite):
    """A checkpoint with three weights of a matrix, and one of a norm, that are not finite."""

    def make(dtype=np.float32):
        made = make_checkpoint(dtype=dtype)
        made.tensors[NAME][3, 5:8] = [np.nan, np.inf, -np.inf]
        made.tensors[NORM][2] = np.nan
        rewrite(made.folder, made.tensors)
        return made

    return make


def decoded(path, name):
    tensor = next(t for t in read_gguf_header(path).tensors if t.name == name)
    raw = np.frombuffer(path.read_bytes(), np.uint8, tensor.nbytes, tensor.begin)
    return decode(raw, tensor.format, tensor.shape)


def finite_losses(report):
    return all(math.isfinite(loss.squared_error) and math.isfinite(loss.squared_weights) for loss in report.losses)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("to", ["F32", "F16", "BF16"])
def test_plain_formats_keep_them(broken, tmp_path, dtype, to):
    made = broken(dtype)
    report = convert(made.folder, tmp_path / "m.gguf", to, allow_nan=True)
    expected = made.tensors[NAME].astype(np.float32).astype({"F16": np.float16, "BF16": ml_dtypes.bfloat16}.get(to, np.float32))
    np.testing.assert_array_equal(decoded(tmp_path / "m.gguf", GGUF), expected.astype(np.float32))
    assert report.warnings == (
        f"tensor '{GGUF}': 3 weights are infinite or not a number, kept as they are",
        "tensor 'output_norm.weight': 1 weight is infinite or not a number, kept as they are",
    )
    assert finite_losses(report)


@pytest.mark.parametrize("to", ["Q8_0", "Q4_0"])
def test_blocks_hold_0_in_their_place(broken, rewrite, tmp_path, to):
    made = broken()
    report = convert(made.folder, tmp_path / "m.gguf", to, allow_nan=True)
    made.tensors[NAME][3, 5:8] = 0
    rewrite(made.folder, made.tensors)
    convert(made.folder, tmp_path / "zeros.gguf", to, allow_nan=True)
    assert tensors(tmp_path / "m.gguf") == tensors(tmp_path / "zeros.gguf")
    assert f"tensor '{GGUF}': 3 weights are infinite or not a number, written as 0" in report.warnings
    assert len(report.warnings) == 2 and finite_losses(report)


@pytest.mark.parametrize("to", ["fp8", "mlx-4bit-g32", "mlx-mxfp8"])
def test_folders(broken, tmp_path, to):
    if to != "fp8":
        pytest.importorskip("mlx.core")
    made = broken()
    report = convert(made.folder, tmp_path / "out", to, allow_nan=True)
    assert [w.split(":")[0] for w in sorted(report.warnings)] == [f"tensor '{NAME}'", f"tensor '{NORM}'"]
    assert "3 weights are infinite or not a number, written as 0" in " ".join(report.warnings)
    assert finite_losses(report)
    with Checkpoint.open(tmp_path / "out") as out:
        norm = out.read(NORM).astype(np.float32)
        np.testing.assert_array_equal(norm, made.tensors[NORM])


def test_what_is_kept_is_converted_again(broken, tmp_path):
    """Copies of what has the right format already: not looked at by an encoder."""
    convert(broken().folder, tmp_path / "a.gguf", "F32", allow_nan=True)
    with pytest.raises(QuantizeError, match=f"tensor '{GGUF}' holds weights that are infinite"):
        convert(tmp_path / "a.gguf", tmp_path / "b.gguf", "F32")
    report = convert(tmp_path / "a.gguf", tmp_path / "b.gguf", "F32", allow_nan=True)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes() and len(report.warnings) == 2
    convert(tmp_path / "a.gguf", tmp_path / "c.gguf", "Q8_0", allow_nan=True)
    raw = bytearray((tmp_path / "c.gguf").read_bytes())
    tensor = next(t for t in read_gguf_header(tmp_path / "c.gguf").tensors if t.name == GGUF)
    assert tensor.format is FORMATS["Q8_0"]
    raw[tensor.begin : tensor.begin + 2] = np.float16(np.inf).tobytes()  # a block's scale
    (tmp_path / "c.gguf").write_bytes(raw)
    with pytest.raises(QuantizeError, match=f"tensor '{GGUF}' holds weights that are infinite"):
        convert(tmp_path / "c.gguf", tmp_path / "d.gguf", "Q8_0")


def test_without_bad_weights_nothing_changes(make_checkpoint, tmp_path):
    made = make_checkpoint()
    for to in ("Q4_K_M", "F16"):
        strict = convert(made.folder, tmp_path / f"{to}-a.gguf", to)
        lenient = convert(made.folder, tmp_path / f"{to}-b.gguf", to, allow_nan=True)
        assert (tmp_path / f"{to}-a.gguf").read_bytes() == (tmp_path / f"{to}-b.gguf").read_bytes()
        assert lenient.warnings == strict.warnings == () and lenient.losses == strict.losses


def test_finite_weights_beyond_the_range_are_refused_all_the_same(broken, rewrite, tmp_path):
    made = broken()
    made.tensors[NAME][0, 0] = 1e6
    rewrite(made.folder, made.tensors)
    with pytest.raises(QuantizeError, match="65504"):
        convert(made.folder, tmp_path / "m.gguf", "F16", allow_nan=True)


@pytest.mark.parametrize("to", ["fp8", "mlx-4bit-g32"])
@pytest.mark.parametrize("name", [NORM, "model.embed_tokens.weight"])
def test_plain_tensors_of_folders_are_looked_at_too(make_checkpoint, rewrite, tmp_path, to, name):
    if to != "fp8":
        pytest.importorskip("mlx.core")
    made = make_checkpoint()
    made.tensors[name].reshape(-1)[7] = -np.inf
    rewrite(made.folder, made.tensors)
    with pytest.raises(QuantizeError, match=f"tensor '{name}' holds weights that are infinite or not a number"):
        convert(made.folder, tmp_path / "out", to)
    assert not list(tmp_path.glob("out*"))
