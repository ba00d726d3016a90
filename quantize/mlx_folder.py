"""A checkpoint to be written as a folder that mlx-lm loads as it is, with the tensors that mlx-lm's own conversion writes.

Tensors are read, packed and written a few rows at a time; mlx-lm holds the model whole.

Source: `convert` (convert.py), `quantize_model`, `save_model`, `make_shards` (utils.py) @ml-explore/mlx-lm.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.checkpoint import Checkpoint
from quantize.dimensions import read_dimensions
from quantize.formats import in_pieces
from quantize.job import Job, Step, releasing
from quantize.loss import Loss
from quantize.mlx_config import CARD, check_mlx_limits, mlx_config
from quantize.mlx_formats import MLX_DTYPES, MlxFormat, Packing, mlx, pack
from quantize.mlx_names import MlxTensor, mlx_tensors
from quantize.plan import FP8, source_rows, tensor_names
from quantize.safetensors_folder import FolderWriter, Habits, StoredTensor

if TYPE_CHECKING:
    import numpy as np

SHARD_BYTES = 5 << 30
FIT = "localr1_fit"  # in config.json, what quantize.fit_plan says of the folder


def mlx_job(checkpoint: Checkpoint, target: Path, to: MlxFormat, *, force: bool) -> Job:
    """Raises ModelFileError, UnsupportedModel or TargetError, or QuantizeError without MLX, before anything is written."""
    mlx()
    d = read_dimensions(checkpoint.config)
    check_mlx_limits(checkpoint.config, d)
    quantization = to.default.config()
    stored: list[StoredTensor] = []
    steps: list[Step] = []
    fallbacks: list[tuple[str, str]] = []
    parameters = 0
    for tensor in mlx_tensors(tensor_names(checkpoint, d), d):
        dtypes = _dtypes(tensor, checkpoint)
        packing = to.packing(tensor.name, d.layers) if tensor.is_matrix else None
        if packing is not None and not packing.fits(tensor.shape):
            fallbacks.append((tensor.name, dtypes[-1]))
            packing = None
        if packing is not None and to.less is not None:
            quantization[tensor.name.removesuffix(".weight")] = packing.config()
        announced, more = _steps(tensor, checkpoint, dtypes, packing)
        stored += announced
        steps += more
        parameters += math.prod(tensor.shape)
    habits = Habits(format="mlx", shard_bytes=SHARD_BYTES, card=CARD, index={"total_parameters": parameters})
    config = mlx_config(checkpoint.folder, checkpoint.config, d, quantization)
    config.pop(FIT, None)
    if to.note:
        config[FIT] = to.note
    return Job(
        format=to.name,
        architecture=d.architecture,
        parameters=parameters,
        steps=steps,
        writer=FolderWriter(target, checkpoint.folder, config, stored, force=force, habits=habits),
        fallbacks=tuple(fallbacks),
    )


def _dtypes(tensor: MlxTensor, checkpoint: Checkpoint) -> list[str]:
    """The dtypes that a tensor's weights take one after another: block FP8 becomes BF16, and then all what config.json calls the model's.

    The bias of DeepSeek-V3's router keeps its own. Source: `sanitize` and `cast_predicate`, models/deepseek_v3.py@ml-explore/mlx-lm.
    """
    found = {checkpoint.dtype(source) for source in tensor.origin.sources}
    decoded = {"BF16" if dtype == FP8 else dtype for dtype in found}
    dtypes = ["BF16"] if found == {FP8} else []
    wanted = checkpoint.config.get("torch_dtype")
    models = next((dtype for dtype, name in MLX_DTYPES.items() if name == wanted), None)
    if models is None or tensor.name.endswith("e_score_correction_bias"):
        models = decoded.pop() if len(decoded) == 1 else "F32"  # what holds experts of different dtypes
    return [*dtypes, models]


def _steps(tensor: MlxTensor, checkpoint: Checkpoint, dtypes: list[str], packing: Packing | None) -> tuple[list[StoredTensor], list[Step]]:
    if packing is None:
        stored = [StoredTensor(tensor.name, dtypes[-1], tensor.shape)]
    else:
        stored = packing.stored(tensor.name, tensor.shape, dtypes[-1])
    # scales and biases are computed with the codes, and wait until these are written
    waiting: list[deque[np.ndarray]] = [deque() for _ in stored[1:]]
    first, *others = stored
    label = dtypes[-1] if packing is None else packing.name
    pieces = partial(_packed, tensor, checkpoint, dtypes, packing, waiting)
    steps = [Step(first.name, first.nbytes, pieces, tensor.shape, label)]
    steps += [Step(part.name, part.nbytes, partial(_computed, parts)) for part, parts in zip(others, waiting, strict=True)]
    return stored, steps


def _packed(
    tensor: MlxTensor,
    checkpoint: Checkpoint,
    dtypes: list[str],
    packing: Packing | None,
    waiting: list[deque[Any]],
    pool: Executor,
    loss: Loss,
) -> Iterator[np.ndarray]:
    def codes(rows: Any) -> Iterator[np.ndarray]:
        for (first, *others), lost in in_pieces(rows, lambda piece: pack(piece, dtypes, packing, loss.allow_nan), pool):
            loss.add(lost)
            for parts, part in zip(waiting, others, strict=True):
                parts.append(part)
            yield first

    for source, rows in source_rows(tensor.origin, checkpoint):
        yield from releasing(codes(rows), checkpoint, source)


def _computed(parts: deque[np.ndarray], pool: Executor, loss: Loss) -> Iterator[np.ndarray]:
    while parts:
        yield parts.popleft()
