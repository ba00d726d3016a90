"""A look at the nodes of llama.cpp's graph while it computes them: the matrix, its inputs, the experts they go to.

Source: ggml.h (`struct ggml_tensor`) and ggml-backend.h (`ggml_backend_sched_eval_callback`) @ggml-org/llama.cpp.
"""

from __future__ import annotations

import ctypes
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from backends.base import EngineError
from quantize.formats import _ggml

if TYPE_CHECKING:
    import numpy as np

_F32, _I32 = 0, 26  # ggml_type
_DIMENSIONS = 4


class _Tensor(ctypes.Structure):
    """`struct ggml_tensor`, up to its name."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * _DIMENSIONS),  # elements in each dimension, the contiguous one first
        ("nb", ctypes.c_size_t * _DIMENSIONS),  # bytes from one to the next
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
    )


@dataclass(frozen=True, slots=True)
class Product:
    """A multiplication with a matrix, or with stacked ones: of what shape, and with what.

    `matrices`: how many there are in each of GGUF's outer dimensions, (1, 1) of a single one. `x`: float32 [B, A, T, K], a view of the
    engine's memory that lives as long as the node; matrix a of A takes x[:, a]. `experts` int32 [T, k], for a mixture of experts: token t
    goes to these, and x is [1, T, k or 1, K].
    """

    name: str
    matrices: tuple[int, int]
    x: np.ndarray
    experts: np.ndarray | None = None


def wants(node: int, least_tokens: int) -> bool:
    """Whether the node at this address is a multiplication to look at, by the rules of llama-imatrix: every matrix of a layer (not the
    output head), unless so few tokens are computed at once; every stack of experts."""
    codes = _op_codes()
    op = ctypes.c_int.from_address(node + _Tensor.op.offset).value  # most nodes are none: quickly past them
    if op == codes.experts:
        return True
    if op != codes.plain:
        return False
    t = _Tensor.from_address(node)
    x = _Tensor.from_address(t.src[1])
    return x.ne[1] >= least_tokens and x.type == _F32 and _weight_name(_Tensor.from_address(t.src[0]).name).startswith("blk.")


def product(node: int) -> Product:
    """The node at this address, which has been computed and which is one that `wants` wants. Raises EngineError: its inputs are no float32."""
    t = _Tensor.from_address(node)
    matrix = _Tensor.from_address(t.src[0])
    name = _weight_name(matrix.name)
    x = _array(t.src[1], name)
    if t.op != _op_codes().experts:
        return Product(name, (matrix.ne[3], matrix.ne[2]), x)
    return Product(name, (1, matrix.ne[2]), x, _array(t.src[2], name)[0, 0])


def _weight_name(raw: bytes) -> str:
    """CUDA0#blk.0.attn_k.weight#0, a copy on another device -> blk.0.attn_k.weight."""
    parts = raw.split(b"#")
    return parts[1 if len(parts) > 1 else 0].decode("utf-8", "replace")


def _array(address: int, name: str) -> np.ndarray:
    """float32 or int32 [ne3, ne2, ne1, ne0], strided as the tensor is; where it lies on a GPU, a copy."""
    import numpy as np

    t = _Tensor.from_address(address)
    if t.type not in (_F32, _I32):
        raise EngineError(f"{name} is multiplied with inputs of ggml type {t.type}, not with float32; collect from the checkpoint folder")
    shape, strides = tuple(reversed(t.ne)), tuple(reversed(t.nb))
    nbytes = 4 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    lib = _library()
    if lib.ggml_backend_buffer_is_host(t.buffer):
        memory = (ctypes.c_char * nbytes).from_address(t.data)
    else:
        memory = ctypes.create_string_buffer(nbytes)
        lib.ggml_backend_tensor_get(address, memory, 0, nbytes)
    return np.ndarray(shape, np.float32 if t.type == _F32 else np.int32, memory, 0, strides)


@dataclass(frozen=True, slots=True)
class _OpCodes:
    """What `op` is of a multiplication with a matrix, and with those of chosen experts. The numbers change between versions."""

    plain: int
    experts: int


class _Memory(ctypes.Structure):
    """`struct ggml_init_params`."""

    _fields_ = (("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


@functools.cache
def _op_codes() -> _OpCodes:
    """Read from two nodes made for it, which also show whether `_Tensor` is laid out as in the installed library.

    Raises EngineError if it is not: whoever goes on would read memory at random.
    """
    lib = _library()
    memory = lib.ggml_init(_Memory(1 << 16, None, False))
    if not memory:
        raise EngineError("ggml has no memory left; close other programs")
    try:
        matrices = lib.ggml_new_tensor_3d(memory, _F32, 8, 5, 3)
        lib.ggml_set_name(matrices, b"blk.0.probe.weight")
        x = lib.ggml_new_tensor_3d(memory, _F32, 8, 2, 3)
        ids = lib.ggml_new_tensor_3d(memory, _I32, 2, 3, 1)
        plain, experts = lib.ggml_mul_mat(memory, matrices, x), lib.ggml_mul_mat_id(memory, matrices, x, ids)
        nodes = [_Tensor.from_address(address) for address in (plain, experts, matrices, x, ids)]
        found = [
            (t.type, list(t.ne), list(t.nb), [address or 0 for address in t.src], t.name.split(b".")[0], t.data, t.view_src) for t in nodes
        ]
        data = [lib.ggml_get_data(address) for address in (plain, experts, matrices, x, ids)]
        wanted = [
            (_F32, [5, 2, 3, 1], [4, 20, 40, 120], [matrices, x] + [0] * 8, b"", data[0], None),
            (_F32, [5, 2, 3, 1], [4, 20, 40, 120], [matrices, x, ids] + [0] * 7, b"", data[1], None),
            (_F32, [8, 5, 3, 1], [4, 32, 160, 480], [0] * 10, b"blk", data[2], None),
            (_F32, [8, 2, 3, 1], [4, 32, 64, 192], [0] * 10, b"", data[3], None),
            (_I32, [2, 3, 1, 1], [4, 8, 24, 24], [0] * 10, b"", data[4], None),
        ]
        if found != wanted or nodes[0].op == nodes[1].op:
            raise EngineError(
                "the installed llama-cpp-python lays out its tensors in a way this program does not know, so nothing can be "
                "collected with it; install llama-cpp-python 0.3.36, or collect from the checkpoint folder"
            )
        return _OpCodes(nodes[0].op, nodes[1].op)
    finally:
        lib.ggml_free(memory)


@functools.cache
def _library() -> Any:
    """libggml-base, with the signatures of what is called here."""
    lib = _ggml()
    address, number, size = ctypes.c_void_p, ctypes.c_int64, ctypes.c_size_t
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "ggml_init": (address, [_Memory]),
        "ggml_free": (None, [address]),
        "ggml_new_tensor_3d": (address, [address, ctypes.c_int, number, number, number]),
        "ggml_set_name": (address, [address, ctypes.c_char_p]),
        "ggml_get_data": (address, [address]),
        "ggml_mul_mat": (address, [address, address, address]),
        "ggml_mul_mat_id": (address, [address, address, address, address]),
        "ggml_backend_buffer_is_host": (ctypes.c_bool, [address]),
        "ggml_backend_tensor_get": (None, [address, address, size, size]),
    }
    for name, (result, arguments) in signatures.items():
        try:
            function = getattr(lib, name)
        except AttributeError:
            raise EngineError(f"the installed llama-cpp-python lacks {name}; install llama-cpp-python 0.3.36") from None
        function.restype, function.argtypes = result, arguments
    return lib
