"""One option for each item, the least loss within a size: the multiple-choice knapsack, by dynamic programming over sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Sizes are counted in steps; where the options' common divisor would make more steps than this, they are rounded up to coarser ones.
MOST_STEPS = 1 << 18
MOST_CELLS = 1 << 26  # one byte each: what was chosen, by item and size


@dataclass(frozen=True, slots=True)
class Option:
    """`loss` is finite and adds up over items."""

    size: int
    loss: float


def solve(items: Sequence[Sequence[Option]], budget: int) -> list[int] | None:
    """Which option each item takes, so that the losses add up to the least that fits; None: nothing does.

    Exact, unless sizes had to be rounded: then at most items x budget / MOST_STEPS bytes are left unused, and a last pass spends
    what it can of them.
    """
    import numpy as np

    smallest = [min(option.size for option in options) for options in items]
    room = budget - sum(smallest)
    if room < 0:
        return None
    useful = [_useful(options) for options in items]
    step = math.gcd(*(options[i].size - least for options, least, kept in zip(items, smallest, useful, strict=True) for i in kept)) or 1
    most_steps = max(1, min(MOST_STEPS, MOST_CELLS // max(1, len(items))))
    step *= -(-(room // step) // most_steps) or 1
    steps = room // step
    best = np.zeros(steps + 1)  # the least loss of the items so far, within each size
    taken: list[np.ndarray] = []
    for options, least, kept in zip(items, smallest, useful, strict=True):
        new, which = np.full(steps + 1, np.inf), np.zeros(steps + 1, np.uint8)
        for number, i in enumerate(kept):
            more = -(-(options[i].size - least) // step)
            if more <= steps:
                loss = best[: steps + 1 - more] + options[i].loss
                better = loss < new[more:]
                new[more:][better] = loss[better]
                which[more:][better] = number
        best = new
        taken.append(which)
    chosen, at = [], steps
    for options, least, kept, which in zip(reversed(items), reversed(smallest), reversed(useful), reversed(taken), strict=True):
        i = kept[which[at]]
        chosen.append(i)
        at -= -(-(options[i].size - least) // step)
    chosen.reverse()
    return _spend(items, useful, chosen, budget)


def _useful(options: Sequence[Option]) -> list[int]:
    """Options that no other one beats in size and loss, the smallest first; 256 of them at most."""
    kept: list[int] = []
    for i in sorted(range(len(options)), key=lambda i: (options[i].size, options[i].loss)):
        if not kept or options[i].loss < options[kept[-1]].loss:
            kept.append(i)
    assert 0 < len(kept) <= 256
    return kept


def _spend(items: Sequence[Sequence[Option]], useful: Sequence[Sequence[int]], chosen: list[int], budget: int) -> list[int]:
    """While a larger option fits what is left, take the one that saves most per byte."""
    left = budget - sum(options[i].size for options, i in zip(items, chosen, strict=True))
    while True:
        best = (0.0, -1, -1)
        for item, (options, kept) in enumerate(zip(items, useful, strict=True)):
            now = options[chosen[item]]
            for i in kept:
                more = options[i].size - now.size
                if 0 < more <= left:
                    best = max(best, ((now.loss - options[i].loss) / more, item, i))
        rate, item, i = best
        if rate <= 0:
            return chosen
        left -= items[item][i].size - items[item][chosen[item]].size
        chosen[item] = i
