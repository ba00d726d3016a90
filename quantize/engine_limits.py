"""What config.json can ask for and llama.cpp does not compute: such a file would load and answer, and be another model.

Source: llama-model.cpp, llama-context.cpp, models/{qwen2,qwen3,llama}.cpp @ggml-org/llama.cpp (what is computed);
modeling_rope_utils.py and configuration_{qwen2,qwen3}.py @huggingface/transformers (what the config means).
"""

from __future__ import annotations

import math
from typing import Any

from backends.checkpoint import short
from quantize.errors import UnsupportedModel
from quantize.gguf_names import Dimensions, number, rope_type


def check_engine_limits(config: dict[str, Any], d: Dimensions) -> None:
    """Raises UnsupportedModel: one line naming the key, its value and the remedy."""
    if config.get("quantization_config") is not None:
        raise UnsupportedModel(
            f"config.json: quantization_config is {short(config['quantization_config'])}: quantized weights, block FP8 too, "
            "cannot be converted yet; convert the model's BF16 weights"
        )
    if d.architecture == "qwen3" and config.get("attention_bias"):
        raise _refused("attention_bias", config["attention_bias"], "llama.cpp has no biases in qwen3")
    if d.architecture == "qwen2" and d.heads * d.head_dim != d.hidden:
        raise _refused("head_dim", d.head_dim, f"llama.cpp wants hidden_size / num_attention_heads in qwen2, {d.hidden} / {d.heads}")
    _check_window(config, d)
    for place in (config, d.rope):
        if place.get("partial_rotary_factor") is not None and place["partial_rotary_factor"] != 1:
            raise _refused("partial_rotary_factor", place["partial_rotary_factor"], f"llama.cpp rotates whole heads in {d.architecture}")
    for key, value in d.rope.items():
        if isinstance(value, dict):  # {"full_attention": {...}, "sliding_attention": {...}}
            raise _refused(f"the rotary embedding's {key}", value, f"llama.cpp rotates all layers of {d.architecture} alike")
    if rope_type(d.rope) == "yarn":
        _check_yarn(d.rope)


def _check_window(config: dict[str, Any], d: Dimensions) -> None:
    """Qwen's layers from max_window_layers on see only the last tokens. A window as long as the context hides nothing."""
    if d.architecture == "llama" or not config.get("use_sliding_window"):
        return
    window, first, kinds = config.get("sliding_window", 4096), config.get("max_window_layers", 28), config.get("layer_types")
    slides = "sliding_attention" in kinds if isinstance(kinds, list) else type(first) is not int or first < d.layers
    if slides and window is not None and (type(window) is not int or window < d.context):
        raise _refused("sliding_window", window, f"with use_sliding_window, and llama.cpp lets {d.architecture} see all {d.context} tokens")


def _check_yarn(rope: dict[str, Any]) -> None:
    """llama.cpp takes YaRN's factor and old context from the file and nothing else, whatever other keys stand there.

    `attn_factor` (DeepSeek-R1-0528-Qwen3-8B) is no key of transformers': both ignore it.
    """
    for key, computed in (("beta_fast", 32.0), ("beta_slow", 1.0)):
        if number(rope, key, computed) not in (computed, 0):  # 0 is transformers' "not set"
            raise _refused(key, rope[key], f"llama.cpp computes YaRN with {computed:g}")
    if not rope.get("truncate", True):
        raise _refused("truncate", rope["truncate"], "llama.cpp always rounds YaRN's range")
    factor, mscale, all_dim = number(rope, "factor", 1.0), number(rope, "mscale", 0.0), number(rope, "mscale_all_dim", 0.0)
    computed = _mscale(factor, 1.0)
    if rope.get("attention_factor") is not None:
        key, wanted = "attention_factor", number(rope, "attention_factor", computed)
    else:
        ratio = mscale and all_dim and _mscale(factor, all_dim)
        key, wanted = "mscale", _mscale(factor, mscale) / ratio if ratio else computed
    if not math.isclose(wanted, computed, rel_tol=1e-4):
        raise _refused(key, rope[key], f"which scales attention by {wanted:.4f} where llama.cpp's YaRN computes {computed:.4f}")


def _mscale(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def _refused(key: str, value: Any, why: str) -> UnsupportedModel:
    return UnsupportedModel(f"config.json: {key} is {short(value)}, {why}; run this model with another program, e.g. transformers")
