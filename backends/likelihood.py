"""How likely a sampled token was, and what else was likely in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SURE = 0.9  # a token this likely had no alternative worth a look: looking for them costs time
ALTERNATIVES = 4
_FAR = 7.0  # nats below the likeliest: less than a thousandth of it


def likelihood(logits: np.ndarray, token: int, text: Callable[[int], str]) -> tuple[float, tuple[tuple[int, str, float], ...]]:
    """log softmax(logits)[token] in nats; and of a token that was not sure, the ALTERNATIVES likeliest others as (id, text, logprob).

    `logits`: float [V]. `text` of an id, shown and never parsed: half a character may be replaced.
    """
    import numpy as np

    top = logits.max()
    total = float(top + np.log(np.exp(logits - top).sum()))
    logprob = float(logits[token]) - total
    if logprob > np.log(SURE):
        return logprob, ()
    near = np.flatnonzero(logits > top - _FAR)
    near = near[np.argsort(-logits[near], kind="stable")][: ALTERNATIVES + 1]
    others = [int(i) for i in near if i != token][:ALTERNATIVES]
    return logprob, tuple((i, text(i), float(logits[i]) - total) for i in others)
