"""The decoder: embedding, layers of attention and feed-forward with their residuals, final norm, output head.

Letters: T tokens, D hidden size, V vocabulary. Three things are kept apart: config and weights (Model), run state (Cache).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np

from backends.base import EngineError
from backends.checkpoint import Checkpoint
from backends.reference.attention import Angles, GroupedQueryAttention, LatentAttention, rms_norm
from backends.reference.cache import Cache, cache_widths
from backends.reference.config import Config, parse_config
from backends.reference.moe import FeedForward, MixtureOfExperts, Routing
from backends.reference.rope import angles
from backends.reference.weights import Fp8Mode, Weights

SQUARES_FIT = 1e18  # norms square the hidden states, in float32


@dataclass(slots=True)
class Record:
    """What a forward pass leaves behind for pictures, statistics and tests."""

    hidden: list[np.ndarray] = field(default_factory=list)  # float32 [T, D]: after the embedding, then after each layer
    routing: dict[int, Routing] = field(default_factory=dict)  # by layer


class Layer:
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, weights: Weights, config: Config, index: int, *, absorbed: bool = True) -> None:
        prefix = f"model.layers.{index}"
        self.index, self.eps = index, config.rms_norm_eps
        self.attention_norm = weights.array(f"{prefix}.input_layernorm.weight")
        self.feed_forward_norm = weights.array(f"{prefix}.post_attention_layernorm.weight")
        self.attention: LatentAttention | GroupedQueryAttention
        if config.mla is not None:
            self.attention = LatentAttention(weights, f"{prefix}.self_attn", config, absorbed=absorbed)
        else:
            self.attention = GroupedQueryAttention(weights, f"{prefix}.self_attn", config)
        self.feed_forward = (
            MixtureOfExperts(weights, f"{prefix}.mlp", config) if config.is_moe(index) else FeedForward(weights, f"{prefix}.mlp")
        )

    def __call__(self, x: np.ndarray, angles: Angles, cache: Cache, slot: int, record: Record | None = None) -> np.ndarray:
        """[T, D] -> [T, D]; `slot` is the layer's place in the cache."""
        x = x + self.attention(rms_norm(x, self.attention_norm, self.eps), angles, cache, slot)
        normed = rms_norm(x, self.feed_forward_norm, self.eps)
        if isinstance(self.feed_forward, FeedForward):
            x = x + self.feed_forward(normed)
        else:
            out, routing = self.feed_forward(normed)
            x = x + out
            if record is not None:
                record.routing[self.index] = routing
        if record is not None:
            record.hidden.append(x)
        return x


class Model:
    """A checkpoint, ready to compute. `absorbed` chooses the form of latent attention; the numbers are the same."""

    def __init__(self, config: Config, weights: Weights, *, absorbed: bool = True) -> None:
        self.config, self.weights, self.absorbed = config, weights, absorbed
        self.layers = [Layer(weights, config, i, absorbed=absorbed) for i in range(config.num_hidden_layers)]
        self.norm = weights.array("model.norm.weight")
        self.head = weights.linear("model.embed_tokens" if config.tie_word_embeddings else "lm_head")

    @classmethod
    def open(cls, folder: Path | str, fp8: Fp8Mode = "off", *, absorbed: bool = True) -> Self:
        """Raises ModelFileError naming the file, key or tensor that is wrong."""
        checkpoint = Checkpoint.open(folder)
        config = parse_config(checkpoint.config)
        return cls(config, Weights(checkpoint, config, fp8), absorbed=absorbed)

    def new_cache(self) -> Cache:
        return Cache(len(self.layers), cache_widths(self.config, absorbed=self.absorbed))

    def embed(self, ids: Sequence[int], table: str = "model.embed_tokens.weight") -> np.ndarray:
        """Rows of the embedding `table`, float32 [T, D]. Raises EngineError for a token outside the vocabulary."""
        if not ids:
            raise EngineError("there are no tokens to compute; give at least one")
        wrong = next((i for i in ids if not 0 <= i < self.config.vocab_size), None)
        if wrong is not None:
            raise EngineError(
                f"token {wrong} is outside the vocabulary of {self.config.vocab_size:,} tokens; use 0 to {self.config.vocab_size - 1}"
            )
        return self.weights.rows(table, np.asarray(ids, np.int64))

    def forward(self, ids: Sequence[int], cache: Cache, record: Record | None = None) -> np.ndarray:
        """The T tokens that follow the cached ones -> hidden states after the final norm, float32 [T, D]; the cache grows by T."""
        x = self.embed(ids)
        if record is not None:
            record.hidden.append(x)
        turn = angles(self.config.rope, cache.length, len(x))
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows stays so to the end, and is found there
            for slot, layer in enumerate(self.layers):
                x = layer(x, turn, cache, slot, record)
        if not np.abs(x).max() < SQUARES_FIT:  # NaN included
            raise EngineError("hidden states left float32's range: the weights are too large, or damaged; download the checkpoint again")
        cache.advance(len(x))
        return rms_norm(x, self.norm, self.config.rms_norm_eps)

    def logits(self, ids: Sequence[int], cache: Cache | None = None) -> np.ndarray:
        """float32 [T, V]: after each of the T tokens, the scores of the next one."""
        return self.head(self.forward(ids, self.new_cache() if cache is None else cache))
