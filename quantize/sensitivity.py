"""How much a model's predictions suffer when one tensor is stored in one format.

Two measurements make an expected loss. The error of a tensor in a format: sum_k imp_k (w - w')^2 over sum_k imp_k w^2, with the
importances the result is encoded with. And the gain of a tensor, in nats: how much KL divergence from the unquantized model an error of
1 would cost, measured with the error of one or a few probe formats, in llama.cpp, one tensor at a time. KL grows with the square of what
is added to the weights, so expected loss = gain x error, and losses of different tensors add up.

Source: ggml-org/llama.cpp#15550 (errors sampled under an importance matrix), `estimate_sensitivities`, quant/dynamic_quant.py
@ml-explore/mlx-lm (gains, there from gradients). Letters: R rows, K columns, M matrices of a tensor.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.checkpoint import short
from backends.compare import CHUNK_ELEMENTS, divergence, log_softmax
from quantize.errors import QuantizeError, TargetError
from quantize.formats import FORMATS, PIECE_ELEMENTS, Format, decode, encode
from quantize.live_model import LiveModel
from quantize.recipe import fitting
from quantize.rows import Rows, Span

if TYPE_CHECKING:
    import numpy as np

SAMPLE, SLOW_SAMPLE = 1 << 19, 1 << 17  # weights of a tensor that are looked at; the smallest formats search longer for each
# Formats that a tensor is probed with: on the bundled student gains of all formats from Q2_K to Q8_0 agree within a few tens of per cent,
# which is chance, so that a mean is better where it is cheap; the one for large models leaves KL far above what rounding does.
PROBES, LARGE_PROBES = ("Q3_K", "IQ4_XS", "Q5_K"), ("Q3_K",)
PROBED_LAYERS = 4  # of a large model, evenly spaced, of each kind of tensor

RoundTrip = Callable[["np.ndarray", "np.ndarray | None"], "np.ndarray"]  # float32 [n, K], importance [1, K] -> what is read back
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """A tensor that can take several formats. `gguf`: what it is called in llama.cpp (two tensors hold it, in one case); `parts`: its
    rows, by the source's names; `release` gives their pages back; `importance`: float32 [M, K]."""

    name: str
    shape: tuple[int, ...]
    gguf: tuple[str, ...]
    parts: Callable[[], Iterator[tuple[str, Rows]]]
    release: Callable[[str], None]
    importance: np.ndarray | None = None

    @property
    def kind(self) -> str:
        """The same for the tensors of all layers that have the same task."""
        return re.sub(r"\.\d+\.", ".*.", self.name, count=1)

    @property
    def layer(self) -> int:
        found = re.search(r"\.(\d+)\.", self.name)
        return int(found[1]) if found else 0

    def matrices(self) -> Iterator[tuple[Rows, np.ndarray | None]]:
        """Its matrices [R, K], each with the importance [1, K] of its inputs; nothing is read yet."""
        parts = list(self.parts())
        for i, (source, rows) in enumerate(parts):
            inputs = self.importance
            if inputs is not None and len(parts) > 1:  # a stack of experts
                inputs = inputs[i : i + 1]
            count = 1 if inputs is None else len(inputs)
            each = rows.shape[0] // count
            for m in range(count):
                yield Span(rows, m * each, each), None if inputs is None else inputs[m : m + 1]
            self.release(source)


class Measurements:
    """Numbers by name, in a JSON file that is replaced after each new one: whoever is interrupted goes on where it was.

    Raises TargetError: the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values: dict[str, Any] = {}
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            self.values = found if isinstance(found, dict) else {}
        except (OSError, ValueError):  # none yet, or cut short: measured again
            pass

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.values[key] = value
        part = self.path.with_suffix(f".{os.getpid()}.part")  # another process may be measuring, too
        try:
            part.write_text(json.dumps(self.values), encoding="utf-8")
            part.replace(self.path)
        except OSError as error:
            raise TargetError(f"{self.path}: cannot be written ({error.strerror}); set XDG_CACHE_HOME to another place") from error


# ------------------------------------------------------------------------------------------------------------- errors


def measure_errors(
    weights: Sequence[Weight],
    candidates: Mapping[str, Sequence[str]],
    round_trip: Callable[[str], RoundTrip],
    slow: frozenset[str],
    measured: Measurements,
    on_progress: Progress,
) -> dict[str, dict[str, float]]:
    """By weight and candidate: the relative error. What `measured` holds already is not measured again.

    Raises QuantizeError if weights are not finite.
    """
    errors: dict[str, dict[str, float]] = {}
    for done, weight in enumerate(weights):
        on_progress(done, len(weights))
        known: dict[str, float] = dict(measured[weight.name]) if weight.name in measured else {}
        for names, most in (([n for n in candidates[weight.name] if n in slow], SLOW_SAMPLE), (candidates[weight.name], SAMPLE)):
            missing = [n for n in names if n not in known]
            if missing:
                try:
                    known |= relative_errors(weight, {n: round_trip(n) for n in missing}, most)
                except QuantizeError as error:
                    raise type(error)(f"tensor {short(weight.name, 120)} {error}") from None
                measured[weight.name] = known
        errors[weight.name] = known
    on_progress(len(weights), len(weights))
    return errors


def relative_errors(weight: Weight, round_trips: Mapping[str, RoundTrip], most: int) -> dict[str, float]:
    """sum imp (w - w')^2 / sum imp w^2 over all rows, or evenly spaced ones of about `most` weights; 0 of a tensor of zeros."""
    import numpy as np

    total, lost = 0.0, dict.fromkeys(round_trips, 0.0)
    for rows, inputs in _sampled(weight, most):
        importance = 1.0 if inputs is None else inputs.astype(np.float64)
        total += float(np.sum(np.square(rows, dtype=np.float64) * importance))
        for name, round_trip in round_trips.items():
            error = np.square(round_trip(rows, inputs) - rows, dtype=np.float64)
            lost[name] += float(np.sum(error * importance))
    return {name: value / total if total > 0 else 0.0 for name, value in lost.items()}


def _sampled(weight: Weight, most: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """float32 [n, K] of each matrix, a few at a time, and the importance of their inputs."""
    import numpy as np

    spacing = -(-math.prod(weight.shape) // most)
    for rows, inputs in weight.matrices():
        if spacing > 1:
            picked = [rows[i : i + 1] for i in range(spacing // 2 % rows.shape[0], rows.shape[0], spacing)]
            yield np.concatenate(picked).astype(np.float32), inputs
        else:
            for start, stop in _pieces(rows):
                yield np.asarray(rows[start:stop], np.float32), inputs


def _pieces(rows: Rows) -> Iterator[tuple[int, int]]:
    step = max(1, 4 * PIECE_ELEMENTS // rows.shape[1])
    for start in range(0, rows.shape[0], step):
        yield start, min(start + step, rows.shape[0])


def ggml_round_trip(form: Format, pool: Executor) -> RoundTrip:
    """Through one of ggml's formats."""

    def there_and_back(rows: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
        import numpy as np

        return decode(np.concatenate(list(encode(rows, form, pool, importance=importance))), form, rows.shape)

    return there_and_back


# ------------------------------------------------------------------------------------------------------------- gains


class Predictions:
    """What a live model predicts in some chunks of text, before its weights are touched."""

    def __init__(self, live: LiveModel, chunks: Sequence[Sequence[int]]) -> None:
        self._live, self._chunks = live, chunks
        self._before = [live.scores(chunk) for chunk in chunks]

    def divergence(self) -> float:
        """Mean KL divergence a token, in nats, of what it predicts now."""
        total, tokens = 0.0, 0
        for chunk, before in zip(self._chunks, self._before, strict=True):
            now = self._live.scores(chunk)
            step = max(1, CHUNK_ELEMENTS // now.shape[1])
            for i in range(0, len(chunk), step):
                total += float(divergence(log_softmax(before[i : i + step]), log_softmax(now[i : i + step])).sum())
            tokens += len(chunk)
        return total / tokens


def changed(weight: Weight, round_trip: RoundTrip, held: Format, pool: Executor) -> Iterator[np.ndarray]:
    """The weight after a round trip, as bytes of the format it is held in."""
    import numpy as np

    for rows, inputs in weight.matrices():
        for start, stop in _pieces(rows):
            yield from encode(round_trip(np.asarray(rows[start:stop], np.float32), inputs), held, pool)


def probed(weights: Sequence[Weight], all_layers: bool) -> list[Weight]:
    """The weights whose gain is measured: all, or of each kind those of a few evenly spaced layers, with the first and the last."""
    kinds: dict[str, list[Weight]] = {}
    for weight in weights:
        kinds.setdefault(weight.kind, []).append(weight)
    found = []
    for kind in kinds.values():
        kind.sort(key=lambda weight: weight.layer)
        n = len(kind) if all_layers else min(len(kind), PROBED_LAYERS)
        found += [kind[round(i * (len(kind) - 1) / max(1, n - 1))] for i in range(n)]
    return found


def unmeasured(weights: Sequence[Weight], probes: Sequence[str], measured: Measurements) -> list[tuple[Weight, Format]]:
    """What remains to be probed: each of these weights in each probe format, or in what replaces that where its rows do not hold it."""
    jobs = [(weight, fitting(FORMATS[probe], weight.shape).format) for weight in weights for probe in probes]
    return [(weight, form) for weight, form in jobs if f"{weight.name} {form.name}" not in measured]


def measure_gains(
    live: LiveModel,
    chunks: Sequence[Sequence[int]],
    jobs: Sequence[tuple[Weight, Format]],
    errors: Mapping[str, Mapping[str, float]],
    measured: Measurements,
    pool: Executor,
    on_progress: Progress,
) -> None:
    """KL divergence after each job's change, divided by its error, into `measured` ("name format"); 0: there is none to be had."""
    predictions = Predictions(live, chunks)
    for done, (weight, form) in enumerate(jobs):
        on_progress(done, len(jobs))
        error, gain = errors[weight.name][form.name], 0.0
        if error > 0 and weight.name in live:
            with live.overwritten(weight.name, changed(weight, ggml_round_trip(form, pool), live.format(weight.name), pool)):
                gain = predictions.divergence() / error
        measured[f"{weight.name} {form.name}"] = gain
    on_progress(len(jobs), len(jobs))


def gains(weights: Sequence[Weight], measured: Mapping[str, float]) -> dict[str, float]:
    """A gain for every weight: the geometric mean of what was measured of it; else, in the logarithm, between the nearest layers of its
    kind; else the median of all. `measured`: "name format" -> nats.

    None is zero, so that of a tensor that seems to do nothing the better format is still the better one.
    """
    import numpy as np

    logs: dict[str, list[float]] = {}
    for key, value in measured.items():
        if value > 0:
            logs.setdefault(key.rpartition(" ")[0], []).append(math.log(value))
    means = {name: sum(values) / len(values) for name, values in logs.items()}
    if not means:
        return dict.fromkeys((weight.name for weight in weights), 1.0)
    middle = float(np.median(list(means.values())))
    floor = middle - math.log(1e4)
    found = {}
    for weight in weights:
        if weight.name not in means:
            near = sorted((w.layer, means[w.name]) for w in weights if w.kind == weight.kind and w.name in means)
            log = float(np.interp(weight.layer, [layer for layer, _ in near], [mean for _, mean in near])) if near else middle
        else:
            log = means[weight.name]
        found[weight.name] = math.exp(max(log, floor))
    return found
