"""Q8_0 without ggml's kernel: the same bytes in less than half the time. It is the format of a checkpoint's first chat, and ggml's own
encoder for files computes one weight at a time.

Source: `quantize_row_q8_0_ref`, ggml/src/ggml-quants.c@llama.cpp: d = max|x| / 127 in F16, q = round(x / d), 32 weights a block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

BLOCK, BLOCK_BYTES = 32, 34
_SIGN, _BELOW_HALF = 0x80000000, 0x3EFFFFFF  # bits of float32: of -0.0; the number before 0.5
_SMALLEST = 1e-37  # a scale's reciprocal is finite from here on


def encode_q8_0(weights: np.ndarray) -> np.ndarray | None:
    """float32, finite, whole blocks -> uint8; None for blocks of weights so small that only ggml knows what it makes of them."""
    import numpy as np

    blocks = weights.reshape(-1, BLOCK)
    work = np.abs(blocks)
    scales = np.maximum.reduce(np.ascontiguousarray(work.T), axis=0) / np.float32(127)
    if np.any((scales < _SMALLEST) & (scales > 0)):
        return None
    inverse = np.divide(np.float32(1), scales, out=np.zeros_like(scales), where=scales > 0)
    np.multiply(blocks, inverse[:, None], out=work)
    # C's roundf: halves go away from zero. The number before 0.5 is added, since 0.5 would take that number itself up to 1.
    halves = work.view(np.uint32) & np.uint32(_SIGN)
    halves |= np.uint32(_BELOW_HALF)
    work += halves.view(np.float32)
    encoded = np.empty((len(blocks), BLOCK_BYTES), np.uint8)
    with np.errstate(over="ignore"):  # whoever measures the loss finds an infinite scale
        encoded[:, :2] = scales.astype(np.float16).view(np.uint8).reshape(-1, 2)
    np.copyto(encoded[:, 2:].view(np.int8), work, casting="unsafe")  # cuts off towards zero
    return encoded.reshape(-1)
