"""Tensors of a checkpoint as the architecture uses them: checked, in float32, kept where they fit, else read anew for each use.

Three ways to compute with block-FP8 weights (`fp8`): "off" dequantizes them to float32; "weights" is the same arithmetic from FP8
storage; "full" quantizes the activations as well, in exactly the linears that DeepSeek computes in FP8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import ml_dtypes
import numpy as np

from backends.base import ModelFileError
from backends.checkpoint import Checkpoint, short
from backends.reference import fp8
from backends.reference.config import Config
from backends.reference.shapes import Shape, is_optional, layer_shapes, mtp_layers, mtp_shapes, tensor_shapes

Fp8Mode = Literal["off", "weights", "full"]
Linear = Callable[[np.ndarray], np.ndarray]  # float32 [T, K] -> [T, N]

SCALE = "_scale_inv"
FLOATS = ("F32", "BF16", "F16", "F64")
SCALES = ("F32", "BF16", "F8_E8M0")
IGNORED = ".rotary_emb.inv_freq"  # recomputed by every program
# Never quantized (DeepSeek-V3 report, 3.3): embedding, output head, router, norms.
NOT_FP8 = ("embed_tokens.weight", "head.weight", "gate.weight")
UNQUANTIZED_INPUT = "eh_proj.weight"  # published in BF16: no FP8 linear, however it is stored
# A checkpoint up to this size is searched for NaN when it is opened; a larger one tensor by tensor, as it is used.
SCAN_BYTES = 1 << 30
PIECE_ELEMENTS = 1 << 20


class Weights:
    """The tensors of an open checkpoint. float32 copies are kept if all of them fit into half of the free memory.

    Raises ModelFileError naming the tensor: missing, surplus, misshapen, of a wrong dtype, a scale without its weight, NaN.
    """

    def __init__(self, checkpoint: Checkpoint, config: Config, mode: Fp8Mode) -> None:
        if mode == "full" and not any(checkpoint.dtype(name) == "F8_E4M3" for name in checkpoint.names()):
            raise ModelFileError(
                f"{checkpoint.folder}: holds no FP8 weights, so --fp8 full has nothing to compute in FP8; "
                "use --fp8 off, or make an FP8 checkpoint of it: localr1 quantize SRC DST --to fp8"
            )
        self._checkpoint, self._config, self._mode = checkpoint, config, mode
        self.has_mtp = check_tensors(checkpoint, config)
        self._kept: dict[str, np.ndarray] = {}
        self._clean: set[str] = set()  # tensors seen to be free of NaN
        self._keeps = _fits(checkpoint)
        check_tied(checkpoint, config.tie_word_embeddings)
        if checkpoint.bytes_total <= SCAN_BYTES:
            for name in checkpoint.names():
                self._check_values(name)

    def __contains__(self, name: str) -> bool:
        return name in self._checkpoint

    def array(self, name: str) -> np.ndarray:
        """The whole tensor in float32; kept."""
        if name not in self._kept:
            self._check_values(name)
            self._kept[name] = self.dequantized(name)
        return self._kept[name]

    def dequantized(self, name: str) -> np.ndarray:
        """The whole tensor in float32; kept only where that is allowed for matrices."""
        if name in self._kept:
            return self._kept[name]
        self._check_values(name)
        stored = self._checkpoint.read(name)
        coded = self._is_fp8(name)
        out = fp8.dequantize_blocks(stored.view(np.uint8), self._scale_inv(name)) if coded else to_float32(stored)
        if self._keeps_copy(name):
            self._kept[name] = out
        self._checkpoint.release(name)
        return out

    def rows(self, name: str, ids: np.ndarray) -> np.ndarray:
        """float32 [len(ids), D]: rows of an embedding; nothing else of it is read."""
        rows = to_float32(self._checkpoint.read(name)[ids])
        if not np.isfinite(rows).all():
            raise _not_finite(name)
        return rows

    def linear(self, prefix: str) -> Linear:
        """x -> x Wᵀ + b for `<prefix>.weight` and, where there is one, `<prefix>.bias`."""
        name = f"{prefix}.weight"
        multiply = self._multiply(name)
        if f"{prefix}.bias" not in self:
            return multiply
        bias = self.array(f"{prefix}.bias")
        return lambda x: multiply(x) + bias

    def observe(self, name: str, x: np.ndarray) -> None:
        """Called with the inputs of matrices that `linear` does not multiply with, for a subclass that looks at them: [T, K] or [T, H, K]."""

    def _multiply(self, name: str) -> Linear:
        if self._is_fp8(name) and self._mode != "off":
            if self._mode == "full" and not name.endswith(UNQUANTIZED_INPUT):
                return self._from_storage(name, lambda x, codes, scale: fp8.fp8_linear(x, codes, scale, ue8m0=self._config.ue8m0))
            return self._from_storage(name, fp8.block_linear)
        if self._keeps:
            transposed = self.dequantized(name).T
            return lambda x: x @ transposed
        if self._is_fp8(name):
            return self._from_storage(name, fp8.block_linear)
        return lambda x: self._multiply_streamed(name, x)

    def _from_storage(self, name: str, compute: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]) -> Linear:
        def multiply(x: np.ndarray) -> np.ndarray:
            self._check_values(name)
            y = compute(x, self._checkpoint.read(name).view(np.uint8), self._scale_inv(name))
            if not self._keeps:
                self._checkpoint.release(name)
            return y

        return multiply

    def _multiply_streamed(self, name: str, x: np.ndarray) -> np.ndarray:
        self._check_values(name)
        stored = self._checkpoint.read(name)
        y = np.empty((len(x), len(stored)), np.float32)
        for rows in _pieces(stored):
            np.matmul(x, to_float32(stored[rows]).T, out=y[:, rows])
        self._checkpoint.release(name)
        return y

    def _is_fp8(self, name: str) -> bool:
        return self._checkpoint.dtype(name) == "F8_E4M3"

    def _keeps_copy(self, name: str) -> bool:
        return self._keeps and (self._mode == "off" or not self._is_fp8(name))

    def _scale_inv(self, name: str) -> np.ndarray:
        return to_float32(self._checkpoint.read(name + SCALE))

    def _check_values(self, name: str) -> None:
        """Raises ModelFileError if the tensor, or its scale, holds NaN or infinity. A tensor is searched once."""
        if name in self._clean:
            return
        stored = self._checkpoint.read(name)
        if not all(_finite(stored[piece]) for piece in _pieces(stored)):
            raise _not_finite(name)
        if self._is_fp8(name) and not np.isfinite(self._scale_inv(name)).all():
            raise _not_finite(name + SCALE)
        self._clean.add(name)


def check_tied(checkpoint: Checkpoint, tied: bool) -> None:
    """Raises ModelFileError if the config ties embedding and output matrix and they differ: programs disagree on which of the two counts."""
    if not tied or "lm_head.weight" not in checkpoint:
        return
    embedding, head = (checkpoint.read(name) for name in ("model.embed_tokens.weight", "lm_head.weight"))
    if not all(np.array_equal(to_float32(embedding[rows]), to_float32(head[rows])) for rows in _pieces(head)):
        raise ModelFileError("config.json: tie_word_embeddings is true, and lm_head.weight is not the embedding; remove one or the other")


def check_tensors(checkpoint: Checkpoint, config: Config) -> bool:
    """Whether the tensors are those that `config` calls for; returns whether the MTP layers are among them. Raises ModelFileError."""
    _check_size(checkpoint, config)
    wanted = tensor_shapes(config)
    for name in checkpoint.names():
        if name.endswith(IGNORED):
            continue
        base = name.removesuffix(SCALE)
        if base not in wanted:
            raise ModelFileError(
                f"tensor {short(name, 120)} is not part of a {config.model_type} model of {config.num_hidden_layers} layers "
                f"and {config.num_nextn_predict_layers} MTP layers as config.json describes it"
            )
        if base == name:
            _check_weight(checkpoint, config, name, wanted[name])
        else:
            _check_scale(checkpoint, base, wanted[base])
    lacking = {name for name in wanted if name not in checkpoint and not is_optional(config, name)}
    mtp = {name for i in mtp_layers(config) for name in (layer_shapes(config, i) | mtp_shapes(config, i))}
    has_mtp = any(name in checkpoint for name in mtp)
    if not has_mtp:  # many copies of a checkpoint leave the MTP layers out
        lacking -= mtp
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        first = next(name for name in wanted if name in lacking)
        raise ModelFileError(f"the checkpoint lacks tensor {first!r}{more}, which config.json calls for; download it again")
    return has_mtp


def _check_size(checkpoint: Checkpoint, config: Config) -> None:
    """Before every tensor of an absurd config is listed by name."""
    held, layers = len(checkpoint.names()), config.num_hidden_layers
    if layers + config.num_nextn_predict_layers > held:
        raise ModelFileError(f"config.json: num_hidden_layers is {layers:,}, the weights hold only {held:,} tensors")
    if config.moe is not None and config.is_moe(layers - 1) and config.moe.n_routed_experts > held:
        raise ModelFileError(f"config.json: n_routed_experts is {config.moe.n_routed_experts:,}, the weights hold only {held:,} tensors")


def _check_weight(checkpoint: Checkpoint, config: Config, name: str, shape: Shape) -> None:
    found, dtype = checkpoint.shape(name), checkpoint.dtype(name)
    if found != shape:
        raise ModelFileError(f"tensor {short(name, 120)} has the shape {list(found)}, config.json calls for {list(shape)}")
    if dtype in FLOATS:
        if name + SCALE in checkpoint:
            raise ModelFileError(
                f"tensor {short(name, 120)} is {dtype} and has a scale, {short(name + SCALE, 140)}; only FP8 weights have one"
            )
        return
    if dtype != "F8_E4M3" or len(shape) != 2 or name.endswith(NOT_FP8):
        raise ModelFileError(f"tensor {short(name, 120)} is {dtype}; {' or '.join(FLOATS)} is needed there")
    if not config.fp8:
        raise ModelFileError(f"tensor {short(name, 120)} is FP8, but config.json has no quantization_config that says how to read it")
    if name + SCALE not in checkpoint:
        raise ModelFileError(f"tensor {short(name, 120)} is FP8 and its scale {short(name + SCALE, 140)} is missing; download it again")


def _check_scale(checkpoint: Checkpoint, base: str, shape: Shape) -> None:
    name = base + SCALE
    if base not in checkpoint:
        raise ModelFileError(f"the scale {short(name, 140)} has no weight: {short(base, 120)} is missing; download it again")
    wanted = tuple(-(-n // fp8.B) for n in shape)
    if checkpoint.shape(name) != wanted:
        raise ModelFileError(f"the scale {short(name, 140)} has the shape {list(checkpoint.shape(name))}, {list(wanted)} is needed")
    if checkpoint.dtype(name) not in SCALES:
        raise ModelFileError(f"the scale {short(name, 140)} is {checkpoint.dtype(name)}; {' or '.join(SCALES)} is needed")


def to_float32(stored: np.ndarray) -> np.ndarray:
    """A float32 copy; bfloat16 is the upper half of a float32, and shifting is faster than ml_dtypes' cast."""
    if stored.dtype == ml_dtypes.bfloat16:
        wide = stored.view(np.uint16).astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)
    return stored.astype(np.float32)


def _finite(stored: np.ndarray) -> bool:
    if stored.dtype == ml_dtypes.float8_e4m3fn:
        return not bool(((stored.view(np.uint8) & 0x7F) == 0x7F).any())
    if stored.dtype == ml_dtypes.bfloat16:
        return not bool(((stored.view(np.uint16) & 0x7F80) == 0x7F80).any())
    with np.errstate(over="ignore"):  # a float64 beyond float32's range
        return bool(np.isfinite(stored.astype(np.float32)).all())


def _pieces(stored: np.ndarray) -> Iterator[Any]:
    """Slices of whole rows, about 2^20 elements each."""
    step = max(1, PIECE_ELEMENTS // max(1, stored[:1].size))
    for i in range(0, len(stored), step):
        yield slice(i, i + step)


def _fits(checkpoint: Checkpoint) -> bool:
    """Whether all weights fit into half of the free memory, in float32."""
    import math

    from backends.hardware import memory

    needed = sum(4 * math.prod(checkpoint.shape(name)) for name in checkpoint.names())
    return needed <= memory()[1] // 2


def _not_finite(name: str) -> ModelFileError:
    return ModelFileError(f"tensor {short(name, 140)} holds NaN or infinite weights; download it again")
