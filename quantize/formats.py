"""Weight formats: how many bytes a row takes, encode and decode. Encoding is done by ggml's own kernels, through ctypes.

Source: block layouts in ggml-common.h and `ggml_type` in ggml.h @ggml-org/llama.cpp.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from quantize.errors import NOT_FINITE, QuantizeError
from quantize.loss import Loss, measure
from quantize.q8_0 import encode_q8_0
from quantize.rows import Rows, Span

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")

# Weights are worked on in pieces of about this many elements: 1 MiB in float32 stays in the processor's cache.
PIECE_ELEMENTS = 1 << 18
PIECES_AHEAD = 32


@dataclass(frozen=True, slots=True)
class Format:
    """A ggml type: rows are cut into blocks of `block` elements, each stored in `block_bytes` bytes."""

    name: str
    ggml_type: int
    block: int
    block_bytes: int

    @property
    def bits_per_weight(self) -> float:
        return self.block_bytes * 8 / self.block

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether rows of this shape (its last dimension) are whole blocks."""
        return shape[-1] % self.block == 0

    def nbytes(self, shape: Sequence[int]) -> int:
        """Bytes of a tensor in this format. `fits(shape)` must hold."""
        return math.prod(shape) // self.block * self.block_bytes


_ALL = (
    Format("F32", 0, 1, 4), Format("F16", 1, 1, 2), Format("BF16", 30, 1, 2), Format("Q8_0", 8, 32, 34),
    Format("Q4_0", 2, 32, 18), Format("Q4_1", 3, 32, 20), Format("Q5_0", 6, 32, 22), Format("Q5_1", 7, 32, 24),
    Format("Q8_1", 9, 32, 36), Format("Q2_K", 10, 256, 84), Format("Q3_K", 11, 256, 110), Format("Q4_K", 12, 256, 144),
    Format("Q5_K", 13, 256, 176), Format("Q6_K", 14, 256, 210), Format("Q8_K", 15, 256, 292), Format("IQ2_XXS", 16, 256, 66),
    Format("IQ2_XS", 17, 256, 74), Format("IQ3_XXS", 18, 256, 98), Format("IQ1_S", 19, 256, 50), Format("IQ4_NL", 20, 32, 18),
    Format("IQ3_S", 21, 256, 110), Format("IQ2_S", 22, 256, 82), Format("IQ4_XS", 23, 256, 136), Format("I8", 24, 1, 1),
    Format("I16", 25, 1, 2), Format("I32", 26, 1, 4), Format("I64", 27, 1, 8), Format("F64", 28, 1, 8),
    Format("IQ1_M", 29, 256, 56), Format("TQ1_0", 34, 256, 54), Format("TQ2_0", 35, 256, 66), Format("MXFP4", 39, 32, 17),
    Format("NVFP4", 40, 64, 36),
)  # fmt: skip
FORMATS = {f.name: f for f in _ALL}
BY_GGML_TYPE = {f.ggml_type: f for f in _ALL}
F32, F16, BF16 = FORMATS["F32"], FORMATS["F16"], FORMATS["BF16"]


# Source and target types that are one.
SAME_BITS = (("bfloat16", "BF16"), ("float16", "F16"), ("float32", "F32"))
# An unsigned type as wide as a type of weights, and the exponent's bits in it.
EXPONENTS = {"bfloat16": ("u2", 0x7F80), "float16": ("u2", 0x7C00), "float32": ("u4", 0x7F800000)}
# ggml writes these, and cannot read them.
UNREADABLE = ("Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64")
# ggml's encoders multiply importances by squares of weights. Where float32 ends, at 3e38, some of them end the whole program.
LARGEST_WEIGHT, LARGEST_PRODUCT = 1e9, 1e30


def encode(
    weights: Rows, to: Format, pool: Executor, loss: Loss | None = None, importance: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """Encode `weights` [R, K], whose rows are whole blocks; yields the encoding in order, as uint8 pieces.

    `loss`, where it is given, grows by what each piece cost. `importance` float32 [E, K]: how much each input matters, to the
    first R/E rows, to the next...

    Raises QuantizeError if a weight is beyond the format's range or, unless the loss allows that, not finite.
    """
    allow_nan = loss is not None and loss.allow_nan
    if to.block == 1:
        importance = None
    parts = [weights]
    if importance is not None:
        each = weights.shape[0] // len(importance)
        parts = [Span(weights, i * each, each) for i in range(len(importance))]
    for i, part in enumerate(parts):
        inputs = None if importance is None else importance[i]
        work = functools.partial(_encode, to=to, importance=inputs, measured=loss is not None, allow_nan=allow_nan)
        for piece, lost in in_pieces(part, work, pool):
            if loss is not None:  # in the order of the pieces, whichever thread was first: the same sums every time
                loss.add(lost)
            yield piece


def in_pieces(matrix: Rows, work: Callable[[np.ndarray], T], pool: Executor, multiple: int = 1) -> Iterator[T]:
    """`work` done on the matrix a piece at a time, in order; a piece is a multiple of `multiple` rows, but for the last.

    The pool stays a few pieces ahead of the consumer, so memory does not grow with the matrix.
    """
    rows, columns = matrix.shape
    step = max(1, PIECE_ELEMENTS // columns // multiple) * multiple

    def piece(start: int) -> T:
        return work(matrix[start : min(start + step, rows)])

    ahead: deque[Future[T]] = deque()
    try:
        for start in range(0, rows, step):
            ahead.append(pool.submit(piece, start))
            if len(ahead) > PIECES_AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        for future in ahead:
            future.cancel()


def decode(encoded: np.ndarray, form: Format, shape: Sequence[int]) -> np.ndarray:
    """Encoded uint8 bytes -> float32 array of `shape`, as ggml decodes them. Not of the types that it cannot decode."""
    import numpy as np

    assert form.name not in UNREADABLE
    out = np.empty(math.prod(shape), np.float32)
    encoded = np.ascontiguousarray(encoded)
    if form is F32:
        out[:] = encoded.view(np.float32)
    elif form is F16:
        out[:] = encoded.view(np.float16)
    else:
        _decoder(form.ggml_type)(encoded.ctypes.data, out.ctypes.data, out.size)
    return out.reshape(shape)


def _encode(
    rows: np.ndarray, to: Format, importance: np.ndarray | None, measured: bool, allow_nan: bool = False
) -> tuple[np.ndarray, Loss]:
    """[n, K] and the importance of the K inputs -> uint8 [n * K / block * block_bytes]; what that cost, if it is to be measured."""
    import numpy as np

    bad = not_finite(rows, allow_nan)
    lost = Loss(kept=bad) if to.block == 1 else Loss(zeroed=bad)
    if (rows.dtype.name, to.name) in SAME_BITS:
        return np.ascontiguousarray(rows).reshape(-1).view(np.uint8), lost
    wide = np.require(rows, np.float32, ["C", "A"])
    if to is F32:
        return wide.reshape(-1).view(np.uint8), lost
    finite = without(wide) if bad else wide
    _check_range(finite, to, importance)
    out = np.empty(to.nbytes(wide.shape), np.uint8)
    if to is F16:
        _ggml().ggml_fp32_to_fp16_row(wide.ctypes.data, out.ctypes.data, wide.size)
    elif to is BF16:
        _ggml().ggml_fp32_to_bf16_row_ref(wide.ctypes.data, out.ctypes.data, wide.size)
    elif to.name == "Q8_0" and (fast := encode_q8_0(finite)) is not None:
        out = fast
    else:
        n, columns = wide.shape
        matter = None if importance is None else np.ascontiguousarray(importance, np.float32)
        pointer = None if matter is None else matter.ctypes.data
        _ggml().ggml_quantize_chunk(to.ggml_type, finite.ctypes.data, out.ctypes.data, 0, n, columns, pointer)
    if measured:
        decoded = decode(out, to, wide.shape)
        if bad:
            decoded[~np.isfinite(wide)] = 0
        lost.add(measure(finite, decoded))
        if not math.isfinite(lost.squared_error):  # scales are F16 in most formats
            raise _beyond(finite, to, importance)
    return out, lost


def not_finite(weights: np.ndarray, allow_nan: bool = False) -> int:
    """How many of them, float32, float16 or bfloat16, are infinite or not a number. Raises QuantizeError if there is one that is not allowed."""
    import numpy as np

    width, exponent = EXPONENTS[weights.dtype.name]
    bits = np.ascontiguousarray(weights).view(width) & exponent
    if bits.max() != exponent:
        return 0
    if not allow_nan:
        raise QuantizeError(f"holds weights that are infinite or not a number; {NOT_FINITE}")
    return int((bits == exponent).sum())


def without(weights: np.ndarray) -> np.ndarray:
    """A copy with 0 in place of what is infinite or not a number."""
    import numpy as np

    return np.where(np.isfinite(weights), weights, weights.dtype.type(0))


def _check_range(weights: np.ndarray, to: Format, importance: np.ndarray | None) -> None:
    """Raises QuantizeError: F16 would round to infinity, ggml would end the program."""
    if to is F16:
        if magnitude(weights) >= 65520:
            raise _beyond(weights, to, None)
    elif to.block > 1:
        largest = magnitude(weights)
        if largest > LARGEST_WEIGHT or (importance is not None and largest**2 * float(importance.max()) > LARGEST_PRODUCT):
            raise _beyond(weights, to, importance)


def _beyond(weights: np.ndarray, to: Format, importance: np.ndarray | None) -> QuantizeError:
    found = f"holds weights up to {magnitude(weights):.4g}"
    if importance is not None:
        found += f" of importance up to {float(importance.max()):.4g}"
    limit = (
        "F16's 65504; choose BF16, F32 or Q8_0"
        if to is F16
        else f"what {to.name} can hold; choose {'F32' if to is BF16 else 'BF16 or F32'}"
    )
    return QuantizeError(f"{found}, beyond {limit}")


def magnitude(weights: np.ndarray) -> float:
    """The largest one's."""
    return max(-float(weights.min()), float(weights.max()))


@functools.cache
def _ggml() -> Any:
    """libggml-base of the installed llama-cpp-python, found without importing it. ctypes releases the interpreter lock in calls."""
    spec = importlib.util.find_spec("llama_cpp")
    places = [] if spec is None or spec.submodule_search_locations is None else list(spec.submodule_search_locations)
    names = ("libggml-base.so", "libggml-base.dylib", "ggml-base.dll", "libggml-base.dll")
    found = [p for place in places for name in names if (p := Path(place) / "lib" / name).is_file()]
    if not found:
        raise QuantizeError("ggml's library was not found; install llama-cpp-python")
    library = ctypes.CDLL(str(found[0]))
    for convert in (library.ggml_fp32_to_fp16_row, library.ggml_fp32_to_bf16_row_ref):
        convert.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
        convert.restype = None
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
    ]  # fmt: skip
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    return library


class _Traits(ctypes.Structure):
    """ggml_type_traits of ggml.h, up to the function that decodes a row."""

    _fields_ = (
        ("type_name", ctypes.c_char_p), ("block", ctypes.c_int64), ("block_interleave", ctypes.c_int64), ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool), ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
    )  # fmt: skip


@functools.cache
def _decoder(ggml_type: int) -> Any:
    """(encoded, float32, count) -> None: ggml's own."""
    traits = _ggml().ggml_get_type_traits
    traits.restype, traits.argtypes = ctypes.POINTER(_Traits), [ctypes.c_int]
    return traits(ggml_type).contents.to_float
