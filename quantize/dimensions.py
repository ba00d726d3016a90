"""What config.json says of a model, checked: sizes, attention, experts, rotary embedding.

Source: modeling_{llama,qwen2,qwen3,deepseek_v2,deepseek_v3}.py and modeling_rope_utils.py @huggingface/transformers;
modeling_deepseek.py @deepseek-ai/DeepSeek-V2 and -V3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from backends import config_values
from backends.checkpoint import short
from quantize.errors import UnsupportedModel

# config.json's `architectures[0]` -> GGUF's general.architecture
DENSE = {"Qwen2ForCausalLM": "qwen2", "LlamaForCausalLM": "llama", "Qwen3ForCausalLM": "qwen3"}
DEEPSEEK = {"DeepseekV3ForCausalLM": "deepseek2", "DeepseekV2ForCausalLM": "deepseek2"}
ARCHITECTURES = DENSE | DEEPSEEK

_SCALINGS = ("default", "linear", "yarn")
ROPE_TYPES = {"qwen2": _SCALINGS, "qwen3": _SCALINGS, "llama": (*_SCALINGS, "llama3"), "deepseek2": ("default", "yarn")}

MTP_LAYERS_MOST = 16

count = partial(config_values.count, error=UnsupportedModel)
number = partial(config_values.number, error=UnsupportedModel)
positive = partial(config_values.positive, error=UnsupportedModel)
flag = partial(config_values.flag, error=UnsupportedModel)


@dataclass(frozen=True, slots=True)
class Dimensions:
    """What every decoder has."""

    architecture: str
    layers: int
    hidden: int
    feed_forward: int
    heads: int
    vocabulary: int
    context: int
    norm_epsilon: float
    rope_theta: float
    rope: dict[str, Any]
    tied: bool


@dataclass(frozen=True, slots=True)
class DenseDimensions(Dimensions):
    """Qwen2, Llama, Qwen3. `head_dim_given`: GGUF names it only where the model's own config has it."""

    kv_heads: int
    head_dim: int
    head_dim_given: bool
    attention_bias: bool
    mlp_bias: bool


@dataclass(frozen=True, slots=True)
class DeepseekDimensions(Dimensions):
    """DeepSeek-V2, -V3, R1: latent attention (MLA), a mixture of experts, and MTP layers behind the last one.

    A head's query and key are `nope` values beside `rotated` ones. `groups` 1: every expert may be chosen; else experts of
    the best `groups_used` groups, judged by `group_score`: the sum of their two best scores, or their best one alone.
    """

    q_rank: int | None
    kv_rank: int
    nope: int
    rotated: int
    value: int
    dense_layers: int
    experts: int
    experts_used: int
    experts_shared: int
    expert_feed_forward: int
    groups: int
    groups_used: int
    group_score: Literal["two best", "best"]
    gating: Literal["sigmoid", "softmax"]
    weights_normalized: bool
    weights_scale: float
    mtp_layers: int


Model = DenseDimensions | DeepseekDimensions


def read_dimensions(config: dict[str, Any]) -> Model:
    """Raises UnsupportedModel: unknown architecture, a missing or impossible value, an unknown RoPE scaling."""
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else config.get("model_type")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise UnsupportedModel(f"architecture {short(name)} cannot be converted; supported are {', '.join(ARCHITECTURES)}")
    if config.get("hidden_act", "silu") != "silu":
        raise UnsupportedModel(f"config.json: hidden_act {short(config['hidden_act'])}; llama.cpp runs this architecture with 'silu' only")
    architecture, rope = ARCHITECTURES[name], _rope(config)
    known = ROPE_TYPES[architecture]
    if rope_type(rope) not in known:
        raise UnsupportedModel(
            f"config.json: RoPE scaling {short(rope_type(rope))} is not supported for {name}; known are {', '.join(known)}"
        )
    common: dict[str, Any] = dict(
        architecture=architecture,
        layers=count(config, "num_hidden_layers"),
        hidden=count(config, "hidden_size"),
        feed_forward=count(config, "intermediate_size"),
        heads=count(config, "num_attention_heads"),
        vocabulary=count(config, "vocab_size"),
        context=count(config, "max_position_embeddings"),
        norm_epsilon=positive(config, "rms_norm_eps", 1e-6),
        rope_theta=positive(rope if rope.get("rope_theta") is not None else config, "rope_theta", 10000.0),
        rope=rope,
        tied=config.get("tie_word_embeddings") is True,
    )
    return _dense(config, common) if name in DENSE else _deepseek(config, common, v3=name == "DeepseekV3ForCausalLM")


def _dense(config: dict[str, Any], common: dict[str, Any]) -> DenseDimensions:
    architecture, heads = common["architecture"], common["heads"]
    kv_heads = count(config, "num_key_value_heads", default=heads)
    if heads % kv_heads != 0:
        raise UnsupportedModel(f"config.json: {heads} attention heads cannot share {kv_heads} key-value heads")
    # transformers' defaults where config.json is silent: 128 for Qwen3, the hidden size split evenly otherwise
    head_dim = count(config, "head_dim", default=128 if architecture == "qwen3" else common["hidden"] // heads)
    if head_dim % 2 != 0:
        raise UnsupportedModel(f"config.json: head_dim {head_dim} is odd, rotary embeddings need pairs")
    return DenseDimensions(
        **common,
        kv_heads=kv_heads,
        head_dim=head_dim,
        head_dim_given=architecture != "qwen2" or config.get("head_dim") is not None,
        attention_bias=architecture == "qwen2" or config.get("attention_bias") is True,
        mlp_bias=architecture == "llama" and config.get("mlp_bias") is True,
    )


def _deepseek(config: dict[str, Any], common: dict[str, Any], *, v3: bool) -> DeepseekDimensions:
    for key, only in (("attention_bias", False), ("mlp_bias", False), ("moe_layer_freq", 1), ("num_key_value_heads", common["heads"])):
        if config.get(key) not in (None, only):
            raise UnsupportedModel(f"config.json: {key} is {short(config[key])}; DeepSeek models are supported with {only} only")
    rotated = count(config, "qk_rope_head_dim")
    if rotated % 2 != 0:
        raise UnsupportedModel(f"config.json: qk_rope_head_dim {rotated} is odd, rotary embeddings need pairs")
    experts, used = count(config, "n_routed_experts"), count(config, "num_experts_per_tok")
    gating, method = _routing(config, v3)
    # a limit to groups that leaves none out is none
    groups, groups_used = (1, 1) if method == "greedy" else (count(config, "n_group"), count(config, "topk_group"))
    if experts % groups != 0 or groups_used > groups or used > experts // groups * groups_used or (v3 and experts < 2 * groups):
        raise UnsupportedModel(
            f"config.json: {used} of {experts} experts cannot be chosen from {groups_used} of {groups} groups; "
            "num_experts_per_tok, n_routed_experts, topk_group or n_group is wrong"
        )
    return DeepseekDimensions(
        **common,
        q_rank=None if config.get("q_lora_rank") is None else count(config, "q_lora_rank"),
        kv_rank=count(config, "kv_lora_rank"),
        nope=count(config, "qk_nope_head_dim"),
        rotated=rotated,
        value=count(config, "v_head_dim"),
        dense_layers=count(config, "first_k_dense_replace", default=3 if v3 else 0, least=0),
        experts=experts,
        experts_used=used,
        experts_shared=count(config, "n_shared_experts"),
        expert_feed_forward=count(config, "moe_intermediate_size"),
        groups=1 if groups_used == groups else groups,
        groups_used=1 if groups_used == groups else groups_used,
        group_score="two best" if v3 else "best",
        gating=gating,
        weights_normalized=flag(config, "norm_topk_prob", default=v3),
        weights_scale=positive(config, "routed_scaling_factor", 2.5 if v3 else 1.0),
        mtp_layers=_mtp_layers(config) if v3 else 0,
    )


def _routing(config: dict[str, Any], v3: bool) -> tuple[Literal["sigmoid", "softmax"], str]:
    """How experts are chosen: the function of their scores, and the method."""
    gating: Literal["sigmoid", "softmax"] = "sigmoid" if v3 else "softmax"
    methods = ("noaux_tc",) if v3 else ("greedy", "group_limited_greedy")
    for key, known in (("scoring_func", (gating,)), ("topk_method", methods)):
        if config.get(key) not in (None, *known):
            raise UnsupportedModel(f"config.json: {key} is {short(config[key])}; this architecture has {' or '.join(map(repr, known))}")
    if flag(config, "norm_topk_prob", default=v3) and not v3:
        # DeepSeek's code leaves the scale out then, transformers ignores the key; no published model has it
        raise UnsupportedModel(
            "config.json: norm_topk_prob is true, which programs compute differently in a deepseek_v2 model; set it to false"
        )
    return gating, config.get("topk_method") or methods[0]


def _mtp_layers(config: dict[str, Any]) -> int:
    key = "num_nextn_predict_layers"  # transformers 5 spells it the other way
    return count(config, key if config.get(key) is not None else "num_mtp_layers", default=0, least=0, most=MTP_LAYERS_MOST)


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
