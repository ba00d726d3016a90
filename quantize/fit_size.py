"""Sizes: as people write them, what memory leaves for weights, what a file or folder takes beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from backends.base import DEFAULT_CONTEXT
from backends.checkpoint import Checkpoint
from quantize.convert import plan_job
from quantize.errors import QuantizeError
from quantize.fit_plan import Plan, assigned
from quantize.gguf_file import ALIGNMENT
from quantize.gguf_source import GgufSource
from quantize.job import Writer
from quantize.safetensors_folder import FolderWriter

if TYPE_CHECKING:
    from quantize.fit_targets import FitTarget

_A_SIZE = "give one such as 6GB, 5.5GiB, 900MB or auto"


def parse_size(text: str) -> int | None:
    """6GB, 5.5GiB, 900MB or a number of bytes -> bytes; "auto" -> None. Raises QuantizeError."""
    given = text.strip().lower()
    if given == "auto":
        return None
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([kmgt]?)(i?)b?", given)
    if found is None or (found[3] and not found[2]):
        raise QuantizeError(f"{text!r} is no size; {_A_SIZE}")
    if len(given) > 30:
        raise QuantizeError(f"{text[:20]}... is no size; {_A_SIZE}")
    size = int(float(found[1]) * (1024 if found[3] else 1000) ** " kmgt".index(found[2] or " "))
    if size < 1:
        raise QuantizeError(f"{text!r} is nothing; {_A_SIZE}")
    return size


def size_text(nbytes: int) -> str:
    return f"{nbytes / 1e9:,.2f} GB" if nbytes >= 10**9 else f"{nbytes / 1e6:,.2f} MB"


def auto_budget(source: Path, context: int | None = None) -> int:
    """What this machine's memory leaves for weights, as it is now, beside so many tokens; without a number, beside what the model has, up
    to 32,768. It is what opening the result will find free. Raises QuantizeError, ModelFileError."""
    from backends.hardware import look
    from backends.memory import free_bytes, room_for_weights
    from backends.model_file import describe

    machine, shape = look(), describe(source).shape
    if shape is None:
        raise QuantizeError(f"{source} does not say how much memory a context takes; give a size instead of auto")
    tokens = min(shape.context, DEFAULT_CONTEXT) if context is None else context
    room = room_for_weights(machine, shape, tokens)
    if not room:
        raise QuantizeError(
            f"{size_text(free_bytes(machine))} of memory are free, and a context of {tokens:,} tokens takes that beside the weights; close "
            "programs, choose a smaller --context, or give a size"
        )
    return room


class Sizes:
    """What a target takes beside the tensors that can take several formats: in a named format, and in a plan.

    Raises what `convert` raises before it begins: TargetError, UnsupportedModel, ModelFileError.
    """

    def __init__(self, opened: Checkpoint | GgufSource, into: FitTarget, target: Path, force: bool) -> None:
        self._into = into
        formats = into.named()[into.small]
        plan = Plan(into.kind, 0, 0, "", assigned(into.weights(None), formats, self.tensor), packings=into.packings)
        plain, fitted = (_whole_bytes(plan_job(opened, target, to, force=force).writer) for to in (into.small, plan.target()))
        self._plain = plain - self._tensors(formats)
        # where a GGUF file's header ends depends on the note; in a folder's headers, larger formats take more digits
        slack = ALIGNMENT if into.kind == "gguf" else 16 * (1 + len(formats))
        self._fitted = fitted - self._tensors(formats) - _note_bytes(plan) + slack

    def of_plan(self, plan: Plan) -> int:
        """At most a few bytes less than this."""
        return self._fitted + sum(tensor.nbytes for tensor in plan.tensors) + _note_bytes(plan)

    def of_named(self, formats: Mapping[str, str]) -> int:
        """By tensor."""
        return self._plain + self._tensors(formats)

    def tensor(self, name: str, form: str) -> int:
        return self._into.nbytes(name, form)

    def _tensors(self, formats: Mapping[str, str]) -> int:
        return sum(self._into.nbytes(name, form) for name, form in formats.items())


def _note_bytes(plan: Plan) -> int:
    return len(json.dumps(plan.note())) if plan.kind == "mlx" else len(plan.note())


def _whole_bytes(writer: Writer) -> int:
    """With a folder's small files, its config and its index."""
    if not isinstance(writer, FolderWriter):
        return writer.size_bytes
    index = json.dumps({"metadata": {"total_size": 0} | (writer._habits.index or {}), "weight_map": writer._weight_map}, indent=2)
    texts = len(writer._config.encode()) + len(index) + len(str(writer.size_bytes)) + len(writer._habits.card or "")
    return writer.size_bytes + texts + sum(path.stat().st_size for path in writer._copies)
