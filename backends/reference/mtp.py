"""Multi-token prediction: one more layer that predicts the token after next, and decoding that lets it draft.

Source: DeepSeek-V3 report (arXiv 2412.19437) 2.2, equations 21 to 23; the published weights of layer `num_hidden_layers`.
Letters: T tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from backends.base import ModelFileError
from backends.reference.attention import rms_norm
from backends.reference.cache import Cache, cache_widths
from backends.reference.model import Layer, Model, Record
from backends.reference.rope import angles


class MtpModule:
    """The first MTP layer: h'[i] = Layer(eh_proj [enorm(Emb(t[i+1])); hnorm(h[i])]), whose head gives the logits of t[i+2].

    h[i] is the main model's output after its final norm. The published weights put the embedding first: the reverse of the report's
    equation 21. Raises ModelFileError if the checkpoint has no MTP layer.
    """

    def __init__(self, model: Model) -> None:
        config, weights = model.config, model.weights
        if not weights.has_mtp:
            raise ModelFileError(
                f"the checkpoint holds no MTP layer (model.layers.{config.num_hidden_layers}); use the full DeepSeek-V3/R1 weights"
            )
        prefix = f"model.layers.{config.num_hidden_layers}"
        self.model = model
        self.enorm, self.hnorm = weights.array(f"{prefix}.enorm.weight"), weights.array(f"{prefix}.hnorm.weight")
        self.eh_proj = weights.linear(f"{prefix}.eh_proj")
        self.layer = Layer(weights, config, config.num_hidden_layers, absorbed=model.absorbed)
        self.norm = weights.array(f"{prefix}.shared_head.norm.weight")
        # Stored copies of the main model's, left out of some checkpoints.
        own = f"{prefix}.embed_tokens.weight"
        self.embedding = own if own in weights else "model.embed_tokens.weight"
        own = f"{prefix}.shared_head.head"
        self.head = weights.linear(own) if f"{own}.weight" in weights else model.head

    def new_cache(self) -> Cache:
        return Cache(1, cache_widths(self.model.config, absorbed=self.model.absorbed))

    def forward(self, hidden: np.ndarray, next_ids: Sequence[int], cache: Cache, record: Record | None = None) -> np.ndarray:
        """h[i] float32 [T, D] and the tokens t[i+1] that follow each -> what `head` makes the scores of t[i+2] from, float32 [T, D].

        The cache grows by T. Positions count from the cache's length: rotary attention sees differences only, so that h[i] may stand at i.
        """
        eps = self.model.config.rms_norm_eps
        embedded = self.model.embed(next_ids, self.embedding)
        x = self.eh_proj(np.concatenate([rms_norm(embedded, self.enorm, eps), rms_norm(hidden, self.hnorm, eps)], axis=-1))
        x = self.layer(x, angles(self.model.config.rope, cache.length, len(x)), cache, 0, record)
        cache.advance(len(x))
        return rms_norm(x, self.norm, eps)

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """float32 [T-1, V]: row i holds the scores of token i + 2, given tokens 0 .. i + 1."""
        hidden = self.model.forward(ids, self.model.new_cache())
        return self.head(self.forward(hidden[:-1], ids[1:], self.new_cache()))


@dataclass(slots=True)
class Acceptance:
    """How self-speculative decoding fared. Without drafts, `forwards` would equal the number of new tokens."""

    drafted: int = 0
    accepted: int = 0
    forwards: int = field(default=0)  # of the main model, prefill included

    @property
    def rate(self) -> float:
        return self.accepted / max(1, self.drafted)


def speculate(mtp: MtpModule, ids: Sequence[int], new_tokens: int, acceptance: Acceptance | None = None) -> Iterator[int]:
    """Continue `ids` greedily: the MTP layer drafts a token, the main model checks it beside the next one, in one forward pass.

    Yields the tokens of plain greedy decoding: every one is the main model's own argmax. (Two tokens computed at once may move
    logits in the last bits; where the two best scores are that near, either is greedy.) `acceptance` is kept up to date.
    """
    model, count = mtp.model, Acceptance() if acceptance is None else acceptance
    cache, drafts = model.new_cache(), mtp.new_cache()
    hidden = model.forward(ids, cache)
    count.forwards += 1
    following = list(ids[1:])  # t[i+1] for each row of `hidden`, but for the last
    made = 0
    while made < new_tokens:
        token = int(model.head(hidden[-1:]).argmax())
        made += 1
        yield token
        if made == new_tokens:
            return
        draft = int(mtp.head(mtp.forward(hidden, [*following, token], drafts)[-1:]).argmax())
        length = cache.length
        hidden = model.forward([token, draft], cache)
        count.forwards += 1
        count.drafted += 1
        following = [draft]
        if int(model.head(hidden[:1]).argmax()) == draft:
            count.accepted += 1
            made += 1
            yield draft
        else:
            cache.truncate(length + 1)
            hidden, following = hidden[:1], []
