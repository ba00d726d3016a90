"""KL divergence, agreement and perplexity, against the formulas written out token by token in plain Python."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from backends import compare
from backends.base import EngineError
from backends.compare import compare as compared
from backends.compare import divergence, log_softmax, read


class Table:
    """A backend that says what stands in a table: scores of the token after `token`, in window `window`, at position `i`."""

    def __init__(self, *windows: Any) -> None:
        self.windows = [np.asarray(window, np.float32) for window in windows]
        self.info = SimpleNamespace(name="table")
        self.asked: list[Sequence[int]] = []

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        self.asked.append(ids)
        return self.windows[len(self.asked) - 1]


def random_scores(seed: int, windows: int, tokens: int, vocabulary: int, spread: float = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((windows, tokens, vocabulary), np.float32) * spread


def run(base: np.ndarray, other: np.ndarray, windows: Sequence[Sequence[int]], scratch: Path | None = None) -> compare.Comparison:
    return compared(read(Table(*base), windows, scratch), Table(*other))  # type: ignore[arg-type]


def probabilities(scores: np.ndarray) -> list[float]:
    top = max(map(float, scores))
    weights = [math.exp(float(x) - top) for x in scores]
    return [w / math.fsum(weights) for w in weights]


def test_a_case_by_hand() -> None:
    """p = (1/2, 1/4, 1/4) against q = (1/4, 1/2, 1/4): 1/2 ln 2 - 1/4 ln 2 = 1/4 ln 2. p against itself: 0."""
    p, q = np.log([0.5, 0.25, 0.25]), np.log([0.25, 0.5, 0.25])
    kl = divergence(log_softmax(np.array([p, p])), log_softmax(np.array([q + 7, p - 3])))  # scores may be shifted
    np.testing.assert_allclose(kl, [math.log(2) / 4, 0], atol=1e-15)
    # a window of five tokens: those after positions 2 and 3 count, that is ids 1 and 0
    window = [2, 2, 2, 1, 0]
    found = run(np.array([[q, q, p, p, q]]), np.array([[p, p, q, p, p]]), [window])
    assert found.tokens == 2
    assert found.kl_mean == pytest.approx(math.log(2) / 8, abs=1e-7)
    assert found.kl_p99 == pytest.approx(0.99 * math.log(2) / 4, abs=1e-7)
    assert found.top1_agreement == 0.5
    assert found.baseline_perplexity == pytest.approx(math.sqrt(4 * 2), rel=1e-6)  # 1/4 and 1/2
    assert found.perplexity == pytest.approx(2, rel=1e-6)  # 1/2 and 1/2
    assert found.perplexity_ratio == pytest.approx(1 / math.sqrt(2), rel=1e-6)


def test_the_formulas_written_out() -> None:
    windows, tokens, vocabulary = 3, 9, 17
    base, other = random_scores(1, windows, tokens, vocabulary), random_scores(2, windows, tokens, vocabulary)
    other = base + 0.3 * other
    ids = np.random.default_rng(3).integers(0, vocabulary, (windows, tokens)).tolist()
    kl, same, log_p, log_q = [], 0, [], []
    for w in range(windows):
        for i in range(tokens // 2, tokens - 1):
            p, q = probabilities(base[w, i]), probabilities(other[w, i])
            kl.append(math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
            same += p.index(max(p)) == q.index(max(q))
            log_p.append(math.log(p[ids[w][i + 1]]))
            log_q.append(math.log(q[ids[w][i + 1]]))
    found = run(base, other, ids)
    n = len(kl)
    assert found.tokens == n == 12
    assert found.kl_mean == pytest.approx(math.fsum(kl) / n, rel=1e-6)  # scores are kept in float32
    kl.sort()
    at = 0.99 * (n - 1)
    assert found.kl_p99 == pytest.approx(kl[10] + (at - 10) * (kl[11] - kl[10]), rel=1e-6)
    assert found.top1_agreement == same / n
    assert 0 < same < n
    assert found.baseline_perplexity == pytest.approx(math.exp(-math.fsum(log_p) / n), rel=1e-9)
    assert found.perplexity == pytest.approx(math.exp(-math.fsum(log_q) / n), rel=1e-9)


def test_a_few_rows_at_a_time_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    base, other, ids = random_scores(1, 2, 12, 30), random_scores(2, 2, 12, 30), [[5] * 12, [7] * 12]
    whole = run(base, other, ids)
    monkeypatch.setattr(compare, "CHUNK_ELEMENTS", 60)
    assert run(base, other, ids) == whole


def test_scores_kept_in_a_file_lose_less_than_matters(tmp_path: Path) -> None:
    """float16, 2 bytes a score. What it costs is of second order: 1e-6 nats are promised, of models that are this close too."""
    base = random_scores(1, 4, 40, 1000, spread=4)
    other = base + random_scores(2, 4, 40, 1000, spread=0.02)
    ids = np.random.default_rng(3).integers(0, 1000, (4, 40)).tolist()
    exact, filed = run(base, other, ids), run(base, other, ids, tmp_path / "scores")
    assert (tmp_path / "scores").stat().st_size == 2 * 4 * compare.scored(40) * 1000
    assert 1e-4 < exact.kl_mean < 1e-3
    assert filed.kl_mean == pytest.approx(exact.kl_mean, abs=1e-6)
    assert filed.kl_p99 == pytest.approx(exact.kl_p99, abs=1e-5)
    same = ("tokens", "top1_agreement", "baseline_perplexity", "perplexity")  # known before anything is rounded
    assert [getattr(filed, name) for name in same] == [getattr(exact, name) for name in same]


def test_equals_are_equal(tmp_path: Path) -> None:
    base, ids = random_scores(1, 2, 20, 50), [[3] * 20] * 2
    for scratch in (None, tmp_path / "scores"):
        found = run(base, base, ids, scratch)
        assert 0 <= found.kl_mean < 1e-6
        assert (found.top1_agreement, found.perplexity_ratio) == (1, 1)


def test_impossible_tokens_stay_finite(tmp_path: Path) -> None:
    """Scores far below float16's range, as of tokens that an engine masks out."""
    base = random_scores(1, 1, 6, 8)
    base[:, :, 0] = -1e30
    found = run(base, base, [[1] * 6], tmp_path / "scores")
    assert 0 <= found.kl_mean < 1e-6


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_refused(value: float) -> None:
    good, bad, ids = random_scores(1, 1, 6, 8), random_scores(1, 1, 6, 8), [[1] * 6]
    bad[0, 4, 2] = value
    with pytest.raises(EngineError, match="not finite"):
        run(bad, good, ids)
    with pytest.raises(EngineError, match="not finite"):
        run(good, bad, ids)


def test_another_vocabulary_is_refused() -> None:
    with pytest.raises(EngineError, match="vocabulary of 9, the baseline 8"):
        run(random_scores(1, 1, 6, 8), random_scores(1, 1, 6, 9), [[1] * 6])


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot be written"):
        run(random_scores(1, 1, 6, 8), random_scores(1, 1, 6, 8), [[1] * 6], tmp_path / "none" / "scores")


def test_progress_is_told_window_by_window() -> None:
    told: list[tuple[int, int]] = []
    read(Table(*random_scores(1, 3, 6, 8)), [[1] * 6] * 3, None, lambda done, total: told.append((done, total)))  # type: ignore[arg-type]
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_perplexity_beyond_all_numbers_is_infinite() -> None:
    scores = random_scores(1, 1, 6, 8)
    scores[..., 1] = -1e6
    assert run(scores, scores, [[1] * 6]).perplexity == math.inf
