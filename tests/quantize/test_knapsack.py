"""The knapsack against trying everything."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantize import knapsack
from quantize.knapsack import Option, solve

# losses are whole numbers, whose sums are exact in any order
OPTIONS = st.lists(st.builds(Option, st.integers(0, 60).map(lambda n: 32 * n), st.integers(0, 1000).map(float)), min_size=1, max_size=4)
ITEMS = st.lists(OPTIONS, min_size=1, max_size=5)


def least(items: list[list[Option]], budget: int) -> float:
    fitting = [choice for choice in itertools.product(*items) if sum(option.size for option in choice) <= budget]
    return min((sum(option.loss for option in choice) for choice in fitting), default=math.inf)


def taken(items: list[list[Option]], chosen: list[int]) -> tuple[int, float]:
    options = [found[i] for found, i in zip(items, chosen, strict=True)]
    return sum(option.size for option in options), sum(option.loss for option in options)


@settings(max_examples=200, deadline=None)
@given(ITEMS, st.integers(0, 9000))
def test_the_least_loss_that_fits(items, budget):
    chosen = solve(items, budget)
    if chosen is None:
        assert sum(min(option.size for option in options) for options in items) > budget
    else:
        size, loss = taken(items, chosen)
        assert size <= budget and loss == least(items, budget)


@settings(max_examples=100, deadline=None)
@given(ITEMS, st.integers(0, 9000))
def test_rounded_sizes_never_exceed_the_budget(items, budget):
    """Few steps: sizes are rounded up. What that leaves unused is at most a step for each item."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(knapsack, "MOST_STEPS", 40)
        chosen = solve(items, budget)
    if chosen is not None:
        size, loss = taken(items, chosen)
        step = 32 * math.ceil((budget // 32 + 1) / 40)
        assert size <= budget and loss <= least(items, budget - len(items) * step)


def test_what_rounding_leaves_is_spent(monkeypatch):
    monkeypatch.setattr(knapsack, "MOST_STEPS", 1)
    items = [[Option(0, 9.0), Option(33, 1.0)], [Option(0, 5.0), Option(32, 1.0)], [Option(0, 3.0), Option(64, 0.0)]]
    assert solve(items, 100) == [1, 1, 0]


def test_many_tensors():
    """As many as DeepSeek-V3 has, in sizes with no common divisor: near the bound that any price of a byte sets."""
    items = [[Option(32 * (31_250 + i) * bits, 4.0**-bits * (1 + i % 7)) for bits in (2, 3, 4, 5, 6, 8)] for i in range(900)]
    budget = 900 * 4_500_000
    chosen = solve(items, budget)
    assert chosen is not None
    size, loss = taken(items, chosen)
    prices = [10**-8 * 1.2**-i for i in range(40)]
    bound = max(sum(min(o.loss + price * o.size for o in options) for options in items) - price * budget for price in prices)
    assert budget * 0.999 < size <= budget and loss < 1.04 * bound
