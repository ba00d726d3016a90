"""Convert a safetensors folder or a GGUF file: a complete plan from the headers, then tensor by tensor, into a file or folder that appears when it is whole."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from backends.base import ModelFileError
from backends.checkpoint import Checkpoint, short
from backends.gguf_header import is_gguf
from quantize.errors import QuantizeError, TargetError
from quantize.fp8_folder import fp8_job
from quantize.gguf_job import gguf_job
from quantize.gguf_source import GgufSource, requantize_job
from quantize.job import Job, Step
from quantize.loss import TensorLoss
from quantize.mlx_folder import mlx_job
from quantize.mlx_formats import PREFIX, MlxFormat, mlx_format
from quantize.recipe import Mix, mix

if TYPE_CHECKING:
    from quantize.imatrix import ImportanceMatrix


@dataclass(frozen=True, slots=True)
class Progress:
    """After each tensor: its name, and how much of the target's tensors and bytes is written."""

    tensor: str
    done_tensors: int
    total_tensors: int
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Report:
    """What was written. `fallbacks`: (tensor, format) pairs that could not take the format asked for, and took this one. `losses`: what
    became of each of the model's tensors."""

    source: Path
    target: Path
    format: str
    architecture: str
    tensors: int
    parameters: int
    source_bytes: int
    target_bytes: int
    bits_per_weight: float
    fallbacks: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    losses: tuple[TensorLoss, ...]
    seconds: float


def convert(
    source: Path,
    target: Path,
    format: str | Mix | MlxFormat,
    *,
    imatrix: ImportanceMatrix | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    force: bool = False,
    allow_nan: bool = False,
) -> Report:
    """Convert the checkpoint folder, or GGUF file, `source`: into the GGUF file `target` if `format` is one of quantize.recipe.MIXES, or into the
    checkpoint folder `target` if it is FP8, DeepSeek's block FP8, or one of MLX's formats (mlx-4bit, ...). `imatrix` says
    which inputs of a weight matter, to GGUF's quantized formats. A plan of quantize.fit is given as its `target()`. `allow_nan`: weights
    that are infinite or not a number stay so where the format can hold them, and become 0 in blocks; the report's warnings name them.

    Memory: a few pieces of one tensor, besides the tokenizer. The target appears when it is complete, or not at all;
    an exception raised by `on_progress` stops the work.

    Raises ModelFileError (the source is damaged, or written meanwhile), UnsupportedModel (it is of a kind that cannot be written), TargetError
    (the target exists, or there is no room), QuantizeError (unknown format, weights that do not fit it, or are not finite).
    """
    started = time.perf_counter()
    with open_source(source) as opened:
        job = plan_job(opened, target, format, imatrix=imatrix, force=force)
        total_bytes = sum(step.nbytes for step in job.steps)
        done_bytes = 0
        with job.writer as writer, ThreadPoolExecutor(_processors()) as pool:
            for done, step in enumerate(job.steps, 1):
                step.loss.allow_nan = allow_nan
                writer.write(step.name, step.pieces(pool, step.loss))
                done_bytes += step.nbytes
                if on_progress is not None:
                    on_progress(Progress(step.name, done, len(job.steps), done_bytes, total_bytes))
            opened.check_unchanged()
        return Report(
            source=source,
            target=target,
            format=job.format,
            architecture=job.architecture,
            tensors=len(job.steps),
            parameters=job.parameters,
            source_bytes=opened.bytes_total,
            target_bytes=writer.size_bytes,
            bits_per_weight=total_bytes * 8 / job.parameters,
            fallbacks=job.fallbacks,
            warnings=(*job.warnings, *_not_finite(job.steps)),
            losses=_losses(job.steps),
            seconds=time.perf_counter() - started,
        )


def _not_finite(steps: Sequence[Step]) -> Iterator[str]:
    for step in steps:
        for count, now in ((step.loss.kept, "kept as they are"), (step.loss.zeroed, "written as 0")):
            if count:
                verb = "weight is" if count == 1 else "weights are"
                yield f"tensor {short(step.name, 120)}: {count:,} {verb} infinite or not a number, {now}"


def _losses(steps: Sequence[Step]) -> tuple[TensorLoss, ...]:
    found: list[TensorLoss] = []
    for step in steps:
        if step.shape is None or step.format is None:  # scales, biases
            found[-1] = replace(found[-1], nbytes=found[-1].nbytes + step.nbytes)
        else:
            loss = step.loss
            found.append(TensorLoss(step.name, step.shape, step.format, step.nbytes, loss.squared_error, loss.squared_weights))
    return tuple(found)


def open_source(source: Path) -> Checkpoint | GgufSource:
    """A context manager. Raises ModelFileError or UnsupportedModel."""
    try:
        gguf = (source.suffix == ".gguf" and (source.is_file() or not source.exists())) or (source.is_file() and is_gguf(source))
    except OSError as error:
        raise ModelFileError(f"{source}: cannot be read ({error.strerror}); check the path") from None
    return GgufSource(source) if gguf else Checkpoint.open(source)


def plan_job(
    source: Checkpoint | GgufSource,
    target: Path,
    format: str | Mix | MlxFormat,
    *,
    imatrix: ImportanceMatrix | None = None,
    force: bool = False,
) -> Job:
    """What `convert` carries out. Raises what it raises before anything is written."""
    job = _job(source, target, wanted(format) if isinstance(format, str) else format, force, imatrix)
    _check_apart(source, target)
    return job


def _job(source: Checkpoint | GgufSource, target: Path, to: Mix | MlxFormat | None, force: bool, imatrix: ImportanceMatrix | None) -> Job:
    if isinstance(source, GgufSource):
        if not isinstance(to, Mix):
            name = "fp8" if to is None else to.name
            raise QuantizeError(f"{source.path} is a GGUF file, which can become another one only; for {name}, give the checkpoint folder")
        return requantize_job(source, target, to, force=force, imatrix=imatrix)
    if to is None:
        return fp8_job(source, target, force=force)
    if isinstance(to, Mix):
        return gguf_job(source, target, to, force=force, imatrix=imatrix)
    return mlx_job(source, target, to, force=force)


def _check_apart(source: Checkpoint | GgufSource, target: Path) -> None:
    """Raises TargetError: writing the target would replace what is read."""
    read = [source.path] if isinstance(source, GgufSource) else [source.folder, *(source.folder / file for file in source.files())]
    try:
        place = target.resolve()
        same = place in (path.resolve() for path in read)
    except OSError as error:
        raise TargetError(f"{target}: cannot be used ({error.strerror}); choose another name") from None
    if same:
        raise TargetError(f"{target}: is what is converted, and is not replaced; choose another name")


def wanted(name: str) -> Mix | MlxFormat | None:
    """None of FP8. Raises QuantizeError: there is none of that name."""
    if name.lower().startswith(PREFIX):
        return mlx_format(name)
    return None if name.upper() == "FP8" else mix(name)


def _processors() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
