"""What a conversion changed in what the model says: source and target predict the same held-out text, one after the other.

A checkpoint runs as a temporary GGUF file that holds its weights as they are; a folder in block FP8, and its source, run in the numpy
reference. Everything temporary is in one folder beside the target, which is gone afterwards, whatever happens.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from backends import compare
from backends.base import Backend, ModelFileError, Special, Text
from backends.checkpoint import Checkpoint
from backends.compare import Comparison
from quantize.calibrate import cut, heldout
from quantize.convert import Progress as Converted
from quantize.convert import convert, open_source
from quantize.dimensions import read_dimensions
from quantize.errors import QuantizeError
from quantize.gguf_source import GgufSource
from quantize.mlx_formats import PREFIX, MlxFormat
from quantize.parts import Part
from quantize.plan import FP8, SCALE, tensor_names
from quantize.recipe import Mix, takes_format
from quantize.safetensors_folder import small_files
from quantize.sizes import mix_sizes

DEFAULT_BELOW = 500_000_000  # parameters: what is evaluated without being asked
WINDOW_TOKENS = 512
MOST_WINDOWS = {"gguf": 16, "reference": 4}  # numpy is slow
MEMORY_BYTES = 256 << 20  # a baseline up to this size stays in memory

Tasks = Callable[[Backend, compare.Progress], dict[str, float]]  # family -> share of rightly answered problems


@dataclass(frozen=True, slots=True)
class Material:
    """What to evaluate one model with, in place of the held-out text: windows of its own tokens, all of one length, and tasks."""

    name: str
    windows: list[list[int]]
    tasks: Tasks


Say = Callable[[str], None]
Progress = Callable[[str, int, int], None]  # what is being done; how much of it, of how much


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`engine` ran both; `baseline`: the format of the GGUF file that the source ran as, None for itself; `material`: what they read.
    `tasks`: family -> shares of rightly answered problems, by source and by target."""

    comparison: Comparison
    engine: str
    baseline: str | None
    material: str
    windows: int
    window_tokens: int
    tasks: dict[str, tuple[float, float]]
    seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """An evaluation, decided on. `baseline`: the mix of the source's temporary GGUF file; None runs the source as it is."""

    source: Path
    target: Path
    engine: Literal["gguf", "reference"]
    baseline: str | None
    baseline_bytes: int
    window_tokens: int
    vocabulary: int

    @property
    def scores_bytes(self) -> int:
        """What the source's scores take on disk; 0 if they stay in memory."""
        elements = MOST_WINDOWS[self.engine] * compare.scored(self.window_tokens) * self.vocabulary
        return 2 * elements if 4 * elements > MEMORY_BYTES else 0


class NotEvaluated(QuantizeError):
    """Why there is nothing to say of what the model says."""


def plan(source: Path, target: Path, format: str | Mix | MlxFormat, *, asked: bool = False) -> Plan:
    """Whether and how to evaluate a conversion, before it begins.

    Raises NotEvaluated: nothing here runs the target, there is no room, or the model is large and it was not `asked` for.
    ModelFileError or UnsupportedModel: the source cannot be converted either.
    """
    name = format if isinstance(format, str) else format.name
    if isinstance(format, MlxFormat) or name.lower().startswith(PREFIX):
        raise NotEvaluated("of MLX folders, `localr1 verify SOURCE --against FOLDER` tells")
    with open_source(source) as opened:
        parameters = _parameters(opened)
        if parameters >= DEFAULT_BELOW and not asked:
            raise NotEvaluated(f"that runs two models of {parameters / 1e6:,.0f}M parameters; --eval does it")
        sizes = mix_sizes(opened, imatrix=True)
        header = _small_bytes(source) if source.is_dir() else 0
        baseline = None
        if isinstance(opened, GgufSource):
            vocabulary, trained = len(_meta(opened, "tokenizer.ggml.tokens", [])), _meta(opened, f"{opened.architecture}.context_length", 0)
        else:
            d = read_dimensions(opened.config)
            vocabulary, trained = d.vocabulary, d.context
            if name.upper() != "FP8":
                baseline = _as_it_is(opened)
        header += 32 * vocabulary  # no header is larger
        found = Plan(
            source,
            target,
            engine="reference" if name.upper() == "FP8" else "gguf",
            baseline=baseline,
            baseline_bytes=sizes[baseline] + header if baseline else 0,
            window_tokens=min(WINDOW_TOKENS, trained),
            vocabulary=vocabulary,
        )
        needed = found.baseline_bytes + found.scores_bytes + sizes.get(name.upper(), opened.bytes_total) + header
    free = shutil.disk_usage(target.parent).free if target.parent.is_dir() else needed
    if needed > free:
        raise NotEvaluated(f"with the source as a temporary file it takes {needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free")
    return found


def _small_bytes(folder: Path) -> int:
    """Of the tokenizer and the like, for how large a header may be; a file that cannot be copied is told where files are copied."""
    try:
        return sum(path.stat().st_size for path in small_files(folder))
    except ModelFileError:
        return 0


def evaluate(
    plan: Plan,
    material: Material | None = None,
    *,
    say: Say = lambda line: None,
    on_progress: Progress = lambda what, done, total: None,
) -> Evaluation:
    """Carry it out, when the target is written.

    `say` is told which temporary file the source runs from. An exception raised by it or by `on_progress` stops the work.
    Raises BackendError (a model cannot be run, its scores cannot be kept), TargetError (no room for the temporary file), QuantizeError.
    """
    started = time.perf_counter()
    part = Part(plan.target)
    try:
        part.create(Path.mkdir)
        path = plan.source
        if plan.baseline is not None:
            path = part.path / f"source-{plan.baseline}.gguf"
            say(f"evaluating: the source runs from {path} ({plan.baseline_bytes / 1e6:,.0f} MB), which is removed afterwards")

            def converted(progress: Converted) -> None:
                on_progress(f"the source as {plan.baseline}", progress.done_bytes, progress.total_bytes)

            convert(plan.source, path, plan.baseline, on_progress=converted)
        tasks = material.tasks if material is not None and plan.engine == "gguf" else None  # numpy would take minutes
        context = plan.window_tokens if tasks is None else None
        with _open(plan, path, context) as backend:
            windows = material.windows if material is not None else _windows(backend, plan.window_tokens)
            windows = windows[: MOST_WINDOWS[plan.engine]]
            scores = part.path / "scores" if plan.scores_bytes else None
            baseline = compare.read(backend, windows, scores, partial(on_progress, "the source reads"))
            before = tasks(backend, partial(on_progress, "the source answers")) if tasks else {}
        if plan.baseline is not None:
            path.unlink()
        with _open(plan, plan.target, context) as backend:
            comparison = compare.compare(baseline, backend, partial(on_progress, "the target reads"))
            after = tasks(backend, partial(on_progress, "the target answers")) if tasks else {}
        return Evaluation(
            comparison=comparison,
            engine=plan.engine,
            baseline=plan.baseline,
            material=material.name if material is not None else "the held-out text",
            windows=len(windows),
            window_tokens=plan.window_tokens,
            tasks={family: (share, after[family]) for family, share in before.items()},
            seconds=time.perf_counter() - started,
        )
    finally:
        part.discard()


def _open(plan: Plan, path: Path, context: int | None) -> Backend:
    if plan.engine == "reference":
        from backends.reference.backend import ReferenceBackend

        return ReferenceBackend(path, context)
    from backends.llamacpp import LlamaCppBackend

    return LlamaCppBackend(path, context)


def _windows(backend: Backend, tokens: int) -> list[list[int]]:
    return cut(backend.encode([Text(heldout())]), _bos(backend), tokens)


def _bos(backend: Backend) -> int | None:
    """The token that a text begins with, if prompts of this model begin with it."""
    form = backend.chat_format
    if not form.bos_token or "bos_token" not in form.template:
        return None
    return backend.encode([Special(form.bos_token)])[0]


def _meta(source: GgufSource, key: str, default: Any) -> Any:
    value = source.header.metadata.get(key, default)
    return value if isinstance(value, type(default)) else default


def _parameters(source: Checkpoint | GgufSource) -> int:
    if isinstance(source, GgufSource):
        return sum(math.prod(tensor.shape) for tensor in source.header.tensors)
    return sum(math.prod(source.shape(name)) for name in source.names() if not name.endswith(SCALE))


def _as_it_is(checkpoint: Checkpoint) -> str:
    """The mix that holds a checkpoint's matrices without rounding them. Block FP8 becomes BF16, as DeepSeek's own script has it."""
    tensors = tensor_names(checkpoint, read_dimensions(checkpoint.config))
    wanted = [t for t in tensors if takes_format(t.gguf, t.shape) and not t.dropped]
    dtypes = {checkpoint.dtype(source) for tensor in wanted for source in tensor.sources}
    found = {"BF16" if dtype == FP8 else dtype for dtype in dtypes}
    return found.pop() if len(found) == 1 else "F32"
