"""Drawing the next token from logits, as `backends.base.Sampling` describes it."""

from __future__ import annotations

import numpy as np

from backends.base import Sampling


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """float32 [V] -> log-probabilities in nats, float64 [V]."""
    x = logits.astype(np.float64)
    x -= x.max()
    normed: np.ndarray = x - np.log(np.exp(x).sum())
    return normed


def draw(logits: np.ndarray, sampling: Sampling, random: np.random.Generator) -> int:
    """logits [V] -> a token: top-k -> / temperature -> top-p -> min-p -> drawn by what probability is left."""
    if sampling.greedy:
        return int(logits.argmax())
    candidates = np.argsort(-logits, kind="stable")  # best first
    if sampling.top_k:
        candidates = candidates[: sampling.top_k]
    p = np.exp(log_softmax(logits[candidates] / sampling.temperature))
    before = np.cumsum(p) - p  # the probability of all better tokens
    kept = (before < sampling.top_p) & (p >= sampling.min_p * p[0])
    kept[0] = True  # top_p 0 leaves the best one
    p = np.where(kept, p, 0)
    edges = np.cumsum(p)
    return int(candidates[min(np.searchsorted(edges, random.random() * edges[-1], side="right"), kept.nonzero()[0][-1])])
