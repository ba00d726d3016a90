"""Two ways to the same numbers, and how far they lie apart: what `localr1 verify` and the tests hold against their gates.

Letters: T tokens, V vocabulary. A golden is what another program computed from the same weights (assets/goldens/README.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backends.reference.model import Model, Record
from backends.reference.mtp import Acceptance, MtpModule, speculate

ALIKE, GUESSED = 3, 24  # tokens: so many alike, and so many are guessed to follow as in the draft
Golden = Mapping[str, np.ndarray]


def apart(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """[T, V] twice -> float64 [T]: the largest difference between two scores of each token, as a share of the largest score of all."""
    shares: np.ndarray = np.abs(found.astype(np.float64) - expected).max(axis=-1) / np.abs(expected).max()
    return shares


def worst(shares: Iterable[float]) -> float:
    """The largest; no number where one of them is none, which Python's max may drop."""
    return float(np.max(list(shares)))


def through_cache(model: Model, ids: Sequence[int], cut: int) -> np.ndarray:
    """Logits [T, V] of `ids`: the first `cut` at once, the rest one by one through the cache."""
    cache = model.new_cache()
    return np.concatenate([model.logits(ids[:cut], cache), *(model.logits([token], cache) for token in ids[cut:])])


def naive(model: Model) -> Model:
    """The same weights, with keys and values of all heads computed and cached."""
    return Model(model.config, model.weights, absorbed=False)


# --------------------------------------------------------------------------------------------------------------- goldens


def golden_logits(model: Model, golden: Golden) -> float:
    """`apart` at the worst token of all lengths."""
    lengths = sorted(int(name.removeprefix("tokens_")) for name in golden if name.startswith("tokens_"))
    return worst(float(apart(model.logits(golden[f"tokens_{n}"].tolist()), golden[f"logits_{n}"]).max()) for n in lengths)


def golden_experts(model: Model, golden: Golden, length: int = 200) -> int:
    """How many choices of experts are others."""
    record = Record()
    model.forward(golden[f"tokens_{length}"].tolist(), model.new_cache(), record)
    chosen = np.sort(np.stack([routing.experts for routing in record.routing.values()]), -1)
    return int((chosen != golden[f"experts_{length}"]).sum())


def golden_mtp(model: Model, golden: Golden) -> float:
    """`apart` at the worst token."""
    return float(apart(MtpModule(model).logits(golden["tokens_22"].tolist()), golden["mtp_logits_22"]).max())


# ------------------------------------------------------------------------------------------------- self-speculative decoding


def greedy(
    model: Model, ids: Sequence[int], new_tokens: int, ends: frozenset[int] = frozenset(), draft: Sequence[int] = ()
) -> tuple[list[int], list[float]]:
    """The likeliest continuation, up to an end token, which is left out; and of each token the lead of its score over the second best.

    A `draft` of it, right or wrong, saves time: as far as it is right, it takes one forward pass, and where the two come together again, a few.
    """
    cache = model.new_cache()
    made: list[int] = []
    leads: list[float] = []
    last, guess = list(ids), list(draft)
    while True:
        rows = model.logits([*last, *guess], cache)[len(last) - 1 :]
        for row, guessed in zip(rows, [*guess, None], strict=True):
            token = int(row.argmax())
            if token in ends or len(made) == new_tokens:
                return made, leads
            second, first = np.partition(row, -2)[-2:]
            made.append(token)
            leads.append(float(first - second))
            if token != guessed:
                break
        cache.truncate(len(ids) + len(made) - 1)
        last, guess = made[-1:], _following(draft, made)


def _following(draft: Sequence[int], made: list[int]) -> list[int]:
    """What comes in the draft behind the tokens that were made last; of several places, at the nearest."""
    end = made[-ALIKE:]
    places = [i for i in range(ALIKE, len(draft)) if list(draft[i - ALIKE : i]) == end]
    at = min(places, key=lambda i: abs(i - len(made)), default=len(draft))
    return list(draft[at : at + GUESSED])


def speculated(mtp: MtpModule, ids: Sequence[int], new_tokens: int, ends: frozenset[int], count: Acceptance) -> list[int]:
    """The same by self-speculative decoding; `count` goes on counting."""
    made = []
    for token in speculate(mtp, ids, new_tokens, count):
        if token in ends:
            break
        made.append(token)
    return made


@dataclass(frozen=True, slots=True)
class Parting:
    """Where two continuations part, and the lead of the first one's token there: near a tie, either is greedy."""

    index: int
    lead: float


def parting(first: Sequence[int], leads: Sequence[float], second: Sequence[int]) -> Parting | None:
    """None: nowhere. The end of one of them is a parting without a lead that is known."""
    for i, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return Parting(i, leads[i])
    return None if len(first) == len(second) else Parting(min(len(first), len(second)), float("inf"))
