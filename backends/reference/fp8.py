"""FP8 as DeepSeek-V3 stores and computes it: E4M3 codes, weights in 128x128 blocks, activations in 1x128 tiles.

Source: DeepSeek-V3 report (arXiv 2412.19437) section 3.3; inference/kernel.py@deepseek-ai/DeepSeek-V3 (act_quant, weight_dequant,
fp8_gemm). Letters: T tokens, K inputs, N outputs of a linear, B = 128.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import ml_dtypes
import numpy as np

B = 128  # side of a weight block, length of an activation tile
E4M3_MAX = 448.0
TINY = np.float32(1e-4)  # a tile's largest magnitude counts as at least this, so that no scale is zero
SCRATCH_BYTES = 1 << 20  # decoded weights that are multiplied while they are in the processor's cache


def e4m3_encode(x: np.ndarray) -> np.ndarray:
    """float32 -> uint8 codes, rounded to nearest even; beyond +-448 saturates (ml_dtypes' own cast gives NaN there). NaN stays NaN."""
    codes: np.ndarray = np.clip(x, -E4M3_MAX, E4M3_MAX).astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    return codes


def e4m3_decode(codes: np.ndarray) -> np.ndarray:
    """uint8 codes -> float32 of the same shape, exactly."""
    out = np.empty(codes.shape, np.float32)
    _decode_into(codes, out)
    return out


def tile_scales(x: np.ndarray, *, ue8m0: bool = False) -> np.ndarray:
    """float32 [..., K] -> [..., ceil(K/B)]: amax / 448 of each tile; `ue8m0` rounds it up to a power of two.

    Source: act_quant, inference/kernel.py@deepseek-ai/DeepSeek-V3 and -V3.1 (the least amax, ue8m0).
    """
    amax = np.maximum.reduceat(np.abs(x), np.arange(0, x.shape[-1], B), axis=-1)
    return _scale(np.maximum(amax, TINY), ue8m0)


def quantize_tiles(x: np.ndarray, *, ue8m0: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Activations float32 [..., K] -> codes uint8 [..., K], scales float32 [..., ceil(K/B)]; x is about codes * scale."""
    scales = tile_scales(x, ue8m0=ue8m0)
    return e4m3_encode(x / _spread(scales, x.shape[-1])), scales


def quantize_blocks(w: np.ndarray, *, ue8m0: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Weights float32 [N, K] -> codes uint8 [N, K], scale_inv float32 [ceil(N/B), ceil(K/B)]; w is about codes * scale_inv.

    A block of zeros, or of values too small for a float32 scale, gets the scale 1.
    """
    rows, columns = np.arange(0, w.shape[0], B), np.arange(0, w.shape[1], B)
    amax = np.maximum.reduceat(np.maximum.reduceat(np.abs(w), rows, axis=0), columns, axis=1)
    scale_inv = _scale(amax, ue8m0)
    scale_inv[scale_inv == 0] = 1
    codes = np.empty(w.shape, np.uint8)
    for n, scale in zip(rows, scale_inv, strict=True):
        codes[n : n + B] = e4m3_encode(w[n : n + B] / _spread(scale, w.shape[1]))
    return codes, scale_inv


def dequantize_blocks(codes: np.ndarray, scale_inv: np.ndarray) -> np.ndarray:
    """codes uint8 [N, K], scale_inv float32 [ceil(N/B), ceil(K/B)] -> weights float32 [N, K]."""
    out = np.empty(codes.shape, np.float32)
    for rows, scale in _block_rows(codes, scale_inv):
        _decode_into(codes[rows], out[rows])
        _times(out[rows], scale)
    return out


def block_linear(x: np.ndarray, codes: np.ndarray, scale_inv: np.ndarray) -> np.ndarray:
    """y = x Wᵀ in float32, W decoded from its blocks a few rows at a time and never held whole. x [T, K] -> [T, N]."""
    n, k = codes.shape
    step = B
    while step > 16 and step * k * 4 > SCRATCH_BYTES:
        step //= 2
    y = np.empty((len(x), n), np.float32)
    scratch = np.empty((step, k), np.float32)
    for i in range(0, n, step):
        rows = slice(i, min(i + step, n))
        w = scratch[: rows.stop - i]
        _decode_into(codes[rows], w)
        _times(w, scale_inv[i // B])
        np.matmul(x, w.T, out=y[:, rows])
    return y


def fp8_linear(x: np.ndarray, codes: np.ndarray, scale_inv: np.ndarray, *, ue8m0: bool = False) -> np.ndarray:
    """y = quantized(x) Wᵀ: x [T, K] is cut into E4M3 tiles first, and every block's dot product is scaled on its own.

    acc += (a_codes . w_codes) * scale_a * scale_w, block after block along K, in float32. Returns float32 [T, N].
    Source: fp8_gemm, inference/kernel.py@deepseek-ai/DeepSeek-V3.
    """
    (t, k), n = x.shape, len(codes)
    blocks = -(-k // B)
    a_codes, scale_a = quantize_tiles(x, ue8m0=ue8m0)
    a = _in_blocks(e4m3_decode(a_codes), blocks)  # [K/B, T, B]
    scale_a = scale_a.T[:, :, None]  # [K/B, T, 1]
    y = np.empty((t, n), np.float32)
    for rows, scale_w in _block_rows(codes, scale_inv):
        w = _in_blocks(e4m3_decode(codes[rows]), blocks)  # [K/B, n, B]
        dots = a @ w.swapaxes(1, 2)  # [K/B, T, n]
        dots *= scale_a
        dots *= scale_w[:, None, None]
        np.add.reduce(dots, axis=0, out=y[:, rows])  # along the outermost axis numpy adds one block after the other
    return y


# ------------------------------------------------------------------------------------------------- pieces


def _scale(amax: np.ndarray, ue8m0: bool) -> np.ndarray:
    scale = (amax / np.float32(E4M3_MAX)).astype(np.float32)
    if not ue8m0:
        return scale
    fraction, exponent = np.frexp(scale)  # scale = fraction * 2^exponent, fraction in [1/2, 1)
    power: np.ndarray = np.ldexp(np.float32(1), exponent - (fraction == 0.5))
    return power


def _spread(scales: np.ndarray, k: int) -> np.ndarray:
    """[..., ceil(K/B)] -> [..., K]: each scale beside the elements it belongs to."""
    return np.repeat(scales, B, axis=-1)[..., :k]


def _times(w: np.ndarray, scale: np.ndarray) -> None:
    """w [n, K] *= scale [ceil(K/B)], in place."""
    k = w.shape[1]
    if k % B == 0:
        whole = w.reshape(len(w), -1, B)
        whole *= scale[:, None]
    else:
        w *= _spread(scale, k)


def _block_rows(codes: np.ndarray, scale_inv: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Each row of blocks: which rows of the weight it covers, and its scales float32 [ceil(K/B)]."""
    for n, scale in enumerate(scale_inv):
        yield slice(n * B, min((n + 1) * B, len(codes))), scale.astype(np.float32, copy=False)


def _in_blocks(x: np.ndarray, blocks: int) -> np.ndarray:
    """[R, K] -> [K/B, R, B], the last block filled up with zeros."""
    padded = np.zeros((len(x), blocks * B), np.float32)
    padded[:, : x.shape[1]] = x
    return padded.reshape(len(x), blocks, B).swapaxes(0, 1)


def _decode_into(codes: np.ndarray, out: np.ndarray) -> None:
    """Both C-ordered. Two codes at a time: a look-up costs the same for 8 bytes as for 4, and 65,536 pairs fit the cache."""
    if codes.size % 2 == 0 and codes.flags.c_contiguous:
        np.take(_pairs(), codes.reshape(-1).view("<u2"), out=out.reshape(-1).view(np.float64), mode="clip")
    else:
        np.take(_table(), codes, out=out, mode="clip")


@cache
def _table() -> np.ndarray:
    """float32 [256]: the value of every code."""
    values: np.ndarray = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    return values


@cache
def _pairs() -> np.ndarray:
    """float64 [65536], each holding the bits of two float32 values: those of a pair of codes as they lie in memory."""
    pairs = np.arange(65536, dtype="<u2").view(np.uint8)
    both: np.ndarray = _table()[pairs].view(np.float64)
    return both
