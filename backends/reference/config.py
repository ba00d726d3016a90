"""config.json -> Config: every number the architecture needs, checked against each other; nothing that changes a result is guessed.

Source: config.json and configuration_deepseek.py of deepseek-ai/DeepSeek-V3, -V2, -V2-Lite; configuration_{qwen2,llama,qwen3}.py@huggingface/transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from backends.base import ModelFileError
from backends.checkpoint import short
from backends.config_values import count, flag, number, positive
from backends.reference.rope import Rope, parse_rope, rope_settings, yarn_mscale

MODEL_TYPES = ("deepseek_v3", "deepseek_v2", "qwen2", "llama", "qwen3")

# Keys without influence on the numbers of a forward pass in evaluation.
_NEUTRAL = set(
    """
    architectures auto_map attention_dropout aux_loss_alpha bad_words_ids base_model_ep_plan base_model_pp_plan base_model_tp_plan begin_suppress_tokens
    bos_token_id chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample dtype
    early_stopping embd_pdrop encoder_no_repeat_ngram_size eos_token_id ep_size exponential_decay_length_penalty finetuning_task
    forced_bos_token_id forced_eos_token_id gradient_checkpointing id2label initializer_range is_decoder is_encoder_decoder
    keys_to_ignore_at_inference label2id length_penalty max_length max_position_embeddings max_window_layers min_length model_type
    no_repeat_ngram_size num_beam_groups num_beams num_key_value_groups num_return_sequences output_attentions output_hidden_states
    output_router_logits output_scores pad_token_id prefix pretraining_tp problem_type pruned_heads qk_head_dim remove_invalid_values
    repetition_penalty resid_pdrop return_dict return_dict_in_generate router_aux_loss_coef sep_token_id seq_aux suppress_tokens
    task_specific_params temperature tf_legacy_loss tie_encoder_decoder tie_word_embeddings tokenizer_class top_k top_p
    torch_dtype torchscript transformers_version transformers.js_config typical_p unsloth_fixed unsloth_version use_bfloat16 use_cache
    """.split()
)
_ROPE = {"rope_theta", "rope_scaling", "rope_parameters"}
_DENSE = {"hidden_act", "hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "rms_norm_eps", "vocab_size"}
_GQA = {"num_key_value_heads", "head_dim", "sliding_window", "use_sliding_window", "layer_types", "attention_bias"}
_MLA = {
    "attention_bias", "head_dim", "kv_lora_rank", "mlp_bias", "num_key_value_heads", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim",
    "rope_interleave", "v_head_dim",
}  # fmt: skip
_MOE = {
    "first_k_dense_replace", "moe_intermediate_size", "moe_layer_freq", "n_group", "n_routed_experts", "n_shared_experts", "norm_topk_prob",
    "num_experts_per_tok", "num_nextn_predict_layers", "routed_scaling_factor", "scoring_func",
    "topk_group", "topk_method",
}  # fmt: skip
_ALIASES = {"num_local_experts": "n_routed_experts", "num_mtp_layers": "num_nextn_predict_layers"}  # transformers' other names
_KNOWN = {
    "qwen2": _DENSE | _GQA, "qwen3": _DENSE | _GQA, "llama": _DENSE | _GQA | {"mlp_bias"},
    "deepseek_v2": _DENSE | _MLA | _MOE, "deepseek_v3": _DENSE | _MLA | _MOE,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mla:
    """Multi-head latent attention. `softmax_scale` includes YaRN's mscale²."""

    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    softmax_scale: float

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim


@dataclass(frozen=True, slots=True)
class Gqa:
    """Grouped-query attention of the dense models."""

    num_key_value_heads: int
    head_dim: int
    qk_norm: bool
    o_bias: bool


@dataclass(frozen=True, slots=True)
class Moe:
    """Mixture of experts. `n_group` 1 means that every expert may be chosen."""

    first_k_dense_replace: int
    n_routed_experts: int
    n_shared_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    n_group: int
    topk_group: int
    scoring_func: str  # sigmoid, softmax
    topk_method: str  # noaux_tc, group_limited_greedy, greedy
    norm_topk_prob: bool
    routed_scaling_factor: float


@dataclass(frozen=True, slots=True)
class Config:
    """A decoder. Exactly one of `mla` and `gqa` is set; `moe` is None for dense models."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    rms_norm_eps: float
    tie_word_embeddings: bool
    attention_bias: bool
    mlp_bias: bool
    rope: Rope
    mla: Mla | None
    gqa: Gqa | None
    moe: Moe | None
    num_nextn_predict_layers: int
    fp8: bool
    ue8m0: bool

    def is_moe(self, layer: int) -> bool:
        return self.moe is not None and layer >= self.moe.first_k_dense_replace


def parse_config(raw: dict[str, Any]) -> Config:
    """Raises ModelFileError naming the key: unknown architecture or key, a value missing, impossible, or at odds with another."""
    for alias, key in _ALIASES.items():
        if alias in raw and key in raw and raw[alias] != raw[key]:
            raise ModelFileError(
                f"config.json: {alias} is {short(raw[alias])} and {key}, which means the same, {short(raw[key])}; remove the wrong one"
            )
    raw = {_ALIASES.get(key, key): value for key, value in raw.items() if key not in _ALIASES or _ALIASES[key] not in raw}
    model_type = raw.get("model_type")
    if model_type not in MODEL_TYPES:
        raise ModelFileError(f"config.json: model_type is {short(model_type)}; known are {', '.join(MODEL_TYPES)}")
    _check_keys(raw, str(model_type))
    deepseek = model_type in ("deepseek_v3", "deepseek_v2")
    hidden, heads = count(raw, "hidden_size"), count(raw, "num_attention_heads")
    if raw.get("hidden_act", "silu") != "silu":
        raise ModelFileError(f"config.json: hidden_act is {short(raw['hidden_act'])}; the reference computes 'silu'")
    fp8, ue8m0 = _quantization(raw)
    scaling = rope_settings(raw)
    if deepseek:
        mla = _mla(raw, scaling, heads)
        if model_type == "deepseek_v2" and not flag(raw, "rope_interleave", True):
            raise ModelFileError("config.json: rope_interleave is false; deepseek_v2 has no such setting, its pairs are interleaved")
        gqa, rope = None, parse_rope(scaling, mla.qk_rope_head_dim, interleaved=flag(raw, "rope_interleave", True), deepseek=True)
    else:
        mla, gqa = None, _gqa(raw, str(model_type), hidden, heads)
        rope = parse_rope(scaling, gqa.head_dim, interleaved=False, deepseek=False)
    return Config(
        model_type=str(model_type),
        vocab_size=count(raw, "vocab_size"),
        hidden_size=hidden,
        intermediate_size=count(raw, "intermediate_size"),
        num_hidden_layers=count(raw, "num_hidden_layers"),
        num_attention_heads=heads,
        max_position_embeddings=count(raw, "max_position_embeddings"),
        rms_norm_eps=positive(raw, "rms_norm_eps"),
        tie_word_embeddings=flag(raw, "tie_word_embeddings", False),
        attention_bias=model_type == "qwen2" or flag(raw, "attention_bias", False),
        mlp_bias=flag(raw, "mlp_bias", False),
        rope=rope,
        mla=mla,
        gqa=gqa,
        moe=_moe(raw, str(model_type)) if deepseek else None,
        num_nextn_predict_layers=count(raw, "num_nextn_predict_layers", 0, 0) if deepseek else 0,
        fp8=fp8,
        ue8m0=ue8m0,
    )


# ---------------------------------------------------------------------------------------------------- parts


def _check_keys(raw: dict[str, Any], model_type: str) -> None:
    for key, value in raw.items():
        known = key in _NEUTRAL or key in _ROPE or key in _KNOWN[model_type] or key == "quantization_config" or key.startswith("_")
        if not known and value not in (None, False, {}, []):  # what is off changes nothing
            raise ModelFileError(
                f"config.json: {short(key)} is {short(value)}, and the reference does not know this key for {model_type}; "
                "remove it if it does not change the numbers"
            )


def _mla(raw: dict[str, Any], scaling: dict[str, Any], heads: int) -> Mla:
    nope, rotated = count(raw, "qk_nope_head_dim"), count(raw, "qk_rope_head_dim")
    kv_heads = count(raw, "num_key_value_heads", heads)
    if kv_heads != heads:
        raise ModelFileError(
            f"config.json: num_key_value_heads is {kv_heads}; latent attention has as many as num_attention_heads, {heads}"
        )
    if flag(raw, "mlp_bias", False):
        raise ModelFileError("config.json: mlp_bias is true; DeepSeek's feed-forward layers have no bias")
    scale = (nope + rotated) ** -0.5
    if scaling.get("rope_type") == "yarn":
        scale *= yarn_mscale(number(scaling, "factor"), number(scaling, "mscale_all_dim", 0.0)) ** 2
    return Mla(
        q_lora_rank=None if raw.get("q_lora_rank") is None else count(raw, "q_lora_rank"),
        kv_lora_rank=count(raw, "kv_lora_rank"),
        qk_nope_head_dim=nope,
        qk_rope_head_dim=rotated,
        v_head_dim=count(raw, "v_head_dim"),
        softmax_scale=scale,
    )


def _gqa(raw: dict[str, Any], model_type: str, hidden: int, heads: int) -> Gqa:
    kv_heads = count(raw, "num_key_value_heads", heads)
    if heads % kv_heads:
        raise ModelFileError(f"config.json: num_attention_heads {heads} is no multiple of num_key_value_heads {kv_heads}")
    if raw.get("head_dim") is None and model_type != "qwen3" and hidden % heads:
        raise ModelFileError(f"config.json: hidden_size {hidden} is no multiple of num_attention_heads {heads}, and head_dim is not given")
    kinds = raw.get("layer_types") or []
    if not isinstance(kinds, list) or set(map(str, kinds)) - {"full_attention", "sliding_attention"}:
        raise ModelFileError(f"config.json: layer_types is {short(kinds)}; known is 'full_attention'")
    first_sliding = count(raw, "max_window_layers", 0, 0)
    slides = "sliding_attention" in kinds or (
        flag(raw, "use_sliding_window", False) and not kinds and first_sliding < count(raw, "num_hidden_layers")
    )
    if slides:
        raise ModelFileError(
            "config.json: use_sliding_window (or layer_types) asks for a sliding window; the reference attends to everything"
        )
    return Gqa(
        num_key_value_heads=kv_heads,
        head_dim=count(raw, "head_dim", 128 if model_type == "qwen3" else hidden // heads),
        qk_norm=model_type == "qwen3",
        o_bias=model_type != "qwen2" and flag(raw, "attention_bias", False),
    )


def _moe(raw: dict[str, Any], model_type: str) -> Moe | None:
    if raw.get("n_routed_experts") is None:
        return None
    v3 = model_type == "deepseek_v3"
    experts, chosen = count(raw, "n_routed_experts"), count(raw, "num_experts_per_tok")
    method = raw.get("topk_method") or ("noaux_tc" if v3 else "greedy")
    scoring = raw.get("scoring_func") or ("sigmoid" if v3 else "softmax")
    if (scoring, method) not in ((("sigmoid", "noaux_tc"),) if v3 else (("softmax", "greedy"), ("softmax", "group_limited_greedy"))):
        raise ModelFileError(
            f"config.json: scoring_func {short(scoring)} with topk_method {short(method)}; "
            f"{model_type} has {'sigmoid with noaux_tc' if v3 else 'softmax with greedy or group_limited_greedy'}"
        )
    groups, kept = (1, 1) if method == "greedy" else (count(raw, "n_group"), count(raw, "topk_group"))
    if experts % groups or (v3 and experts // groups < 2):
        raise ModelFileError(f"config.json: n_routed_experts {experts} cannot be cut into n_group {groups}")
    if kept > groups or chosen > kept * (experts // groups):
        raise ModelFileError(
            f"config.json: num_experts_per_tok {chosen} of n_routed_experts {experts} does not fit topk_group {kept} of n_group {groups}"
        )
    norm = flag(raw, "norm_topk_prob", None if v3 else False)
    if norm and not v3:  # DeepSeek's own code then leaves the scaling out, other programs do not: no published model has it
        raise ModelFileError(
            "config.json: norm_topk_prob is true, which no published deepseek_v2 model has and programs compute differently"
        )
    if raw.get("moe_layer_freq", 1) != 1:
        raise ModelFileError(f"config.json: moe_layer_freq is {short(raw['moe_layer_freq'])}; the reference has experts in every layer (1)")
    return Moe(
        first_k_dense_replace=count(raw, "first_k_dense_replace", least=0),
        n_routed_experts=experts,
        n_shared_experts=count(raw, "n_shared_experts", 0, 0),
        num_experts_per_tok=chosen,
        moe_intermediate_size=count(raw, "moe_intermediate_size"),
        n_group=groups,
        topk_group=kept,
        scoring_func=scoring,
        topk_method=method,
        norm_topk_prob=norm,
        routed_scaling_factor=positive(raw, "routed_scaling_factor", None if v3 else 1.0),
    )


def _quantization(raw: dict[str, Any]) -> tuple[bool, bool]:
    """Whether weights are in FP8 blocks, and whether scales are powers of two."""
    q = raw.get("quantization_config")
    if not q:
        return False, False
    if not isinstance(q, dict):
        raise ModelFileError(f"config.json: quantization_config is {short(q)}, an object is expected")
    wanted = {"quant_method": ("fp8",), "fmt": ("e4m3", None), "weight_block_size": ([128, 128],), "activation_scheme": ("dynamic", None)}
    for key, values in wanted.items():
        if q.get(key) not in values:
            raise ModelFileError(f"config.json: quantization_config.{key} is {short(q.get(key))}; known are {values[0]!r}")
    if q.get("scale_fmt") not in (None, "ue8m0", "float"):
        raise ModelFileError(f"config.json: quantization_config.scale_fmt is {short(q['scale_fmt'])}; known is 'ue8m0'")
    return True, q.get("scale_fmt") == "ue8m0"
