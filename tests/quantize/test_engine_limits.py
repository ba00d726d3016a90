"""What llama.cpp would compute otherwise than the config says is refused: the file would answer, and be another model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from backends.llamacpp import LlamaCppBackend
from backends.reference.backend import ReferenceBackend
from quantize.convert import convert
from quantize.errors import UnsupportedModel
from quantize.gguf_reader import read_gguf_header

YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=128)
PLAIN = dict(rope_type="default")


def yarn(**changes: Any) -> dict[str, Any]:
    return dict(rope_scaling=YARN | changes)


WINDOW = dict(use_sliding_window=True, sliding_window=64, max_window_layers=0)
ENGINES_OWN = 0.1 * math.log(4.0) + 1.0

REFUSED = [
    ("qwen2", WINDOW, "sliding_window is 64, "),
    ("qwen3", WINDOW | dict(rope_scaling=None), "sliding_window is 64, "),
    ("qwen2", WINDOW | dict(max_window_layers=1), "sliding_window is 64, "),
    ("qwen2", WINDOW | dict(max_window_layers=2, layer_types=["full_attention", "sliding_attention"]), "sliding_window is 64, "),
    ("qwen2", WINDOW | dict(sliding_window="64"), "sliding_window is '64', "),
    ("qwen3", dict(attention_bias=True), "attention_bias is True, "),
    ("qwen2", dict(head_dim=32), "head_dim is 32, "),
    ("qwen2", dict(partial_rotary_factor=0.5), "partial_rotary_factor is 0.5, "),
    ("llama", dict(rope_scaling=None, rope_parameters=PLAIN | dict(partial_rotary_factor=0.25)), "partial_rotary_factor is 0.25, "),
    ("qwen2", dict(rope_parameters=dict(full_attention=PLAIN, sliding_attention=YARN)), "full_attention is {'rope_type': 'default'}, "),
    ("qwen2", dict(rope_parameters=PLAIN, **yarn()), "rope_parameters and rope_scaling differ"),
    ("qwen2", dict(rope_scaling="yarn"), "rope_scaling is 'yarn', an object or null"),
    ("qwen2", dict(quantization_config=dict(quant_method="fp8", weight_block_size=[128, 128])), "quantization_config is {'quant_method': 'fp8'"),
    *[
        (architecture, yarn(**changes), message)
        for architecture in ("qwen2", "llama", "qwen3")
        for changes, message in [
            (dict(beta_fast=16.0), "beta_fast is 16.0, llama.cpp computes YaRN with 32;"),
            (dict(beta_slow=2), "beta_slow is 2, llama.cpp computes YaRN with 1;"),
            (dict(attention_factor=1.3), "attention_factor is 1.3, "),
            (dict(mscale=1.0, mscale_all_dim=0.5), "mscale is 1.0, "),
            (dict(truncate=False), "truncate is False, "),
            (dict(beta_fast="32"), "beta_fast is '32', a number is needed"),
        ]
    ],
]  # fmt: skip


@pytest.mark.parametrize(("architecture", "changes", "message"), REFUSED)
def test_what_llama_cpp_does_not_compute(make_checkpoint, edit, tmp_path, architecture, changes, message):
    made = make_checkpoint(architecture)
    edit(made.folder / "config.json", **changes)
    with pytest.raises(UnsupportedModel) as raised:
        convert(made.folder, tmp_path / "m.gguf", "Q8_0")
    said = str(raised.value)
    assert message in said and "\n" not in said and len(said) < 300
    assert "needed" in said or "expected" in said or "; " in said, "no remedy"
    assert not list(tmp_path.glob("m.gguf*"))


ALLOWED = [
    ("qwen2", dict(use_sliding_window=False, sliding_window=4096, max_window_layers=21)),  # DeepSeek-R1-Distill-Qwen-1.5B
    ("qwen2", dict(use_sliding_window=False, sliding_window=64, max_window_layers=0)),
    ("qwen2", WINDOW | dict(sliding_window=512)),  # the context: it hides nothing
    ("qwen2", WINDOW | dict(max_window_layers=2)),  # of 2 layers: none slides
    ("qwen2", WINDOW | dict(layer_types=["full_attention", "full_attention"])),
    ("llama", dict(attention_bias=False, mlp_bias=False, partial_rotary_factor=1.0, pretraining_tp=1)),
    ("qwen3", dict(attention_bias=False, sliding_window=None, use_sliding_window=False)),
    ("qwen2", dict(rope_scaling=YARN, rope_parameters=YARN | dict(rope_theta=10000.0))),
    ("qwen2", dict(rope_scaling={}, rope_parameters=PLAIN)),
    ("qwen2", yarn(beta_fast=32, beta_slow=1.0, attention_factor=ENGINES_OWN, truncate=True)),
    ("qwen2", yarn(beta_fast=None, attention_factor=None, mscale=0.0, mscale_all_dim=1.0)),
    ("qwen2", yarn(attention_factor=ENGINES_OWN, mscale=1.0, mscale_all_dim=0.5)),  # with a factor, transformers reads no mscale
]


@pytest.mark.parametrize(("architecture", "changes"), ALLOWED)
def test_what_comes_to_the_same_is_converted(make_checkpoint, edit, tmp_path, architecture, changes):
    made = make_checkpoint(architecture)
    edit(made.folder / "config.json", **changes)
    convert(made.folder, tmp_path / "m.gguf", "Q8_0")


def test_the_published_qwen3_distill_keeps_its_factor(make_checkpoint, edit, tmp_path):
    """DeepSeek-R1-0528-Qwen3-8B: llama.cpp's converter writes its attn_factor, and so do we."""
    made = make_checkpoint("qwen3")
    edit(made.folder / "config.json", **yarn(attn_factor=0.8782488562869419))
    convert(made.folder, tmp_path / "m.gguf", "Q8_0")
    found = read_gguf_header(tmp_path / "m.gguf").metadata
    scaling = {key.rsplit(".", 1)[1]: value for key, value in found.items() if "rope.scaling" in key}
    assert scaling.pop("yarn_attn_factor") == pytest.approx(0.8782488562869419, rel=1e-7)  # float32
    assert scaling == dict(type="yarn", factor=4.0, original_context_length=128)


def test_linear_scaling_is_the_same_in_the_engine_and_in_the_reference(make_checkpoint, edit, tmp_path):
    made = make_checkpoint("qwen2")
    ids = [7, 80, 41, 160, 11, 99, 3, 5, 17, 120, 64, 33]
    seen = []
    for scaling in (None, dict(type="linear", factor=4.0)):
        edit(made.folder / "config.json", rope_scaling=scaling)
        convert(made.folder, tmp_path / f"{len(seen)}.gguf", "F32")
        with LlamaCppBackend(tmp_path / f"{len(seen)}.gguf") as engine, ReferenceBackend(made.folder) as reference:
            seen.append(reference.logits(ids))
            np.testing.assert_allclose(engine.logits(ids), seen[-1], atol=2e-3 * np.abs(seen[-1]).max())  # keys and values in F16
    assert np.abs(seen[0] - seen[1]).max() > 0.02 * np.abs(seen[0]).max()
