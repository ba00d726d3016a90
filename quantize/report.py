"""What a conversion did, in figures: sums over tensors, and one JSON object that other programs can rely on."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from quantize.convert import Report
from quantize.evaluate import Evaluation
from quantize.fit_plan import Plan, plan_json
from quantize.loss import TensorLoss

VERSION = 1  # of the JSON object: a key that goes, or means something else, makes it 2

ENGINES = {"gguf": "llama.cpp", "reference": "the numpy reference"}

_EXPERT = re.compile(r"\.experts\.\d+\.")
_LAYER = re.compile(r"(?:blk|model\.layers)\.(\d+)\.(.+)")


@dataclass(frozen=True, slots=True)
class FormatSum:
    """All tensors of one format. `relative_error`: their mean, each counted by its parameters."""

    format: str
    tensors: int
    parameters: int
    nbytes: int
    rmse: float
    relative_error: float


def size_ratio(report: Report) -> float:
    """How many times smaller the target is than the source's weights."""
    return report.source_bytes / report.target_bytes


def mean_relative_error(tensors: Sequence[TensorLoss]) -> float:
    """Each counted by its parameters."""
    return math.fsum(t.relative_error * t.parameters for t in tensors) / sum(t.parameters for t in tensors)


def worst(report: Report, count: int) -> list[TensorLoss]:
    """Those with the largest relative errors, first the largest; exact ones are never among them."""
    found = sorted(merged(report.losses), key=lambda t: -t.relative_error)
    return [tensor for tensor in found[:count] if tensor.relative_error > 0]


def by_format(report: Report) -> list[FormatSum]:
    """The format that most parameters have comes first."""
    groups: dict[str, list[TensorLoss]] = {}
    for tensor in report.losses:
        groups.setdefault(tensor.format, []).append(tensor)
    sums = [_sum(form, found) for form, found in groups.items()]
    return sorted(sums, key=lambda s: (-s.parameters, s.format))


def _sum(form: str, tensors: list[TensorLoss]) -> FormatSum:
    one = _together(form, tensors)
    return FormatSum(form, len(tensors), one.parameters, one.nbytes, one.rmse, mean_relative_error(tensors))


def merged(tensors: Iterable[TensorLoss]) -> list[TensorLoss]:
    """The experts of a layer as one tensor, where each has its own: a list that people can read of a model with 45,000."""
    groups: dict[tuple[str, str], list[TensorLoss]] = {}
    for tensor in tensors:
        groups.setdefault((_EXPERT.sub(".experts.*.", tensor.name), tensor.format), []).append(tensor)
    return [found[0] if len(found) == 1 else _together(name, found) for (name, _), found in groups.items()]


def _together(name: str, tensors: list[TensorLoss]) -> TensorLoss:
    shapes = {tensor.shape for tensor in tensors}
    shape = (len(tensors), *shapes.pop()) if len(shapes) == 1 else (sum(tensor.parameters for tensor in tensors),)
    return TensorLoss(
        name=name,
        shape=shape,
        format=tensors[0].format,
        nbytes=sum(tensor.nbytes for tensor in tensors),
        squared_error=math.fsum(tensor.squared_error for tensor in tensors),
        squared_weights=math.fsum(tensor.squared_weights for tensor in tensors),
    )


def place(name: str) -> tuple[int | None, str]:
    """A tensor's layer, None outside the layers, and what it is there: blk.3.ffn_down.weight is (3, "ffn_down")."""
    found = _LAYER.fullmatch(name)
    layer, kind = (int(found[1]), found[2]) if found else (None, name)
    return layer, kind.removesuffix(".weight")


def report_json(report: Report, evaluation: Evaluation | str, plan: Plan | None = None) -> dict[str, Any]:
    """The report as JSON has it; `evaluation` may be the reason why there is none.

    Keys: version; source, target (paths); format, architecture; parameters; source_bytes (of its weights), target_bytes (of the file, or
    of the folder's weights), size_ratio; bits_per_weight; mean_relative_error (of all tensors, each counted by its parameters); seconds;
    warnings: [text]; fallbacks: [{tensor, format}]; formats: [{format, tensors, parameters, bytes, rmse, relative_error}]; tensors:
    [{name, shape, format, parameters, bytes, rmse, relative_error}]; not_evaluated: reason or null; evaluation: null or {tokens,
    kl_mean, kl_p99 (nats), top1_agreement (0 to 1), baseline_perplexity, perplexity, perplexity_ratio, engine (gguf or reference), baseline
    (what the source ran as: the format of a temporary GGUF file, or null for itself), material,
    windows, window_tokens, tasks: {family: {source, target}} (shares of right answers), seconds}; plan: null or that of --fit, as
    quantize.fit_plan.plan_json has it.

    rmse and relative_error (root of squared errors over squared weights) are 0 of what is stored exactly. A number that is not finite
    is null.
    """
    value = {
        "version": VERSION,
        "source": path_text(report.source),
        "target": path_text(report.target),
        "format": report.format,
        "architecture": report.architecture,
        "parameters": report.parameters,
        "source_bytes": report.source_bytes,
        "target_bytes": report.target_bytes,
        "size_ratio": size_ratio(report),
        "bits_per_weight": report.bits_per_weight,
        "mean_relative_error": mean_relative_error(report.losses),
        "seconds": report.seconds,
        "warnings": list(report.warnings),
        "fallbacks": [{"tensor": tensor, "format": taken} for tensor, taken in report.fallbacks],
        "formats": [_in_bytes(asdict(form)) for form in by_format(report)],
        "tensors": [_tensor_json(tensor) for tensor in report.losses],
        "not_evaluated": evaluation if isinstance(evaluation, str) else None,
        "evaluation": None if isinstance(evaluation, str) else _evaluation_json(evaluation),
        "plan": None if plan is None else plan_json(plan),
    }
    checked: dict[str, Any] = _clean(value)
    return checked


def path_text(path: Path) -> str:
    return _unicode(str(path))


def _tensor_json(tensor: TensorLoss) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "format": tensor.format,
        "parameters": tensor.parameters,
        "bytes": tensor.nbytes,
        "rmse": tensor.rmse,
        "relative_error": tensor.relative_error,
    }


def _evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    value = asdict(evaluation)
    comparison: dict[str, Any] = value.pop("comparison")
    tasks = {family: {"source": source, "target": target} for family, (source, target) in evaluation.tasks.items()}
    return comparison | {"perplexity_ratio": evaluation.comparison.perplexity_ratio} | value | {"tasks": tasks}


def _in_bytes(value: dict[str, Any]) -> dict[str, Any]:
    return {"bytes" if key == "nbytes" else key: item for key, item in value.items()}


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, str):
        return _unicode(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _unicode(text: str) -> str:
    """Halves of surrogate pairs stand for the bytes of a file's name that is no Unicode."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)
