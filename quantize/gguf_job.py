"""A checkpoint to be written as one GGUF file: which tensor takes which format, and what it is made of."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from backends.checkpoint import Checkpoint
from quantize.dimensions import read_dimensions
from quantize.engine_limits import check_engine_limits
from quantize.formats import F16, F32, Format, encode
from quantize.gguf_file import GgufWriter, TensorInfo
from quantize.gguf_metadata import gguf_metadata
from quantize.gguf_names import TensorName, rope_frequency_divisors
from quantize.job import Job, Step, releasing
from quantize.plan import source_rows, tensor_names

if TYPE_CHECKING:
    import numpy as np


def gguf_job(checkpoint: Checkpoint, target: Path, to: Format, *, force: bool) -> Job:
    """Raises ModelFileError, UnsupportedModel or TargetError, before anything is written."""
    d = read_dimensions(checkpoint.config)
    check_engine_limits(checkpoint.config, d)
    divisors = rope_frequency_divisors(d)
    infos, steps, fallbacks = [], [], []
    if divisors is not None:
        infos.append(TensorInfo("rope_freqs.weight", divisors.shape, F32))
        steps.append(Step(infos[0].name, infos[0].nbytes, partial(encode, divisors.reshape(1, -1), F32)))
    for tensor in tensor_names(checkpoint, d):
        if not tensor.dropped:
            infos.append(info := TensorInfo(tensor.gguf, tensor.shape, _choose(tensor, to)))
            steps.append(Step(info.name, info.nbytes, partial(_pieces, tensor, checkpoint, info.format)))
            if info.format is not to and not tensor.always_f32:
                fallbacks.append((info.name, info.format.name))
    return Job(
        format=to.name,
        architecture=d.architecture,
        parameters=sum(math.prod(info.shape) for info in infos),
        steps=steps,
        writer=GgufWriter(target, gguf_metadata(checkpoint.folder, checkpoint.config, d, to, infos), infos, force=force),
        fallbacks=tuple(fallbacks),
    )


def _choose(tensor: TensorName, to: Format) -> Format:
    """Norms, biases and routers stay F32: they are tiny and llama.cpp takes nothing else. Rows that are not whole blocks become F16."""
    if tensor.always_f32:
        return F32
    return to if to.fits(tensor.shape) else F16


def _pieces(tensor: TensorName, checkpoint: Checkpoint, to: Format, pool: Executor) -> Iterator[np.ndarray]:
    for source, rows in source_rows(tensor, checkpoint):
        yield from releasing(encode(rows, to, pool), checkpoint, source)
