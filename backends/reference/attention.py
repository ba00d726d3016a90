"""Attention: grouped-query for the distills, multi-head latent (MLA) for DeepSeek-V2/V3, the latter naive and absorbed.

Letters: T new tokens, S cached and new tokens, H heads, G key-value heads, D hidden size; c = kv_lora_rank, r = qk_rope_head_dim,
n = qk_nope_head_dim, v = v_head_dim. Source: DeepSeek-V2 report (arXiv 2405.04434) 2.1 and appendix C; DeepSeek-V3 report
(arXiv 2412.19437) 2.1.1, equations 1 to 11; inference/model.py@deepseek-ai/DeepSeek-V3 (class MLA).
"""

from __future__ import annotations

import numpy as np

from backends.reference.cache import Cache
from backends.reference.config import Config
from backends.reference.rope import rotate
from backends.reference.weights import Weights

Angles = tuple[np.ndarray, np.ndarray]  # cos, sin: float32 [T, dim / 2]

# DeepSeek's code gives the norms inside MLA no eps of the config: they always have RMSNorm's default.
LATENT_EPS = 1e-6
SCORES_LIMIT = 1 << 24  # elements of scores held at once: 64 MiB


def rms_norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    """x / rms(x) * weight along the last axis, float32. Source: arXiv 1910.07467."""
    mean_square = np.mean(np.square(x), axis=-1, keepdims=True)
    normed: np.ndarray = x / np.sqrt(mean_square + np.float32(eps)) * weight
    return normed


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float) -> np.ndarray:
    """Causal softmax(q kᵀ scale) v: q [T, H, d], k [S, G, d], v [S, G, e] -> [T, H, e]; H/G heads share a key-value head.

    The T queries are the last of the S tokens. Queries are taken a few at a time, so that scores stay small.
    """
    (t, h, d), (s, g, e) = q.shape, v.shape
    keys, values = k.transpose(1, 2, 0), v.transpose(1, 0, 2)  # [G, d, S], [G, S, e]
    out = np.empty((t, h, e), np.float32)
    step = max(1, SCORES_LIMIT // (h * s))
    for i in range(0, t, step):
        part = q[i : i + step] * np.float32(scale)
        n = len(part)
        seen = s - t + i + n  # the last of these queries sees so many tokens
        grouped = part.reshape(n, g, h // g, d).transpose(1, 2, 0, 3).reshape(g, -1, d)  # [G, H/G n, d]
        scores = (grouped @ keys[:, :, :seen]).reshape(h, n, seen)
        scores[:, :, seen - n :][:, np.triu(np.ones((n, n), bool), 1)] = -np.inf
        _softmax(scores)
        mixed = scores.reshape(g, -1, seen) @ values[:, :seen]  # [G, H/G n, e]
        out[i : i + n] = mixed.reshape(h, n, e).swapaxes(0, 1)
    return out


def _softmax(scores: np.ndarray) -> None:
    """Along the last axis, in place."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)


class GroupedQueryAttention:
    """Qwen2, Llama, Qwen3. Source: arXiv 2305.13245; modeling_{qwen2,llama,qwen3}.py@huggingface/transformers."""

    def __init__(self, weights: Weights, prefix: str, config: Config) -> None:
        assert config.gqa is not None
        self.config, self.gqa = config, config.gqa
        self.q_proj, self.k_proj = weights.linear(f"{prefix}.q_proj"), weights.linear(f"{prefix}.k_proj")
        self.v_proj, self.o_proj = weights.linear(f"{prefix}.v_proj"), weights.linear(f"{prefix}.o_proj")
        if self.gqa.qk_norm:
            self.q_norm, self.k_norm = weights.array(f"{prefix}.q_norm.weight"), weights.array(f"{prefix}.k_norm.weight")

    def __call__(self, x: np.ndarray, angles: Angles, cache: Cache, layer: int) -> np.ndarray:
        """x [T, D] -> [T, D]; the cache grows by T tokens."""
        t, d = len(x), self.gqa.head_dim
        q = self.q_proj(x).reshape(t, -1, d)  # [T, H, d]
        k = self.k_proj(x).reshape(t, -1, d)  # [T, G, d]
        if self.gqa.qk_norm:
            q, k = rms_norm(q, self.q_norm, self.config.rms_norm_eps), rms_norm(k, self.k_norm, self.config.rms_norm_eps)
        q, k = rotate(q, *angles, interleaved=False), rotate(k, *angles, interleaved=False)
        keys, values = cache.extend(layer, k.reshape(t, -1), self.v_proj(x))
        s = len(keys)
        o = attend(q, keys.reshape(s, -1, d), values.reshape(s, -1, d), d**-0.5)
        return self.o_proj(o.reshape(t, -1))


class LatentAttention:
    """MLA. Names as in the report: c_KV latent of keys and values, k_R rotated key shared by all heads, W_UK and W_UV its up-projections.

    Absorbed, what runs: qᵀ (W_UK c) = (W_UKᵀ q)ᵀ c, so queries are compared with the cached latent itself, and W_UV is applied to the
    mixed latent; this is attention with one key-value head of c + r values. Naive: keys and values of all heads are
    computed and cached. Both give the same numbers; only the cache and the work differ.
    """

    def __init__(self, weights: Weights, prefix: str, config: Config, *, absorbed: bool = True) -> None:
        assert config.mla is not None
        self.config, self.mla, self.absorbed = config, config.mla, absorbed
        self.weights, self.prefix = weights, prefix
        if self.mla.q_lora_rank is None:
            self.w_q = weights.linear(f"{prefix}.q_proj")
        else:
            self.w_dq = weights.linear(f"{prefix}.q_a_proj")
            self.q_norm = weights.array(f"{prefix}.q_a_layernorm.weight")
            self.w_uq = weights.linear(f"{prefix}.q_b_proj")
        self.w_dkv = weights.linear(f"{prefix}.kv_a_proj_with_mqa")
        self.kv_norm = weights.array(f"{prefix}.kv_a_layernorm.weight")
        self.w_o = weights.linear(f"{prefix}.o_proj")

    def __call__(self, x: np.ndarray, angles: Angles, cache: Cache, layer: int) -> np.ndarray:
        """x [T, D] -> [T, D]; the cache grows by T tokens."""
        q_c, q_r = self.queries(x, angles)
        c_kv, k_r = self.latents(x, angles)
        w_uk, w_uv = self.up_projections()
        form = self._absorbed if self.absorbed else self._naive
        o = form(q_c, q_r, c_kv, k_r, w_uk, w_uv, cache, layer)  # [T, H, v]
        return self.w_o(o.reshape(len(x), -1))  # equation 11

    def queries(self, x: np.ndarray, angles: Angles) -> tuple[np.ndarray, np.ndarray]:
        """q_C [T, H, n] and the rotated q_R [T, H, r]. Equations 6 to 9."""
        direct = self.mla.q_lora_rank is None
        q = self.w_q(x) if direct else self.w_uq(rms_norm(self.w_dq(x), self.q_norm, LATENT_EPS))
        q = q.reshape(len(x), -1, self.mla.qk_head_dim)
        q_c, q_r = q[..., : self.mla.qk_nope_head_dim], q[..., self.mla.qk_nope_head_dim :]
        return q_c, rotate(q_r, *angles, interleaved=self.config.rope.interleaved)

    def latents(self, x: np.ndarray, angles: Angles) -> tuple[np.ndarray, np.ndarray]:
        """The normed c_KV [T, c] and the rotated k_R [T, r], which is not normed. Equations 1 and 3."""
        both = self.w_dkv(x)
        c_kv, k_r = both[:, : self.mla.kv_lora_rank], both[:, self.mla.kv_lora_rank :]
        k_r = rotate(k_r[:, None], *angles, interleaved=self.config.rope.interleaved)[:, 0]
        return rms_norm(c_kv, self.kv_norm, LATENT_EPS), k_r

    def up_projections(self) -> tuple[np.ndarray, np.ndarray]:
        """W_UK [H, n, c] and W_UV [H, v, c], the two parts of kv_b_proj."""
        w = self.weights.dequantized(f"{self.prefix}.kv_b_proj.weight").reshape(self.config.num_attention_heads, -1, self.mla.kv_lora_rank)
        return w[:, : self.mla.qk_nope_head_dim], w[:, self.mla.qk_nope_head_dim :]

    def _absorbed(
        self, q_c: np.ndarray, q_r: np.ndarray, c_kv: np.ndarray, k_r: np.ndarray, w_uk: np.ndarray, w_uv: np.ndarray,
        cache: Cache, layer: int,
    ) -> np.ndarray:  # fmt: skip
        q_latent = (q_c.swapaxes(0, 1) @ w_uk).swapaxes(0, 1)  # W_UKᵀ q_C: [T, H, c]
        q = np.concatenate([q_latent, q_r], axis=-1)  # [T, H, c + r]
        (rows,) = cache.extend(layer, np.concatenate([c_kv, k_r], axis=-1))  # [S, c + r]
        k = rows[:, None]
        mixed = attend(q, k, k[..., : self.mla.kv_lora_rank], self.mla.softmax_scale)  # [T, H, c]
        self.weights.observe(f"{self.prefix}.kv_b_proj.keys", q_c)
        self.weights.observe(f"{self.prefix}.kv_b_proj.values", mixed)
        o: np.ndarray = (mixed.swapaxes(0, 1) @ w_uv.swapaxes(1, 2)).swapaxes(0, 1)
        return o

    def _naive(
        self, q_c: np.ndarray, q_r: np.ndarray, c_kv: np.ndarray, k_r: np.ndarray, w_uk: np.ndarray, w_uv: np.ndarray,
        cache: Cache, layer: int,
    ) -> np.ndarray:  # fmt: skip
        t, h = len(c_kv), self.config.num_attention_heads
        k_c = (c_kv @ w_uk.swapaxes(1, 2)).swapaxes(0, 1)  # equation 2: [T, H, n]
        v_c = (c_kv @ w_uv.swapaxes(1, 2)).swapaxes(0, 1)  # equation 5: [T, H, v]
        k = np.concatenate([k_c, np.broadcast_to(k_r[:, None], (t, h, k_r.shape[-1]))], axis=-1)  # equation 4
        keys, values = cache.extend(layer, k.reshape(t, -1), v_c.reshape(t, -1))
        s = len(keys)
        return attend(np.concatenate([q_c, q_r], axis=-1), keys.reshape(s, h, -1), values.reshape(s, h, -1), self.mla.softmax_scale)
