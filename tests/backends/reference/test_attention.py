"""The two forms of latent attention, and what they remember."""

from __future__ import annotations

import numpy as np
import pytest
from make_r1_layer import CONFIG

from backends.reference.attention import attend
from backends.reference.cache import Cache, cache_widths
from backends.reference.config import parse_config
from backends.reference.model import Model
from backends.reference.rope import Rope, angles, rotate


@pytest.mark.parametrize("kind", ["deepseek_v3", "deepseek_v3-mscale", "deepseek_v2", "deepseek_v2-lite"])
def test_naive_and_absorbed_are_equal_through_the_cache_too(kind, checkpoint, golden):
    ids = golden(kind)["tokens_200"].tolist()
    logits = []
    for absorbed in (True, False):
        model = Model.open(checkpoint(kind), absorbed=absorbed)
        cache = model.new_cache()
        logits.append(np.concatenate([model.logits(part, cache) for part in (ids[:150], ids[150:151], ids[151:])]))
    np.testing.assert_allclose(logits[0], logits[1], atol=2e-4)


def test_the_latent_cache_of_r1_is_71_times_smaller():
    r1 = parse_config(CONFIG)
    assert sum(cache_widths(r1)) == 576
    assert sum(cache_widths(r1, absorbed=False)) == 128 * (192 + 128) == 40_960
    assert 40_960 // 576 == 71
    assert Cache(61, cache_widths(r1)).bytes_per_token == 61 * 576 * 4


def test_the_cache_really_holds_so_much(checkpoint):
    model = Model.open(checkpoint("deepseek_v3"))
    cache = model.new_cache()
    model.forward(list(range(10)), cache)
    (rows,) = cache.extend(0, np.empty((0, model.config.mla.kv_lora_rank + model.config.mla.qk_rope_head_dim), np.float32))
    assert rows.shape == (10, sum(cache_widths(model.config)))


def test_a_truncated_cache_forgets(checkpoint):
    model = Model.open(checkpoint("qwen3"))
    cache, fresh = model.new_cache(), model.new_cache()
    model.forward([5, 6, 7, 8, 9], cache)
    cache.truncate(2)
    np.testing.assert_allclose(model.logits([30, 31], cache), model.logits([5, 6, 30, 31], fresh)[2:], atol=1e-5)
    assert cache.length == 4


def test_attention_by_hand():
    """Two tokens, one head of one value: the second mixes e^1 : e^3, the first sees itself only."""
    q, k, v = (np.array(x, np.float32).reshape(2, 1, 1) for x in ([1, 1], [1, 3], [10, 20]))
    out = attend(q, k, v, 1.0)
    assert out.ravel() == pytest.approx([10, (10 * np.e + 20 * np.e**3) / (np.e + np.e**3)])


def test_heads_share_keys_in_order():
    random = np.random.default_rng(0)
    q, k, v = random.standard_normal((3, 6, 4)), random.standard_normal((5, 2, 4)), random.standard_normal((5, 2, 4))
    q, k, v = (x.astype(np.float32) for x in (q, k, v))
    grouped = attend(q, k, v, 0.5)
    for head in range(6):
        alone = attend(q[:, head : head + 1], k[:, head // 3 :][:, :1], v[:, head // 3 :][:, :1], 0.5)
        np.testing.assert_allclose(grouped[:, head : head + 1], alone, atol=1e-6)


@pytest.mark.parametrize("interleaved", [True, False])
def test_rotation_turns_pairs_and_depends_on_distance_only(interleaved):
    rope = Rope("default", 10000.0, 4, interleaved)
    x = np.array([[[1, 0, 0, 0]]], np.float32)
    turned = rotate(x, *angles(rope, 1, 1), interleaved=interleaved)[0, 0]
    partner = 1 if interleaved else 2
    assert turned[0] == pytest.approx(np.cos(1)) and turned[partner] == pytest.approx(np.sin(1))
    random = np.random.default_rng(0)
    q, k = random.standard_normal((2, 1, 1, 4)).astype(np.float32)

    def score(at: int) -> float:
        turned_q = rotate(q, *angles(rope, at + 7, 1), interleaved=interleaved)
        return (turned_q * rotate(k, *angles(rope, at, 1), interleaved=interleaved)).sum()

    assert score(0) == pytest.approx(score(1000), abs=1e-4)
