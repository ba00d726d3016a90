"""Rebuild the goldens: python tests/goldens/make_goldens.py  (torch and transformers 5; never needed to run the tests)

The numbers come from transformers' own classes in float32, weights dequantized by torch. DeepSeek's published code is the truth:
`check_deepseek` computes again, from the formulas of modeling_deepseek.py, everything in which transformers has deviated in one
release or another, and stops if it does so now. MTP and the FP8 linears have no class in transformers and are written here.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import (
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.models.deepseek_v2.modeling_deepseek_v2 import apply_rotary_emb
from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
    DeepseekV3DecoderLayer,
    DeepseekV3RMSNorm,
    apply_rotary_pos_emb_interleave,
)

GOLDENS = Path(__file__).resolve().parents[2] / "assets" / "goldens"
sys.path.insert(0, str(GOLDENS))
from checkpoints import KINDS, build, digest  # noqa: E402

CLASSES: dict[str, tuple[type[PreTrainedConfig], type[PreTrainedModel]]] = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "deepseek_v2": (DeepseekV2Config, DeepseekV2ForCausalLM),
    "deepseek_v3": (DeepseekV3Config, DeepseekV3ForCausalLM),
}
LENGTHS = (1, 22, 200)
TRACED = 22  # the length at which layers, experts and MTP are recorded too
MARGIN = 5e-5  # router scores differ by about 1e-6 between correct implementations: no choice may hang on that
BLOCK = 128
Arrays = dict[str, np.ndarray]


# --------------------------------------------------------------------------------------------------------------- loading


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor in float32; FP8 weights times the scale of their block."""
    raw: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        raw |= load_file(file)
    weights = {}
    for name, tensor in raw.items():
        if name.endswith("_scale_inv"):
            continue
        weights[name] = tensor.to(torch.float32)
        if tensor.dtype == torch.float8_e4m3fn:
            scale = raw[name + "_scale_inv"].repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
            weights[name] *= scale[: tensor.shape[0], : tensor.shape[1]]
    return weights


def stack_experts(weights: dict[str, torch.Tensor], experts: int) -> dict[str, torch.Tensor]:
    """transformers holds the experts of a layer in two tensors: gate above up, and down."""
    out = {name: w for name, w in weights.items() if ".mlp.experts." not in name}
    for prefix in sorted({name.split("experts.")[0] for name in weights if ".mlp.experts." in name}):

        def proj(e: int, which: str, prefix: str = prefix) -> torch.Tensor:
            return weights[f"{prefix}experts.{e}.{which}_proj.weight"]

        out[prefix + "experts.gate_up_proj"] = torch.stack([torch.cat([proj(e, "gate"), proj(e, "up")]) for e in range(experts)])
        out[prefix + "experts.down_proj"] = torch.stack([proj(e, "down") for e in range(experts)])
    return out


class Mtp(nn.Module):
    """The MTP module around transformers' decoder layer. Names are the checkpoint's.

    Source: README_WEIGHTS.md@deepseek-ai/DeepSeek-V3; the concatenation order is that of the published eh_proj (vLLM and SGLang
    agree), the reverse of equation 21 in the report.
    """

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__()
        hidden, eps = config.hidden_size, config.rms_norm_eps
        self.embed_tokens = nn.Embedding(config.vocab_size, hidden)
        self.enorm, self.hnorm = DeepseekV3RMSNorm(hidden, eps), DeepseekV3RMSNorm(hidden, eps)
        self.eh_proj = nn.Linear(2 * hidden, hidden, bias=False)
        self.block = DeepseekV3DecoderLayer(config, config.num_hidden_layers)
        self.shared_head = nn.ModuleDict({"norm": DeepseekV3RMSNorm(hidden, eps), "head": nn.Linear(hidden, config.vocab_size, bias=False)})

    def load(self, weights: dict[str, torch.Tensor]) -> None:
        own = ("embed_tokens.", "enorm.", "hnorm.", "eh_proj.", "shared_head.")
        self.load_state_dict({name if name.startswith(own) else "block." + name: w for name, w in weights.items()}, strict=True)

    def forward(self, h: torch.Tensor, tokens: torch.Tensor, rotary: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
        """h [1, T, D] after the main model's final norm, tokens [1, T] -> the layer's output [1, T-1, D] and logits [1, T-1, V]."""
        x = self.eh_proj(torch.cat([self.enorm(self.embed_tokens(tokens[:, 1:])), self.hnorm(h[:, :-1])], dim=-1))
        positions = torch.arange(x.shape[1])[None]
        causal = torch.full((x.shape[1], x.shape[1]), float("-inf")).triu(1)[None, None]
        x = self.block(x, attention_mask=causal, position_ids=positions, position_embeddings=rotary(x, positions))
        return x, self.shared_head["head"](self.shared_head["norm"](x))


def load(kind: str, folder: Path, **changes: Any) -> tuple[PreTrainedModel, Mtp | None]:
    """The checkpoint in transformers' class, float32, eager attention, and its MTP module. `changes` go into the config."""
    raw = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    raw = {key: value for key, value in raw.items() if key not in ("quantization_config", "auto_map", "torch_dtype")}
    config_class, model_class = CLASSES[raw["model_type"]]
    config = config_class(**raw | changes)
    config._attn_implementation = config._experts_implementation = "eager"
    model = model_class(config).to(torch.float32).eval()
    weights = read_weights(folder)
    if config.tie_word_embeddings:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    if hasattr(config, "n_routed_experts"):
        weights = stack_experts(weights, config.n_routed_experts)
    at = f"model.layers.{config.num_hidden_layers}."
    extra = {name.removeprefix(at): w for name, w in weights.items() if name.startswith(at)}
    model.load_state_dict({name: w for name, w in weights.items() if not name.startswith(at)}, strict=True)
    if not extra:
        return model, None
    mtp = Mtp(config).eval()
    mtp.load(extra)
    return model, mtp


def check_deepseek(model: PreTrainedModel, raw: dict[str, Any]) -> None:
    """Softmax scale, frequencies, cos/sin scale and rotation, from DeepSeek's formulas instead of transformers'.

    Deviations that releases of transformers have had and this one must not: no mscale in V2's softmax scale (up to 5.13),
    a router mask of 0.0 (V3), half-split RoPE (rope_interleave is not a published key), no cos/sin scale.
    Left alone, because no published checkpoint gets there: V2's router ignores norm_topk_prob, the latent norms have a fixed
    epsilon of 1e-6 (DeepSeek's own too), and mscale without mscale_all_dim is read differently.
    """
    rope, dim = raw["rope_scaling"], raw["qk_rope_head_dim"]

    def mscale(m: float) -> float:
        return 0.1 * m * math.log(rope["factor"]) + 1.0

    def turns(n: float) -> float:
        return dim * math.log(rope["original_max_position_embeddings"] / (n * 2 * math.pi)) / (2 * math.log(raw["rope_theta"]))

    scale = (raw["qk_nope_head_dim"] + dim) ** -0.5 * mscale(rope["mscale_all_dim"]) ** 2
    for layer in model.model.layers:
        assert math.isclose(layer.self_attn.scaling, scale, rel_tol=1e-12), (layer.self_attn.scaling, scale)
    low, high = max(math.floor(turns(rope["beta_fast"])), 0), min(math.ceil(turns(rope["beta_slow"])), dim - 1)
    ramp = np.clip((np.arange(dim // 2) - low) / (high - low), 0, 1)
    freq = raw["rope_theta"] ** (-np.arange(0, dim, 2) / dim)
    freq = freq / rope["factor"] * ramp + freq * (1 - ramp)
    np.testing.assert_allclose(model.model.rotary_emb.inv_freq.numpy(), freq, rtol=1e-6)
    size = mscale(rope["mscale"]) / mscale(rope["mscale_all_dim"])
    assert math.isclose(model.model.rotary_emb.attention_scaling, size, rel_tol=1e-12)

    # The rotation itself, pairs (2j, 2j + 1), seen through the dot products: attention sees nothing else.
    rs = np.random.RandomState(0)
    q, k = rs.standard_normal((2, 1, 1, 7, dim))
    turn = size * np.exp(1j * np.arange(7)[:, None] * freq)
    wanted = (((q[..., 0::2] + 1j * q[..., 1::2]) * turn) @ ((k[..., 0::2] + 1j * k[..., 1::2]) * turn).conj().swapaxes(-1, -2)).real
    q, k = (torch.tensor(x, dtype=torch.float32) for x in (q, k))
    angles = model.model.rotary_emb(q, torch.arange(7)[None])
    if raw["model_type"] == "deepseek_v3":
        assert model.config.rope_interleave
        q, k = apply_rotary_pos_emb_interleave(q, k, *angles)
    else:
        assert not raw["norm_topk_prob"]
        q, k = apply_rotary_emb(q, k, angles)
    np.testing.assert_allclose((q @ k.transpose(-1, -2)).numpy(), wanted, atol=1e-4)


# --------------------------------------------------------------------------------------------------------------- running


class Recorder:
    """Forward hooks: what leaves every decoder layer, and what every router decides."""

    def __init__(self, layers: list[nn.Module]) -> None:
        self.hidden: list[torch.Tensor] = []
        self.routed: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self.attention: list[torch.Tensor] = []
        self.handles = []
        for layer in layers:
            self.handles.append(layer.register_forward_hook(lambda _m, _i, out: self.hidden.append(out[0])))
            self.handles.append(layer.self_attn.register_forward_hook(lambda _m, _i, out: self.attention.append(out[1][0])))
            if hasattr(layer.mlp, "gate"):
                self.handles.append(layer.mlp.gate.register_forward_hook(lambda _m, _i, out: self.routed.append(out)))

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()

    def experts(self) -> tuple[np.ndarray, np.ndarray]:
        """Ids in ascending order [layers, T, k] and their weights."""
        ids = torch.stack([indices for _, _, indices in self.routed])
        ids, order = ids.sort(-1)
        return ids.numpy().astype(np.uint8), torch.stack([w for _, w, _ in self.routed]).gather(-1, order).numpy()


def make(kind: str, folder: Path) -> tuple[Arrays, dict[str, float]]:
    """All goldens of a kind, and facts that say whether they are worth anything."""
    raw = KINDS[kind].config
    model, mtp = load(kind, folder)
    if raw["model_type"].startswith("deepseek") and raw.get("rope_interleave", True):
        check_deepseek(model, raw)
    rs = np.random.RandomState(KINDS[kind].seed + 1000)
    out: Arrays = {"checkpoint_sha256": np.array(digest(folder))}
    facts: dict[str, float] = {}
    margins: list[float] = []
    for length in LENGTHS:
        tokens = rs.randint(0, raw["vocab_size"], length)
        out[f"tokens_{length}"] = tokens.astype(np.int64)
        ids = torch.tensor(tokens)[None]
        with Recorder(list(model.model.layers)) as seen:
            h = model.model(ids, use_cache=False).last_hidden_state
            logits = model.lm_head(h)[0]
        out[f"logits_{length}"] = logits.numpy()
        if seen.routed and length > 1:
            out[f"experts_{length}"], out[f"weights_{length}"] = seen.experts()
        if length == TRACED:
            out[f"hidden_{length}"], out[f"final_{length}"] = torch.stack(seen.hidden).numpy(), h[0].numpy()
            if mtp is not None:
                with Recorder([mtp.block]) as of_mtp:
                    x, mtp_logits = mtp(h, ids, model.model.rotary_emb)
                out[f"mtp_hidden_{length}"], out[f"mtp_logits_{length}"] = x[0].numpy(), mtp_logits[0].numpy()
                margins.append(routing_facts(model.config, [mtp.block.mlp.gate], of_mtp.routed)["margin"])
                experts, weights = of_mtp.experts()
                out[f"mtp_experts_{length}"], out[f"mtp_weights_{length}"] = experts[0], weights[0]
        if seen.routed:
            gates = [layer.mlp.gate for layer in model.model.layers if hasattr(layer.mlp, "gate")]
            routing = routing_facts(model.config, gates, seen.routed)
            margins.append(routing["margin"])
            facts |= routing  # the longest is the last
        if length == max(LENGTHS):
            facts |= attention_facts(seen.attention) | {"max |logit|": logits.abs().max().item(), "std logit": logits.std().item()}
    if margins:
        facts["margin"] = min(margins)
        assert facts["margin"] > MARGIN, f"{kind}: {facts['margin']:.1e} between two experts; another seed"
    if kind == "qwen3":
        out[f"logits_{TRACED}_attn_factor"] = attn_factor_logits(folder, raw, out[f"tokens_{TRACED}"])
    return out, facts


def attn_factor_logits(folder: Path, raw: dict[str, Any], tokens: np.ndarray) -> np.ndarray:
    """The other reading of DeepSeek-R1-0528-Qwen3-8B's `attn_factor`.

    transformers (and llama.cpp, mlx-lm) do not know the key: cos and sin are scaled by 0.1 ln(4) + 1 = 1.1386. vLLM, SGLang and
    the code of YaRN's authors multiply the two; the published value makes the product 1.0, which can hardly be chance.
    """
    rope = dict(raw["rope_scaling"])
    size = rope.pop("attn_factor") * (0.1 * math.log(rope["factor"]) + 1.0)
    model, _ = load("qwen3", folder, rope_scaling=rope | dict(attention_factor=size))
    return model(torch.tensor(tokens)[None]).logits[0].numpy()


def attention_facts(attention: list[torch.Tensor]) -> dict[str, float]:
    """Attention that is uniform, or all on one token, would hide mistakes."""
    p = torch.stack(attention)[:, :, 50:]
    uniform = torch.log(torch.arange(50, p.shape[-1]) + 1.0)
    entropy = -(p * p.clamp_min(1e-30).log()).sum(-1)
    return {"attn max p": p.amax(-1).mean().item(), "attn entropy/uniform": (entropy / uniform).mean().item()}


def routing_facts(c: PreTrainedConfig, gates: list[nn.Module], routed: list[tuple[torch.Tensor, ...]]) -> dict[str, float]:
    """The distance to the next decision, and the share of (layer, token) where a known mistake chooses other experts."""
    biases = torch.stack([getattr(g, "e_score_correction_bias", torch.zeros(c.n_routed_experts)) for g in gates])
    logits = torch.stack([r[0] for r in routed])
    v3 = c.model_type == "deepseek_v3"
    scores = logits.sigmoid() if v3 else logits.softmax(-1)
    right, margin = choose(scores + biases[:, None], c, 2 if v3 else 1, float("-inf"))
    assert (right == torch.stack([r[2].sort(-1).values for r in routed])).all()
    facts = {"margin": margin}
    variants = {"mask 0.0": (2, 0.0), "group top 1": (1, float("-inf"))} if v3 else {"group top 2": (2, float("-inf"))}
    if c.n_group == 1:
        return facts
    for name, (best, fill) in variants.items():
        wrong, _ = choose(scores + biases[:, None], c, best, fill)
        facts[name] = (wrong != right).any(-1).float().mean().item()
    ungrouped = (scores + biases[:, None]).topk(c.num_experts_per_tok)[1].sort(-1).values
    facts["no groups"] = (ungrouped != right).any(-1).float().mean().item()
    if v3:
        unbiased, _ = choose(scores, c, 2, float("-inf"))
        facts["no bias"] = (unbiased != right).any(-1).float().mean().item()
        facts["biased < 0"] = ((scores + biases[:, None]).gather(-1, right) < 0).any(-1).float().mean().item()
    return facts


def choose(biased: torch.Tensor, c: PreTrainedConfig, best: int, fill: float) -> tuple[torch.Tensor, float]:
    """Sorted expert ids, and the smallest gap between taken and not taken, of groups or of experts."""
    margin = float("inf")
    if c.n_group > 1:
        groups = biased.unflatten(-1, (c.n_group, -1)).topk(best)[0].sum(-1)
        ranked = groups.sort(-1, descending=True).values
        margin = (ranked[..., c.topk_group - 1] - ranked[..., c.topk_group]).min().item()
        kept = torch.zeros_like(groups).scatter(-1, groups.topk(c.topk_group)[1], 1.0)
        biased = biased.masked_fill(kept.repeat_interleave(biased.shape[-1] // c.n_group, -1) == 0, fill)
    ranked, ids = biased.sort(-1, descending=True)
    k = c.num_experts_per_tok
    return ids[..., :k].sort(-1).values, min(margin, (ranked[..., k - 1] - ranked[..., k]).min().item())


# ------------------------------------------------------------------------------------------------------------------- FP8


def quantize_activations(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x [T, K] float32 -> E4M3 [T, K], scales [T, ceil(K/128)]: amax clamped to 1e-4, over 448; a tile may be shorter than 128."""
    codes, scales = torch.empty_like(x, dtype=torch.float8_e4m3fn), []
    for tile, target in zip(x.split(BLOCK, -1), codes.split(BLOCK, -1), strict=True):
        scale = tile.abs().amax(-1).clamp_min(1e-4) / 448.0
        target.copy_((tile / scale[:, None]).clamp(-448.0, 448.0).to(torch.float8_e4m3fn))
        scales.append(scale)
    return codes, torch.stack(scales, -1)


def fp8_linear(codes: torch.Tensor, scales: torch.Tensor, w: torch.Tensor, scale_inv: torch.Tensor) -> torch.Tensor:
    """Per 128 of K: the dot product (float64, rounded once), times both scales, added in float32."""
    y = torch.zeros(codes.shape[0], w.shape[0])
    by_row = scale_inv.repeat_interleave(BLOCK, 0)[: w.shape[0]]
    for j, (a, b) in enumerate(zip(codes.split(BLOCK, -1), w.split(BLOCK, -1), strict=True)):
        y += (a.double() @ b.double().T).float() * scales[:, j, None] * by_row[:, j]
    return y


def fp8_linears(folder: Path) -> Arrays:
    """x, codes, scales and y for every kind of FP8 linear, by the name of the module."""
    raw: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        raw |= load_file(file)
    attention = [f"0.self_attn.{name}" for name in ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "o_proj")]
    mlps = [f"{mlp}.{p}_proj" for mlp in ("0.mlp", "1.mlp.experts.5", "1.mlp.shared_experts") for p in ("gate", "up", "down")]
    rs, out = np.random.RandomState(77), {}
    for name in (f"model.layers.{end}" for end in attention + mlps):
        w, scale_inv = raw[name + ".weight"], raw[name + ".weight_scale_inv"]
        x = rs.standard_normal((5, w.shape[1])).astype(np.float32)
        x[1] *= 30.0
        x[2] *= 1e-5  # amax below 1e-4: the clamp decides
        x[3, 7] = 250.0  # an outlier pushes the rest of its tile towards the subnormals; the next tile must not notice
        x[4, :BLOCK] = 0.0  # a tile without anything: no division by zero
        x[4, :5] = -0.0
        codes, scales = quantize_activations(torch.tensor(x))
        out |= {
            f"{name}.x": x,
            f"{name}.codes": codes.view(torch.uint8).numpy(),
            f"{name}.scales": scales.numpy(),
            f"{name}.y": fp8_linear(codes, scales, w, scale_inv).numpy(),
        }
    return out


def e4m3() -> Arrays:
    """The 256 values, and the codes of numbers on, between and beside them."""
    decoded = torch.arange(256, dtype=torch.int16).to(torch.uint8).view(torch.float8_e4m3fn).to(torch.float32).numpy()
    values = decoded[:127]  # 127 is NaN
    ties = np.append((values[1:] + values[:-1]) / 2, np.float32(464.0))  # 464 would be the tie with 480, which does not exist
    beside = [np.nextafter(at, np.float32(to)) for at in (values, ties) for to in (-1, 1e9)]
    tiny, huge = np.finfo(np.float32).smallest_subnormal, np.finfo(np.float32).max
    special = np.array([0.0, tiny, 1e-30, 2**-10, 2**-11, 448.0, 449.0, 463.9, 479.0, 480.0, 512.0, 1e5, huge, np.inf], np.float32)
    rs = np.random.RandomState(78)
    spread = np.exp2(rs.uniform(-13, 10, 1200)).astype(np.float32)
    x = np.concatenate([values, ties, *beside, special, spread])
    x = np.concatenate([x, -x])
    codes = torch.tensor(x).clamp(-448.0, 448.0).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
    return {"decoded": decoded, "x": x, "codes": codes}


# ------------------------------------------------------------------------------------------------------------------ main


def rope() -> Arrays:
    """Frequencies in float32 step by step, as transformers and DeepSeek's own code compute them: "THETA_DIM" [DIM / 2]."""
    pairs = ((1e4, 64), (1e4, 128), (5e5, 128), (1e6, 128))
    return {f"{theta:.0f}_{dim}": (1.0 / (theta ** (torch.arange(0, dim, 2).float() / dim))).numpy() for theta, dim in pairs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=GOLDENS, help="folder of the .npz files (default: assets/goldens)")
    out: Path = parser.parse_args().out
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    table: list[tuple[str, Arrays, dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for kind in KINDS:
            table.append((kind, *make(kind, build(kind, Path(temporary) / kind))))
        table.append(("fp8_linears", fp8_linears(Path(temporary) / "deepseek_v3-fp8"), {}))
    table.append(("e4m3", e4m3(), {}))
    table.append(("rope", rope(), {}))
    total = 0
    for name, arrays, facts in table:
        assert all(np.isfinite(a).all() for a in arrays.values() if a.dtype.kind == "f") or name == "e4m3"
        path = out / f"{name}.npz"
        np.savez_compressed(path, **arrays)
        total += path.stat().st_size
        print(f"{name:20} {path.stat().st_size:>8,} bytes  " + "  ".join(f"{key} {value:.3g}" for key, value in facts.items()))
    print(f"{'total':20} {total:>8,} bytes")


if __name__ == "__main__":
    main()
