"""The student in torch: Qwen2's architecture (QKV bias, GQA, half-split RoPE, SwiGLU), published tensor names."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from layers import MLP, Batch, Documents, RMSNorm, initialize
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class StudentConfig:
    """Keys as in a published config.json."""

    vocab_size: int = 320
    hidden_size: int = 256
    intermediate_size: int = 768
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    max_position_embeddings: int = 4096
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0

    def published(self, bos: int, eos: int) -> dict:
        """config.json as the R1 distills publish it."""
        return dict(
            architectures=["Qwen2ForCausalLM"], model_type="qwen2", **asdict(self), attention_dropout=0.0, bos_token_id=bos, eos_token_id=eos,
            hidden_act="silu", initializer_range=0.02, max_window_layers=self.num_hidden_layers, sliding_window=None, tie_word_embeddings=False,
            torch_dtype="bfloat16", use_cache=True, use_sliding_window=False,
        )  # fmt: skip


def rope_table(config: StudentConfig, positions: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin [T, head_dim], each half repeated (half-split pairs)."""
    dim = config.hidden_size // config.num_attention_heads
    frequency = config.rope_theta ** (-torch.arange(0, dim, 2, dtype=torch.float32, device=positions.device) / dim)
    angle = positions[:, None] * frequency
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-b, a], dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, c: StudentConfig, index: int) -> None:
        super().__init__()
        self.index, self.heads, self.kv_heads = index, c.num_attention_heads, c.num_key_value_heads
        self.dim = c.hidden_size // self.heads
        self.q_proj = nn.Linear(c.hidden_size, self.heads * self.dim)
        self.k_proj = nn.Linear(c.hidden_size, self.kv_heads * self.dim)
        self.v_proj = nn.Linear(c.hidden_size, self.kv_heads * self.dim)
        self.o_proj = nn.Linear(self.heads * self.dim, c.hidden_size, bias=False)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], view: Documents | Batch) -> Tensor:
        B, T, _ = x.shape
        q = rotate(self.q_proj(x).view(B, T, self.heads, self.dim).transpose(1, 2), *turn)
        k = rotate(self.k_proj(x).view(B, T, self.kv_heads, self.dim).transpose(1, 2), *turn)
        v = self.v_proj(x).view(B, T, self.kv_heads, self.dim).transpose(1, 2)
        return self.o_proj(view.attend(self.index, q, k, v, self.dim**-0.5).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    def __init__(self, c: StudentConfig, index: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.self_attn = Attention(c, index)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.mlp = MLP(c.hidden_size, c.intermediate_size)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], view: Documents | Batch) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), turn, view)
        return x + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    def __init__(self, c: StudentConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Layer(c, i) for i in range(c.num_hidden_layers))
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)


class Student(nn.Module):
    """ids [B, T] int64, seen through `view` -> logits [B, T, V]."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Body(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        initialize(self)

    def forward(self, ids: Tensor, view: Documents | Batch) -> Tensor:
        x = self.model.embed_tokens(ids)
        cos, sin = (t.to(x) for t in rope_table(self.config, view.positions))
        for layer in self.model.layers:
            x = layer(x, (cos, sin), view)
        return self.lm_head(self.model.norm(x))
