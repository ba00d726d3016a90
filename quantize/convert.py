"""Convert a safetensors folder into one GGUF file: a complete plan from the headers, then tensor by tensor in file order."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from backends.checkpoint import Checkpoint, short
from quantize.engine_limits import check_engine_limits
from quantize.errors import QuantizeError, UnsupportedModel
from quantize.formats import F16, F32, Format, encode, writable
from quantize.gguf_file import GgufWriter, TensorInfo
from quantize.gguf_metadata import gguf_metadata
from quantize.gguf_names import Dimensions, TensorName, rope_frequency_divisors, row_order, tensor_names

if TYPE_CHECKING:
    import numpy as np

SOURCE_DTYPES = ("BF16", "F16", "F32")

# Buffers that some checkpoints carry and every program recomputes.
IGNORED_SUFFIXES = (".rotary_emb.inv_freq",)

# Mapped pages count as memory in use until released: after every 64 MiB or so of a tensor.
RELEASE_PIECES = 128


@dataclass(frozen=True, slots=True)
class Progress:
    """After each tensor: its GGUF name, and how much of the file's tensors and bytes is written."""

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


@dataclass(frozen=True, slots=True)
class Step:
    """One tensor to write. `source` is its name in the checkpoint; None: rope_freqs, which is computed."""

    info: TensorInfo
    source: str | None
    reorder_heads: int | None


def convert(
    source: Path, target: Path, format: str, *, on_progress: Callable[[Progress], None] | None = None, force: bool = False
) -> Report:
    """Convert the checkpoint folder `source` into the GGUF file `target`; `format` is F32, F16, BF16 or Q8_0.

    Memory: a few pieces of one tensor, besides the tokenizer. The target appears when it is complete, or not at all;
    an exception raised by `on_progress` stops the work.

    Raises ModelFileError (the source is damaged), UnsupportedModel (it is of a kind that cannot be written), TargetError
    (the target exists, or there is no room), QuantizeError (unknown format, weights that do not fit it).
    """
    started = time.perf_counter()
    to = writable(format)
    with Checkpoint.open(source) as checkpoint:
        dimensions = Dimensions.from_config(checkpoint.config)
        check_engine_limits(checkpoint.config, dimensions)
        divisors = rope_frequency_divisors(dimensions)
        steps = plan(checkpoint, dimensions, to, divisors)
        infos = [step.info for step in steps]
        parameters = sum(math.prod(info.shape) for info in infos)
        metadata = gguf_metadata(checkpoint.folder, checkpoint.config, dimensions, to, parameters)
        total_bytes = sum(info.nbytes for info in infos)
        done_bytes = 0
        with GgufWriter(target, metadata, infos, force=force) as writer, ThreadPoolExecutor(_processors()) as pool:
            for done, step in enumerate(steps, 1):
                _write(writer, step, checkpoint, divisors, pool)
                done_bytes += step.info.nbytes
                if on_progress is not None:
                    on_progress(Progress(step.info.name, done, len(steps), done_bytes, total_bytes))
        return Report(
            source=source,
            target=target,
            format=to.name,
            architecture=dimensions.architecture,
            tensors=len(steps),
            parameters=parameters,
            source_bytes=checkpoint.bytes_total,
            target_bytes=writer.size_bytes,
            bits_per_weight=total_bytes * 8 / parameters,
            fallbacks=tuple((i.name, i.format.name) for i in infos if len(i.shape) > 1 and i.format is not to),
            seconds=time.perf_counter() - started,
        )


def plan(checkpoint: Checkpoint, dimensions: Dimensions, to: Format, divisors: np.ndarray | None) -> list[Step]:
    """Every tensor of the file to write, in the checkpoint's order. Raises UnsupportedModel: unknown, missing or misshapen tensors."""
    if dimensions.layers > len(checkpoint.names()):
        raise UnsupportedModel(
            f"config.json: num_hidden_layers is {dimensions.layers:,}, the weights hold only {len(checkpoint.names()):,} tensors"
        )
    wanted = tensor_names(dimensions)
    steps = [] if divisors is None else [Step(TensorInfo("rope_freqs.weight", divisors.shape, F32), None, None)]
    for name in checkpoint.names():
        if name.endswith(IGNORED_SUFFIXES):
            continue
        if name not in wanted:
            raise UnsupportedModel(
                f"tensor {short(name, 120)} is not part of a {dimensions.architecture} model of {dimensions.layers} layers as config.json describes it"
            )
        _check(name, wanted[name], checkpoint)
        form = _choose(wanted[name], to)
        steps.append(Step(TensorInfo(wanted[name].gguf, wanted[name].shape, form), name, wanted[name].reorder_heads))
    missing = [name for name, tensor in wanted.items() if name not in checkpoint and not tensor.optional]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UnsupportedModel(f"the checkpoint lacks tensor {missing[0]!r}{more}, which config.json calls for; download it again")
    return steps


def _check(name: str, tensor: TensorName, checkpoint: Checkpoint) -> None:
    if checkpoint.shape(name) != tensor.shape:
        raise UnsupportedModel(
            f"tensor {short(name, 120)} has the shape {list(checkpoint.shape(name))}, config.json calls for {list(tensor.shape)}"
        )
    if checkpoint.dtype(name) not in SOURCE_DTYPES:
        raise UnsupportedModel(
            f"tensor {short(name, 120)} is {checkpoint.dtype(name)}; weights in {', '.join(SOURCE_DTYPES)} can be converted"
        )


def _choose(tensor: TensorName, to: Format) -> Format:
    """Norms and biases stay F32: they are tiny and llama.cpp takes nothing else. Rows that are not whole blocks become F16."""
    if len(tensor.shape) == 1:
        return F32
    return to if to.fits(tensor.shape) else F16


def _write(writer: GgufWriter, step: Step, checkpoint: Checkpoint, divisors: np.ndarray | None, pool: ThreadPoolExecutor) -> None:
    if step.source is None:
        assert divisors is not None
        writer.write(step.info.name, encode(divisors, step.info.format, pool))
        return
    order = None if step.reorder_heads is None else row_order(step.info.shape[0], step.reorder_heads)
    pieces = encode(checkpoint.read(step.source), step.info.format, pool, order)
    writer.write(step.info.name, _releasing(pieces, checkpoint, step.source))


def _releasing(pieces: Iterator[np.ndarray], checkpoint: Checkpoint, name: str) -> Iterator[np.ndarray]:
    """Pass the pieces on; give the source's pages back as they are used up, and name the tensor in an encoding error."""
    try:
        for count, piece in enumerate(pieces, 1):
            yield piece
            if count % RELEASE_PIECES == 0:
                checkpoint.release(name)
    except QuantizeError as error:
        raise type(error)(f"tensor {short(name, 120)} {error}") from None
    finally:
        checkpoint.release(name)


def _processors() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
