"""Two backends on the same tokens: how far apart their predictions are, and how well each predicts the text.

One after the other, so that only one model is in memory: what the first says is kept, in memory or in a file. Of each window the
second half is scored, so that every prediction has at least half a window before it.

Source: `perplexity` and `kl_divergence`, tools/perplexity/perplexity.cpp@ggml-org/llama.cpp. Letters: n scored tokens of a window, V
vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from backends.base import Backend, Cancel, End, EngineError, Sampling, Token, common_prefix

if TYPE_CHECKING:
    import numpy as np

CHUNK_ELEMENTS = 1 << 20  # scores that are turned into float64 at once

Windows = Sequence[Sequence[int]]
Progress = Callable[[int, int], None]  # windows done, windows in all


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of `tokens` predictions. KL divergence in nats, from the baseline to the other; `top1_agreement` is a share of 1."""

    tokens: int
    kl_mean: float
    kl_p99: float
    top1_agreement: float
    baseline_perplexity: float
    perplexity: float

    @property
    def perplexity_ratio(self) -> float:
        return self.perplexity / self.baseline_perplexity


@dataclass(frozen=True, slots=True)
class Baseline:
    """What one backend predicts in each window. `kept`: scores [n, V], the largest of each row 0, in float32; or, where they are in
    the file `scratch`, nothing."""

    windows: Windows
    vocabulary: int
    top1: list[np.ndarray]  # int64 [n] of each window
    likelihoods: np.ndarray  # float64: log-probability of each token that came
    kept: list[np.ndarray]
    scratch: Path | None

    def scores(self) -> Iterator[np.ndarray]:
        """Window by window, in order."""
        import numpy as np

        if self.scratch is None:
            yield from self.kept
            return
        with self.scratch.open("rb") as file:
            for window in self.windows:
                n = scored(len(window))
                yield np.fromfile(file, np.float16, n * self.vocabulary).reshape(n, self.vocabulary)


def scored(window_tokens: int) -> int:
    """How many predictions of a window count: those of the tokens behind its middle one."""
    return window_tokens - 1 - window_tokens // 2


def read(backend: Backend, windows: Windows, scratch: Path | None = None, on_progress: Progress | None = None) -> Baseline:
    """Have `backend` predict all windows, of 3 tokens or more.

    The file `scratch`, which is not removed here, takes the scores as float16 - finest where probabilities are large, and good for a
    divergence within 1e-6 nats -, 2 bytes for each of n * V; without one, memory takes them as float32.
    Raises EngineError if scores are not finite, or the file cannot be written.
    """
    import numpy as np

    top1, likelihoods, kept, vocabulary = [], [], [], 0
    for window, scores in _predictions(backend, windows, on_progress):
        vocabulary = scores.shape[1]
        top1.append(scores.argmax(-1))
        likelihoods += [log_p[range(len(came)), came] for _, came, log_p in _in_chunks(window, scores)]
        shifted = scores - scores.max(-1, keepdims=True)
        if scratch is None:
            kept.append(shifted)
        else:
            with np.errstate(over="ignore"):
                half = np.maximum(shifted.astype(np.float16), np.finfo(np.float16).min)
            try:
                with scratch.open("ab") as file:
                    file.write(half.data)
            except OSError as error:
                raise EngineError(f"{scratch}: cannot be written ({error.strerror}); make room") from error
    return Baseline(windows, vocabulary, top1, np.concatenate(likelihoods), kept, scratch)


def compare(baseline: Baseline, backend: Backend, on_progress: Progress | None = None) -> Comparison:
    """Have `backend` predict the same windows. Raises EngineError if its scores are not finite, or not as many."""
    import numpy as np

    divergences, agreements, likelihoods = [], [], []
    predictions = _predictions(backend, baseline.windows, on_progress)
    for base, top1, (window, scores) in zip(baseline.scores(), baseline.top1, predictions, strict=True):
        if scores.shape != base.shape:
            raise EngineError(
                f"{backend.info.name} has a vocabulary of {scores.shape[1]:,}, the baseline {base.shape[1]:,}; compare a model with its own source"
            )
        agreements.append(scores.argmax(-1) == top1)
        for rows, came, log_q in _in_chunks(window, scores):
            likelihoods.append(log_q[range(len(came)), came])
            divergences.append(divergence(log_softmax(base[rows]), log_q))
    kl = np.concatenate(divergences)
    return Comparison(
        tokens=len(kl),
        kl_mean=float(kl.mean()),
        kl_p99=float(np.percentile(kl, 99)),
        top1_agreement=float(np.concatenate(agreements).mean()),
        baseline_perplexity=_perplexity(baseline.likelihoods),
        perplexity=_perplexity(np.concatenate(likelihoods)),
    )


def greedy(backend: Backend, ids: Sequence[int], tokens: int) -> list[Token]:
    """What the backend finds likeliest behind `ids`, up to so many tokens."""
    stream = backend.stream(ids, Sampling(temperature=0, max_tokens=tokens), Cancel())
    return [item for item in stream if not isinstance(item, End)]


def first_difference(a: Sequence[Token], b: Sequence[Token]) -> int | None:
    """Where two continuations part: an index, the shorter one's length if it is the other's beginning; None if they are the same."""
    shared = common_prefix([token.id for token in a], [token.id for token in b])
    return None if shared == len(a) == len(b) else shared


def divergence(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """KL(p || q) = sum p (log p - log q) of log-probabilities float64 [n, V] -> [n], in nats."""
    import numpy as np

    nats: np.ndarray = np.maximum(np.einsum("nv,nv->n", np.exp(log_p), log_p - log_q), 0)  # of equals, rounding leaves less than 0 as well
    return nats


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """[n, V] -> log-probabilities, float64."""
    import numpy as np

    out = scores.astype(np.float64)
    out -= out.max(-1, keepdims=True)
    out -= np.log(np.exp(out).sum(-1, keepdims=True))
    return out


def _predictions(backend: Backend, windows: Windows, on_progress: Progress | None) -> Iterator[tuple[Sequence[int], np.ndarray]]:
    """Each window with what counts of its scores, float32 [n, V]."""
    import numpy as np

    for done, window in enumerate(windows, 1):
        scores = backend.logits(window)[len(window) // 2 : -1]
        if not np.isfinite(scores.sum(dtype=np.float64)):
            raise EngineError(f"{backend.info.name} gives scores that are not finite; its weights or the engine are at fault")
        yield window, scores
        if on_progress is not None:
            on_progress(done, len(windows))


def _in_chunks(window: Sequence[int], scores: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """A few rows of a window at a time: which, the tokens that came, and the log-probabilities of all."""
    import numpy as np

    came = np.asarray(window[len(window) // 2 + 1 :])
    step = max(1, CHUNK_ELEMENTS // scores.shape[1])
    for start in range(0, len(scores), step):
        rows = slice(start, start + step)
        yield rows, came[rows], log_softmax(scores[rows])


def _perplexity(likelihoods: np.ndarray) -> float:
    nats = -float(likelihoods.mean())
    return math.exp(nats) if nats < 700 else math.inf
