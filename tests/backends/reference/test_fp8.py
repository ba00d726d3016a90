"""E4M3, tiles, blocks, and the FP8 linear, against torch's float8 (assets/goldens) and against the definition of the format."""

from __future__ import annotations

import numpy as np
import pytest

from backends.checkpoint import Checkpoint
from backends.reference.fp8 import (
    block_linear,
    dequantize_blocks,
    e4m3_decode,
    e4m3_encode,
    fp8_linear,
    quantize_blocks,
    quantize_tiles,
)
from backends.reference.model import Model

ALL = np.arange(256, dtype=np.uint8)


def by_definition(code: int) -> float:
    """OCP 8-bit floating point: 1 sign, 4 exponent bits (bias 7), 3 mantissa bits; S.1111.111 is NaN; there is no infinity."""
    sign, exponent, mantissa = -1 if code & 0x80 else 1, (code >> 3) & 15, code & 7
    if exponent == 15 and mantissa == 7:
        return float("nan")
    return sign * (mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7))


def test_decode_is_exact_for_all_codes(golden):
    np.testing.assert_array_equal(e4m3_decode(ALL), golden("e4m3")["decoded"])
    np.testing.assert_array_equal(e4m3_decode(ALL), np.array([by_definition(c) for c in range(256)], np.float32))
    assert np.signbit(e4m3_decode(np.array([0x80], np.uint8)))[0]


@pytest.mark.parametrize("shape", [(256,), (2, 128), (256, 1), (255,), (5, 51), (0,), (3, 0)])
def test_decode_takes_any_shape(shape):
    codes = np.resize(ALL, shape)
    np.testing.assert_array_equal(
        e4m3_decode(codes), np.array([by_definition(c) for c in codes.ravel().tolist()], np.float32).reshape(shape)
    )
    wide = np.stack([codes, codes], axis=-1)
    np.testing.assert_array_equal(e4m3_decode(wide[..., 0]), e4m3_decode(codes))  # strided


def test_encode_rounds_to_nearest_even_and_saturates(golden):
    e = golden("e4m3")
    np.testing.assert_array_equal(e4m3_encode(e["x"]), e["codes"])
    values = np.array([448, 449, 464, 465, 1e30, np.inf, -np.inf, 0.0, -0.0, 2**-10, 1.5 * 2**-9, 2**-9 * 2.5], np.float32)
    assert e4m3_encode(values).tolist() == [0x7E] * 6 + [0xFE, 0, 0x80, 0, 2, 2]
    assert np.isnan(e4m3_decode(e4m3_encode(np.array([np.nan], np.float32))))[0]


def test_encode_undoes_decode():
    finite = ALL[(ALL & 0x7F) != 0x7F]
    np.testing.assert_array_equal(e4m3_encode(e4m3_decode(finite)), finite)


def test_fp8_linears_of_every_kind_of_layer(golden, checkpoint):
    expected = golden("fp8_linears")
    names = {key.rsplit(".", 1)[0] for key in expected}
    assert len(names) == 13
    with Checkpoint.open(checkpoint("deepseek_v3-fp8")) as weights:
        for name in names:
            x = expected[f"{name}.x"]
            codes, scales = quantize_tiles(x)
            np.testing.assert_array_equal(codes, expected[f"{name}.codes"])
            np.testing.assert_array_equal(scales, expected[f"{name}.scales"])
            y = fp8_linear(x, weights.read(f"{name}.weight").view(np.uint8), weights.read(f"{name}.weight_scale_inv"))
            assert np.abs(y - expected[f"{name}.y"]).max() < 5e-6 * np.abs(expected[f"{name}.y"]).max()


def test_tiles_are_scaled_one_by_one_and_tiny_ones_by_the_least_amax():
    x = np.zeros((2, 300), np.float32)
    x[0, 5], x[0, 130], x[1, 299] = -44.8, 1e-6, 896.0
    codes, scales = quantize_tiles(x)
    least = np.float32(1e-4) / np.float32(448)
    np.testing.assert_array_equal(scales, np.array([[np.float32(44.8) / np.float32(448), least, least], [least, least, 2.0]], np.float32))
    assert codes[0, 5] == 0xFE and codes[1, 299] == 0x7E
    assert e4m3_decode(codes)[0, 130] == 4.5  # 1e-6 / (1e-4 / 448) = 4.48


@pytest.mark.parametrize("amax, power", [(448.0, 1.0), (449.0, 2.0), (224.0, 0.5), (300.0, 1.0), (0.0, 2.0**-22)])
def test_ue8m0_scales_are_powers_of_two_rounded_up(amax, power):
    x = np.full((1, 4), amax, np.float32)
    assert quantize_tiles(x, ue8m0=True)[1].item() == power


@pytest.mark.parametrize("shape", [(128, 128), (130, 257), (1, 1), (300, 64), (64, 301)])
def test_blocks_with_partial_borders(shape):
    random = np.random.default_rng(1)
    w = (random.standard_normal(shape) * random.uniform(0.01, 5, shape)).astype(np.float32)
    codes, scale_inv = quantize_blocks(w)
    assert scale_inv.shape == (-(-shape[0] // 128), -(-shape[1] // 128)) and scale_inv.dtype == np.float32
    spread = np.repeat(np.repeat(scale_inv, 128, 0), 128, 1)[: shape[0], : shape[1]]
    restored = dequantize_blocks(codes, scale_inv)
    np.testing.assert_array_equal(restored, e4m3_decode(codes) * spread)
    # half a step of a 3-bit mantissa, or of the smallest subnormal
    assert (np.abs(restored - w) <= np.maximum(np.abs(w) * 2**-4, spread * 2**-10) * 1.0001).all()
    for n in range(0, shape[0], 128):
        for k in range(0, shape[1], 128):
            block = w[n : n + 128, k : k + 128]
            assert np.abs(e4m3_decode(codes[n : n + 128, k : k + 128])).max() == 448
            assert scale_inv[n // 128, k // 128] == np.abs(block).max() / np.float32(448)


@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-43])
@pytest.mark.parametrize("ue8m0", [False, True])
def test_a_block_of_zeros_or_next_to_it_becomes_zero(value, ue8m0):
    codes, scale_inv = quantize_blocks(np.full((3, 200), value, np.float32), ue8m0=ue8m0)
    assert not codes.any() and (scale_inv == 1).all()


@pytest.mark.parametrize("shape", [(128, 128), (130, 257), (7168 // 4, 2048), (20, 16384)])
@pytest.mark.parametrize("tokens", [1, 5])
def test_block_linear_equals_multiplying_the_dequantized_weight(shape, tokens):
    random = np.random.default_rng(2)
    codes, scale_inv = quantize_blocks(random.standard_normal(shape).astype(np.float32))
    x = random.standard_normal((tokens, shape[1])).astype(np.float32)
    exact = x.astype(np.float64) @ dequantize_blocks(codes, scale_inv).T.astype(np.float64)
    assert np.abs(block_linear(x, codes, scale_inv) - exact).max() < 1e-6 * np.abs(exact).max()


def test_full_mode_quantizes_the_inputs_of_exactly_the_fp8_linears(checkpoint, monkeypatch):
    """As DeepSeek has it: q_a, q_b, kv_a, o and every gate, up, down; kv_b and eh_proj, though stored with blocks or beside them, do not."""
    seen = []
    real = Checkpoint.read
    monkeypatch.setattr(Checkpoint, "read", lambda self, name: (seen.append(name), real(self, name))[1])
    model = Model.open(checkpoint("deepseek_v3-fp8"), "full")
    quantized = set()

    def spy(x, codes, scale_inv, *, ue8m0):
        quantized.add(next(n for n in reversed(seen) if n.endswith(".weight")).split(".")[-2])
        return fp8_linear(x, codes, scale_inv, ue8m0=ue8m0)

    monkeypatch.setattr("backends.reference.fp8.fp8_linear", spy)
    model.logits(list(range(50)))
    assert quantized == {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_full_mode_moves_logits_a_little(checkpoint, golden):
    """No golden end to end: one flipped rounding moves everything after it. But the model stays the same model."""
    expected = golden("deepseek_v3-fp8")
    logits = Model.open(checkpoint("deepseek_v3-fp8"), "full").logits(expected["tokens_22"].tolist())
    error = np.sqrt(np.mean((logits - expected["logits_22"]) ** 2) / np.mean(expected["logits_22"] ** 2))
    assert 1e-3 < error < 0.5
