"""What `--to mlx-*` refuses: models that mlx-lm would compute otherwise, weights without codes, formats that are none."""

from __future__ import annotations

import sys

import ml_dtypes
import numpy as np
import pytest

from quantize.convert import convert
from quantize.errors import QuantizeError, UnsupportedModel
from quantize.mlx_formats import MLX_FORMATS, mlx, mlx_format

pytest.importorskip("mlx.core", exc_type=ImportError)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("qwen2", dict(use_sliding_window=True, sliding_window=32, max_window_layers=1), "sliding_window is 32, .* lets qwen2 see all"),
        ("qwen2", dict(partial_rotary_factor=0.5), "partial_rotary_factor is 0.5, mlx-lm rotates whole heads"),
        ("qwen3", dict(attention_bias=True), "attention_bias is True, mlx-lm has no biases in qwen3"),
        (
            "qwen3",
            dict(rope_scaling=dict(rope_type="yarn", factor=4.0, attention_factor=2.0)),
            "attention_factor is 2.0, .* computes 1.1386",
        ),
        ("qwen3", dict(rope_scaling=dict(rope_type="yarn", factor=4.0, truncate=False)), "always rounds YaRN's range"),
        ("qwen3", dict(rope_scaling=dict(rope_type="yarn", factor=4.0, beta_fast=0)), "beta_fast is 0"),
        ("deepseek_v3", dict(tie_word_embeddings=True), "wants an lm_head"),
        ("deepseek_v3", dict(rope_interleave=False), "rotates neighbouring pairs"),
        ("deepseek_v3", dict(num_hidden_layers=62), "num_hidden_layers is 62, mlx-lm drops a deepseek_v3 model's layer 61"),
        ("deepseek_v2", dict(rope_scaling=None), "wants YaRN in deepseek_v2"),
    ],
)
def test_what_mlx_lm_does_not_compute_is_refused(make_golden, edit, tmp_path, kind, changes, message):
    made = make_golden(kind)
    edit(made.folder / "config.json", **changes)
    with pytest.raises(UnsupportedModel, match=message):
        convert(made.folder, tmp_path / "ours", "mlx-4bit")
    assert not list(tmp_path.glob("ours*"))


def test_a_missing_or_unknown_tensor_stops_it_before_a_byte_is_written(make_golden, rewrite, tmp_path):
    made = make_golden("deepseek_v3")
    lost = made.tensors.pop("model.layers.2.mlp.experts.9.up_proj.weight")
    rewrite(made.folder, made.tensors)
    with pytest.raises(UnsupportedModel, match=r"lacks tensor 'model.layers.2.mlp.experts.9.up_proj.weight'"):
        convert(made.folder, tmp_path / "ours", "mlx-4bit")
    rewrite(made.folder, made.tensors | {"model.layers.2.mlp.experts.9.up_proj.weight": lost, "extra": lost})
    with pytest.raises(UnsupportedModel, match=r"tensor 'extra' is not part"):
        convert(made.folder, tmp_path / "ours", "mlx-4bit")
    assert not list(tmp_path.glob("ours*"))


@pytest.mark.parametrize(("dtype", "value"), [(ml_dtypes.bfloat16, np.nan), (np.float32, np.inf), (np.float32, 1e6)])
def test_weights_that_are_not_finite(make_golden, edit, rewrite, tmp_path, dtype, value):
    """Before or after the cast: 1e6 is beyond F16."""
    made = make_golden("qwen2")
    edit(made.folder / "config.json", torch_dtype="float16")
    name = "model.layers.1.mlp.up_proj.weight"
    made.tensors[name] = made.tensors[name].astype(dtype)
    made.tensors[name][3, 5] = value
    rewrite(made.folder, made.tensors)
    with pytest.raises(QuantizeError, match=rf"tensor '{name}' holds weights that are infinite or not a number in F16"):
        convert(made.folder, tmp_path / "ours", "mlx-4bit")
    assert not list(tmp_path.glob("ours*"))


@pytest.mark.parametrize(
    "name", ["mlx-1bit", "mlx-7bit", "mlx-4bit-g16", "mlx-mixed_2_4", "mlx-", "mlx-mxfp4-g64", "mlx-nvfp4-g64", "MLX-q4"]
)
def test_unknown_formats(make_golden, tmp_path, name):
    with pytest.raises(QuantizeError, match=r"unknown MLX format .*; choose one of mlx-\{2,3,4,5,6,8\}bit\[-g\{32,64,128\}\], .*mixed"):
        convert(make_golden("qwen2").folder, tmp_path / "ours", name)


def test_names():
    assert len(MLX_FORMATS) == 18 + 3 + 4
    assert mlx_format("MLX-4bit-g64") is mlx_format("mlx-4bit") and mlx_format("mlx-4bit").default.group == 64


def test_without_mlx(make_golden, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlx.core", None)
    mlx.cache_clear()
    with pytest.raises(QuantizeError, match=r"MLX cannot be used .*; install it: pip install .*mlx.* mlx-lm$"):
        convert(make_golden("qwen2").folder, tmp_path / "ours", "mlx-4bit")
    mlx.cache_clear()
