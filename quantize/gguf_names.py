"""Hugging Face tensors -> GGUF tensors: what a pair of names is, and those of the dense architectures; Llama's rope_freqs.

Source: tensor_mapping.py, conversion/llama.py and conversion/qwen.py @ggml-org/llama.cpp; modeling_{llama,qwen2,qwen3}.py and
modeling_rope_utils.py @huggingface/transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from quantize.dimensions import DenseDimensions, Model, number, rope_type
from quantize.errors import UnsupportedModel
from quantize.rows import Picked, Rows

if TYPE_CHECKING:
    import numpy as np

Arrange = Callable[[Rows], Rows]


@dataclass(frozen=True, slots=True)
class TensorName:
    """One tensor of a GGUF file, and where it comes from: `sources`, one after another, each of `source_shape`.

    `arrange` puts a source's rows, [R, K] or [R, 1] of a vector, as llama.cpp wants them. `always_f32`: llama.cpp takes nothing
    else. `dropped`: checked like any other, and left out of the file.
    """

    gguf: str
    shape: tuple[int, ...]
    sources: tuple[str, ...]
    source_shape: tuple[int, ...]
    arrange: Arrange | None = None
    optional: bool = False
    always_f32: bool = False
    dropped: bool = False


def one(source: str, gguf: str, shape: tuple[int, ...], arrange: Arrange | None = None, *, optional: bool = False) -> TensorName:
    """A tensor that comes from one of its own shape. Vectors - norms, biases - are always F32."""
    return TensorName(gguf, shape, (source,), shape, arrange, optional, always_f32=len(shape) == 1)


def in_layer(tensor: TensorName, i: int) -> TensorName:
    """A layer's tensor by its full names."""
    return replace(tensor, gguf=f"blk.{i}.{tensor.gguf}", sources=tuple(f"model.layers.{i}.{source}" for source in tensor.sources))


def mlp(source: str, gguf: str, hidden: int, inner: int) -> Iterator[TensorName]:
    """The three matrices of a feed-forward block. `source` and `gguf` hold {} where gate, up, down stand."""
    for part, shape in (("gate", (inner, hidden)), ("up", (inner, hidden)), ("down", (hidden, inner))):
        yield one(source.format(part), gguf.format(part), shape)


def dense_layers(d: DenseDimensions) -> Iterator[TensorName]:
    layer = list(_dense_layer(d))
    for i in range(d.layers):
        yield from (in_layer(tensor, i) for tensor in layer)


def _dense_layer(d: DenseDimensions) -> Iterator[TensorName]:
    q, kv = d.heads * d.head_dim, d.kv_heads * d.head_dim
    yield one("input_layernorm.weight", "attn_norm.weight", (d.hidden,))
    yield one("post_attention_layernorm.weight", "ffn_norm.weight", (d.hidden,))
    if d.architecture == "qwen3":
        yield one("self_attn.q_norm.weight", "attn_q_norm.weight", (d.head_dim,))
        yield one("self_attn.k_norm.weight", "attn_k_norm.weight", (d.head_dim,))
    for part, heads, rows, columns in (
        ("q", d.heads, q, d.hidden),
        ("k", d.kv_heads, kv, d.hidden),
        ("v", 0, kv, d.hidden),
        ("o", 0, d.hidden, q),
    ):
        gguf = "attn_output" if part == "o" else f"attn_{part}"
        # llama.cpp rotates neighbouring pairs in `llama` models, Hugging Face weights are ordered for rotating halves
        arrange = partial(_interleaved, heads=heads) if heads and d.architecture == "llama" else None
        yield one(f"self_attn.{part}_proj.weight", f"{gguf}.weight", (rows, columns), arrange)
        if d.attention_bias and not (part == "o" and d.architecture == "qwen2"):
            yield one(f"self_attn.{part}_proj.bias", f"{gguf}.bias", (rows,), arrange)
    for matrix in mlp("mlp.{}_proj.weight", "ffn_{}.weight", d.hidden, d.feed_forward):
        yield matrix
        if d.mlp_bias:
            yield one(matrix.sources[0].replace("weight", "bias"), matrix.gguf.replace("weight", "bias"), matrix.shape[:1])


def _interleaved(rows: Rows, heads: int) -> Rows:
    """A Llama q or k projection: head by head, the two halves of the rows interleaved."""
    import numpy as np

    return Picked(rows, np.arange(rows.shape[0]).reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1))


def rope_frequency_divisors(d: Model) -> np.ndarray | None:
    """float32 [head_dim / 2], GGUF's rope_freqs.weight: what Llama 3 divides each rotary frequency by; None without llama3 scaling.

    Wavelengths the model was trained on keep their frequency, longer ones than the old context are stretched by `factor`,
    and those between are blended. Source: `_compute_llama3_parameters`, modeling_rope_utils.py@huggingface/transformers.
    """
    import numpy as np

    if rope_type(d.rope) != "llama3" or not isinstance(d, DenseDimensions):
        return None
    factor = number(d.rope, "factor", 8.0)
    low, high = number(d.rope, "low_freq_factor", 1.0), number(d.rope, "high_freq_factor", 4.0)
    old_context = number(d.rope, "original_max_position_embeddings", 8192)
    if factor <= 0 or low <= 0 or high <= low:
        raise UnsupportedModel(f"config.json: impossible llama3 scaling: factor {factor}, low {low}, high {high}")
    # float32 throughout and in this order of operations, so that the last bit equals the converter's
    frequencies = 1 / np.float32(d.rope_theta) ** (np.arange(0, d.head_dim, 2, dtype=np.float32) / np.float32(d.head_dim))
    wavelengths = np.float32(2 * math.pi) / frequencies
    smooth = (np.float32(old_context) / wavelengths - np.float32(low)) / np.float32(high - low)
    blended = 1 / ((1 - smooth) / np.float32(factor) + smooth)
    divisors = np.where(wavelengths > old_context / low, np.float32(factor), blended)
    return np.where(wavelengths < old_context / high, np.float32(1), divisors).astype(np.float32)
