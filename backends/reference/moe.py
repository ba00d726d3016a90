"""Feed-forward layers: the gated one, and DeepSeekMoE, whose router picks a few experts for each token.

Letters: T tokens, D hidden size, E routed experts, k chosen experts per token. Source: DeepSeek-V3 report (arXiv 2412.19437) 2.1.2,
equations 12 to 16; inference/model.py@deepseek-ai/DeepSeek-V3 (classes Gate, MoE); modeling_deepseek.py@deepseek-ai/DeepSeek-V2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backends.reference.config import Config, Moe
from backends.reference.weights import Weights


@dataclass(frozen=True, slots=True)
class Routing:
    """Which experts each token went to, best first, and the weight of their outputs: int64 and float32 [T, k]. `leads`, float32 [T]: by
    how much the worst expert, or group, that was chosen leads the best one that was not; near 0, rounding decides."""

    experts: np.ndarray
    weights: np.ndarray
    leads: np.ndarray


def silu(x: np.ndarray) -> np.ndarray:
    """x sigmoid(x)."""
    y: np.ndarray = x * sigmoid(x)
    return y


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e^-x), without overflow and to the last digits on either side: V3 normalizes scores however small they are."""
    e = np.exp(-np.abs(x))
    y: np.ndarray = np.where(x >= 0, np.float32(1), e) / (np.float32(1) + e)
    return y


class FeedForward:
    """SwiGLU: down(silu(gate(x)) * up(x)). Source: arXiv 2002.05202."""

    def __init__(self, weights: Weights, prefix: str) -> None:
        self.gate, self.up = weights.linear(f"{prefix}.gate_proj"), weights.linear(f"{prefix}.up_proj")
        self.down = weights.linear(f"{prefix}.down_proj")

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """[T, D] -> [T, D]."""
        return self.down(silu(self.gate(x)) * self.up(x))


def route(logits: np.ndarray, bias: np.ndarray | None, moe: Moe) -> Routing:
    """Choose k of E experts for each token from the router's logits, float32 [T, E].

    s = sigmoid(logits) (V3) or softmax(logits) (V2). Experts are chosen by s + bias, among the topk_group best groups only; the bias
    steers the choice alone: weights are s, normalized if norm_topk_prob, times routed_scaling_factor. Equations 13 to 16.
    """
    t, e = logits.shape
    s = sigmoid(logits) if moe.scoring_func == "sigmoid" else _softmax(logits)
    choice = s if bias is None else s + bias
    leads = np.full(t, np.inf, np.float32)
    if moe.n_group > 1:
        groups = choice.reshape(t, moe.n_group, -1)  # [T, n_group, E / n_group]
        best_two = moe.topk_method == "noaux_tc"  # V3: a group counts by its two best experts; V2: by its best
        group_scores = np.sort(groups, axis=-1)[..., -2:].sum(axis=-1) if best_two else groups.max(axis=-1)
        kept = np.zeros((t, moe.n_group), bool)
        best_groups, leads = _best(group_scores, moe.topk_group)
        np.put_along_axis(kept, best_groups, True, axis=-1)
        choice = np.where(kept[..., None], groups, -np.inf).reshape(t, e)  # -inf: a biased score may well be below 0
    experts, within = _best(choice, moe.num_experts_per_tok)
    weights = np.take_along_axis(s, experts, axis=-1)
    if moe.norm_topk_prob:
        weights = weights / (weights.sum(axis=-1, keepdims=True) + np.float32(1e-20))
    return Routing(experts, weights * np.float32(moe.routed_scaling_factor), np.minimum(leads, within))


class MixtureOfExperts:
    """DeepSeekMoE: sum of the chosen experts' weighted outputs, plus the shared expert, which every token passes unscaled."""

    def __init__(self, weights: Weights, prefix: str, config: Config) -> None:
        assert config.moe is not None
        self.moe, self.weights, self.prefix = config.moe, weights, prefix
        self.gate = weights.array(f"{prefix}.gate.weight")
        bias = f"{prefix}.gate.e_score_correction_bias"
        self.bias = weights.array(bias) if bias in weights else None
        self.experts: dict[int, FeedForward] = {}  # those that were chosen so far
        self.shared = FeedForward(weights, f"{prefix}.shared_experts") if config.moe.n_shared_experts else None

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, Routing]:
        """[T, D] -> [T, D] and where each token went. Only the chosen experts' weights are touched, each once. Equation 12."""
        self.weights.observe(f"{self.prefix}.gate.weight", x)
        routing = route(x @ self.gate.T, self.bias, self.moe)
        out = np.zeros_like(x) if self.shared is None else self.shared(x)
        for expert in np.unique(routing.experts):
            tokens, slots = np.nonzero(routing.experts == expert)
            out[tokens] += self.expert(int(expert))(x[tokens]) * routing.weights[tokens, slots, None]
        return out, routing

    def expert(self, index: int) -> FeedForward:
        if index not in self.experts:
            self.experts[index] = FeedForward(self.weights, f"{self.prefix}.experts.{index}")
        return self.experts[index]


def _best(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices [T, k] of the k largest scores, best first, of equal ones the first; and the k-th one's lead [T] over the next, if there is one."""
    order = np.argsort(-scores, axis=-1, kind="stable")
    if k == scores.shape[1]:
        return order, np.full(len(scores), np.inf, np.float32)
    last, following = (np.take_along_axis(scores, order[:, i : i + 1], axis=-1)[:, 0] for i in (k - 1, k))
    return order[:, :k], last - following


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    normed: np.ndarray = e / e.sum(axis=-1, keepdims=True)
    return normed
