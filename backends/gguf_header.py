"""What a GGUF file says of itself, without its weights: scalar metadata, what its tensors take, whether all of it is there.

A minimal reader, for choosing and planning; `quantize.gguf_reader` reads everything, strictly.
Source: docs/gguf.md and ggml.h@ggml-org/ggml (versions 2 and 3, little-endian).
"""

from __future__ import annotations

import mmap
import struct
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from backends.base import ModelFileError
from backends.checkpoint import short

MAGIC = b"GGUF"
HEADER_LIMIT_BYTES = 1 << 26  # the largest vocabularies take 20 MB
AGAIN = "download or convert it again"

# llama_ftype -> the name people use
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L",
    14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16",
}  # fmt: skip

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
# ggml_type -> name, weights in a block, bytes of it
_TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """`metadata`: scalars and text; of a list of whole numbers the first, of any other how many items it has. `main_type`: the ggml type that takes most bytes."""

    metadata: dict[str, Any]
    weights: int
    weight_bytes: int
    main_type: str
    names: frozenset[str]

    def count(self, key: str, default: int | None = None) -> int | None:
        """A whole number of the architecture's metadata; `default` where there is none."""
        value = self.metadata.get(f"{self.metadata.get('general.architecture')}.{key}", default)
        return value if type(value) is int else default


def is_gguf(path: Path) -> bool:
    """Whether a file begins as GGUF does."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_gguf_header(path: Path) -> GgufHeader:
    """Raises ModelFileError: no GGUF, damaged, or cut short."""
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise ModelFileError(f"{path}: not a GGUF file; give a .gguf model file")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Cursor(path, data).header()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror})") from None


class _Cursor:
    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path, self._data, self._at = path, data, len(MAGIC)
        self._end = min(len(data), HEADER_LIMIT_BYTES)

    def header(self) -> GgufHeader:
        version, tensors, values = self._take("<IQQ")
        if version not in (2, 3):
            raise self._bad(f"GGUF version {version}, versions 2 and 3 are known")
        if values * 13 + tensors * 24 > self._end:  # the least they take
            raise self._bad(f"announces {values:,} metadata values and {tensors:,} tensors, more than the file can hold")
        metadata = {self._text(): self._value() for _ in range(values)}
        entries = [self._tensor() for _ in range(tensors)]
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 1 <= alignment <= 1 << 20:
            raise self._bad(f"general.alignment is {short(alignment)}")
        begin = -(-self._at // alignment) * alignment
        sizes: Counter[str] = Counter()
        for name, weights, kind, offset in entries:
            form, block, block_bytes = _TYPES.get(kind, ("?", 1, 0))  # a type of tomorrow: llama.cpp may know it
            nbytes = weights // block * block_bytes
            sizes[form] += nbytes
            if begin + offset + nbytes > len(self._data):
                raise ModelFileError(
                    f"{self._path}: truncated, tensor {short(name)} ends at byte {begin + offset + nbytes:,} and the file has "
                    f"{len(self._data):,}; {AGAIN}"
                )
        main = sizes.most_common(1)[0][0] if sizes else "?"
        total = sum(sizes.values()) if "?" not in sizes else len(self._data) - begin
        return GgufHeader(metadata, sum(e[1] for e in entries), total, main, frozenset(e[0] for e in entries))

    def _tensor(self) -> tuple[str, int, int, int]:
        name = self._text()
        (dimensions,) = self._take("<I")
        if not 1 <= dimensions <= 4:
            raise self._bad(f"tensor {short(name)} has {dimensions} dimensions, 1 to 4 are possible")
        *shape, kind, offset = self._take(f"<{dimensions}QIQ")
        if prod(shape) >= 1 << 63 or offset >= 1 << 63:
            raise self._bad(f"tensor {short(name)} has the impossible shape {short(shape)}")
        return name, prod(shape), kind, offset

    def _value(self) -> Any:
        (kind,) = self._take("<I")
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            return self._array()
        if kind not in _SCALARS:
            raise self._bad(f"a metadata value has the unknown type {kind}")
        return self._take(_SCALARS[kind])[0]

    def _array(self) -> int:
        """How many items it has; of numbers, the first: llama.cpp judges lists of one number a layer by it."""
        kind, count = self._take("<IQ")
        if kind == _STRING:
            for _ in range(count):
                self._skip(self._take("<Q")[0])
            return int(count)
        if kind not in _SCALARS:
            raise self._bad(f"a metadata array has items of the unknown type {kind}")
        begin = self._at
        self._skip(count * struct.calcsize(_SCALARS[kind]))
        first = struct.unpack_from(_SCALARS[kind], self._data, begin)[0] if count else 0
        return first if type(first) is int else int(count)

    def _text(self) -> str:
        (size,) = self._take("<Q")
        begin = self._at
        self._skip(size)
        return self._data[begin : self._at].decode("utf-8", "replace")

    def _take(self, packing: str) -> tuple[Any, ...]:
        begin = self._at
        self._skip(struct.calcsize(packing))
        return struct.unpack_from(packing, self._data, begin)

    def _skip(self, size: int) -> None:
        if size > self._end - self._at:
            if self._end < len(self._data):
                raise self._bad(f"its header goes on after {self._end:,} bytes")
            raise ModelFileError(f"{self._path}: truncated at byte {len(self._data):,}, within the header; {AGAIN}")
        self._at += size

    def _bad(self, what: str) -> ModelFileError:
        return ModelFileError(f"{self._path}: damaged: {what}; {AGAIN}")
