"""What config.json can ask for and llama.cpp does not compute: such a file would load and answer, and be another model.

Source: llama-model.cpp, llama-context.cpp, llama-graph.cpp, models/{qwen2,qwen3,llama,deepseek2}.cpp @ggml-org/llama.cpp (what is
computed); modeling_rope_utils.py, configuration_{qwen2,qwen3}.py and modeling_deepseek_v{2,3}.py @huggingface/transformers (what the
config means).
"""

from __future__ import annotations

import math
from typing import Any

from backends.checkpoint import short
from quantize.dimensions import DeepseekDimensions, DenseDimensions, Model, number, rope_type
from quantize.errors import UnsupportedModel
from quantize.gguf_deepseek import guessed_lite

MAX_LAYERS, MAX_EXPERTS = 512, 1024  # with more, llama.cpp ends the whole program


def check_engine_limits(config: dict[str, Any], d: Model) -> None:
    """Raises UnsupportedModel: one line naming the key, its value and the remedy."""
    if d.layers > MAX_LAYERS:
        raise UnsupportedModel(f"config.json: num_hidden_layers is {d.layers:,}, llama.cpp takes up to {MAX_LAYERS}; run another program")
    for place in (config, d.rope):
        if place.get("partial_rotary_factor") is not None and place["partial_rotary_factor"] != 1:
            raise _refused("partial_rotary_factor", place["partial_rotary_factor"], f"llama.cpp rotates whole heads in {d.architecture}")
    for key, value in d.rope.items():
        if isinstance(value, dict):  # {"full_attention": {...}, "sliding_attention": {...}}
            raise _refused(f"the rotary embedding's {key}", value, f"llama.cpp rotates all layers of {d.architecture} alike")
    if isinstance(d, DenseDimensions):
        _check_dense(config, d)
    else:
        _check_deepseek(config, d)
    if rope_type(d.rope) == "yarn":
        _check_yarn(d.rope, deepseek=isinstance(d, DeepseekDimensions))


def _check_dense(config: dict[str, Any], d: DenseDimensions) -> None:
    if d.architecture == "qwen3" and config.get("attention_bias"):
        raise _refused("attention_bias", config["attention_bias"], "llama.cpp has no biases in qwen3")
    if d.architecture == "qwen2" and d.heads * d.head_dim != d.hidden:
        raise _refused("head_dim", d.head_dim, f"llama.cpp wants hidden_size / num_attention_heads in qwen2, {d.hidden} / {d.heads}")
    window = sliding_window(config, d)
    if window is not None:
        raise _refused("sliding_window", window, f"with use_sliding_window, and llama.cpp lets {d.architecture} see all {d.context} tokens")


def sliding_window(config: dict[str, Any], d: DenseDimensions) -> Any:
    """The window of tokens that Qwen's layers from max_window_layers on see; None where it hides nothing."""
    if d.architecture == "llama" or not config.get("use_sliding_window"):
        return None
    window, first, kinds = config.get("sliding_window", 4096), config.get("max_window_layers", 28), config.get("layer_types")
    slides = "sliding_attention" in kinds if isinstance(kinds, list) else type(first) is not int or first < d.layers
    return window if slides and window is not None and (type(window) is not int or window < d.context) else None


def _check_deepseek(config: dict[str, Any], d: DeepseekDimensions) -> None:
    if not 2 <= d.experts <= MAX_EXPERTS:
        raise _refused("n_routed_experts", d.experts, f"llama.cpp takes 2 to {MAX_EXPERTS}")
    if d.groups > 1 and d.group_score == "best":
        raise _refused("topk_method", config["topk_method"], "which judges a group by its best expert, llama.cpp by its two best")
    if d.q_rank is not None and guessed_lite(d):
        raise _refused("q_lora_rank", d.q_rank, f"and llama.cpp takes a model of {d.layers} layers for one without")
    if config.get("rope_interleave") not in (None, True):
        raise _refused("rope_interleave", config["rope_interleave"], "llama.cpp rotates neighbouring pairs")


def _check_yarn(rope: dict[str, Any], *, deepseek: bool) -> None:
    """llama.cpp takes YaRN's factor and old context from the file, and DeepSeek's mscale_all_dim; no other key that stands there.

    `attn_factor` (DeepSeek-R1-0528-Qwen3-8B) is no key of transformers': both ignore it.
    """
    for key, computed in (("beta_fast", 32.0), ("beta_slow", 1.0)):
        if number(rope, key, computed) not in (computed, 0):  # 0 is transformers' "not set"
            raise _refused(key, rope[key], f"llama.cpp computes YaRN with {computed:g}")
    if not rope.get("truncate", True):
        raise _refused("truncate", rope["truncate"], "llama.cpp always rounds YaRN's range")
    factor, all_dim = number(rope, "factor", 1.0), number(rope, "mscale_all_dim", 0.0)
    if deepseek and factor != 1 and (factor < 1 or all_dim <= 0):
        key = "factor" if factor < 1 else "mscale_all_dim"
        raise _refused(
            key,
            rope.get(key),
            "llama.cpp scales a DeepSeek model's attention right only with a factor of 1 or more and an mscale_all_dim above 0",
        )
    # cos and sin: mscale_all_dim leaves them as they are in llama.cpp's DeepSeek models
    computed = 1.0 if deepseek else yarn_mscale(factor, 1.0)
    key, wanted = yarn_scale(rope)
    if not math.isclose(wanted, computed, rel_tol=1e-4):
        raise _refused(key, rope.get(key), f"which scales attention by {wanted:.4f} where llama.cpp's YaRN computes {computed:.4f}")


def yarn_scale(rope: dict[str, Any]) -> tuple[str, float]:
    """What YaRN multiplies cos and sin by, and the key that says so."""
    factor, mscale, all_dim = number(rope, "factor", 1.0), number(rope, "mscale", 0.0), number(rope, "mscale_all_dim", 0.0)
    if rope.get("attention_factor") is not None:
        return "attention_factor", number(rope, "attention_factor")
    ratio = mscale and all_dim and yarn_mscale(factor, all_dim)
    return "mscale", yarn_mscale(factor, mscale) / ratio if ratio else yarn_mscale(factor, 1.0)


def yarn_mscale(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def _refused(key: str, value: Any, why: str) -> UnsupportedModel:
    return UnsupportedModel(f"config.json: {key} is {short(value)}, {why}; run this model with another program, e.g. transformers")
