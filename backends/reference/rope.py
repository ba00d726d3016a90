"""Rotary position embedding: what config.json asks for, the frequencies, the rotation.

Source: RoFormer (arXiv 2104.09864); YaRN (arXiv 2309.00071); modeling_deepseek.py@deepseek-ai/DeepSeek-V3;
modeling_rope_utils.py@huggingface/transformers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from backends.base import ModelFileError
from backends.checkpoint import short
from backends.config_values import count, flag, number, positive

_ROPE_KEYS = {
    "default": set(),
    "linear": {"factor"},
    # attn_factor stands in DeepSeek-R1-0528-Qwen3-8B; transformers and llama.cpp do not look at it, and so it is here
    "yarn": {
        "factor", "original_max_position_embeddings", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "attention_factor",
        "truncate", "attn_factor",
    },
    "llama3": {"factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary embedding: `dim` values of a head are rotated. Fields without meaning for `kind` keep their defaults."""

    kind: Literal["default", "linear", "yarn", "llama3"]
    theta: float
    dim: int
    interleaved: bool
    factor: float = 1.0
    original_context: int = 0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float = 1.0  # cos and sin are multiplied by it
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0


def rope_settings(raw: dict[str, Any]) -> dict[str, Any]:
    """`rope_parameters` (transformers 5) or `rope_scaling` (before) with `rope_type` and `rope_theta` filled in."""
    found: list[dict[str, Any]] = []
    for key in ("rope_parameters", "rope_scaling"):
        given = raw.get(key)
        if given is not None and not isinstance(given, dict):
            raise ModelFileError(f"config.json: {key} is {short(given)}, an object or null is expected")
        if given:
            kind = given.get("rope_type", given.get("type", "default"))
            found.append({k: v for k, v in given.items() if k != "type"} | {"rope_type": kind})
    settings = found[0] if found else {"rope_type": "default"}
    for other in found[1:]:
        differing = sorted(k for k in settings.keys() | other.keys() if k != "rope_theta" and settings.get(k) != other.get(k))
        if differing:
            raise ModelFileError(f"config.json: rope_parameters and rope_scaling differ in {differing[0]}; remove the wrong one")
    thetas = {s["rope_theta"] for s in (raw, *found) if isinstance(s.get("rope_theta"), int | float)}
    if len(thetas) > 1:
        raise ModelFileError(f"config.json: rope_theta is both {' and '.join(map(str, sorted(thetas)))}; remove the wrong one")
    return settings | {"rope_theta": next(iter(thetas), raw.get("rope_theta", settings.get("rope_theta")))}


def parse_rope(settings: dict[str, Any], dim: int, *, interleaved: bool, deepseek: bool) -> Rope:
    kind = settings["rope_type"]
    if not isinstance(kind, str) or kind not in _ROPE_KEYS:
        raise ModelFileError(f"config.json: RoPE scaling {short(kind)}; known are {', '.join(_ROPE_KEYS)}")
    for key, value in settings.items():
        if key not in _ROPE_KEYS[kind] and key not in ("rope_type", "rope_theta") and value is not None:
            if (key, value) == ("partial_rotary_factor", 1.0) or (kind == "default" and key in _ROPE_KEYS["yarn"] | _ROPE_KEYS["llama3"]):
                continue
            raise ModelFileError(f"config.json: RoPE scaling {kind!r} has {short(key)} {short(value)}, which the reference does not know")
    if dim % 2:
        raise ModelFileError(f"config.json: {dim} rotated values of a head are no pairs")
    theta = positive(settings, "rope_theta", 10000.0)
    if theta <= 1:
        raise ModelFileError(f"config.json: rope_theta is {theta:g}, more than 1 is needed: pairs turn slower and slower")
    if kind == "default":
        return Rope("default", theta, dim, interleaved)
    factor = positive(settings, "factor")
    if not 1e-3 <= factor <= 1e6:
        raise ModelFileError(f"config.json: factor is {factor:g}, contexts are not stretched by that much")
    if kind == "linear":
        return Rope("linear", theta, dim, interleaved, factor)
    original = count(settings, "original_max_position_embeddings")
    if kind == "llama3":
        low, high = positive(settings, "low_freq_factor"), positive(settings, "high_freq_factor")
        if high <= low:
            raise ModelFileError(f"config.json: high_freq_factor {high} is not above low_freq_factor {low}")
        return Rope("llama3", theta, dim, interleaved, factor, original, low_freq_factor=low, high_freq_factor=high)
    return Rope(
        "yarn", theta, dim, interleaved, factor, original,
        beta_fast=_turns(settings, "beta_fast", 32.0),
        beta_slow=_turns(settings, "beta_slow", 1.0),
        truncate=flag({"truncate": True} | settings, "truncate"),  # null is no word for it: transformers takes it for false
        attention_factor=_yarn_attention_factor(settings, factor, deepseek),
    )  # fmt: skip


def _turns(settings: dict[str, Any], key: str, default: float) -> float:
    """beta_fast, beta_slow; 0 is transformers' "not set"."""
    return default if settings.get(key) == 0 else positive(settings, key, default)


def yarn_mscale(factor: float, mscale: float) -> float:
    """0.1 mscale ln(factor) + 1. Source: yarn_get_mscale, modeling_deepseek.py@deepseek-ai/DeepSeek-V3."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def _yarn_attention_factor(settings: dict[str, Any], factor: float, deepseek: bool) -> float:
    """What cos and sin are multiplied by: DeepSeek's ratio of two mscales, or transformers' attention_factor."""
    if settings.get("attention_factor") is not None:
        return positive(settings, "attention_factor")
    mscale, all_dim = number(settings, "mscale", 0.0), number(settings, "mscale_all_dim", 0.0)
    if min(mscale, all_dim) < 0:
        raise ModelFileError(f"config.json: mscale {mscale:g} and mscale_all_dim {all_dim:g}; numbers of 0 or more are needed")
    if mscale and all_dim:
        return yarn_mscale(factor, mscale) / yarn_mscale(factor, all_dim)
    if deepseek and (mscale not in (0, 1) or all_dim or settings.get("mscale") == 0):
        raise ModelFileError(
            f"config.json: mscale {short(settings.get('mscale'))} with mscale_all_dim {short(settings.get('mscale_all_dim'))}, "
            "which DeepSeek's code and transformers read differently; give both"
        )
    return yarn_mscale(factor, 1.0)


# ------------------------------------------------------------------------------------------------- computing


def inverse_frequencies(rope: Rope) -> np.ndarray:
    """float32 [dim / 2]: radians by which each pair turns from one position to the next.

    In float32 step by step, as in the published code: at position 100,000 the last bit of a frequency moves logits by 1e-3.
    """
    frequencies = np.float32(1) / _powers(rope)
    if rope.kind == "linear":  # "position interpolation", arXiv 2306.15595: as if positions lay closer
        frequencies = frequencies / np.float32(rope.factor)
    elif rope.kind == "llama3":
        frequencies = _llama3(rope, frequencies)
    elif rope.kind == "yarn":
        frequencies = _yarn(rope, frequencies)
    return frequencies.astype(np.float32)


def _powers(rope: Rope) -> np.ndarray:
    """theta^(2j / dim), float32 [dim / 2]."""
    exponents = np.arange(0, rope.dim, 2, dtype=np.float32) / np.float32(rope.dim)
    powers: np.ndarray = (rope.theta ** exponents.astype(np.float64)).astype(np.float32)
    return powers


def angles(rope: Rope, start: int, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """cos, sin: float32 [T, dim / 2] for positions start .. start + T - 1, with YaRN's attention factor in them.

    The phase is rounded to float32 as in the published code, its cosine is not.
    """
    phase = np.arange(start, start + tokens, dtype=np.float32)[:, None] * inverse_frequencies(rope)
    exact = phase.astype(np.float64)
    factor = rope.attention_factor
    return (np.cos(exact) * factor).astype(np.float32), (np.sin(exact) * factor).astype(np.float32)


def rotate(x: np.ndarray, cos: np.ndarray, sin: np.ndarray, *, interleaved: bool) -> np.ndarray:
    """Turn each pair of x [T, H, dim] by its angle: pairs are (2j, 2j + 1) when interleaved, else (j, j + dim / 2)."""
    half = x.shape[-1] // 2
    first, second = (np.s_[..., 0::2], np.s_[..., 1::2]) if interleaved else (np.s_[..., :half], np.s_[..., half:])
    a, b = x[first], x[second]
    cos, sin = cos[:, None], sin[:, None]
    out = np.empty(x.shape, np.float32)
    out[first] = a * cos - b * sin
    out[second] = b * cos + a * sin
    return out


def _llama3(rope: Rope, frequencies: np.ndarray) -> np.ndarray:
    """Wavelengths beyond the old context are stretched by `factor`, short ones stay, those between are blended.

    Source: _compute_llama3_parameters, modeling_rope_utils.py@huggingface/transformers.
    """
    wavelengths = 2 * math.pi / frequencies
    smooth = (rope.original_context / wavelengths - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    keep = np.clip(smooth, 0, 1)  # 1: high frequency, as it is; 0: low frequency, stretched
    return frequencies * (keep + (1 - keep) / rope.factor)


def _yarn(rope: Rope, frequencies: np.ndarray) -> np.ndarray:
    """Pairs that turn fewer than beta_slow times within the old context are stretched by `factor`, those beyond beta_fast stay.

    Source: yarn_find_correction_range, yarn_linear_ramp_mask, modeling_deepseek.py@deepseek-ai/DeepSeek-V3.
    """

    def pair_turning(times: float) -> float:
        return rope.dim * math.log(rope.original_context / (times * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = pair_turning(rope.beta_fast), pair_turning(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rope.dim - 1)
    high += 0.001 if high == low else 0
    ramp = (np.arange(rope.dim // 2, dtype=np.float32) - np.float32(low)) / np.float32(high - low)
    kept = np.float32(1) - np.clip(ramp, 0, 1)
    stretched = np.float32(1) / (np.float32(rope.factor) * _powers(rope))
    blended: np.ndarray = stretched * (np.float32(1) - kept) + frequencies * kept
    return blended
