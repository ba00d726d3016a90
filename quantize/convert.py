"""Convert a safetensors folder: a complete plan from the headers, then tensor by tensor, into a file or folder that appears when it is whole."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from backends.checkpoint import Checkpoint
from quantize.formats import writable
from quantize.fp8_folder import fp8_job
from quantize.gguf_job import gguf_job


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
    """What was written. `fallbacks`: (tensor, format) pairs that could not take the format asked for, and took this one."""

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
    seconds: float


def convert(
    source: Path, target: Path, format: str, *, on_progress: Callable[[Progress], None] | None = None, force: bool = False
) -> Report:
    """Convert the checkpoint folder `source`: into the GGUF file `target` if `format` is F32, F16, BF16 or Q8_0, or into the
    checkpoint folder `target` if it is FP8, DeepSeek's block FP8.

    Memory: a few pieces of one tensor, besides the tokenizer. The target appears when it is complete, or not at all;
    an exception raised by `on_progress` stops the work.

    Raises ModelFileError (the source is damaged), UnsupportedModel (it is of a kind that cannot be written), TargetError
    (the target exists, or there is no room), QuantizeError (unknown format, weights that do not fit it).
    """
    started = time.perf_counter()
    to = None if format.upper() == "FP8" else writable(format)
    with Checkpoint.open(source) as checkpoint:
        job = fp8_job(checkpoint, target, force=force) if to is None else gguf_job(checkpoint, target, to, force=force)
        total_bytes = sum(step.nbytes for step in job.steps)
        done_bytes = 0
        with job.writer as writer, ThreadPoolExecutor(_processors()) as pool:
            for done, step in enumerate(job.steps, 1):
                writer.write(step.name, step.pieces(pool))
                done_bytes += step.nbytes
                if on_progress is not None:
                    on_progress(Progress(step.name, done, len(job.steps), done_bytes, total_bytes))
        return Report(
            source=source,
            target=target,
            format=job.format,
            architecture=job.architecture,
            tensors=len(job.steps),
            parameters=job.parameters,
            source_bytes=checkpoint.bytes_total,
            target_bytes=writer.size_bytes,
            bits_per_weight=total_bytes * 8 / job.parameters,
            fallbacks=job.fallbacks,
            seconds=time.perf_counter() - started,
        )


def _processors() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
