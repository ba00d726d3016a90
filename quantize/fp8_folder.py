"""A checkpoint to be written as DeepSeek stores its own: the large matrices in block FP8, everything else as it is.

Every projection and every feed-forward matrix becomes E4M3 codes and one float32 scale for 128 x 128 of them. Embeddings, the output
matrix, norms, biases and routers keep their format.

Source: README_WEIGHTS.md and inference/fp8_cast_bf16.py @deepseek-ai/DeepSeek-V3.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from backends.checkpoint import Checkpoint
from quantize.dimensions import read_dimensions
from quantize.errors import UnsupportedModel
from quantize.formats import in_pieces, not_finite, without
from quantize.job import Job, Step, releasing
from quantize.loss import Loss, measure
from quantize.plan import FP8, IGNORED_SUFFIXES, SCALE, tensor_names
from quantize.rows import FP8_BLOCK
from quantize.safetensors_folder import FolderWriter, StoredTensor

if TYPE_CHECKING:
    import numpy as np

QUANTIZATION = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [FP8_BLOCK, FP8_BLOCK]}

_MATRIX = re.compile(
    r"model\.layers\.\d+\.(self_attn\.(q|k|v|o|q_a|q_b|kv_b)_proj|self_attn\.kv_a_proj_with_mqa"
    r"|mlp\.((experts\.\d+|shared_experts)\.)?(gate|up|down)_proj)\.weight"
)

COPY_ELEMENTS = 1 << 18


def fp8_job(checkpoint: Checkpoint, target: Path, *, force: bool) -> Job:
    """Raises ModelFileError, UnsupportedModel or TargetError, before anything is written."""
    d = read_dimensions(checkpoint.config)
    tensor_names(checkpoint, d)  # checks them
    if any(checkpoint.dtype(name) == FP8 for name in checkpoint.names()):
        raise UnsupportedModel(f"{checkpoint.folder}: is in block FP8 already; copy the folder")
    tensors: list[StoredTensor] = []
    steps: list[Step] = []
    for name in checkpoint.names():
        shape = checkpoint.shape(name)
        if name.endswith(IGNORED_SUFFIXES):
            continue
        if _MATRIX.fullmatch(name):
            scales: deque[np.ndarray] = deque()  # filled while the codes are written
            weight = StoredTensor(name, FP8, shape)
            scale = StoredTensor(name + SCALE, "F32", (-(-shape[0] // FP8_BLOCK), -(-shape[1] // FP8_BLOCK)))
            tensors += [weight, scale]
            steps.append(Step(name, weight.nbytes, partial(_codes, checkpoint, name, scales), shape, "FP8"))
            steps.append(Step(scale.name, scale.nbytes, partial(_scales, scales)))
        else:
            tensors.append(StoredTensor(name, checkpoint.dtype(name), shape))
            steps.append(Step(name, checkpoint.nbytes(name), partial(_copy, checkpoint, name), shape, checkpoint.dtype(name)))
    config = checkpoint.config | {"quantization_config": QUANTIZATION}
    return Job(
        format="FP8",
        architecture=d.architecture,
        parameters=sum(math.prod(tensor.shape) for tensor in tensors if not tensor.name.endswith(SCALE)),
        steps=steps,
        writer=FolderWriter(target, checkpoint.folder, config, tensors, force=force),
    )


def _codes(checkpoint: Checkpoint, name: str, scales: deque[np.ndarray], pool: Executor, loss: Loss) -> Iterator[np.ndarray]:
    def quantized() -> Iterator[np.ndarray]:
        for codes, scale, lost in in_pieces(checkpoint.read(name), partial(_quantize, allow_nan=loss.allow_nan), pool, multiple=FP8_BLOCK):
            scales.append(scale)
            loss.add(lost)
            yield codes

    return releasing(quantized(), checkpoint, name)


def _quantize(rows: np.ndarray, allow_nan: bool) -> tuple[np.ndarray, np.ndarray, Loss]:
    """[n, K] -> uint8 codes [n, K], float32 scales [ceil(n/128), ceil(K/128)], and what that cost."""
    import numpy as np

    from backends.reference.fp8 import dequantize_blocks, quantize_blocks

    bad = not_finite(rows, allow_nan)
    wide = np.require(without(rows) if bad else rows, np.float32, ["C", "A"])
    codes, scales = quantize_blocks(wide)
    lost = measure(wide, dequantize_blocks(codes, scales))
    lost.zeroed = bad
    return codes, scales, lost


def _scales(scales: deque[np.ndarray], pool: Executor, loss: Loss) -> Iterator[np.ndarray]:
    while scales:
        yield scales.popleft()


def _copy(checkpoint: Checkpoint, name: str, pool: Executor, loss: Loss) -> Iterator[np.ndarray]:
    return releasing(_checked(checkpoint.read(name).reshape(-1), loss), checkpoint, name)


def _checked(weights: np.ndarray, loss: Loss) -> Iterator[np.ndarray]:
    """[n] of float32, float16 or bfloat16, as they are. Raises QuantizeError unless they are finite, or need not be."""
    for i in range(0, len(weights), COPY_ELEMENTS):
        some = weights[i : i + COPY_ELEMENTS]
        loss.kept += not_finite(some, loss.allow_nan)
        yield some.view("u1")
