"""Q8_0 as ggml makes it, byte by byte."""

import numpy as np
import pytest

from quantize.formats import FORMATS, _ggml
from quantize.q8_0 import BLOCK, encode_q8_0


def ggml(weights: np.ndarray) -> np.ndarray:
    out = np.empty(FORMATS["Q8_0"].nbytes(weights.shape), np.uint8)
    _ggml().ggml_quantize_chunk(FORMATS["Q8_0"].ggml_type, weights.ctypes.data, out.ctypes.data, 0, *weights.shape, None)
    return out


def same(weights: np.ndarray) -> None:
    weights = np.ascontiguousarray(weights, np.float32)
    ours = encode_q8_0(weights)
    assert ours is not None
    np.testing.assert_array_equal(ours, ggml(weights))


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e-6, 0.02, 1.0, 100.0, 8e6])
def test_random_weights(scale):
    rng = np.random.default_rng(0)
    same(rng.normal(size=(500, 256)) * scale)
    same(rng.normal(size=(500, 256)).astype(np.float16).astype(np.float32) * scale)  # halves more often
    same(rng.uniform(-scale, scale, (500, 32)))


@pytest.mark.parametrize("power", range(-20, 15))
def test_halves_and_the_numbers_beside_them(power):
    """Blocks whose scale is a power of two: the quotients are exact."""
    halves = np.arange(-126.5, 127, 1, dtype=np.float32)
    values = np.concatenate([halves, np.nextafter(halves, np.float32(0)), np.nextafter(halves, np.float32(200) * np.sign(halves)), -halves])
    values = np.concatenate([values, np.zeros(-len(values) % (BLOCK - 1), np.float32)]).reshape(-1, BLOCK - 1)
    for top in (127, -127):
        same(np.concatenate([np.full((len(values), 1), top, np.float32), values], axis=1) * np.float32(2.0**power))


def test_the_number_before_a_half_is_rounded_down():
    block = np.zeros((1, BLOCK), np.float32)
    block[0, :4] = 127, np.nextafter(np.float32(0.5), np.float32(0)), -np.nextafter(np.float32(0.5), np.float32(0)), 0.5
    same(block)
    assert encode_q8_0(block)[2:6].view(np.int8).tolist() == [127, 0, 0, 1]


def test_zeros_of_both_signs():
    same(np.zeros((3, BLOCK)))
    same(np.where(np.arange(96).reshape(3, 32) % 3, -0.0, 0.5))


def test_the_smallest_numbers_are_left_to_ggml():
    assert encode_q8_0(np.full((1, BLOCK), 1e-38, np.float32)) is None
