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
from quantize.formats import F32, Format, encode
from quantize.gguf_file import GgufWriter, TensorInfo
from quantize.gguf_metadata import gguf_metadata
from quantize.gguf_names import TensorName, rope_frequency_divisors
from quantize.job import Job, Step, releasing
from quantize.loss import Loss
from quantize.plan import source_rows, tensor_names
from quantize.recipe import Mix, Traits, choose, importance_for, misfits

if TYPE_CHECKING:
    import numpy as np

    from quantize.imatrix import ImportanceMatrix


def gguf_job(checkpoint: Checkpoint, target: Path, to: Mix, *, force: bool, imatrix: ImportanceMatrix | None = None) -> Job:
    """Raises ModelFileError, UnsupportedModel, QuantizeError or TargetError, before anything is written."""
    d = read_dimensions(checkpoint.config)
    check_engine_limits(checkpoint.config, d)
    tensors = [tensor for tensor in tensor_names(checkpoint, d) if not tensor.dropped]  # sizes are those of the weights from here on
    divisors = rope_frequency_divisors(d)
    infos, steps, fallbacks = [], [], []
    if divisors is not None:
        infos.append(TensorInfo("rope_freqs.weight", divisors.shape, F32))
        steps.append(Step(infos[0].name, infos[0].nbytes, partial(encode, divisors.reshape(1, -1), F32), divisors.shape, F32.name))
    choices = choose(to, [(t.gguf, t.shape) for t in tensors], Traits.of(d), imatrix=imatrix is not None)
    for tensor, choice in zip(tensors, choices, strict=True):
        importance = importance_for(tensor.gguf, tensor.shape, choice.format, to, imatrix)
        infos.append(info := TensorInfo(tensor.gguf, tensor.shape, choice.format))
        pieces = partial(_pieces, tensor, checkpoint, info.format, importance)
        steps.append(Step(info.name, info.nbytes, pieces, info.shape, info.format.name))
        if choice.instead_of is not None:
            fallbacks.append((info.name, info.format.name))
    return Job(
        format=to.name,
        architecture=d.architecture,
        parameters=sum(math.prod(info.shape) for info in infos),
        steps=steps,
        writer=GgufWriter(target, gguf_metadata(checkpoint.folder, checkpoint.config, d, to, infos), infos, force=force),
        fallbacks=tuple(fallbacks),
        warnings=misfits(infos, imatrix),
    )


def _pieces(
    tensor: TensorName, checkpoint: Checkpoint, to: Format, importance: np.ndarray | None, pool: Executor, loss: Loss
) -> Iterator[np.ndarray]:
    for i, (source, rows) in enumerate(source_rows(tensor, checkpoint)):
        inputs = importance
        if importance is not None and len(tensor.sources) > 1:  # a stack of experts: one at a time
            inputs = importance[i : i + 1]
        yield from releasing(encode(rows, to, pool, loss, inputs), checkpoint, source)
