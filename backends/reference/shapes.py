"""Which tensors an architecture has, by their published names, and their shapes."""

from __future__ import annotations

from collections.abc import Iterator

from backends.reference.config import Config

Shape = tuple[int, ...]


def tensor_shapes(config: Config) -> dict[str, Shape]:
    """Every tensor of the main model and of its MTP layers; `is_optional` says which may be absent."""
    v, d = config.vocab_size, config.hidden_size
    shapes: dict[str, Shape] = {"model.embed_tokens.weight": (v, d), "model.norm.weight": (d,), "lm_head.weight": (v, d)}
    for layer in range(config.num_hidden_layers):
        shapes |= layer_shapes(config, layer)
    for layer in mtp_layers(config):
        shapes |= layer_shapes(config, layer) | mtp_shapes(config, layer)
    return shapes


def mtp_layers(config: Config) -> range:
    """Indices of the MTP layers: they follow the main model's."""
    return range(config.num_hidden_layers, config.num_hidden_layers + config.num_nextn_predict_layers)


def mtp_shapes(config: Config, layer: int) -> dict[str, Shape]:
    """What an MTP layer has beside an ordinary layer's tensors. The embedding and the head are those of the main model, stored again."""
    v, d, prefix = config.vocab_size, config.hidden_size, f"model.layers.{layer}."
    return {
        prefix + "embed_tokens.weight": (v, d), prefix + "enorm.weight": (d,), prefix + "hnorm.weight": (d,),
        prefix + "eh_proj.weight": (d, 2 * d), prefix + "shared_head.norm.weight": (d,), prefix + "shared_head.head.weight": (v, d),
    }  # fmt: skip


def layer_shapes(config: Config, layer: int) -> dict[str, Shape]:
    prefix, d = f"model.layers.{layer}.", config.hidden_size
    shapes: dict[str, Shape] = {"input_layernorm.weight": (d,), "post_attention_layernorm.weight": (d,)}
    shapes |= {f"self_attn.{name}": shape for name, shape in (_mla(config) if config.mla else _gqa(config))}
    shapes |= {f"mlp.{name}": shape for name, shape in _feed_forward(config, layer)}
    return {prefix + name: shape for name, shape in shapes.items()}


def is_optional(config: Config, name: str) -> bool:
    """The copies: a tied head, and an MTP layer's embedding and head."""
    return (name == "lm_head.weight" and config.tie_word_embeddings) or (
        name.startswith("model.layers.") and name.endswith((".embed_tokens.weight", ".shared_head.head.weight"))
    )


def _linear(name: str, rows: int, columns: int, bias: bool = False) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (rows, columns)
    if bias:
        yield f"{name}.bias", (rows,)


def _mla(config: Config) -> Iterator[tuple[str, Shape]]:
    mla, d, h, bias = config.mla, config.hidden_size, config.num_attention_heads, config.attention_bias
    assert mla is not None
    if mla.q_lora_rank is None:
        yield from _linear("q_proj", h * mla.qk_head_dim, d)
    else:
        yield from _linear("q_a_proj", mla.q_lora_rank, d, bias)
        yield "q_a_layernorm.weight", (mla.q_lora_rank,)
        yield from _linear("q_b_proj", h * mla.qk_head_dim, mla.q_lora_rank)
    yield from _linear("kv_a_proj_with_mqa", mla.kv_lora_rank + mla.qk_rope_head_dim, d, bias)
    yield "kv_a_layernorm.weight", (mla.kv_lora_rank,)
    yield from _linear("kv_b_proj", h * (mla.qk_nope_head_dim + mla.v_head_dim), mla.kv_lora_rank)
    yield from _linear("o_proj", d, h * mla.v_head_dim, bias)


def _gqa(config: Config) -> Iterator[tuple[str, Shape]]:
    gqa, d = config.gqa, config.hidden_size
    assert gqa is not None
    q, kv = config.num_attention_heads * gqa.head_dim, gqa.num_key_value_heads * gqa.head_dim
    yield from _linear("q_proj", q, d, config.attention_bias)
    yield from _linear("k_proj", kv, d, config.attention_bias)
    yield from _linear("v_proj", kv, d, config.attention_bias)
    yield from _linear("o_proj", d, q, gqa.o_bias)
    if gqa.qk_norm:
        yield "q_norm.weight", (gqa.head_dim,)
        yield "k_norm.weight", (gqa.head_dim,)


def _feed_forward(config: Config, layer: int) -> Iterator[tuple[str, Shape]]:
    moe, d = config.moe, config.hidden_size
    if moe is None or not config.is_moe(layer):
        yield from _gated("", d, config.intermediate_size, config.mlp_bias)
        return
    yield "gate.weight", (moe.n_routed_experts, d)
    if moe.topk_method == "noaux_tc":
        yield "gate.e_score_correction_bias", (moe.n_routed_experts,)
    for expert in range(moe.n_routed_experts):
        yield from _gated(f"experts.{expert}.", d, moe.moe_intermediate_size)
    if moe.n_shared_experts:
        yield from _gated("shared_experts.", d, moe.n_shared_experts * moe.moe_intermediate_size)


def _gated(prefix: str, d: int, ff: int, bias: bool = False) -> Iterator[tuple[str, Shape]]:
    yield from _linear(f"{prefix}gate_proj", ff, d, bias)
    yield from _linear(f"{prefix}up_proj", ff, d, bias)
    yield from _linear(f"{prefix}down_proj", d, ff, bias)
