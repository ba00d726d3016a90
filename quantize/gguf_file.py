"""GGUF files: an ordered, atomic writer, and a strict reader of everything before the weights.

Source: docs/gguf.md@ggml-org/ggml (version 3, little-endian).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from backends.gguf_header import MAGIC
from quantize.errors import QuantizeError, TargetError
from quantize.formats import Format
from quantize.parts import Part, check_room, sync_folder

VERSION = 3
ALIGNMENT = 32


class Kind(IntEnum):
    """Types of metadata values."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


PACKING = {
    Kind.UINT8: "<B", Kind.INT8: "<b", Kind.UINT16: "<H", Kind.INT16: "<h", Kind.UINT32: "<I", Kind.INT32: "<i",
    Kind.FLOAT32: "<f", Kind.BOOL: "<?", Kind.UINT64: "<Q", Kind.INT64: "<q", Kind.FLOAT64: "<d",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Value:
    """A metadata value; of an array, `item` is the kind of its items."""

    kind: Kind
    data: Any
    item: Kind | None = None


Metadata = dict[str, Value]


def uint(value: int) -> Value:
    return Value(Kind.UINT32, value)


def real(value: float) -> Value:
    return Value(Kind.FLOAT32, value)


def flag(value: bool) -> Value:
    return Value(Kind.BOOL, value)


def text(value: str) -> Value:
    return Value(Kind.STRING, value)


def texts(values: Sequence[str]) -> Value:
    return Value(Kind.ARRAY, values, Kind.STRING)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor to write. `shape` is row-major (last dimension contiguous); GGUF lists it the other way round."""

    name: str
    shape: tuple[int, ...]
    format: Format

    @property
    def nbytes(self) -> int:
        return self.format.nbytes(self.shape)


def pad(size: int, alignment: int = ALIGNMENT) -> int:
    return -(-size // alignment) * alignment


class GgufWriter:
    """Writes one GGUF file: the header first, then the tensors in the announced order. A context manager.

    Everything goes to a temporary file beside the target, which takes the target's name when all is on disk, and is
    removed if anything - an error, Ctrl+C, a missing tensor - comes in between.

    Raises TargetError: the target exists and may not be replaced, its folder is missing, there is no room.
    """

    def __init__(self, target: Path, metadata: Metadata, tensors: Sequence[TensorInfo], *, force: bool = False) -> None:
        self.target, self._force = target, force
        self._header = pack_header(metadata, tensors)
        self._pending = list(reversed(tensors))
        self.size_bytes = len(self._header) + sum(pad(t.nbytes) for t in tensors)
        check_target(target, force=force)
        self._place = target.resolve()  # of a link, what it points to
        self._part = Part(self._place)
        self._file: BinaryIO | None = None
        check_room(target, self.size_bytes)

    def __enter__(self) -> Self:
        try:
            self._part.create(self._create)
            assert self._file is not None
            self._file.write(self._header)
        except BaseException as error:
            self._discard()
            raise self._explain(error) from error
        return self

    def _create(self, path: Path) -> None:
        if self._file is not None:
            self._file.close()
        self._file = path.open("xb")

    def write(self, name: str, pieces: Iterable[Any]) -> None:
        """Write the next tensor, given as buffers of bytes. Raises ValueError if it is another one or of another size."""
        if not self._pending or self._pending[-1].name != name:
            raise ValueError(f"tensor {name!r} is not the next one announced")
        expected = self._pending.pop().nbytes
        written = 0
        for piece in pieces:
            written += self._put(piece)
        if written != expected:
            raise ValueError(f"tensor {name!r} has {written:,} bytes, {expected:,} were announced")
        self._put(bytes(pad(written) - written))

    def _put(self, piece: Any) -> int:
        assert self._file is not None
        try:
            return self._file.write(piece)
        except OSError as error:
            raise self._explain(error) from error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._file is not None
        try:
            if kind is not None:
                return
            if self._pending:
                raise ValueError(f"tensor {self._pending[-1].name!r} was announced and not written")
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            check_target(self.target, force=self._force)  # it may have come meanwhile
            self._part.path.replace(self._place)
            sync_folder(self._place.parent)
        except OSError as failure:
            raise self._explain(failure) from failure
        finally:
            self._discard()

    def _discard(self) -> None:
        with suppress(OSError):
            if self._file is not None:
                self._file.close()
        self._part.discard()

    def _explain(self, error: BaseException) -> BaseException:
        if not isinstance(error, OSError):
            return error
        return TargetError(f"{self.target}: cannot be written ({error.strerror}); choose another place or make room")


def check_target(target: Path, *, force: bool) -> None:
    """Raises TargetError unless a file may be written there. Only a GGUF file is ever replaced."""
    try:
        if not target.parent.is_dir():
            raise TargetError(f"{target.parent}: no such folder; create it first")
        if target.is_dir():
            raise TargetError(f"{target}: is a folder; give a file name such as {target / 'model.gguf'}")
        if target.is_symlink() and not target.exists():
            raise TargetError(f"{target}: is a link to what is not there; remove it or choose another name")
        if not target.exists():
            return
        if not target.is_file():  # opening a pipe would wait for ever
            raise TargetError(f"{target}: is a pipe or a device, no regular file, and is not replaced; choose another name")
        if not force:
            raise TargetError(f"{target}: exists already; choose another name or pass --force to replace it")
        with target.open("rb") as f:
            if f.read(len(MAGIC)) != MAGIC:
                raise TargetError(f"{target}: is not a GGUF file and is not replaced; choose another name")
    except OSError as error:
        raise TargetError(f"{target}: cannot be used ({error.strerror}); choose another name") from None


def pack_header(metadata: Metadata, tensors: Sequence[TensorInfo]) -> bytes:
    """Everything before the weights, padded to the alignment."""
    out = bytearray(MAGIC + struct.pack("<IQQ", VERSION, len(tensors), len(metadata)))
    for key, value in metadata.items():
        out += _pack_text(key) + struct.pack("<I", value.kind)
        try:
            if value.kind is Kind.ARRAY:
                assert value.item is not None
                out += struct.pack("<IQ", value.item, len(value.data))
                out += b"".join(_pack(value.item, item) for item in value.data)
            else:
                out += _pack(value.kind, value.data)
        except UnicodeEncodeError:  # JSON can spell half a surrogate pair
            raise QuantizeError(f"{key} holds text that is no valid Unicode; repair the model's json files") from None
    offset = 0
    for t in tensors:
        out += _pack_text(t.name) + struct.pack("<I", len(t.shape))
        out += struct.pack(f"<{len(t.shape)}QIQ", *reversed(t.shape), t.format.ggml_type, offset)
        offset += pad(t.nbytes)
    return bytes(out.ljust(pad(len(out)), b"\0"))


def _pack(kind: Kind, value: Any) -> bytes:
    return _pack_text(value) if kind is Kind.STRING else struct.pack(PACKING[kind], value)


def _pack_text(value: str | bytes) -> bytes:
    raw = value if isinstance(value, bytes) else value.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw
