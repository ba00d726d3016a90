"""Tiny random checkpoints with the published config keys and tensor names of every architecture the reference knows.

Weights are drawn, not stored. Only `RandomState.random_sample` is used: its stream is frozen by numpy's compatibility policy,
and sums of uniform numbers need no logarithm, so every platform gets the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

BLOCK = 128  # FP8 weights share one scale per 128x128 block
E4M3_MAX = 448.0
RESIDUAL = 0.05  # size of what each layer adds; small, so that rms_norm_eps is not lost against the mean square
DTYPES = {np.dtype(np.float32): "F32", np.dtype(ml_dtypes.bfloat16): "BF16", np.dtype(ml_dtypes.float8_e4m3fn): "F8_E4M3"}


@dataclass(frozen=True)
class Kind:
    """What to draw. `gains` multiplies the default size of tensors by the end of their name."""

    seed: int
    config: dict[str, Any]
    shards: int = 1
    gains: tuple[tuple[str, float], ...] = ()


# --------------------------------------------------------------------------------------- configs, as published but small


def _dense(model_type: str, architecture: str, **changes: Any) -> dict[str, Any]:
    """The keys that R1-Distill-Qwen, R1-Distill-Llama and R1-0528-Qwen3-8B share."""
    config = dict(
        architectures=[architecture], attention_dropout=0.0, bos_token_id=1, eos_token_id=2, hidden_act="silu", hidden_size=64,
        initializer_range=0.02, intermediate_size=112, max_position_embeddings=4096, model_type=model_type, num_attention_heads=4,
        num_hidden_layers=3, num_key_value_heads=2, rms_norm_eps=1e-06, rope_theta=10000, tie_word_embeddings=False,
        torch_dtype="bfloat16", transformers_version="4.44.0", use_cache=True, vocab_size=160,
    )  # fmt: skip
    return dict(sorted((config | changes).items()))


# sliding_window is shorter than the test sequences and use_sliding_window is false, as published: nothing may slide.
QWEN2 = _dense("qwen2", "Qwen2ForCausalLM", max_window_layers=2, sliding_window=32, use_mrope=False, use_sliding_window=False)
# Wavelengths are 2 pi 500000^(2j/32): j < 4 below 512/4 stay, j = 4, 5 are blended, j > 5 above 512/1 are divided.
LLAMA = _dense(
    "llama", "LlamaForCausalLM", attention_bias=False, hidden_size=128, mlp_bias=False, num_hidden_layers=2, pretraining_tp=1,
    rms_norm_eps=1e-05, rope_theta=500000.0,
    rope_scaling=dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=512, rope_type="llama3"),
)  # fmt: skip
# YaRN blends frequencies 1 (1.08 rounded down) to 6 (5.10 rounded up) of 16. Who reads attn_factor: see make_goldens.py.
QWEN3 = _dense(
    "qwen3", "Qwen3ForCausalLM", attention_bias=False, head_dim=32, hidden_size=80, max_position_embeddings=2048, max_window_layers=3,
    rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=512, attn_factor=0.8782488562869419),
    rope_theta=1000000, sliding_window=None, use_sliding_window=False,
)  # fmt: skip


def _yarn(original: int, mscale: float, mscale_all_dim: float) -> dict[str, Any]:
    return dict(
        beta_fast=32, beta_slow=1, factor=40, mscale=mscale, mscale_all_dim=mscale_all_dim, original_max_position_embeddings=original,
        type="yarn",
    )  # fmt: skip


def _deepseek(model_type: str, **changes: Any) -> dict[str, Any]:
    """The keys that DeepSeek-V2, V2-Lite, V3 and R1 share."""
    v = model_type.removeprefix("deepseek_").upper()
    config = dict(
        architectures=[f"Deepseek{v}ForCausalLM"], attention_bias=False, attention_dropout=0.0,
        auto_map={
            "AutoConfig": f"configuration_deepseek.Deepseek{v}Config", "AutoModel": f"modeling_deepseek.Deepseek{v}Model",
            "AutoModelForCausalLM": f"modeling_deepseek.Deepseek{v}ForCausalLM",
        },
        aux_loss_alpha=0.001, bos_token_id=0, eos_token_id=1, ep_size=1, first_k_dense_replace=1, hidden_act="silu", hidden_size=64,
        initializer_range=0.02, intermediate_size=96, kv_lora_rank=32, max_position_embeddings=163840, model_type=model_type,
        moe_intermediate_size=32, moe_layer_freq=1, n_group=4, n_routed_experts=16, n_shared_experts=1, norm_topk_prob=True,
        num_attention_heads=4, num_experts_per_tok=4, num_hidden_layers=3, num_key_value_heads=4, pretraining_tp=1, q_lora_rank=40,
        qk_nope_head_dim=16, qk_rope_head_dim=16, rms_norm_eps=1e-06, rope_scaling=_yarn(4096, 1.0, 1.0), rope_theta=10000,
        routed_scaling_factor=2.5, scoring_func="sigmoid", seq_aux=True, tie_word_embeddings=False, topk_group=2, topk_method="noaux_tc",
        torch_dtype="bfloat16", transformers_version="4.46.3", use_cache=True, v_head_dim=24, vocab_size=160,
    )  # fmt: skip
    return dict(sorted((config | changes).items()))


V3 = _deepseek("deepseek_v3", num_nextn_predict_layers=1)
# Blocks with partial borders in both directions: 192 = 128 + 64, 144 = 128 + 16, 136 + 16 = 128 + 24, 160 = 128 + 32, 288 = 256 + 32.
V3_FP8 = V3 | dict(
    hidden_size=192, intermediate_size=288, kv_lora_rank=136, moe_intermediate_size=160, q_lora_rank=144, qk_nope_head_dim=32, v_head_dim=40,
    quantization_config=dict(activation_scheme="dynamic", fmt="e4m3", quant_method="fp8", weight_block_size=[128, 128]),
)  # fmt: skip
# cos and sin are scaled by mscale / mscale_all_dim; YaRN's range ends at 9 of 8 frequencies, so a border at 7 or 8 shows.
V3_MSCALE = V3 | dict(max_position_embeddings=327680, rope_scaling=_yarn(8192, 1.0, 0.707), rope_theta=1000)
V2 = _deepseek(
    "deepseek_v2", bos_token_id=3, eos_token_id=4, max_position_embeddings=5120, n_shared_experts=2, norm_topk_prob=False,
    rope_scaling=_yarn(128, 0.707, 0.707),  # the range begins below 0: it has to be clamped
    routed_scaling_factor=16.0, scoring_func="softmax", topk_method="group_limited_greedy", transformers_version="4.39.3",
)  # fmt: skip
V2_LITE = V2 | dict(
    max_position_embeddings=163840,
    n_group=1,
    q_lora_rank=None,
    rope_scaling=_yarn(4096, 0.707, 0.707),
    routed_scaling_factor=1.0,
    topk_group=1,
    topk_method="greedy",
)

# What no published R1 has and transformers' config classes allow: biases, another epsilon, YaRN's own settings, halves rotated.
LLAMA_BIASED = LLAMA | dict(attention_bias=True, mlp_bias=True, hidden_size=64, rope_scaling=None)
QWEN3_ODD = {k: v for k, v in QWEN3.items() if k != "head_dim"} | dict(
    attention_bias=True, hidden_size=48, num_attention_heads=2, num_key_value_heads=1, rms_norm_eps=1e-5,
    rope_scaling=dict(
        rope_type="yarn", factor=4.0, original_max_position_embeddings=512, beta_fast=20, beta_slow=2, truncate=False, attention_factor=1.3
    ),
)  # fmt: skip
V3_ODD = V3 | dict(
    attention_bias=True, first_k_dense_replace=0, norm_topk_prob=False, num_nextn_predict_layers=0, rms_norm_eps=1e-5,
    rope_interleave=False, routed_scaling_factor=1.0,
)  # fmt: skip

KINDS: dict[str, Kind] = {
    "qwen2": Kind(11, QWEN2),
    # A head as small as the embedding: the last norm makes up for it.
    "qwen2-tied": Kind(12, QWEN2 | dict(tie_word_embeddings=True, torch_dtype="float32", vocab_size=152), gains=(("model.norm", 5.0),)),
    "llama": Kind(13, LLAMA),
    "qwen3": Kind(14, QWEN3),
    "deepseek_v3": Kind(51, V3),
    "deepseek_v3-fp8": Kind(52, V3_FP8, shards=3),
    "deepseek_v3-mscale": Kind(23, V3_MSCALE),
    # Softmax weights times 16 and times 1 differ in size; the routed experts should weigh about as much as the shared ones.
    "deepseek_v2": Kind(191, V2, gains=(("experts.down_proj", 0.25),)),
    "deepseek_v2-lite": Kind(292, V2_LITE, gains=(("experts.down_proj", 3.0),)),
    "llama-biased": Kind(61, LLAMA_BIASED),
    "qwen3-odd": Kind(62, QWEN3_ODD),
    "deepseek_v3-odd": Kind(65, V3_ODD),
}


# --------------------------------------------------------------------------------------------------- names, shapes, sizes


@dataclass(frozen=True)
class Draw:
    """One tensor: `std` of a matrix, or a vector with values in `centre` +- `std` * 3.46."""

    name: str
    shape: tuple[int, ...]
    std: float
    centre: float = 0.0
    dtype: str | None = None  # None: the checkpoint's
    fp8: bool = False
    copy_of: str | None = None


def _matrix(name: str, rows: int, columns: int, gain: float, fp8: bool = False) -> Draw:
    return Draw(name + ".weight", (rows, columns), gain / math.sqrt(columns), fp8=fp8)


def _norm(name: str, size: int) -> Draw:
    return Draw(name + ".weight", (size,), 0.3, centre=1.0)


def _bias(name: str, size: int, there: bool = True) -> Iterator[Draw]:
    if there:
        yield Draw(name + ".bias", (size,), 0.1)


def _mlp(prefix: str, hidden: int, inner: int, gain: float, fp8: bool, bias: bool = False) -> Iterator[Draw]:
    yield _matrix(prefix + "gate_proj", inner, hidden, 1.2, fp8)
    yield _matrix(prefix + "up_proj", inner, hidden, 1.2, fp8)
    yield _matrix(prefix + "down_proj", hidden, inner, gain, fp8)
    for part, size in (("gate", inner), ("up", inner), ("down", hidden)):
        yield from _bias(f"{prefix}{part}_proj", size, bias)


def _gqa(prefix: str, c: dict[str, Any]) -> Iterator[Draw]:
    hidden = c["hidden_size"]
    head = c.get("head_dim", 128 if c["model_type"] == "qwen3" else hidden // c["num_attention_heads"])
    biased = c.get("attention_bias", False)
    q, kv = c["num_attention_heads"] * head, c["num_key_value_heads"] * head
    for letter, rows, gain in (("q", q, 1.3), ("k", kv, 1.3), ("v", kv, 1.0)):
        yield _matrix(f"{prefix}{letter}_proj", rows, hidden, gain)
        if c["model_type"] == "qwen2":
            yield Draw(f"{prefix}{letter}_proj.bias", (rows,), 0.4)
        yield from _bias(f"{prefix}{letter}_proj", rows, biased)
    yield _matrix(prefix + "o_proj", hidden, q, 2.0 * RESIDUAL)
    yield from _bias(prefix + "o_proj", hidden, biased)
    if c["model_type"] == "qwen3":
        yield _norm(prefix + "q_norm", head)
        yield _norm(prefix + "k_norm", head)


def _mla(prefix: str, c: dict[str, Any], fp8: bool) -> Iterator[Draw]:
    hidden, heads, rank, q_rank = c["hidden_size"], c["num_attention_heads"], c["kv_lora_rank"], c["q_lora_rank"]
    qk = c["qk_nope_head_dim"] + c["qk_rope_head_dim"]
    if q_rank is None:
        yield _matrix(prefix + "q_proj", heads * qk, hidden, 1.0, fp8)
    else:
        yield _matrix(prefix + "q_a_proj", q_rank, hidden, RESIDUAL, fp8)
        yield from _bias(prefix + "q_a_proj", q_rank, c["attention_bias"])
        yield _norm(prefix + "q_a_layernorm", q_rank)
        yield _matrix(prefix + "q_b_proj", heads * qk, q_rank, 1.0, fp8)
    yield _matrix(prefix + "kv_a_proj_with_mqa", rank + c["qk_rope_head_dim"], hidden, 1.0, fp8)  # latent rows: see _values
    yield from _bias(prefix + "kv_a_proj_with_mqa", rank + c["qk_rope_head_dim"], c["attention_bias"])
    yield _norm(prefix + "kv_a_layernorm", rank)
    yield _matrix(prefix + "kv_b_proj", heads * (c["qk_nope_head_dim"] + c["v_head_dim"]), rank, 1.0, fp8)
    yield _matrix(prefix + "o_proj", hidden, heads * c["v_head_dim"], 2.0 * RESIDUAL, fp8)
    yield from _bias(prefix + "o_proj", hidden, c["attention_bias"])


def _layer(prefix: str, i: int, c: dict[str, Any], fp8: bool) -> Iterator[Draw]:
    deepseek, hidden = "kv_lora_rank" in c, c["hidden_size"]
    yield _norm(prefix + "input_layernorm", hidden)
    yield from _mla(prefix + "self_attn.", c, fp8) if deepseek else _gqa(prefix + "self_attn.", c)
    yield _norm(prefix + "post_attention_layernorm", hidden)
    if not deepseek or i < c["first_k_dense_replace"]:
        yield from _mlp(prefix + "mlp.", hidden, c["intermediate_size"], 1.5 * RESIDUAL, fp8, c.get("mlp_bias", False))
        return
    yield _matrix(prefix + "mlp.gate", c["n_routed_experts"], hidden, 1.5)
    if c["topk_method"] == "noaux_tc":
        # -1.3 .. 0: most biased scores are negative, so that a mask of 0.0 prefers the excluded groups
        yield Draw(prefix + "mlp.gate.e_score_correction_bias", (c["n_routed_experts"],), 0.2, centre=-0.65, dtype="float32")
    for e in range(c["n_routed_experts"]):
        yield from _mlp(f"{prefix}mlp.experts.{e}.", hidden, c["moe_intermediate_size"], 1.5 * RESIDUAL, fp8)
    inner = c["moe_intermediate_size"] * c["n_shared_experts"]
    yield from _mlp(prefix + "mlp.shared_experts.", hidden, inner, 1.5 * RESIDUAL, fp8)


def _draws(c: dict[str, Any]) -> Iterator[Draw]:
    """Every tensor as the published checkpoints name it."""
    hidden, vocab, layers, fp8 = c["hidden_size"], c["vocab_size"], c["num_hidden_layers"], "quantization_config" in c
    yield Draw("model.embed_tokens.weight", (vocab, hidden), RESIDUAL)
    for i in range(layers):
        yield from _layer(f"model.layers.{i}.", i, c, fp8)
    yield _norm("model.norm", hidden)
    if not c["tie_word_embeddings"]:
        yield _matrix("lm_head", vocab, hidden, 2.2)
    for i in range(layers, layers + c.get("num_nextn_predict_layers", 0)):
        mtp = f"model.layers.{i}."
        # README_WEIGHTS of DeepSeek-V3: the embedding and the head are the main model's, stored a second time
        yield Draw(mtp + "embed_tokens.weight", (vocab, hidden), 0.0, copy_of="model.embed_tokens.weight")
        yield _norm(mtp + "enorm", hidden)
        yield _norm(mtp + "hnorm", hidden)
        yield _matrix(mtp + "eh_proj", hidden, 2 * hidden, RESIDUAL)
        yield from _layer(mtp, i, c, fp8)
        yield _norm(mtp + "shared_head.norm", hidden)
        yield Draw(mtp + "shared_head.head.weight", (vocab, hidden), 0.0, copy_of="lm_head.weight")


# ------------------------------------------------------------------------------------------------------------- the writer


def quantize_blocks(w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """w [N, K] float32 -> E4M3 [N, K], scale_inv [ceil(N/128), ceil(K/128)] float32 with w ~ E4M3 * scale_inv."""
    n, k = w.shape
    codes = np.empty((n, k), ml_dtypes.float8_e4m3fn)
    scale_inv = np.empty((-(-n // BLOCK), -(-k // BLOCK)), np.float32)
    for i, j in np.ndindex(*scale_inv.shape):
        at = np.s_[i * BLOCK : (i + 1) * BLOCK, j * BLOCK : (j + 1) * BLOCK]
        scale_inv[i, j] = np.abs(w[at]).max() / np.float32(E4M3_MAX)
        # ml_dtypes casts what rounds above 448 to NaN
        codes[at] = np.clip(w[at] / scale_inv[i, j], -E4M3_MAX, E4M3_MAX).astype(ml_dtypes.float8_e4m3fn)
    return codes, scale_inv


def _values(rs: np.random.RandomState, draw: Draw, kind: Kind) -> np.ndarray:
    u = rs.random_sample((4, *draw.shape))
    # the sum of 4 uniform numbers has variance 1/3
    values = draw.centre + draw.std * math.sqrt(3.0) * (u[0] + u[1] + u[2] + u[3] - 2.0)
    folded = ".".join(part for part in draw.name.split(".") if not part.isdigit())
    for end, gain in kind.gains:
        if folded.endswith(end + ".weight"):
            values *= gain
    if draw.name.endswith("kv_a_proj_with_mqa.weight"):  # a small latent, so that the epsilon of its norm shows; k_pe has no norm
        values[: kind.config["kv_lora_rank"]] *= RESIDUAL
    if draw.fp8:  # blocks of different size, so that a scale taken from another block shows
        rows, columns = (-(-size // BLOCK) for size in draw.shape)
        factors = 0.6 + 0.8 * rs.random_sample((rows, columns))
        values *= factors.repeat(BLOCK, 0)[: draw.shape[0]].repeat(BLOCK, 1)[:, : draw.shape[1]]
    return values.astype(np.float32)


def tensors(kind: str) -> dict[str, np.ndarray]:
    """Every tensor of a kind, as stored."""
    k = KINDS[kind]
    rs = np.random.RandomState(k.seed)
    stored = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}
    out: dict[str, np.ndarray] = {}
    for draw in _draws(k.config):
        if draw.copy_of is not None:
            out[draw.name] = out[draw.copy_of]
        elif draw.fp8:
            out[draw.name], out[draw.name + "_scale_inv"] = quantize_blocks(_values(rs, draw, k))
        else:
            out[draw.name] = _values(rs, draw, k).astype(stored[draw.dtype or k.config["torch_dtype"]])
    return out


def write_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """8 bytes of header length, the header as JSON, the data without gaps: widest types first, so that all are aligned."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    end = 0
    for name in names:
        begin, end = end, end + tensors[name].nbytes
        header[name] = {"dtype": DTYPES[tensors[name].dtype], "shape": list(tensors[name].shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as f:
        f.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            f.write(tensors[name].tobytes())


def build(kind: str, folder: Path) -> Path:
    """Write the checkpoint of `kind` into `folder` and return it: config.json and model.safetensors, or shards and their index."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(KINDS[kind].config, indent=2) + "\n", encoding="utf-8", newline="\n")
    all_tensors, shards = tensors(kind), KINDS[kind].shards
    if shards == 1:
        write_safetensors(folder / "model.safetensors", all_tensors)
        return folder
    names = list(all_tensors)
    # cut between an FP8 weight and its scale, as a few published shards do
    wanted = [len(names) * i // shards for i in range(1, shards)]
    scales = [i for i, name in enumerate(names) if name.endswith("_scale_inv")]
    cuts = [0, *(min(scales, key=lambda i: abs(i - at)) for at in wanted), len(names)]
    weight_map = {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = names[cuts[i] : cuts[i + 1]]
        write_safetensors(folder / file, {name: all_tensors[name] for name in part})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": sum(t.nbytes for t in all_tensors.values())}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8", newline="\n")
    return folder


def digest(folder: Path) -> str:
    """SHA-256 over a checkpoint's files. The goldens hold it: if it differs, the weights differ and no number can agree."""
    h = hashlib.sha256()
    for path in sorted(Path(folder).iterdir()):
        h.update(path.name.encode() + b"\0" + path.read_bytes())
    return h.hexdigest()
