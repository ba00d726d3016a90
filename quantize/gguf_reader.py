"""A strict reader of a GGUF file's header: metadata and tensor list, every count checked against the bytes that are there.

Source: docs/gguf.md@ggml-org/ggml (versions 2 and 3, little-endian).
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from backends.base import ModelFileError
from backends.checkpoint import short
from backends.gguf_header import MAGIC
from quantize.formats import BY_GGML_TYPE, Format
from quantize.gguf_file import ALIGNMENT, PACKING, Kind, pad

KEY_LIMIT_BYTES = 1 << 16
# The largest vocabularies take 20 MB; values take many times their size in memory.
HEADER_LIMIT_BYTES = 1 << 26
AGAIN = "download or convert it again"


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor: row-major `shape`; `begin` is its byte offset in the file. `format` and `nbytes` are None for unknown types."""

    name: str
    shape: tuple[int, ...]
    ggml_type: int
    begin: int
    format: Format | None
    nbytes: int | None


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """`items`: of each array, the kind of its items. Text that is no UTF-8 holds its bytes as lone surrogates."""

    version: int
    metadata: dict[str, Any]
    kinds: dict[str, Kind]
    items: dict[str, Kind]
    tensors: tuple[GgufTensor, ...]
    data_begin: int


def read_gguf_header(path: Path) -> GgufHeader:
    """Metadata as Python values, tensors in file order. Raises ModelFileError: not GGUF, truncated, or inconsistent."""
    try:
        with path.open("rb") as f:
            if f.read(len(MAGIC)) != MAGIC:
                raise ModelFileError(f"{path}: not a GGUF file; give a .gguf model file")
            with mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(path, data).header()
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such file") from None
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror})") from error


class _Reader:
    """A cursor over the mapped file that refuses to pass its end."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.at = path, data, len(MAGIC)
        self.end = min(len(data), HEADER_LIMIT_BYTES)
        self.items: dict[str, Kind] = {}

    def header(self) -> GgufHeader:
        version, n_tensors, n_values = self.unpack("<IQQ")
        if version not in (2, 3):
            raise self.bad(f"GGUF version {version}, versions 2 and 3 are known")
        # the smallest value takes 13 bytes, the smallest tensor entry 24: counts beyond that are refused before looping
        if n_values * 13 + n_tensors * 24 > self.end:
            raise self.bad(f"announces {n_values:,} metadata values and {n_tensors:,} tensors, more than the file can hold")
        metadata: dict[str, Any] = {}
        kinds: dict[str, Kind] = {}
        for _ in range(n_values):
            key = self.text("a metadata key", KEY_LIMIT_BYTES)
            if key in metadata:
                raise self.bad(f"metadata key {short(key)} appears twice")
            kinds[key] = self.kind(key)
            metadata[key] = self.array(key) if kinds[key] is Kind.ARRAY else self.value(kinds[key], key)
        alignment = metadata.get("general.alignment", ALIGNMENT)
        if type(alignment) is not int or alignment < 1 or alignment > 1 << 20:
            raise self.bad(f"general.alignment is {short(alignment)}")
        entries = [self.tensor() for _ in range(n_tensors)]
        begin = pad(self.at, alignment)
        return GgufHeader(version, metadata, kinds, self.items, self.place(entries, begin, alignment), begin)

    def place(self, entries: list[tuple[str, tuple[int, ...], int, int]], begin: int, alignment: int) -> tuple[GgufTensor, ...]:
        """Absolute offsets, checked against the file's end and each other; names must be unique."""
        tensors, seen = [], set()
        for name, shape, ggml_type, offset in entries:
            form = BY_GGML_TYPE.get(ggml_type)
            if name in seen:
                raise self.bad(f"tensor {short(name)} appears twice")
            seen.add(name)
            if offset % alignment != 0:
                raise self.bad(f"tensor {short(name)} is at offset {offset}, which is no multiple of {alignment}")
            if form is not None and not form.fits(shape):
                raise self.bad(f"tensor {short(name)}: rows of {shape[-1]} are not whole {form.name} blocks")
            nbytes = None if form is None else form.nbytes(shape)
            end = begin + offset + (1 if nbytes is None else nbytes)
            if end > len(self.data):
                raise ModelFileError(
                    f"{self.path}: truncated, tensor {short(name)} ends at byte {end:,} and the file has {len(self.data):,}; {AGAIN}"
                )
            tensors.append(GgufTensor(name, shape, ggml_type, begin + offset, form, nbytes))
        for one, other in pairwise(sorted(tensors, key=lambda t: t.begin)):
            if one.begin + (one.nbytes or 1) > other.begin:
                raise self.bad(f"its tensors overlap, {short(one.name)} and {short(other.name)}")
        return tuple(tensors)

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self.text("a tensor name", KEY_LIMIT_BYTES)
        (n_dims,) = self.unpack("<I")
        if not 1 <= n_dims <= 4:
            raise self.bad(f"tensor {short(name)} has {n_dims} dimensions, 1 to 4 are possible")
        *shape, ggml_type, offset = self.unpack(f"<{n_dims}QIQ")
        if 0 in shape or math.prod(shape) >= 1 << 63:
            raise self.bad(f"tensor {short(name)} has the impossible shape {shape}")
        return name, tuple(reversed(shape)), ggml_type, offset

    def array(self, key: str) -> list[Any]:
        item = self.items[key] = self.kind(key)
        (count,) = self.unpack("<Q")
        if item is Kind.ARRAY:
            raise self.bad(f"metadata key {short(key)} is an array of arrays, which is not supported")
        smallest = 8 if item is Kind.STRING else struct.calcsize(PACKING[item])
        if count * smallest > self.end - self.at:
            raise self.cut(f"metadata key {short(key)} announces {count:,} items")
        if item is not Kind.STRING:
            return list(self.unpack(f"<{count}{PACKING[item][1]}"))
        return [self.text(short(key)) for _ in range(count)]

    def value(self, kind: Kind, key: str) -> Any:
        return self.text(short(key)) if kind is Kind.STRING else self.unpack(PACKING[kind])[0]

    def kind(self, key: str) -> Kind:
        (number,) = self.unpack("<I")
        try:
            return Kind(number)
        except ValueError:
            raise self.bad(f"metadata key {short(key)} has the unknown type {number}") from None

    def text(self, what: str, limit: int | None = None) -> str:
        (size,) = self.unpack("<Q")
        if limit is not None and size > limit:
            raise self.bad(f"{what} of {size:,} bytes")
        if size > self.end - self.at:
            raise self.cut(f"{what} announces {size:,} bytes")
        raw = self.data[self.at : self.at + size]
        self.at += size
        # vocabularies made by other converters can hold lone bytes
        return raw.decode("utf-8", errors="surrogateescape")

    def unpack(self, packing: str) -> tuple[Any, ...]:
        size = struct.calcsize(packing)
        if size > self.end - self.at:
            raise self.cut("the header goes on")
        values = struct.unpack_from(packing, self.data, self.at)
        self.at += size
        return values

    def cut(self, why: str) -> ModelFileError:
        if self.end < len(self.data):
            return self.bad(f"{why}, and no header takes more than {self.end:,} bytes")
        return ModelFileError(f"{self.path}: truncated at byte {len(self.data):,}: {why}; {AGAIN}")

    def bad(self, what: str) -> ModelFileError:
        return ModelFileError(f"{self.path}: damaged: {what}; {AGAIN}")
