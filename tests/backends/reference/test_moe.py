"""The router's rules on written examples; whole models are in test_goldens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from goldens.checkpoints import KINDS

from backends.reference.config import Moe, parse_config
from backends.reference.model import Model
from backends.reference.moe import MixtureOfExperts, route, sigmoid


def moe(**changes) -> Moe:
    found = parse_config(KINDS["deepseek_v3"].config).moe
    assert found is not None
    four = replace(found, n_routed_experts=4, n_group=2, topk_group=1, num_experts_per_tok=2, routed_scaling_factor=2.0)
    return replace(four, **changes)


def logits(*scores: float) -> np.ndarray:
    """Router outputs whose sigmoid is `scores`."""
    s = np.array([scores])
    return np.log(s / (1 - s)).astype(np.float32)


def test_a_group_counts_by_its_two_best():
    """The best expert, 0.9, is alone in its group: 0.9 + 0.1 < 0.6 + 0.5."""
    routing = route(logits(0.9, 0.1, 0.6, 0.5), np.zeros(4, np.float32), moe())
    assert routing.experts.tolist() == [[2, 3]]
    assert routing.weights[0] == pytest.approx([2 * 0.6 / 1.1, 2 * 0.5 / 1.1])


def test_the_bias_chooses_but_does_not_weigh():
    routing = route(logits(0.9, 0.1, 0.6, 0.5), np.array([0, 0.5, 0, 0], np.float32), moe())
    assert routing.experts.tolist() == [[0, 1]]
    assert routing.weights[0] == pytest.approx([2 * 0.9, 2 * 0.1])


def test_excluded_groups_stay_out_where_all_scores_are_negative():
    """With a mask of 0.0, the excluded group would win over the biased scores below it."""
    routing = route(logits(0.5, 0.4, 0.6, 0.5), np.full(4, -1, np.float32), moe())
    assert routing.experts.tolist() == [[2, 3]]


def test_v2_takes_a_groups_best_and_does_not_normalize():
    v2 = moe(scoring_func="softmax", topk_method="group_limited_greedy", norm_topk_prob=False)
    routing = route(np.log(np.array([[0.4, 0.05, 0.3, 0.25]], np.float32)), None, v2)
    assert routing.experts.tolist() == [[0, 1]]
    assert routing.weights[0] == pytest.approx([0.8, 0.1])


def test_greedy_takes_the_best_anywhere():
    v2 = moe(scoring_func="softmax", topk_method="greedy", n_group=1, topk_group=1, norm_topk_prob=False)
    assert route(np.log(np.array([[0.4, 0.05, 0.3, 0.25]], np.float32)), None, v2).experts.tolist() == [[0, 2]]


def test_sigmoid_does_not_overflow():
    assert sigmoid(np.array([-1000, 0, 1000], np.float32)).tolist() == [0, 0.5, 1]


def test_scores_far_below_zero_keep_their_digits():
    """Normalized weights of experts that all score badly: 0.6225 and 0.3775 at -17.5 and -18."""
    x = np.linspace(-30, 30, 200, dtype=np.float32)
    np.testing.assert_allclose(sigmoid(x), 1 / (1 + np.exp(-x.astype(np.float64))), rtol=1e-6)
    routing = route(np.array([[-17.5, -18, -40, -40]], np.float32), np.zeros(4, np.float32), moe(n_group=1, topk_group=1))
    assert routing.weights[0] == pytest.approx([2 * 0.62246, 2 * 0.37754], rel=1e-5)


def test_tokens_do_not_touch_each_other(checkpoint):
    model = Model.open(checkpoint("deepseek_v3"))
    experts = model.layers[1].feed_forward
    assert isinstance(experts, MixtureOfExperts)
    x = np.random.default_rng(0).standard_normal((9, model.config.hidden_size)).astype(np.float32)
    together = experts(x)[0]
    np.testing.assert_allclose(together, np.concatenate([experts(x[i : i + 1])[0] for i in range(9)]), atol=1e-5)
