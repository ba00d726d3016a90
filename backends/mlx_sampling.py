"""Drawing the next token on the device, so that nothing waits for it there: the same as backends/reference/sampling.py, in float32."""

from __future__ import annotations

from typing import Any

from backends.base import Sampling


def draw(mx: Any, logits: Any, sampling: Sampling, chance: float) -> Any:
    """float32 [V] -> a token, not computed yet: top-k -> / temperature -> top-p -> min-p -> the one that `chance`, 0 to 1, falls on."""
    if sampling.greedy:
        return mx.argmax(logits)
    order = mx.argsort(-logits)  # best first
    if sampling.top_k:
        order = order[: sampling.top_k]
    p = mx.softmax(logits[order] / sampling.temperature, precise=True)
    before = mx.cumsum(p) - p  # the probability of all better tokens
    kept = (before < sampling.top_p) & (p >= sampling.min_p * p[0])
    last = mx.maximum(kept.sum(), 1) - 1  # what is kept comes first; top_p 0 leaves the best one
    edges = mx.cumsum(p)
    return order[mx.minimum((edges <= chance * edges[last]).sum(), last)]
