"""The teacher in torch: DeepSeek-V3's architecture, published tensor names and config keys.

Latent attention (MLA) with a compressed query, YaRN, a first dense layer, then mixtures of experts whose load is balanced by
the router's bias without an auxiliary loss, and one layer for multi-token prediction (MTP).
Source: DeepSeek-V3 report (arXiv 2412.19437) 2.1 and 2.2; equations are quoted by their numbers there.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from layers import MLP, Batch, Documents, RMSNorm, initialize
from torch import Tensor, nn

YARN = dict(type="yarn", factor=4.0, original_max_position_embeddings=4096, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=1.0)


@dataclass(frozen=True, slots=True)
class TeacherConfig:
    """Keys as in a published config.json."""

    vocab_size: int = 320
    hidden_size: int = 256
    intermediate_size: int = 768
    moe_intermediate_size: int = 256
    num_hidden_layers: int = 4
    num_nextn_predict_layers: int = 1
    first_k_dense_replace: int = 1
    num_attention_heads: int = 4
    q_lora_rank: int = 256
    kv_lora_rank: int = 256
    qk_nope_head_dim: int = 32
    qk_rope_head_dim: int = 128
    v_head_dim: int = 64
    n_routed_experts: int = 8
    n_shared_experts: int = 1
    num_experts_per_tok: int = 2
    n_group: int = 4
    topk_group: int = 2
    routed_scaling_factor: float = 2.0
    max_position_embeddings: int = 16384
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    def published(self, bos: int, eos: int) -> dict:
        """config.json as DeepSeek-V3 publishes it, but for quantization_config."""
        return dict(
            architectures=["DeepseekV3ForCausalLM"], model_type="deepseek_v3", **asdict(self), attention_bias=False, attention_dropout=0.0,
            bos_token_id=bos, eos_token_id=eos, ep_size=1, hidden_act="silu", initializer_range=0.02, moe_layer_freq=1, norm_topk_prob=True,
            num_key_value_heads=self.num_attention_heads, rope_scaling=YARN, scoring_func="sigmoid", tie_word_embeddings=False,
            topk_method="noaux_tc", torch_dtype="bfloat16", use_cache=True,
        )  # fmt: skip


def yarn_mscale() -> float:
    return 0.1 * YARN["mscale_all_dim"] * math.log(YARN["factor"]) + 1.0


def rope_table(c: TeacherConfig, positions: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin [T, qk_rope_head_dim / 2], slow pairs stretched by YaRN at every length; mscale over mscale_all_dim is 1."""
    dim, original = c.qk_rope_head_dim, YARN["original_max_position_embeddings"]

    def pair_turning(times: float) -> float:
        return dim * math.log(original / (times * 2 * math.pi)) / (2 * math.log(c.rope_theta))

    low, high = max(math.floor(pair_turning(YARN["beta_fast"])), 0), min(math.ceil(pair_turning(YARN["beta_slow"])), dim - 1)
    stretch = ((torch.arange(dim // 2, device=positions.device) - low) / (high - low)).clamp(0, 1)
    frequency = c.rope_theta ** (-torch.arange(0, dim, 2, dtype=torch.float32, device=positions.device) / dim)
    frequency = frequency * (1 - stretch) + frequency / YARN["factor"] * stretch
    angle = positions[:, None] * frequency
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn neighbouring pairs (2j, 2j + 1) of x [..., T, dim]."""
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)


class LatentAttention(nn.Module):
    """MLA: keys and values written out (the naive form) over documents, absorbed where a batch grows. Equations 1 to 11."""

    def __init__(self, c: TeacherConfig, index: int) -> None:
        super().__init__()
        self.index, self.config, self.scale = index, c, c.qk_head_dim**-0.5 * yarn_mscale() ** 2
        heads = c.num_attention_heads
        self.q_a_proj = nn.Linear(c.hidden_size, c.q_lora_rank, bias=False)
        self.q_a_layernorm = RMSNorm(c.q_lora_rank, 1e-6)
        self.q_b_proj = nn.Linear(c.q_lora_rank, heads * c.qk_head_dim, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(c.hidden_size, c.kv_lora_rank + c.qk_rope_head_dim, bias=False)
        self.kv_a_layernorm = RMSNorm(c.kv_lora_rank, 1e-6)
        self.kv_b_proj = nn.Linear(c.kv_lora_rank, heads * (c.qk_nope_head_dim + c.v_head_dim), bias=False)
        self.o_proj = nn.Linear(heads * c.v_head_dim, c.hidden_size, bias=False)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], view: Documents | Batch) -> Tensor:
        c, (B, T, _) = self.config, x.shape
        q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x))).view(B, T, -1, c.qk_head_dim).transpose(1, 2)
        q_c, q_r = q.split([c.qk_nope_head_dim, c.qk_rope_head_dim], dim=-1)
        latent, k_r = self.kv_a_proj_with_mqa(x).split([c.kv_lora_rank, c.qk_rope_head_dim], dim=-1)
        latent, q_r = self.kv_a_layernorm(latent), rotate(q_r, *turn).to(q_c.dtype)
        k_r = rotate(k_r, *turn).to(latent.dtype)  # one rotated key for all heads
        if isinstance(view, Batch):
            return self.o_proj(self._absorbed(q_c, q_r, latent, k_r, view).transpose(1, 2).flatten(2))
        kv = self.kv_b_proj(latent).view(B, T, -1, c.qk_nope_head_dim + c.v_head_dim).transpose(1, 2)
        k_c, v = kv.split([c.qk_nope_head_dim, c.v_head_dim], dim=-1)
        k = torch.cat([k_c, k_r[:, None].expand(-1, c.num_attention_heads, -1, -1)], dim=-1)
        return self.o_proj(view.attend(self.index, torch.cat([q_c, q_r], dim=-1), k, v, self.scale).transpose(1, 2).flatten(2))

    def _absorbed(self, q_c: Tensor, q_r: Tensor, latent: Tensor, k_r: Tensor, view: Batch) -> Tensor:
        """The same on latents: what makes keys and values of them is applied to the queries and the outcome instead. 2.1.1 of the V2 report
        (arXiv 2405.04434)."""
        c = self.config
        keys, values = self.kv_b_proj.weight.view(c.num_attention_heads, -1, c.kv_lora_rank).split(
            [c.qk_nope_head_dim, c.v_head_dim], dim=1
        )
        q = torch.cat([torch.einsum("bhtn,hnr->bhtr", q_c, keys.to(q_c.dtype)), q_r], dim=-1)
        mixed = view.attend_latents(self.index, q, torch.cat([latent, k_r], dim=-1), c.kv_lora_rank, self.scale)
        return torch.einsum("bhtr,hvr->bhtv", mixed, values.to(mixed.dtype))


class Gate(nn.Module):
    """The router: which experts a token goes to, and with which weights. Equations 13 to 16."""

    e_score_correction_bias: Tensor

    def __init__(self, c: TeacherConfig) -> None:
        super().__init__()
        self.config = c
        self.weight = nn.Parameter(torch.empty(c.n_routed_experts, c.hidden_size))
        self.register_buffer("e_score_correction_bias", torch.zeros(c.n_routed_experts))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [N, D] -> experts int64 [N, k], weights float32 [N, k]. The bias steers the choice alone."""
        c = self.config
        with torch.autocast(x.device.type, enabled=False):
            scores = F.linear(x.float(), self.weight.float()).sigmoid()
        choice = scores.detach() + self.e_score_correction_bias
        groups = choice.view(len(x), c.n_group, -1)
        best = groups.topk(2, dim=-1).values.sum(dim=-1).topk(c.topk_group, dim=-1).indices
        outside = torch.ones_like(groups[..., 0], dtype=torch.bool).scatter(1, best, False)
        experts = groups.masked_fill(outside[..., None], float("-inf")).flatten(1).topk(c.num_experts_per_tok, dim=-1).indices
        weights = scores.gather(1, experts)
        return experts, weights / (weights.sum(dim=-1, keepdim=True) + 1e-20) * c.routed_scaling_factor


class MoE(nn.Module):
    """Sum of the chosen experts' weighted outputs and the shared expert's. `load` counts the tokens that each expert got."""

    def __init__(self, c: TeacherConfig) -> None:
        super().__init__()
        self.gate = Gate(c)
        self.experts = nn.ModuleList(MLP(c.hidden_size, c.moe_intermediate_size) for _ in range(c.n_routed_experts))
        self.shared_experts = MLP(c.hidden_size, c.n_shared_experts * c.moe_intermediate_size)
        self.load = torch.zeros(c.n_routed_experts)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(0, 1)
        experts, weights = self.gate(flat)
        counts = torch.bincount(experts.flatten(), minlength=len(self.experts))
        if self.training:
            self.load = self.load.to(counts.device) + counts
        order = experts.flatten().argsort(stable=True)  # by expert
        token = order // experts.shape[1]
        parts = flat[token].split(counts.tolist())
        out = torch.cat([expert(part) for expert, part in zip(self.experts, parts, strict=True) if len(part)])
        out = out * weights.flatten()[order, None].to(out.dtype)
        shared = self.shared_experts(flat)
        return shared.index_add(0, token, out.to(shared.dtype)).view_as(x)


class Layer(nn.Module):
    def __init__(self, c: TeacherConfig, index: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.self_attn = LatentAttention(c, index)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.mlp = MoE(c) if index >= c.first_k_dense_replace else MLP(c.hidden_size, c.intermediate_size)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], view: Documents | Batch) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), turn, view)
        return x + self.mlp(self.post_attention_layernorm(x))


class MtpLayer(Layer):
    """h'[i] = Layer(eh_proj [enorm(Emb(t[i+1])); hnorm(h[i])]), for t[i+2]; the embedding comes first in the published weights."""

    def __init__(self, c: TeacherConfig, index: int) -> None:
        super().__init__(c, index)
        self.enorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.hnorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.eh_proj = nn.Linear(2 * c.hidden_size, c.hidden_size, bias=False)
        self.shared_head = nn.ModuleDict({"norm": RMSNorm(c.hidden_size, c.rms_norm_eps)})


class Body(nn.Module):
    def __init__(self, c: TeacherConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        layers: list[Layer] = [Layer(c, i) for i in range(c.num_hidden_layers)]
        layers += [MtpLayer(c, c.num_hidden_layers + i) for i in range(c.num_nextn_predict_layers)]
        self.layers = nn.ModuleList(layers)
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)


class Teacher(nn.Module):
    """ids [B, T] int64, seen through `view` -> logits [B, T, V]."""

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Body(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        initialize(self)

    def hidden(self, ids: Tensor, view: Documents | Batch) -> Tensor:
        """After the final norm: [B, T, D]."""
        x = self.model.embed_tokens(ids)
        turn = self.turn(x, view)
        for layer in self.model.layers[: self.config.num_hidden_layers]:
            x = layer(x, turn, view)
        return self.model.norm(x)

    def forward(self, ids: Tensor, view: Documents | Batch) -> Tensor:
        return self.lm_head(self.hidden(ids, view))

    def mtp_logits(self, hidden: Tensor, ids: Tensor, view: Documents) -> Tensor:
        """hidden [1, N, D] of the packed tokens `ids` -> [1, N, V]: row i holds the scores of token i + 2.

        The last row of each document looks into the next one; nothing before it sees that, and nothing is trained on it.
        """
        mtp = self.model.layers[self.config.num_hidden_layers]
        following = self.model.embed_tokens(ids.roll(-1, dims=1))
        x = mtp.eh_proj(torch.cat([mtp.enorm(following), mtp.hnorm(hidden)], dim=-1))
        x = mtp(x, self.turn(following, view), view)
        return self.lm_head(mtp.shared_head["norm"](x))

    def turn(self, x: Tensor, view: Documents | Batch) -> tuple[Tensor, Tensor]:
        cos, sin = rope_table(self.config, view.positions)
        return cos.to(x), sin.to(x)

    def mixtures(self) -> dict[int, MoE]:
        """The layers with experts, by index."""
        return {i: layer.mlp for i, layer in enumerate(self.model.layers) if isinstance(layer.mlp, MoE)}

    def balance(self, speed: float) -> dict[int, list[float]]:
        """Move each router's bias by `speed` against the load of its experts since the last call; returns that load as shares."""
        shares = {}
        for index, moe in self.mixtures().items():
            if moe.load.sum() == 0:
                continue
            moe.gate.e_score_correction_bias += speed * (moe.load.mean() - moe.load).sign()
            shares[index] = (moe.load / moe.load.sum()).tolist()
            moe.load = torch.zeros_like(moe.load)
        return shares
