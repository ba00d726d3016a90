"""Fit: the formats with which a model's loss is least within a size, tensor by tensor, measured on the model itself."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

from backends.checkpoint import Checkpoint, source_files
from quantize import calibrate
from quantize.convert import _processors, open_source
from quantize.errors import QuantizeError, TargetError
from quantize.fit_plan import Kind, Losses, Plan, Rival, assigned
from quantize.fit_size import Sizes, size_text
from quantize.fit_targets import FitTarget, GgufTarget, MlxTarget
from quantize.formats import FORMATS
from quantize.gguf_source import GgufSource
from quantize.imatrix import ImportanceMatrix
from quantize.knapsack import Option, solve
from quantize.mlx_formats import GROUP
from quantize.recipe import NEED_IMATRIX
from quantize.sensitivity import (
    LARGE_PROBES,
    PROBED_LAYERS,
    PROBES,
    Measurements,
    Predictions,
    RoundTrip,
    Weight,
    changed,
    gains,
    ggml_round_trip,
    measure_errors,
    measure_gains,
    probed,
    unmeasured,
)  # fmt: skip
from quantize.unquantized import Material, Progress, Unquantized

MEASURED_AS = 2  # a new number makes older measurements void
TRIED_RIVALS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A plan, and the importance matrix it was made with: quantize.convert wants both."""

    plan: Plan
    imatrix: ImportanceMatrix | None


def fit(
    source: Path,
    target: Path,
    budget_bytes: int,
    *,
    cache: Path,
    kind: Kind = "gguf",
    imatrix: ImportanceMatrix | None = None,
    material: Material | None = None,
    group: int = GROUP,
    force: bool = False,
    say: Callable[[str], None] = lambda line: None,
    on_progress: Progress = lambda what, done, total: None,
) -> Fitted:
    """Choose formats for `source`, a checkpoint folder or (for GGUF) a GGUF file, so that `target` takes at most `budget_bytes`.

    `material`: a text, or chunks of tokens, to calibrate and to measure with; without one, the built-in text. `imatrix`: without
    one, it is collected from `material`. Measurements are kept in the folder `cache`, and taken from there by whoever asks again.
    Then `convert(source, target, fitted.plan.target(), imatrix=fitted.imatrix)` writes it.

    A checkpoint, or a GGUF file that is quantized, runs as a temporary GGUF file beside the target, which `say` is told of. An exception raised by `on_progress` stops
    the work. Memory: that file's size, where so much is free; else gains are not measured, and the plan says so.

    Raises QuantizeError (nothing fits the budget: says what would), TargetError (no room), UnsupportedModel, ModelFileError, EngineError.
    """
    with open_source(source) as opened, ThreadPoolExecutor(_processors()) as pool:
        into = _target(opened, kind, group)
        chooser = _Chooser(into, Sizes(opened, into, target, force), budget_bytes)
        if chooser.holds(chooser.largest):
            note = f"the budget has room for more than the largest formats to choose from, {size_text(chooser.largest.size_bytes)}"
            return Fitted(replace(chooser.largest, notes=(note,)), imatrix)
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TargetError(f"{cache}: cannot be made ({error.strerror}); set XDG_CACHE_HOME to another place") from error
        with Unquantized(source, opened, target, budget_bytes, say, on_progress, to_change=True) as model:
            text = calibrate.corpus() if material is None else material
            state = _digest(MEASURED_AS, _state(source), text, version("llama-cpp-python"))
            if imatrix is None:
                imatrix = _collected(cache / f"{state}.imatrix.gguf", model, text, on_progress)
            measuring = _Measuring(cache, _digest(state, _content(imatrix)), model, text, pool, on_progress)
            weights = into.weights(imatrix)
            candidates = {w.name: [form for form in chooser.candidates[w.name] if _possible(w, form)] for w in weights}
            errors = measuring.errors(into, group, weights, candidates)
            gain, basis = measuring.gains(weights if kind == "gguf" else GgufTarget(opened).weights(imatrix))
            losses = {}
            for w in weights:
                cost, held = sum(gain.get(name, 0.0) for name in w.gguf), into.held.get(w.name)  # what is held so is copied as it is
                losses[w.name] = {form: 0.0 if form == held else errors[w.name][form] * cost for form in candidates[w.name]}
            plan = chooser.best(losses, basis)
            if kind == "gguf" and model.is_small:
                plan = measuring.tried(plan, chooser, losses, weights, into)
            return Fitted(plan, imatrix)


def _target(opened: Checkpoint | GgufSource, kind: Kind, group: int) -> FitTarget:
    if kind == "gguf":
        return GgufTarget(opened)
    if isinstance(opened, GgufSource):
        raise QuantizeError(f"{opened.path} is a GGUF file, which can become another one only; for MLX, give the checkpoint folder")
    return MlxTarget(opened, group)


def _possible(weight: Weight, form: str) -> bool:
    """Whether it can be made with the importance matrix there is: ggml ends the process where it cannot."""
    return weight.importance is not None or form not in NEED_IMATRIX


# ------------------------------------------------------------------------------------------------------------- measuring


def _collected(path: Path, model: Unquantized, text: Material, on_progress: Progress) -> ImportanceMatrix:
    if not path.exists():
        progress = partial(on_progress, "collecting the importance matrix")
        calibrate.collect(model.path, text, on_progress=progress).write(path, force=True)
    return ImportanceMatrix.read(path)


class _Measuring:
    """Measurements of one model under one importance matrix, which `state` names; kept in files of the folder `cache`."""

    def __init__(self, cache: Path, state: str, model: Unquantized, text: Material, pool: Executor, on_progress: Progress) -> None:
        self._cache, self._state, self._model, self._text, self._pool, self._on_progress = cache, state, model, text, pool, on_progress

    def errors(self, into: FitTarget, group: int, weights: Sequence[Weight], candidates: Mapping[str, Sequence[str]]) -> Losses:
        """By weight and candidate."""
        kept = self._kept(into.kind if into.kind == "gguf" else f"mlx-{version('mlx')}-g{group}")
        progress = partial(self._on_progress, "measuring what formats change")
        return measure_errors(weights, candidates, into.round_trip(self._pool), into.slow, kept, progress)

    def gains(self, weights: Sequence[Weight]) -> tuple[dict[str, float], str]:
        """By the name of a tensor in GGUF; and how they are known."""
        model, probes = self._model, PROBES if self._model.is_small else LARGE_PROBES
        wanted = [w for w in probed(weights, model.is_small) if FORMATS["Q4_0"].fits(w.shape)]
        kept = self._kept("gains")
        jobs = unmeasured(wanted, probes, kept)
        if jobs and not model.can_change:
            return gains(weights, {}), "errors alone, all tensors counting alike: the model cannot be changed in memory, for lack of room"
        if jobs:
            forms: dict[str, list[str]] = {}
            for weight, form in jobs:
                forms.setdefault(weight.name, []).append(form.name)
            ask = [w for w in wanted if w.name in forms]
            errors = measure_errors(ask, forms, self._round_trip, frozenset(), self._kept("gguf"), partial(self._on_progress, "probing"))
            with model.live() as live:
                progress = partial(self._on_progress, "measuring what tensors matter")
                measure_gains(live, model.chunks(self._text, live.bos), jobs, errors, kept, self._pool, progress)
        layers = "every layer" if model.is_small else f"{PROBED_LAYERS} layers"
        return gains(weights, kept.values), f"KL divergence on {model.tokens:,} tokens, {layers} probed with {', '.join(probes)}"

    def tried(self, plan: Plan, chooser: _Chooser, losses: Losses, weights: Sequence[Weight], into: FitTarget) -> Plan:
        """The plan with what it loses as a whole, and the same of the named mixes nearest in size; one of these if that loses less."""
        plans = {"": plan} | {rival.name: chooser.named(rival.name, losses, plan.basis) for rival in plan.rivals[:TRIED_RIVALS]}
        keys = {name: _digest(found.formats()) for name, found in plans.items()}
        kept = self._kept("plans")
        missing = [name for name in plans if keys[name] not in kept]
        if missing and self._model.can_change:
            with self._model.live() as live:
                predictions = Predictions(live, self._model.chunks(self._text, live.bos))
                for done, name in enumerate(missing):
                    self._on_progress("trying the plan", done, len(missing))
                    with ExitStack() as stack:
                        formats = plans[name].formats()
                        for w in (w for w in weights if w.name in live and formats[w.name] != into.held.get(w.name)):
                            round_trip, held = self._round_trip(formats[w.name]), live.format(w.name)
                            stack.enter_context(live.overwritten(w.name, changed(w, round_trip, held, self._pool)))
                        kept[keys[name]] = predictions.divergence()
        seen = {name: float(kept[key]) for name, key in keys.items() if key in kept}
        plan = replace(plan, measured=seen.get(""), rivals=tuple(replace(rival, measured=seen.get(rival.name)) for rival in plan.rivals))
        best = min(seen, key=lambda name: (seen[name], name), default="")
        if best and "" in seen and chooser.holds(plans[best]):
            note = f"{best} was seen to lose less than the plan, {seen[best]:.3g} and {seen['']:.3g} nats, and is taken"
            return replace(
                plan, tensors=plans[best].tensors, size_bytes=plans[best].size_bytes, measured=seen[best], notes=(*plan.notes, note)
            )
        return plan

    def _round_trip(self, form: str) -> RoundTrip:
        return ggml_round_trip(FORMATS[form], self._pool)

    def _kept(self, what: str) -> Measurements:
        return Measurements(self._cache / f"{self._state}-{what}.json")


# ------------------------------------------------------------------------------------------------------------- choosing


class _Chooser:
    """Plans of at most so many bytes. Raises QuantizeError: there is none."""

    def __init__(self, into: FitTarget, sizes: Sizes, budget_bytes: int) -> None:
        self._into, self._sizes, self._bytes = into, sizes, budget_bytes
        self._weights, self._named = into.weights(None), into.named()
        bits = 8 * (budget_bytes - sizes.of_named({})) / sum(math.prod(w.shape) for w in self._weights)
        self.candidates = {name: into.candidates(name, bits) for name in into.names}
        ordered = {name: sorted(forms, key=partial(into.nbytes, name)) for name, forms in self.candidates.items()}
        self.largest = self._plan({name: forms[-1] for name, forms in ordered.items()})
        smallest = self._plan({name: forms[0] for name, forms in ordered.items()})
        if not self.holds(smallest):
            raise QuantizeError(
                f"{size_text(budget_bytes)} are too few: the smallest that this model can be made is {size_text(smallest.size_bytes)} "
                f"({smallest.size_bytes:,} bytes); give a larger size, or choose a smaller model"
            )

    def best(self, losses: Losses, basis: str) -> Plan:
        """The one whose expected loss is least; never worse than a named mix that is no larger, note and all."""
        named = {
            name: self.named(name, losses, basis)
            for name, formats in self._named.items()
            if self._sizes.of_named(formats) <= self._bytes and all(form in losses[tensor] for tensor, form in formats.items())
        }
        plans = [self._solved(losses, basis), *(plan for plan in named.values() if self.holds(plan))]
        plan = min(plans, key=lambda p: p.loss)
        rivals = [Rival(name, self._sizes.of_named(self._named[name]), rival.loss) for name, rival in named.items()]
        return replace(plan, rivals=tuple(sorted(rivals, key=lambda r: (-r.size_bytes, r.loss))))

    def named(self, name: str, losses: Losses, basis: str) -> Plan:
        """A named mix as a plan."""
        return self._plan(self._named[name], losses, basis)

    def holds(self, plan: Plan) -> bool:
        return plan.size_bytes <= self._bytes

    def _solved(self, losses: Losses, basis: str) -> Plan:
        forms = {name: list(losses[name]) for name in self._into.names}
        options = [[Option(self._into.nbytes(name, form), losses[name][form]) for form in found] for name, found in forms.items()]
        beside = 0  # the largest that has been seen: the note says what was chosen, a format with a longer name takes more
        while True:
            chosen = solve(options, self._bytes - beside)
            if chosen is None:
                raise QuantizeError(
                    f"{size_text(self._bytes)} are too few for formats that do without importances, which some tensors lack; give a larger "
                    "size, or an importance matrix of all tensors"
                )
            plan = self._plan({name: found[i] for (name, found), i in zip(forms.items(), chosen, strict=True)}, losses, basis)
            if self.holds(plan):
                return plan
            beside = plan.size_bytes - sum(tensor.nbytes for tensor in plan.tensors)

    def _plan(self, formats: Mapping[str, str], losses: Losses | None = None, basis: str = "") -> Plan:
        tensors = assigned(self._weights, formats, self._into.nbytes, losses)
        plan = Plan(self._into.kind, self._bytes, 0, basis, tensors, packings=self._into.packings)
        return replace(plan, size_bytes=self._sizes.of_plan(plan))


# ------------------------------------------------------------------------------------------------------------- what was measured on


def _state(source: Path) -> str:
    """Differs when the source does: names, sizes and times of its files."""
    files = [source] if source.is_file() else source_files(source)
    return repr((str(source.resolve()), sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files)))


def _content(imatrix: ImportanceMatrix) -> str:
    found = hashlib.sha256()
    for name in sorted(imatrix.tensors):
        inputs = imatrix.tensors[name]
        for part in (name.encode(), inputs.sums.tobytes(), inputs.counts.tobytes()):
            found.update(part)
    return found.hexdigest()


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode("utf-8", "backslashreplace")).hexdigest()[:16]
