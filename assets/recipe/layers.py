"""What the student and the teacher share: norms, the gated feed-forward, attention over packed documents or a growing batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HIDDEN = -1e4  # score of a position that may not be seen; finite, so that a row of padding alone stays a number


def fast_type(device: str) -> torch.dtype:
    """BF16 where it is computed with, else float32: without instructions for it, BF16 takes a CPU ten times as long."""
    return torch.bfloat16 if device != "cpu" or torch.cpu._is_avx512_bf16_supported() else torch.float32


def autocast(device: str) -> torch.autocast:
    dtype = fast_type(device)
    return torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32)


class RMSNorm(nn.Module):
    """x / rms(x) * weight, computed in float32; under autocast the result has its dtype, cast once for all that reads it."""

    def __init__(self, size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x: Tensor) -> Tensor:
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        return rms_norm(x, self.weight, self.eps, dtype)


def rms_norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps) * weight).to(dtype)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate) * up


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, hidden: int, intermediate: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, intermediate, bias=False)
        self.up_proj = nn.Linear(hidden, intermediate, bias=False)
        self.down_proj = nn.Linear(intermediate, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x)))


def initialize(model: nn.Module) -> None:
    """Small embeddings, matrices by their width; what writes into the residual stream starts at zero."""
    for name, p in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight", "bias")):
            nn.init.zeros_(p)
        elif p.ndim == 2:
            nn.init.normal_(p, std=0.02 if "embed" in name or "lm_head" in name else 0.5 * p.shape[1] ** -0.5)


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, scale: float, mask: Tensor) -> Tensor:
    """softmax(q kᵀ scale + mask) v: [.., H, T, d] -> [.., H, T, e]; k and v may have fewer heads.

    Written out: in BF16 on a CPU this is more than twice as fast as torch's fused kernel, forward and back.
    """
    groups = q.shape[-3] // k.shape[-3]
    if groups > 1:
        k, v = k.repeat_interleave(groups, dim=-3), v.repeat_interleave(groups, dim=-3)
    scores = (q * scale).to(v.dtype) @ k.to(v.dtype).transpose(-1, -2)
    return (scores + mask.to(v.dtype)).softmax(dim=-1).to(v.dtype) @ v


class Documents:
    """Documents packed one after another, ids [1, N]: each sees itself alone, nothing is padded."""

    def __init__(self, lengths: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.lengths = list(lengths)
        self.positions = torch.cat([torch.arange(n, device=device) for n in self.lengths])
        longest = max(self.lengths)
        self.mask = torch.full((longest, longest), HIDDEN, device=device).triu(1)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """q [1, H, N, d] -> [1, H, N, e]."""
        parts = zip(*(x.split(self.lengths, dim=2) for x in (q, k, v)), strict=True)
        return torch.cat([softmax_attention(*qkv, scale, self.mask[: qkv[0].shape[2], : qkv[0].shape[2]]) for qkv in parts], dim=2)


class Batch:
    """Sequences side by side that grow token by token, ids [B, T]: `padding` [B] tokens at the left of each are none.

    Rotary attention sees differences of positions only, so all rows count theirs from the left edge.
    """

    def __init__(self, capacity: int, padding: Tensor) -> None:
        self.capacity, self.padding, self.length = capacity, padding, 0
        self.cache: dict[int, tuple[Tensor, ...]] = {}

    def extend(self, new: int) -> None:
        """Make room for the next `new` tokens; to be called before they are computed."""
        self.positions = torch.arange(self.length, self.length + new, device=self.padding.device)
        self.length += new
        causal = torch.full((new, self.length), HIDDEN, device=self.padding.device).triu(1 + self.length - new)
        self.mask = causal + HIDDEN * (torch.arange(self.length, device=self.padding.device) < self.padding[:, None, None, None])

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """q [B, H, T, d] -> [B, H, T, e]."""
        keys, values = self._kept(layer, k, v)
        with torch.autocast(q.device.type, enabled=False):  # in BF16 a CPU would copy all keys into its own order at each token
            return softmax_attention(q, keys, values, scale, self.mask).to(q.dtype)

    def attend_latents(self, layer: int, q: Tensor, latents: Tensor, width: int, scale: float) -> Tensor:
        """q [B, H, T, d], latents [B, T, d] -> [B, H, T, width]: all heads have the same keys, whose first `width` numbers are the values."""
        (keys,) = self._kept(layer, latents)
        with torch.autocast(q.device.type, enabled=False):
            scores = (keys @ (q.float() * scale).flatten(1, 2).mT).mT  # in this order a CPU is nearly twice as fast
            weights = (scores.unflatten(1, q.shape[1:3]) + self.mask).softmax(dim=-1)
            return (weights.flatten(1, 2) @ keys[..., :width]).unflatten(1, q.shape[1:3]).to(q.dtype)

    def _kept(self, layer: int, *new: Tensor) -> tuple[Tensor, ...]:
        """Each [.., T, d], behind what was kept before: [.., length, d], float32."""
        if layer not in self.cache:
            self.cache[layer] = tuple(torch.empty(*x.shape[:-2], self.capacity, x.shape[-1], device=x.device) for x in new)
        for kept, x in zip(self.cache[layer], new, strict=True):
            kept[..., self.length - x.shape[-2] : self.length, :] = x
        return tuple(x[..., : self.length, :] for x in self.cache[layer])

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        self.padding = self.padding[rows]
        self.cache = {layer: tuple(x[rows] for x in kept) for layer, kept in self.cache.items()}
