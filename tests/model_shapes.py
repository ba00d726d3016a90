"""Model files of real shapes that take no room: true headers, and a hole where the weights would be."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

# name -> ggml_type, weights in a block, bytes of it
FORMATS = {"F32": (0, 1, 4), "F16": (1, 1, 2), "Q8_0": (8, 32, 34), "Q4_K": (12, 256, 144)}
DTYPES = {"BF16": 2, "F32": 4, "U32": 4, "F8_E4M3": 1}
Tensors = dict[str, tuple[tuple[int, ...], str]]


def write_gguf(path: Path, metadata: dict[str, Any], tensors: Tensors) -> Path:
    """`tensors`: name -> row-major shape, format."""
    at, entries = 0, b""
    for name, (shape, form) in tensors.items():
        kind, block, nbytes = FORMATS[form]
        entries += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), kind, at)
        at += -(-(math.prod(shape) // block * nbytes) // 32) * 32
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    head += b"".join(_text(key) + _value(value) for key, value in metadata.items()) + entries
    return _with_hole(path, head + bytes(-len(head) % 32), at)


def write_folder(folder: Path, config: dict[str, Any], tensors: Tensors) -> Path:
    """A safetensors folder; `tensors`: name -> shape, dtype."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    header, at = {}, 0
    for name, (shape, dtype) in tensors.items():
        end = at + math.prod(shape) * DTYPES[dtype]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    raw = json.dumps(header).encode()
    _with_hole(folder / "model.safetensors", len(raw).to_bytes(8, "little") + raw, at)
    return folder


def dense(
    architecture: str, layers: int, hidden: int, feed_forward: int, heads: int, kv_heads: int, vocabulary: int, head: int = 128,
    form: str = "Q8_0", file_type: int = 7,
) -> tuple[dict[str, Any], Tensors]:  # fmt: skip
    """A distill's GGUF: metadata and tensors."""
    a, q, kv = architecture, heads * head, kv_heads * head
    metadata: dict[str, Any] = {
        "general.architecture": a, "general.file_type": file_type, "tokenizer.ggml.model": "no_vocab", f"{a}.vocab_size": vocabulary,
        f"{a}.block_count": layers, f"{a}.context_length": 131072, f"{a}.embedding_length": hidden, f"{a}.feed_forward_length": feed_forward,
        f"{a}.attention.head_count": heads, f"{a}.attention.head_count_kv": kv_heads, f"{a}.attention.key_length": head,
        f"{a}.attention.value_length": head, f"{a}.attention.layer_norm_rms_epsilon": 1e-6, f"{a}.rope.dimension_count": head,
    }  # fmt: skip
    tensors = _ends(vocabulary, hidden, form)
    for i in range(layers):
        p = f"blk.{i}."
        shapes = dict(
            attn_q=(q, hidden), attn_k=(kv, hidden), attn_v=(kv, hidden), attn_output=(hidden, q), ffn_gate=(feed_forward, hidden),
            ffn_up=(feed_forward, hidden), ffn_down=(hidden, feed_forward),
        )  # fmt: skip
        tensors |= {f"{p}{name}.weight": (shape, form) for name, shape in shapes.items()}
        tensors |= {f"{p}{name}.weight": ((hidden,), "F32") for name in ("attn_norm", "ffn_norm")}
        if architecture == "qwen2":
            tensors |= {f"{p}attn_{name}.bias": ((rows,), "F32") for name, rows in (("q", q), ("k", kv), ("v", kv))}
    return metadata, tensors


def deepseek(layers: int, form: str = "Q8_0") -> tuple[dict[str, Any], Tensors]:
    """DeepSeek-R1's first layers: three dense ones, then experts."""
    a, hidden, heads, vocabulary, ff, expert = "deepseek2", 7168, 128, 129280, 18432, 2048
    q_rank, rank, nope, rotated, value, experts = 1536, 512, 128, 64, 128, 256
    metadata: dict[str, Any] = {
        "general.architecture": a, "tokenizer.ggml.model": "no_vocab", f"{a}.vocab_size": vocabulary, f"{a}.block_count": layers,
        f"{a}.context_length": 163840, f"{a}.embedding_length": hidden, f"{a}.feed_forward_length": ff, f"{a}.attention.head_count": heads,
        f"{a}.attention.head_count_kv": 1, f"{a}.attention.key_length": rank + rotated, f"{a}.attention.value_length": rank,
        f"{a}.attention.key_length_mla": nope + rotated, f"{a}.attention.value_length_mla": value, f"{a}.attention.kv_lora_rank": rank,
        f"{a}.attention.q_lora_rank": q_rank, f"{a}.attention.layer_norm_rms_epsilon": 1e-6, f"{a}.rope.dimension_count": rotated,
        f"{a}.leading_dense_block_count": 3, f"{a}.expert_count": experts, f"{a}.expert_used_count": 8, f"{a}.expert_shared_count": 1,
        f"{a}.expert_feed_forward_length": expert, f"{a}.expert_weights_scale": 2.5, f"{a}.expert_weights_norm": True,
        f"{a}.expert_gating_func": 2,
    }  # fmt: skip
    tensors = _ends(vocabulary, hidden, form)
    for i in range(layers):
        p = f"blk.{i}."
        shapes: dict[str, tuple[int, ...]] = dict(
            attn_q_a=(q_rank, hidden), attn_q_b=(heads * (nope + rotated), q_rank), attn_kv_a_mqa=(rank + rotated, hidden),
            attn_k_b=(heads, rank, nope), attn_v_b=(heads, value, rank), attn_output=(hidden, heads * value),
        )  # fmt: skip
        norms = dict(attn_norm=hidden, ffn_norm=hidden, attn_q_a_norm=q_rank, attn_kv_a_norm=rank)
        if i < 3:
            shapes |= dict(ffn_gate=(ff, hidden), ffn_up=(ff, hidden), ffn_down=(hidden, ff))
        else:
            shapes |= dict(ffn_gate_exps=(experts, expert, hidden), ffn_up_exps=(experts, expert, hidden))
            shapes |= dict(ffn_down_exps=(experts, hidden, expert), ffn_down_shexp=(hidden, expert))
            shapes |= dict(ffn_gate_shexp=(expert, hidden), ffn_up_shexp=(expert, hidden))
            tensors[f"{p}ffn_gate_inp.weight"] = ((experts, hidden), "F32")
            tensors[f"{p}exp_probs_b.bias"] = ((experts,), "F32")
        tensors |= {f"{p}{name}.weight": (shape, form) for name, shape in shapes.items()}
        tensors |= {f"{p}{name}.weight": ((width,), "F32") for name, width in norms.items()}
    return metadata, tensors


def _ends(vocabulary: int, hidden: int, form: str) -> Tensors:
    shape = (vocabulary, hidden)
    return {"token_embd.weight": (shape, form), "output.weight": (shape, form), "output_norm.weight": ((hidden,), "F32")}


def _with_hole(path: Path, head: bytes, size: int) -> Path:
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)
    return path


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _value(value: Any) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    kind, packing = {bool: (7, "?"), int: (4, "I"), float: (6, "f")}[type(value)]
    return struct.pack("<I" + packing, kind, value)
