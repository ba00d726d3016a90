"""MLX's weight formats: their names, what they store of a matrix, which matrix takes which, and MLX's own kernel.

A row is cut into groups; a group's codes are packed into 32-bit words, beside one scale and, if affine, one bias.

Source: `mx.quantize`@ml-explore/mlx; `quantize_model` (utils.py) and `mixed_quant_predicate_builder` (convert.py) @ml-explore/mlx-lm.
"""

from __future__ import annotations

import math
import re
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from quantize.errors import NOT_FINITE, QuantizeError
from quantize.formats import not_finite, without
from quantize.loss import Loss, measure
from quantize.safetensors_folder import StoredTensor

if TYPE_CHECKING:
    import numpy as np

PREFIX = "mlx-"
GROUP = 64  # mlx-lm's own choice where none is asked for
MLX_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_ONE_AT_A_TIME = threading.Lock()
EXPONENTS = {"F32": ("u4", 0x7F800000), "F16": ("u2", 0x7C00), "BF16": ("u2", 0x7F80)}  # all ones: infinite or not a number


@dataclass(frozen=True, slots=True)
class Packing:
    """How a matrix is quantized: `group` weights share a scale; `mode` is MLX's name for the kind of codes and scales."""

    group: int
    bits: int
    mode: str = "affine"

    @property
    def name(self) -> str:
        """As a report says it."""
        return f"{self.bits}bit-g{self.group}" if self.mode == "affine" else self.mode

    def config(self) -> dict[str, Any]:
        """As config.json says it."""
        return {"group_size": self.group, "bits": self.bits, "mode": self.mode}

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether rows of this shape (its last dimension) are whole groups."""
        return shape[-1] % self.group == 0

    def stored(self, weight: str, shape: Sequence[int], dtype: str) -> list[StoredTensor]:
        """The tensors that hold a matrix of this name, shape and dtype. `fits(shape)` must hold."""
        path, rows, groups = weight.removesuffix("weight"), tuple(shape[:-1]), shape[-1] // self.group
        codes = StoredTensor(weight, "U32", (*rows, shape[-1] * self.bits // 32))
        if self.mode != "affine":
            return [codes, StoredTensor(path + "scales", "U8", (*rows, groups))]
        return [codes, *(StoredTensor(path + part, dtype, (*rows, groups)) for part in ("scales", "biases"))]


@dataclass(frozen=True, slots=True)
class MlxFormat:
    """A target. `more`: in a mixed recipe, what the tensors that suffer most take instead of `less`.

    `packings`: of a plan, what each matrix takes, None of what stays as it is; `note`: what the folder is to say of it.
    """

    name: str
    default: Packing
    less: Packing | None = None
    more: Packing | None = None
    packings: Mapping[str, Packing | None] | None = None
    note: str = ""

    def packing(self, weight: str, layers: int) -> Packing | None:
        """What a matrix takes in a model of so many layers.

        Mixed recipes, as llama.cpp's Q4_K_M, spare the output, and the values and the way out of the feed-forward block in the first
        and last eighth of the layers and in every third between.
        """
        if self.packings is not None:
            return self.packings[weight]
        if self.less is None or self.more is None:
            return self.default
        parts = weight.split(".")
        layer = int(parts[2]) if len(parts) > 2 and parts[2].isdigit() else 0
        spared = layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
        sensitive = any(part in weight for part in ("v_proj", "v_a_proj", "v_b_proj", "down_proj"))
        return self.more if "lm_head" in weight or (spared and sensitive) else self.less


def _affine() -> list[MlxFormat]:
    sizes = [(bits, group) for bits in (2, 3, 4, 5, 6, 8) for group in (32, 64, 128)]
    return [MlxFormat(f"{PREFIX}{bits}bit" + (f"-g{group}" if group != GROUP else ""), Packing(group, bits)) for bits, group in sizes]


def _mixed() -> list[MlxFormat]:
    # mlx-lm names 4 bits as the default of every recipe, and then each matrix's own
    recipes = ((2, 6), (3, 4), (3, 6), (4, 6))
    return [MlxFormat(f"{PREFIX}mixed_{low}_{high}", Packing(GROUP, 4), Packing(GROUP, low), Packing(GROUP, high)) for low, high in recipes]


_MICROSCALING = [MlxFormat(PREFIX + p.mode, p) for p in (Packing(32, 4, "mxfp4"), Packing(32, 8, "mxfp8"), Packing(16, 4, "nvfp4"))]
MLX_FORMATS = {form.name: form for form in (*_affine(), *_MICROSCALING, *_mixed())}
# as a message lists them
MLX_NAMES = "mlx-{2,3,4,5,6,8}bit[-g{32,64,128}], mlx-{mxfp4,mxfp8,nvfp4}, mlx-mixed_{2_6,3_4,3_6,4_6}"


def mlx_format(name: str) -> MlxFormat:
    """The target of this name, upper or lower case. Raises QuantizeError if there is none."""
    found = MLX_FORMATS.get(re.sub(rf"(?<=bit)-g{GROUP}$", "", name.lower()))
    if found is None:
        raise QuantizeError(f"unknown MLX format {name!r}; choose one of {MLX_NAMES}")
    return found


# ------------------------------------------------------------------------------------------------------------- the kernel


@cache
def mlx() -> Any:
    """mlx.core. Raises QuantizeError if it is not installed, or is too old for the formats here."""
    packages = "mlx mlx-lm" if sys.platform == "darwin" else '"mlx[cpu]" mlx-lm'
    try:
        mx = import_module("mlx.core")
    except ImportError as error:  # on Linux also of the package without its CPU part
        raise QuantizeError(f"MLX cannot be used ({error}); install it: pip install {packages}") from None
    try:
        for form in _MICROSCALING:
            mx.quantize(mx.zeros((1, 64)), form.default.group, form.default.bits, mode=form.default.mode)
    except (TypeError, ValueError):
        raise QuantizeError(f"MLX {mx.__version__} does not know all formats; update it: pip install --upgrade {packages}") from None
    return mx


def _turn(mx: Any) -> AbstractContextManager[Any]:
    """Held by the thread that computes: versions before streams of each thread's own know but one thread, and a GPU is one device."""
    own_streams = hasattr(mx, "new_thread_local_stream")
    return nullcontext() if own_streams and mx.default_device() == mx.cpu else _ONE_AT_A_TIME


def pack(rows: np.ndarray, casts: Sequence[str], packing: Packing | None, allow_nan: bool = False) -> tuple[list[np.ndarray], Loss]:
    """[r, K] of float32, float16 or bfloat16 -> uint8: codes, scales and, if affine, biases; or the weights, where `packing` is None.
    And what that cost, by MLX's own decoding.

    `casts`: the dtypes that the weights take one after another before, as safetensors spells them; at least one.
    Raises QuantizeError if a weight is then infinite or not a number; with `allow_nan`, only if it was not before.
    """
    import numpy as np

    mx = mlx()
    bad = not_finite(rows, allow_nan) if allow_nan else 0
    lost = Loss(kept=bad) if packing is None else Loss(zeroed=bad)
    finite = without(rows) if bad else rows
    if packing is not None:
        rows = finite
    with _turn(mx):
        if rows.dtype.name == "bfloat16":  # numpy has none of its own, and MLX knows only numpy's
            weights = mx.array(np.ascontiguousarray(rows).view(np.uint16)).view(mx.bfloat16)
        else:
            weights = mx.array(rows)
        for dtype in casts:
            weights = weights.astype(getattr(mx, MLX_DTYPES[dtype]))
        width, exponent = EXPONENTS[casts[-1]]
        bits = _bytes(mx, weights).view(width)
        if int((bits & exponent).max()) == exponent and int(((bits & exponent) == exponent).sum()) > lost.kept:
            raise QuantizeError(f"holds weights that are infinite or not a number in {casts[-1]}; {NOT_FINITE}")
        if packing is None:
            parts, decoded = [bits.view(np.uint8)], None
            if not {MLX_DTYPES[dtype] for dtype in casts} <= {rows.dtype.name, "float32"}:  # rounded on the way
                decoded = np.array(weights.astype(mx.float32))
        else:
            made = mx.quantize(weights, packing.group, packing.bits, mode=packing.mode)
            mx.eval(*made)
            parts = [_bytes(mx, part) for part in made]
            if packing.mode == "affine" and packing.bits in _TABLES:
                decoded = _decoded(parts, casts[-1], packing).reshape(rows.shape)
            else:
                exact = [made[0], *(part.astype(mx.float32) for part in made[1:])] if packing.mode == "affine" else made
                again = mx.dequantize(*exact, group_size=packing.group, bits=packing.bits, mode=packing.mode)
                decoded = np.array(again.astype(mx.float32))
    if decoded is not None:
        if lost.kept:
            decoded[~np.isfinite(rows)] = 0
        lost.add(measure(np.asarray(finite, np.float32), decoded))
        if not math.isfinite(lost.squared_error):
            raise QuantizeError(
                f"holds weights beyond what {packing.name if packing else casts[-1]} can hold; choose a GGUF format, or FP8"
            )
    return parts, lost


_TABLES = {2: "complex128", 4: "complex64", 8: "float32"}  # bits: a type as wide as the float32 numbers of a byte's codes


@cache
def _table(bits: int) -> np.ndarray:
    """[256]: the codes that a byte holds, the lowest bits first, as float32 numbers side by side."""
    import numpy as np

    bytes_ = np.arange(256, dtype=np.uint8)
    codes = [(bytes_ >> shift) & (2**bits - 1) for shift in range(0, 8, bits)]
    return np.stack(codes, axis=1).astype(np.float32).view(_TABLES[bits]).reshape(-1)


def _decoded(parts: Sequence[np.ndarray], dtype: str, packing: Packing) -> np.ndarray:
    """What affine codes stand for, float32 [groups, group]: code x scale + bias, not rounded to `dtype` as mx.dequantize does; a sixth
    of its time."""
    import ml_dtypes  # noqa: F401  (names bfloat16)
    import numpy as np

    codes, scales, biases = parts
    decoded: np.ndarray = np.take(_table(packing.bits), codes).view(np.float32).reshape(-1, packing.group)
    decoded *= scales.view(MLX_DTYPES[dtype]).astype(np.float32)[:, None]
    decoded += biases.view(MLX_DTYPES[dtype]).astype(np.float32)[:, None]
    return decoded


def _bytes(mx: Any, array: Any) -> np.ndarray:
    """The array's own memory, once it is computed, as uint8 [bytes]."""
    import numpy as np

    flat: np.ndarray = np.asarray(array.view(mx.uint8)).reshape(-1)
    return flat
