"""Hugging Face tensors -> GGUF tensors for the dense architectures: names, expected shapes, Llama's row order, rope_freqs.

Source: tensor_mapping.py, conversion/llama.py and conversion/qwen.py @ggml-org/llama.cpp; modeling_{llama,qwen2,qwen3}.py and
modeling_rope_utils.py @huggingface/transformers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from backends.checkpoint import short
from quantize.errors import UnsupportedModel

if TYPE_CHECKING:
    import numpy as np

# config.json's `architectures[0]` -> GGUF's general.architecture
ARCHITECTURES = {"Qwen2ForCausalLM": "qwen2", "LlamaForCausalLM": "llama", "Qwen3ForCausalLM": "qwen3"}

ROPE_TYPES = ("default", "linear", "yarn", "llama3")


@dataclass(frozen=True, slots=True)
class Dimensions:
    """What config.json says of a dense decoder. `head_dim_given`: GGUF names it only where the model's own config has it."""

    architecture: str
    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    head_dim_given: bool
    vocabulary: int
    context: int
    norm_epsilon: float
    rope_theta: float
    rope: dict[str, Any]
    tied: bool
    attention_bias: bool
    mlp_bias: bool

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Raises UnsupportedModel: unknown architecture, a missing or impossible value, an unknown RoPE scaling."""
        names = config.get("architectures")
        name = names[0] if isinstance(names, list) and names else config.get("model_type")
        if not isinstance(name, str) or name not in ARCHITECTURES:
            raise UnsupportedModel(f"architecture {short(name)} cannot be converted; supported are {', '.join(ARCHITECTURES)}")
        architecture = ARCHITECTURES[name]
        hidden, heads = _count(config, "hidden_size"), _count(config, "num_attention_heads")
        kv_heads = _count(config, "num_key_value_heads", default=heads)
        if heads % kv_heads != 0:
            raise UnsupportedModel(f"config.json: {heads} attention heads cannot share {kv_heads} key-value heads")
        # transformers' defaults where config.json is silent: 128 for Qwen3, the hidden size split evenly otherwise
        head_dim = _count(config, "head_dim", default=128 if architecture == "qwen3" else hidden // heads)
        if head_dim % 2 != 0:
            raise UnsupportedModel(f"config.json: head_dim {head_dim} is odd, rotary embeddings need pairs")
        if config.get("hidden_act", "silu") != "silu":
            raise UnsupportedModel(
                f"config.json: hidden_act {short(config['hidden_act'])}; llama.cpp runs this architecture with 'silu' only"
            )
        rope = _rope(config)
        kind = rope_type(rope)
        if kind not in ROPE_TYPES or (kind == "llama3" and architecture != "llama"):
            raise UnsupportedModel(
                f"config.json: RoPE scaling {short(kind)} is not supported for {name}; known are {', '.join(ROPE_TYPES)}"
            )
        return cls(
            architecture=architecture,
            layers=_count(config, "num_hidden_layers"),
            hidden=hidden,
            feed_forward=_count(config, "intermediate_size"),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            head_dim_given=architecture != "qwen2" or config.get("head_dim") is not None,
            vocabulary=_count(config, "vocab_size"),
            context=_count(config, "max_position_embeddings"),
            norm_epsilon=_positive(config, "rms_norm_eps", 1e-6),
            rope_theta=_positive(rope if rope.get("rope_theta") is not None else config, "rope_theta", 10000.0),
            rope=rope,
            tied=config.get("tie_word_embeddings") is True,
            attention_bias=architecture == "qwen2" or config.get("attention_bias") is True,
            mlp_bias=architecture == "llama" and config.get("mlp_bias") is True,
        )


@dataclass(frozen=True, slots=True)
class TensorName:
    """One tensor to be found in the checkpoint: its GGUF name, its shape, and in how many heads its rows are reordered."""

    gguf: str
    shape: tuple[int, ...]
    reorder_heads: int | None = None
    optional: bool = False


def tensor_names(d: Dimensions) -> dict[str, TensorName]:
    """Every tensor the architecture has, by its Hugging Face name."""
    names = {
        "model.embed_tokens.weight": TensorName("token_embd.weight", (d.vocabulary, d.hidden)),
        "model.norm.weight": TensorName("output_norm.weight", (d.hidden,)),
        # with tied embeddings, llama.cpp uses token_embd for the output too
        "lm_head.weight": TensorName("output.weight", (d.vocabulary, d.hidden), optional=d.tied),
    }
    for i in range(d.layers):
        for name, found in _layer(d).items():
            gguf = TensorName(f"blk.{i}.{found.gguf}", found.shape, found.reorder_heads, found.optional)
            names[f"model.layers.{i}.{name}"] = gguf
    return names


def _layer(d: Dimensions) -> dict[str, TensorName]:
    q, kv = d.heads * d.head_dim, d.kv_heads * d.head_dim
    names = {
        "input_layernorm.weight": TensorName("attn_norm.weight", (d.hidden,)),
        "post_attention_layernorm.weight": TensorName("ffn_norm.weight", (d.hidden,)),
    }
    if d.architecture == "qwen3":
        names["self_attn.q_norm.weight"] = TensorName("attn_q_norm.weight", (d.head_dim,))
        names["self_attn.k_norm.weight"] = TensorName("attn_k_norm.weight", (d.head_dim,))
    # llama.cpp rotates neighbouring pairs in `llama` models, Hugging Face weights are ordered for rotating halves
    reorder = {"q": d.heads, "k": d.kv_heads} if d.architecture == "llama" else {}
    for part, rows, columns in (("q", q, d.hidden), ("k", kv, d.hidden), ("v", kv, d.hidden), ("o", d.hidden, q)):
        gguf = "attn_output" if part == "o" else f"attn_{part}"
        names[f"self_attn.{part}_proj.weight"] = TensorName(f"{gguf}.weight", (rows, columns), reorder.get(part))
        if d.attention_bias and not (part == "o" and d.architecture == "qwen2"):
            names[f"self_attn.{part}_proj.bias"] = TensorName(f"{gguf}.bias", (rows,), reorder.get(part))
    for part, rows, columns in (
        ("gate", d.feed_forward, d.hidden),
        ("up", d.feed_forward, d.hidden),
        ("down", d.hidden, d.feed_forward),
    ):
        names[f"mlp.{part}_proj.weight"] = TensorName(f"ffn_{part}.weight", (rows, columns))
        if d.mlp_bias:
            names[f"mlp.{part}_proj.bias"] = TensorName(f"ffn_{part}.bias", (rows,))
    return names


def row_order(rows: int, heads: int) -> np.ndarray:
    """int64 [rows]: where each row of a Llama q or k projection comes from: head by head, the two halves interleaved."""
    import numpy as np

    return np.arange(rows).reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """The rotary embedding's settings: `rope_parameters`, where transformers 5 gathers everything, or `rope_scaling` before."""
    given = {key: config[key] for key in ("rope_parameters", "rope_scaling") if config.get(key) not in (None, {})}
    for key, rope in given.items():
        if not isinstance(rope, dict):
            raise UnsupportedModel(f"config.json: {key} is {short(rope)}, an object or null is expected")
    found: list[dict[str, Any]] = list(given.values()) or [{}]
    # transformers 5 takes one, llama.cpp's converter the other
    if found[0] | {"rope_theta": 0} != found[-1] | {"rope_theta": 0}:
        raise UnsupportedModel(
            "config.json: rope_parameters and rope_scaling differ, and programs disagree on which counts; remove the wrong one"
        )
    return found[0]


def rope_type(rope: dict[str, Any]) -> Any:
    return rope.get("rope_type", rope.get("type", "default"))


def rope_frequency_divisors(d: Dimensions) -> np.ndarray | None:
    """float32 [head_dim / 2], GGUF's rope_freqs.weight: what Llama 3 divides each rotary frequency by; None without llama3 scaling.

    Wavelengths the model was trained on keep their frequency, longer ones than the old context are stretched by `factor`,
    and those between are blended. Source: `_compute_llama3_parameters`, modeling_rope_utils.py@huggingface/transformers.
    """
    import numpy as np

    if rope_type(d.rope) != "llama3":
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


def _count(config: dict[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key)
    if value is None:
        value = default
    if type(value) is not int or not 0 < value < 1 << 31:
        raise UnsupportedModel(f"config.json: {key} is {short(value)}, a positive whole number is needed")
    return value


def number(config: dict[str, Any], key: str, default: float, file: str = "config.json") -> float:
    """A finite number of a config, or the default where it is missing or null. Raises UnsupportedModel for anything else."""
    value = config.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e38:
        raise UnsupportedModel(f"{file}: {key} is {short(value)}, a number is needed")
    return value


def _positive(config: dict[str, Any], key: str, default: float) -> float:
    """As `number`, and above 0: with less, the engine ends the whole program or computes nonsense."""
    value = number(config, key, default)
    if value <= 0:
        raise UnsupportedModel(f"config.json: {key} is {value!r}, a number above 0 is needed")
    return value
