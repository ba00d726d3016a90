"""config.json and model card of an MLX folder, and what a config can ask for that mlx-lm does not compute.

Source: `save_config`, `create_model_card`, `load_config` (utils.py), models/{qwen2,llama,qwen3,deepseek_v2,deepseek_v3}.py and
models/rope_utils.py @ml-explore/mlx-lm (what is written and computed); modeling_rope_utils.py and the models' configuration files
@huggingface/transformers (what the config means).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from backends.checkpoint import read_json, short
from quantize.dimensions import DeepseekDimensions, DenseDimensions, Model, number, rope_type
from quantize.engine_limits import sliding_window, yarn_mscale, yarn_scale
from quantize.errors import UnsupportedModel

# mlx-lm writes no more of a local folder's card
CARD = "---\nlanguage: en\nlibrary_name: mlx\npipeline_tag: text-generation\ntags:\n- mlx\n---\n"

V3_LAYERS = 61  # of DeepSeek-V3: mlx-lm takes a layer of this number for its MTP layer and drops it


def mlx_config(folder: Path, config: dict[str, Any], d: Model, quantization: dict[str, Any]) -> dict[str, Any]:
    """What mlx-lm writes, and beside that only what config.json leaves to defaults that mlx-lm has others for.

    Raises ModelFileError if generation_config.json is damaged.
    """
    made = {key: value for key, value in config.items() if key not in ("_name_or_path", "vision_config")}
    for key, value in _explicit(d).items():
        if made.get(key) is None:
            made[key] = value
    made["rope_theta"] = d.rope_theta
    if (rope := _rope(made, d)) is not None:
        made["rope_scaling"] = rope
    generation = folder / "generation_config.json"
    if generation.is_file() and (eos := read_json(generation).get("eos_token_id")):
        made["eos_token_id"] = eos
    return dict(sorted((made | {"quantization": quantization, "quantization_config": quantization}).items()))


def _explicit(d: Model) -> dict[str, Any]:
    """What mlx-lm asks for, or takes from its own defaults, where config.json has nothing."""
    common = {"rms_norm_eps": d.norm_epsilon, "tie_word_embeddings": d.tied}
    if isinstance(d, DenseDimensions):
        dense = common | {"model_type": d.architecture, "num_key_value_heads": d.kv_heads}
        return dense | {"head_dim": d.head_dim} if d.architecture == "qwen3" else dense
    v3 = d.gating == "sigmoid"
    return common | {
        "model_type": "deepseek_v3" if v3 else "deepseek_v2",
        "first_k_dense_replace": d.dense_layers,
        "norm_topk_prob": d.weights_normalized,
        "q_lora_rank": d.q_rank,
        "routed_scaling_factor": d.weights_scale,
        "topk_method": "noaux_tc" if v3 else "greedy",
    }


def _rope(config: dict[str, Any], d: Model) -> dict[str, Any] | None:
    """`rope_scaling`, where it does not already say to mlx-lm what was meant: it knows transformers 5's place in some models only."""
    kind, given = rope_type(d.rope), config.get("rope_scaling") or {}
    wanted = {key: value for key, value in d.rope.items() if value is not None}
    if kind == "yarn":
        wanted = {"factor": 1.0, "original_max_position_embeddings": d.context} | wanted
    if kind == "llama3":
        wanted = {"factor": 8.0} | wanted
    seen = given.get("type") or given.get("rope_type", "default")
    if seen == kind and (kind == "default" or wanted.items() <= given.items()):
        return None
    return wanted | {"type": kind, "rope_type": kind}


def check_mlx_limits(config: dict[str, Any], d: Model) -> None:
    """Raises UnsupportedModel: what mlx-lm cannot load, or would load and compute another model."""
    for place in (config, d.rope):
        if place.get("partial_rotary_factor") not in (None, 1):
            raise _refused("partial_rotary_factor", place["partial_rotary_factor"], f"mlx-lm rotates whole heads in {d.architecture}")
    for key, value in d.rope.items():
        if isinstance(value, dict):
            raise _refused(f"the rotary embedding's {key}", value, f"mlx-lm rotates all layers of {d.architecture} alike")
    if isinstance(d, DenseDimensions):
        _check_dense(config, d)
    else:
        _check_deepseek(config, d)
    if rope_type(d.rope) == "yarn":
        _check_yarn(d.rope)


def _check_dense(config: dict[str, Any], d: DenseDimensions) -> None:
    if d.architecture == "qwen3" and d.attention_bias:
        raise _refused("attention_bias", config["attention_bias"], "mlx-lm has no biases in qwen3")
    if d.architecture == "qwen2" and d.heads * d.head_dim != d.hidden:
        raise _refused("head_dim", d.head_dim, f"mlx-lm wants hidden_size / num_attention_heads in qwen2, {d.hidden} / {d.heads}")
    window = sliding_window(config, d)
    if window is not None:
        raise _refused("sliding_window", window, f"with use_sliding_window, and mlx-lm lets {d.architecture} see all {d.context} tokens")


def _check_deepseek(config: dict[str, Any], d: DeepseekDimensions) -> None:
    v3 = d.gating == "sigmoid"
    if d.tied:
        raise _refused("tie_word_embeddings", True, "mlx-lm wants an lm_head in DeepSeek models")
    if v3 and d.layers > V3_LAYERS:
        raise _refused("num_hidden_layers", d.layers, f"mlx-lm drops a deepseek_v3 model's layer {V3_LAYERS}")
    if not v3 and rope_type(d.rope) != "yarn":
        raise _refused("rope_scaling", config.get("rope_scaling"), "mlx-lm wants YaRN in deepseek_v2")
    if config.get("rope_interleave") not in (None, True):
        raise _refused("rope_interleave", config["rope_interleave"], "mlx-lm rotates neighbouring pairs")


def _check_yarn(rope: dict[str, Any]) -> None:
    for key in ("beta_fast", "beta_slow"):
        if key in rope and not number(rope, key, 0):  # transformers' "not set", which mlx-lm divides by
            raise _refused(key, rope[key], "mlx-lm computes YaRN with it")
    if not rope.get("truncate", True):
        raise _refused("truncate", rope["truncate"], "mlx-lm always rounds YaRN's range")
    factor = number(rope, "factor", 1.0)
    computed = yarn_mscale(factor, number(rope, "mscale", 1.0)) / yarn_mscale(factor, number(rope, "mscale_all_dim", 0.0))
    key, wanted = yarn_scale(rope)
    if not math.isclose(wanted, computed, rel_tol=1e-4):
        raise _refused(key, rope.get(key), f"which scales attention by {wanted:.4f} where mlx-lm computes {computed:.4f}")


def _refused(key: str, value: Any, why: str) -> UnsupportedModel:
    return UnsupportedModel(f"config.json: {key} is {short(value)}, {why}; convert this model to GGUF, or run it with transformers")
