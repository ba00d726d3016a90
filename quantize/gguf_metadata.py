"""config.json and its neighbours -> a GGUF file's metadata, key by key in the order of llama.cpp's converter.

Source: conversion/base.py @ggml-org/llama.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backends.checkpoint import short
from quantize.dimensions import DeepseekDimensions, Model, number, rope_type
from quantize.errors import UnsupportedModel
from quantize.gguf_deepseek import deepseek_metadata
from quantize.gguf_file import Metadata, TensorInfo, real, text, uint
from quantize.gguf_general import general_metadata, sampling_metadata
from quantize.gguf_tokenizer import tokenizer_metadata
from quantize.recipe import Mix

QUANTIZATION_VERSION = 2  # of the block layouts; ggml.h
FIT = "localr1.fit"  # what quantize.fit_plan says of the file


def gguf_metadata(folder: Path, config: dict[str, Any], d: Model, to: Mix, tensors: Sequence[TensorInfo]) -> Metadata:
    """Everything but the tensors. Raises UnsupportedModel or ModelFileError; see tokenizer_metadata for the tokenizer's."""
    return {
        "general.architecture": text(d.architecture),
        "general.type": text("model"),
        **sampling_metadata(folder),
        **general_metadata(folder, config, tensors),
        **_model_metadata(d, to.file_type),
        "general.quantization_version": uint(QUANTIZATION_VERSION),
        **({FIT: text(to.note)} if to.note else {}),
        **tokenizer_metadata(folder, config, d.architecture, d.vocabulary),
    }


def _model_metadata(d: Model, file_type: int) -> Metadata:
    """The architecture's own keys. llama.cpp computes with what stands here, so nothing is left to its defaults."""
    a = d.architecture
    out = {
        f"{a}.block_count": uint(d.layers),
        f"{a}.context_length": uint(d.context),
        f"{a}.embedding_length": uint(d.hidden),
        f"{a}.feed_forward_length": uint(d.feed_forward),
        f"{a}.attention.head_count": uint(d.heads),
        # DeepSeek's latents are keys and values that all heads share
        f"{a}.attention.head_count_kv": uint(1 if isinstance(d, DeepseekDimensions) else d.kv_heads),
        **_rope_scaling(d),
        f"{a}.rope.freq_base": real(d.rope_theta),
        f"{a}.attention.layer_norm_rms_epsilon": real(d.norm_epsilon),
    }
    if isinstance(d, DeepseekDimensions):
        return out | deepseek_metadata(d, file_type)
    if d.head_dim_given:
        out[f"{a}.attention.key_length"] = uint(d.head_dim)
        out[f"{a}.attention.value_length"] = uint(d.head_dim)
    out["general.file_type"] = uint(file_type)
    if a == "llama":
        out["llama.vocab_size"] = uint(d.vocabulary)
        out["llama.rope.dimension_count"] = uint(d.head_dim)
    return out


def _rope_scaling(d: Model) -> Metadata:
    """Linear and YaRN scaling are metadata; llama3's is a tensor (gguf_names.rope_frequency_divisors)."""
    kind = rope_type(d.rope)
    if kind not in ("linear", "yarn"):
        return {}
    prefix = f"{d.architecture}.rope.scaling"
    factor = number(d.rope, "factor", 0.0)
    if factor <= 0:
        raise UnsupportedModel(f"config.json: RoPE scaling {kind!r} with factor {short(d.rope.get('factor'))}, a number above 0 is needed")
    out = {f"{prefix}.type": text(kind), f"{prefix}.factor": real(factor)}
    if kind == "yarn":
        original = d.rope.get("original_max_position_embeddings")
        if type(original) is not int or not 0 < original < 1 << 31:
            raise UnsupportedModel(f"config.json: YaRN needs original_max_position_embeddings, it is {short(original)}")
        out[f"{prefix}.original_context_length"] = uint(original)
        for names, key in (
            (("extrapolation_factor",), "yarn_ext_factor"),
            (("attention_factor", "attn_factor"), "yarn_attn_factor"),
            (("beta_fast",), "yarn_beta_fast"),
            (("beta_slow",), "yarn_beta_slow"),
        ):
            name = next((n for n in names if d.rope.get(n) is not None), None)
            if name is not None:
                out[f"{prefix}.{key}"] = real(number(d.rope, name, 0.0))
    return out
