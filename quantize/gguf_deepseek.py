"""DeepSeek-V2, -V3 and R1 in GGUF (`deepseek2`): tensors and metadata as llama.cpp wants them.

llama.cpp computes latent attention in its absorbed form, as multi-query attention over the latents: kv_b_proj is cut into its
key half, transposed head by head, and its value half. The experts of a layer are stacked into one tensor per matrix. MTP
layers are left out, as llama.cpp's own converter does: it does not draft with those of DeepSeek models.

Source: conversion/deepseek.py @ggml-org/llama.cpp (what is written); models/deepseek2.cpp (how it is read).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from quantize.dimensions import DeepseekDimensions, number, rope_type
from quantize.gguf_file import Metadata, flag, real, uint
from quantize.gguf_names import TensorName, in_layer, mlp, one
from quantize.rows import Picked, Rows, TransposedHeads

if TYPE_CHECKING:
    import numpy as np

GATING = {"softmax": 1, "sigmoid": 2}  # llama_expert_gating_func_type


def deepseek_layers(d: DeepseekDimensions) -> Iterator[TensorName]:
    dense = [*_attention(d), *mlp("mlp.{}_proj.weight", "ffn_{}.weight", d.hidden, d.feed_forward)]
    sparse = [*_attention(d), *_experts(d)]
    for i in range(d.layers):
        yield from (in_layer(tensor, i) for tensor in (dense if i < d.dense_layers else sparse))
    for i in range(d.layers, d.layers + d.mtp_layers):
        # published or not, with or without it, the model is the same
        yield from (replace(in_layer(tensor, i), optional=True, dropped=True) for tensor in [*sparse, *_mtp(d)])


def _attention(d: DeepseekDimensions) -> Iterator[TensorName]:
    query = d.heads * (d.nope + d.rotated)
    yield one("input_layernorm.weight", "attn_norm.weight", (d.hidden,))
    yield one("post_attention_layernorm.weight", "ffn_norm.weight", (d.hidden,))
    if d.q_rank is None:
        yield one("self_attn.q_proj.weight", "attn_q.weight", (query, d.hidden))
    else:
        yield one("self_attn.q_a_proj.weight", "attn_q_a.weight", (d.q_rank, d.hidden))
        yield one("self_attn.q_a_layernorm.weight", "attn_q_a_norm.weight", (d.q_rank,))
        yield one("self_attn.q_b_proj.weight", "attn_q_b.weight", (query, d.q_rank))
    yield one("self_attn.kv_a_proj_with_mqa.weight", "attn_kv_a_mqa.weight", (d.kv_rank + d.rotated, d.hidden))
    yield one("self_attn.kv_a_layernorm.weight", "attn_kv_a_norm.weight", (d.kv_rank,))
    kv_b = ("self_attn.kv_b_proj.weight",), (d.heads * (d.nope + d.value), d.kv_rank)
    yield TensorName("attn_k_b.weight", (d.heads, d.kv_rank, d.nope), *kv_b, partial(_key_half, d=d))
    yield TensorName("attn_v_b.weight", (d.heads, d.value, d.kv_rank), *kv_b, partial(_value_half, d=d))
    yield one("self_attn.o_proj.weight", "attn_output.weight", (d.hidden, d.heads * d.value))


def _experts(d: DeepseekDimensions) -> Iterator[TensorName]:
    yield replace(one("mlp.gate.weight", "ffn_gate_inp.weight", (d.experts, d.hidden)), always_f32=True)
    if d.gating == "sigmoid":
        yield one("mlp.gate.e_score_correction_bias", "exp_probs_b.bias", (d.experts,))
    for expert in mlp("{}_proj.weight", "ffn_{}_exps.weight", d.hidden, d.expert_feed_forward):
        sources = tuple(f"mlp.experts.{i}.{expert.sources[0]}" for i in range(d.experts))
        yield replace(expert, shape=(d.experts, *expert.shape), sources=sources)
    yield from mlp("mlp.shared_experts.{}_proj.weight", "ffn_{}_shexp.weight", d.hidden, d.experts_shared * d.expert_feed_forward)


def _mtp(d: DeepseekDimensions) -> Iterator[TensorName]:
    """What an MTP layer has beside a layer's own tensors."""
    yield one("embed_tokens.weight", "nextn.embed_tokens.weight", (d.vocabulary, d.hidden))
    yield one("enorm.weight", "nextn.enorm.weight", (d.hidden,))
    yield one("hnorm.weight", "nextn.hnorm.weight", (d.hidden,))
    yield one("eh_proj.weight", "nextn.eh_proj.weight", (d.hidden, 2 * d.hidden))
    yield one("shared_head.norm.weight", "nextn.shared_head_norm.weight", (d.hidden,))
    yield one("shared_head.head.weight", "nextn.shared_head_head.weight", (d.vocabulary, d.hidden))


def _key_half(rows: Rows, d: DeepseekDimensions) -> Rows:
    return TransposedHeads(rows, _by_head(d)[:, : d.nope])


def _value_half(rows: Rows, d: DeepseekDimensions) -> Rows:
    return Picked(rows, _by_head(d)[:, d.nope :].reshape(-1))


def _by_head(d: DeepseekDimensions) -> np.ndarray:
    """int64 [heads, nope + value]: the rows of kv_b_proj that belong to each head, its keys' first."""
    import numpy as np

    return np.arange(d.heads * (d.nope + d.value)).reshape(d.heads, -1)


def deepseek_metadata(d: DeepseekDimensions, file_type: int) -> Metadata:
    """The keys that follow those of every architecture, in the order of llama.cpp's converter."""
    a = "deepseek2"
    out = {
        f"{a}.expert_count": uint(d.experts),
        f"{a}.expert_used_count": uint(d.experts_used),
        f"{a}.expert_group_count": uint(d.groups),
        f"{a}.expert_group_used_count": uint(d.groups_used),
        f"{a}.expert_gating_func": uint(GATING[d.gating]),
        f"{a}.attention.key_length": uint(d.kv_rank + d.rotated),  # of the one head there is after absorption
        f"{a}.attention.value_length": uint(d.kv_rank),
        "general.file_type": uint(file_type),
        f"{a}.leading_dense_block_count": uint(d.dense_layers),
        f"{a}.vocab_size": uint(d.vocabulary),
    }
    if d.q_rank is not None or not guessed_lite(d):
        out[f"{a}.attention.q_lora_rank"] = uint(d.q_rank or 0)
    out |= {
        f"{a}.attention.kv_lora_rank": uint(d.kv_rank),
        f"{a}.attention.key_length_mla": uint(d.nope + d.rotated),
        f"{a}.attention.value_length_mla": uint(d.value),
        f"{a}.expert_feed_forward_length": uint(d.expert_feed_forward),
        f"{a}.expert_shared_count": uint(d.experts_shared),
        f"{a}.expert_weights_scale": real(d.weights_scale),
    }
    if d.weights_normalized:
        out[f"{a}.expert_weights_norm"] = flag(True)
    out[f"{a}.rope.dimension_count"] = uint(d.rotated)
    if rope_type(d.rope) == "yarn":
        # llama.cpp divides by 0.1 what its converter has multiplied by it (TAG_DEEPSEEK2_YARN_LOG_MUL_FIX)
        out[f"{a}.rope.scaling.yarn_log_multiplier"] = real(0.1 * number(d.rope, "mscale_all_dim", 0.0))
    return out


def guessed_lite(d: DeepseekDimensions) -> bool:
    """Whether llama.cpp takes the model for one without q_lora_rank, by its number of layers, and does not read that key."""
    return d.layers in (26, 27) or (d.layers == 48 and d.vocabulary == 128256)
