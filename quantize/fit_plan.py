"""A plan: which tensor takes which format so that the loss is least within a size, and why; as a target, as a table, as metadata."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from quantize.formats import FORMATS
from quantize.mlx_formats import MlxFormat, Packing
from quantize.recipe import MIXES, Mix
from quantize.sensitivity import Weight

Kind = Literal["gguf", "mlx"]
NAME = "fit"  # of the format, as a report says it
Losses = Mapping[str, Mapping[str, float]]  # by tensor and format
_DIGITS = 4  # of a loss, in the file


@dataclass(frozen=True, slots=True)
class Assigned:
    """A tensor's format; `loss`: the KL divergence it is expected to cost, in nats a token. `kind`, `layer`: as in Weight."""

    name: str
    kind: str
    layer: int
    format: str
    parameters: int
    nbytes: int
    loss: float


def assigned(
    weights: Iterable[Weight], formats: Mapping[str, str], nbytes: Callable[[str, str], int], losses: Losses | None = None
) -> tuple[Assigned, ...]:
    """Those of the weights that have a format; `nbytes` of a tensor in a format."""
    found = []
    for w in weights:
        if (form := formats.get(w.name)) is not None:
            loss = 0.0 if losses is None else losses[w.name][form]
            found.append(Assigned(w.name, w.kind, w.layer, form, math.prod(w.shape), nbytes(w.name, form), loss))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Rival:
    """A named mix: its size as a file, and what it is expected to lose by the same measure; `measured`: what it does lose."""

    name: str
    size_bytes: int
    loss: float
    measured: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """`size_bytes`: of the whole file or folder, at most. `basis`: how losses are known; nothing, and no loss, where
    there was nothing to weigh.

    `rivals`: named mixes of at most the budget, the largest first. `measured`: what the whole plan was seen to lose, where it was.
    `notes`: what a person should know. `packings`: for MLX, what the formats' names mean.
    """

    kind: Kind
    budget_bytes: int
    size_bytes: int
    basis: str
    tensors: tuple[Assigned, ...]
    rivals: tuple[Rival, ...] = ()
    measured: float | None = None
    notes: tuple[str, ...] = ()
    packings: tuple[Packing, ...] = ()

    @property
    def loss(self) -> float:
        """Expected KL divergence from the unquantized model, in nats a token."""
        return sum(tensor.loss for tensor in self.tensors)

    def formats(self) -> dict[str, str]:
        """By tensor."""
        return {tensor.name: tensor.format for tensor in self.tensors}

    def note(self) -> str:
        """JSON for the file: the budget, the expected loss, and each tensor's format and part of the loss."""
        return json.dumps(
            {
                "budget_bytes": self.budget_bytes,
                "expected_kl": _rounded(self.loss) if self.basis else None,
                "basis": self.basis,
                "tensors": {t.name: [t.format, _rounded(t.loss)] if self.basis else [t.format] for t in self.tensors},
            },
            separators=(",", ":"),
        )

    def target(self) -> Mix | MlxFormat:
        """What quantize.convert takes for a format."""
        sizes: dict[str, int] = {}
        for tensor in self.tensors:
            sizes[tensor.format] = sizes.get(tensor.format, 0) + tensor.nbytes
        most = max(sizes, key=lambda name: sizes[name])
        if self.kind == "gguf":
            formats = {tensor.name: FORMATS[tensor.format] for tensor in self.tensors}
            # llama.cpp, which guesses where a file does not say, also goes by the most frequent
            alike = MIXES.get(most) or MIXES[f"{most}_M"]
            return Mix(NAME, FORMATS[most], alike.file_type, formats=formats, note=self.note())
        known = {packing.name: packing for packing in self.packings}
        packings = {tensor.name: known.get(tensor.format) for tensor in self.tensors}
        default = known.get(most) or self.packings[0]
        return MlxFormat(NAME, default, default, default, packings=packings, note=self.note())


HEADER = ("tensors", "formats (layers)", "MB", "bits", "expected KL", "share")


def table(plan: Plan) -> list[tuple[str, ...]]:
    """Rows of text under HEADER, a kind of tensor each, and their sum."""
    kinds: dict[str, list[Assigned]] = {}
    for tensor in plan.tensors:
        kinds.setdefault(tensor.kind, []).append(tensor)
    rows = [_row(kind.removesuffix(".weight"), tensors, plan) for kind, tensors in kinds.items()]
    return [*rows, _row("together", plan.tensors, plan, formats="")]


RIVALS_HEADER = ("named mixes no larger", "MB", "expected KL", "seen")


def rivals(plan: Plan, most: int = 3) -> list[tuple[str, ...]]:
    """Rows of text under RIVALS_HEADER: the plan, and the largest of the named mixes that fit the budget."""
    mine = ("this plan", plan.size_bytes, plan.loss, plan.measured)
    rows = [mine, *((rival.name, rival.size_bytes, rival.loss, rival.measured) for rival in plan.rivals[:most])]
    return [(name, f"{size / 1e6:,.2f}", f"{loss:.2g}", "" if seen is None else f"{seen:.2g}") for name, size, loss, seen in rows]


def plan_json(plan: Plan) -> dict[str, Any]:
    """Keys: budget_bytes; size_bytes (of the file or folder, at most); expected_kl, measured_kl (nats a token, null if unknown); basis;
    notes: [text]; named_mixes: [{name, size_bytes, expected_kl, measured_kl}]; tensors: [{name, format, bytes, expected_kl}]."""
    known = bool(plan.basis)
    return {
        "budget_bytes": plan.budget_bytes,
        "size_bytes": plan.size_bytes,
        "expected_kl": plan.loss if known else None,
        "measured_kl": plan.measured,
        "basis": plan.basis,
        "notes": list(plan.notes),
        "named_mixes": [
            {"name": r.name, "size_bytes": r.size_bytes, "expected_kl": r.loss, "measured_kl": r.measured} for r in plan.rivals
        ],
        "tensors": [
            {"name": t.name, "format": t.format, "bytes": t.nbytes, "expected_kl": t.loss if known else None} for t in plan.tensors
        ],
    }


def _row(name: str, tensors: Sequence[Assigned], plan: Plan, formats: str | None = None) -> tuple[str, ...]:
    size, loss = sum(t.nbytes for t in tensors), sum(t.loss for t in tensors)
    bits = 8 * size / sum(t.parameters for t in tensors)
    share = loss / plan.loss if plan.loss > 0 else 0.0
    expected = (f"{loss:.2g}", f"{share:.0%}") if plan.basis else ("", "")
    return name, _formats(tensors) if formats is None else formats, f"{size / 1e6:,.2f}", f"{bits:.2f}", *expected


def _formats(tensors: Sequence[Assigned]) -> str:
    """Q5_K 0-2,7; Q4_K 3-6: the most frequent first."""
    layers: dict[str, list[int]] = {}
    for tensor in tensors:
        layers.setdefault(tensor.format, []).append(tensor.layer)
    if len(tensors) == 1 or len(layers) == 1:
        return ", ".join(layers)
    return "; ".join(f"{name} {_ranges(found)}" for name, found in sorted(layers.items(), key=lambda item: -len(item[1])))


def _ranges(numbers: Iterable[int]) -> str:
    """[0, 1, 2, 7] -> 0-2,7."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
