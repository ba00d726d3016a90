"""Block FP8 checkpoints, of every architecture, become the GGUF file of their dequantized weights; damaged ones are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from goldens.checkpoints import quantize_blocks

from quantize.convert import convert
from quantize.errors import QuantizeError, UnsupportedModel
from quantize.gguf_reader import read_gguf_header

FP8 = np.dtype(ml_dtypes.float8_e4m3fn)
E8M0 = np.dtype(ml_dtypes.float8_e8m0fnu)
SAYS_SO = dict(activation_scheme="dynamic", fmt="e4m3", quant_method="fp8", weight_block_size=[128, 128])
PROJECTIONS = ("q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight", "gate_proj.weight", "up_proj.weight", "down_proj.weight")
UP = "model.layers.1.mlp.up_proj.weight"


def in_fp8(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    out = {}
    for name, weights in tensors.items():
        out[name] = weights
        if name.endswith(PROJECTIONS):
            out[name], out[name + "_scale_inv"] = quantize_blocks(weights.astype(np.float32))
    return out


def dequantized(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By the definition: every code times the scale of its block."""
    out = {}
    for name, weights in tensors.items():
        if name.endswith("_scale_inv"):
            continue
        out[name] = weights
        if weights.dtype == FP8:
            scale = tensors[name + "_scale_inv"].astype(np.float32).repeat(128, 0).repeat(128, 1)
            out[name] = weights.astype(np.float32) * scale[: weights.shape[0], : weights.shape[1]]
    return out


@pytest.fixture
def make_fp8(make_golden, edit, rewrite) -> Callable[..., Any]:
    """A checkpoint of a dense kind with its projections in FP8."""

    def make(kind: str = "qwen2", **options: Any) -> Any:
        made = make_golden(kind, **options)
        made.tensors.update(in_fp8(made.tensors))
        rewrite(made.folder, made.tensors)
        edit(made.folder / "config.json", quantization_config=SAYS_SO)
        return made

    return make


# Sizes beyond one block, and no multiples of it: 5 x 128 + 64 rows, heads of 32 and 64
WIDE = dict(hidden_size=256, intermediate_size=704)


@pytest.mark.parametrize("to", ["F32", "BF16", "Q8_0"])
@pytest.mark.parametrize("kind", ["qwen2", "llama", "qwen3", "deepseek_v3-fp8"])
def test_the_file_is_that_of_the_dequantized_weights(make_golden, make_fp8, rewrite, edit, tmp_path, kind, to):
    made = make_golden(kind) if kind.endswith("fp8") else make_fp8(kind, **WIDE)
    assert any(weights.dtype == FP8 for weights in made.tensors.values())
    convert(made.folder, tmp_path / "fp8.gguf", to)
    plain = make_golden(kind, "plain")
    (plain.folder / "config.json").write_text(json.dumps(made.config | dict(quantization_config=None)))
    for file in plain.folder.glob("model*"):
        file.unlink()
    rewrite(plain.folder, dequantized(made.tensors))
    convert(plain.folder, tmp_path / "plain.gguf", to)
    fp8, wanted = (tensor_bytes(tmp_path / name) for name in ("fp8.gguf", "plain.gguf"))
    assert fp8 == wanted


def tensor_bytes(path) -> dict[str, bytes]:
    raw = path.read_bytes()
    return {t.name: raw[t.begin : t.begin + (t.nbytes or 0)] for t in read_gguf_header(path).tensors}


def test_scales_in_other_types(make_fp8, rewrite, tmp_path):
    """DeepSeek-V3.1's scales are powers of two, which E8M0 and BF16 hold exactly."""
    made = make_fp8()
    for name, scale in made.tensors.items():
        if name.endswith("_scale_inv"):
            made.tensors[name] = np.exp2(np.ceil(np.log2(scale))).astype(np.float32)
    for dtype in (np.dtype(np.float32), np.dtype(ml_dtypes.bfloat16), E8M0):
        rewrite(made.folder, {name: w.astype(dtype) if name.endswith("_scale_inv") else w for name, w in made.tensors.items()})
        convert(made.folder, tmp_path / f"{dtype.name}.gguf", "F32")
    assert len({path.read_bytes() for path in tmp_path.glob("*.gguf")}) == 1


def without(name: str) -> Callable[[dict[str, np.ndarray]], None]:
    return lambda tensors: tensors.__delitem__(name)


def replaced(name: str, array: np.ndarray) -> Callable[[dict[str, np.ndarray]], None]:
    return lambda tensors: tensors.__setitem__(name, array)


SCALE = UP + "_scale_inv"
NORM = "model.norm.weight"
DAMAGED = [
    (without(UP), f"tensor '{SCALE}' is a scale, and its weight is missing"),
    (without(SCALE), f"tensor '{UP}' is F8_E4M3 and its scale '{SCALE}' is missing"),
    (replaced(SCALE, np.ones((2, 1), np.float32)), f"tensor '{SCALE}' has the shape [2, 1], the blocks of its weight need [1, 1]"),
    (replaced(SCALE, np.ones(1, np.float32)), f"tensor '{SCALE}' has the shape [1]"),
    (replaced(SCALE, np.ones((1, 1), np.int32)), f"tensor '{SCALE}' is I32; scales in BF16, F16, F32, F8_E8M0 can be converted"),
    (replaced(UP, np.zeros((112, 64), np.float32)), f"tensor '{SCALE}' is a scale, and its weight is F32 instead of F8_E4M3"),
    (replaced(UP, np.zeros((112, 65), FP8)), f"tensor '{UP}' has the shape [112, 65]"),
    (replaced(NORM, np.zeros(64, FP8)), f"tensor '{NORM}' is F8_E4M3; weights in BF16, F16, F32 can be converted"),
    (
        replaced("extra.weight_scale_inv", np.ones((1, 1), np.float32)),
        "tensor 'extra.weight_scale_inv' is a scale, and its weight is missing",
    ),
]


@pytest.mark.parametrize("to", ["Q8_0", "FP8"])
@pytest.mark.parametrize(("damage", "message"), DAMAGED)
def test_damage_is_named_before_anything_is_written(make_fp8, rewrite, tmp_path, damage, message, to):
    made = make_fp8()
    damage(made.tensors)
    rewrite(made.folder, made.tensors)
    with pytest.raises(UnsupportedModel) as raised:
        convert(made.folder, tmp_path / "out", to)
    assert message in str(raised.value) and "\n" not in str(raised.value) and not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("to", ["F32", "BF16", "Q8_0"])
@pytest.mark.parametrize(
    ("name", "value"), [(UP, np.nan), (SCALE, np.nan), (SCALE, np.inf), (SCALE, 1e37)]
)  # the last: beyond float32 once it is multiplied
def test_what_is_no_number_is_named_and_leaves_nothing(make_fp8, rewrite, tmp_path, name, value, to):
    made = make_fp8()
    made.tensors[name] = made.tensors[name].copy()
    made.tensors[name][-1, -1] = value
    rewrite(made.folder, made.tensors)
    with pytest.raises(QuantizeError, match=rf"tensor '{UP}' holds weights that are infinite or not a number"):
        convert(made.folder, tmp_path / "m.gguf", to)
    assert not list(tmp_path.glob("m.gguf*"))


@pytest.mark.parametrize(
    "config",
    [
        dict(quant_method="gptq", bits=4),
        SAYS_SO | dict(weight_block_size=[64, 64]),
        SAYS_SO | dict(fmt="e5m2"),
        "fp8",
        dict(quant_method="fp8"),
    ],
)
def test_other_quantizations_are_refused(make_fp8, edit, tmp_path, config):
    made = make_fp8()
    edit(made.folder / "config.json", quantization_config=config)
    with pytest.raises(UnsupportedModel, match=r"quantization_config is .* only block FP8 with blocks of 128 x 128 can be converted"):
        convert(made.folder, tmp_path / "m.gguf", "Q8_0")


def test_fp8_that_the_config_does_not_mention(make_fp8, edit, tmp_path):
    """Other programs would take the codes for weights."""
    made = make_fp8()
    edit(made.folder / "config.json", quantization_config=None)
    with pytest.raises(UnsupportedModel, match=r"is F8_E4M3; .* where config\.json has a quantization_config"):
        convert(made.folder, tmp_path / "m.gguf", "Q8_0")
