"""Importance matrices: how large the inputs of each weight column are, as llama.cpp writes and reads it. Both of its forms are read.

Source: tools/imatrix/imatrix.cpp, common/imatrix-loader.cpp (the files) and tools/quantize/quantize.cpp (what is made of them)
@ggml-org/llama.cpp.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from backends.base import ModelFileError
from backends.checkpoint import short
from backends.gguf_header import MAGIC
from quantize.errors import QuantizeError
from quantize.formats import F32
from quantize.gguf_file import GgufWriter, Kind, Metadata, TensorInfo, text, texts, uint
from quantize.gguf_reader import GgufHeader, GgufTensor, read_gguf_header

if TYPE_CHECKING:
    import numpy as np

SUMS, COUNTS = ".in_sum2", ".counts"
DATASETS, CHUNKS, CHUNK_TOKENS = "imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size"
# The older form counts chunks and does not say how long they were: llama.cpp's own length is taken, also when it merges such files.
LEGACY_CHUNK_TOKENS = 512
NAME_LIMIT_BYTES = 1 << 10
SMALLEST_ENTRY_BYTES = 4 + 4 + 4 + 4  # of the older form: length of the name, chunks, number of values, one value
AGAIN = "make it again or download it again"


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """What went into one tensor: `sums` float32 [C, ...] of squared activations, flat in each row, over `counts` int64 [C] tokens.

    C is the number of experts, or 1: all matrices of another 3-D tensor saw the same tokens, and share a row.
    """

    sums: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class ImportanceMatrix:
    """By the name of a GGUF tensor, what went into it while `chunks` texts of `chunk_tokens` tokens were read."""

    tensors: Mapping[str, Inputs]
    chunks: int
    chunk_tokens: int
    datasets: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Self:
        """A file in llama.cpp's GGUF form, or in the `.dat` form that it wrote until 2025.

        Raises QuantizeError, one line: it is no importance matrix, cut short, or holds what none can hold.
        """
        try:
            if not path.is_file():  # opening a pipe would wait for ever
                raise QuantizeError(f"{path}: no such file; check the path")
            with path.open("rb") as f:
                gguf = f.read(len(MAGIC)) == MAGIC
                f.seek(0)
                read = _read_gguf if gguf else _read_legacy
                tensors, chunks, chunk_tokens, datasets = read(path, f)
        except OSError as error:
            raise QuantizeError(f"{path}: cannot be read ({error.strerror}); check the path") from None
        return cls(tensors, chunks, chunk_tokens, datasets)

    def write(self, path: Path, *, force: bool = False) -> None:
        """Write the GGUF form, byte for byte as llama-imatrix does; the file appears when it is complete.

        Raises TargetError: `path` exists and may not be replaced, its folder is missing, there is no room.
        """
        import numpy as np

        metadata: Metadata = {
            "general.type": text("imatrix"),
            DATASETS: texts(self.datasets),
            CHUNKS: uint(self.chunks),
            CHUNK_TOKENS: uint(self.chunk_tokens),
        }
        names = sorted(self.tensors, key=str.encode)
        infos = []
        for name in names:
            # ggml has no dimensions of 1 at the end
            rows, columns = self.tensors[name].sums.shape
            infos.append(TensorInfo(name + SUMS, (rows, columns) if rows > 1 else (columns,), F32))
            infos.append(TensorInfo(name + COUNTS, (rows, 1) if rows > 1 else (1,), F32))
        with GgufWriter(path, metadata, infos, force=force) as writer:
            for name in names:
                writer.write(name + SUMS, [np.ascontiguousarray(self.tensors[name].sums, "<f4").data])
                writer.write(name + COUNTS, [self.tensors[name].counts.astype("<f4").data])

    def weights(self, name: str, shape: Sequence[int]) -> np.ndarray | None:
        """float32 [M, K], what llama-quantize hands to ggml_quantize_chunk for the M matrices of the tensor; None: nothing is known.

        `shape` is the tensor's, row-major: [R, K] or [M, R, K]. The mean of the squared inputs, and 1 for an expert that no token
        went to. Raises QuantizeError if the matrix was made for a tensor of another shape.
        """
        import numpy as np

        inputs = self.tensors.get(name)
        if inputs is None:
            return None
        columns, matrices = shape[-1], math.prod(shape[:-2])
        if inputs.sums.size != matrices * columns:
            if name == "token_embd.weight":  # llama-quantize goes on without
                return None
            raise QuantizeError(
                f"the importance matrix has {inputs.sums.size:,} values for tensor {short(name, 120)}, its shape {list(shape)} needs "
                f"{matrices * columns:,}; it belongs to another model: make one for this model"
            )
        counts = inputs.counts.astype(np.float32)[:, None]
        means = np.ones(inputs.sums.shape, np.float32)
        np.divide(inputs.sums, counts, out=means, where=counts > 0)
        return means.reshape(matrices, columns)

    def misfits(self, name: str, shape: Sequence[int]) -> bool:
        """It has something on this tensor, of another size."""
        inputs = self.tensors.get(name)
        return inputs is not None and inputs.sums.size != math.prod(shape[:-2]) * shape[-1]

    def unvisited(self, name: str) -> int:
        """To how many of the tensor's experts no token went: their weights are all equal."""
        inputs = self.tensors.get(name)
        return 0 if inputs is None else int((inputs.counts == 0).sum())


_Read = tuple[dict[str, Inputs], int, int, tuple[str, ...]]  # tensors, chunks, chunk_tokens, datasets


def checked(where: object, name: str, sums: np.ndarray, counts: np.ndarray) -> Inputs:
    """sums float32 [C * n], counts [C] of any kind of number -> Inputs. Raises QuantizeError for what no activations can give."""
    import numpy as np

    what = f"{where}: tensor {short(name, 120)}"
    if not np.isfinite(sums).all():
        raise QuantizeError(f"{what} holds sums that are infinite or not a number; {AGAIN}")
    if (sums < 0).any():
        raise QuantizeError(f"{what} holds a negative sum of squares, {sums.min():.6g}; {AGAIN}")
    if not ((counts >= 0) & (counts < 1 << 62)).all():  # not a number is neither
        raise QuantizeError(f"{what} holds a count that cannot be, {counts[~((counts >= 0) & (counts < 1 << 62))][0]}; {AGAIN}")
    if len(counts) == 0 or sums.size == 0 or sums.size % len(counts) != 0:
        raise QuantizeError(f"{what} holds {sums.size:,} sums and {len(counts):,} counts, which do not fit together; {AGAIN}")
    return Inputs(sums.reshape(len(counts), -1), np.rint(counts).astype(np.int64))


# ------------------------------------------------------------------------------------------------------------- GGUF form


def _read_gguf(path: Path, f: BinaryIO) -> _Read:
    try:
        header = read_gguf_header(path)
    except ModelFileError as error:
        raise QuantizeError(str(error)) from None
    kind = header.metadata.get("general.type")
    pairs = {t.name: t for t in header.tensors if t.name.endswith((SUMS, COUNTS))}
    if kind not in (None, "imatrix") or not pairs:
        raise QuantizeError(f"{path}: a GGUF file that holds no importance matrix (general.type is {short(kind)}); give an imatrix file")
    chunks, chunk_tokens, datasets = _metadata(path, header)
    tensors = {}
    for name in dict.fromkeys(n.removesuffix(SUMS).removesuffix(COUNTS) for n in pairs):
        if name + SUMS not in pairs or name + COUNTS not in pairs:
            raise QuantizeError(f"{path}: tensor {short(name, 120)} lacks its {SUMS} or its {COUNTS}; {AGAIN}")
        sums, counts = (_values(path, f, pairs[name + end]) for end in (SUMS, COUNTS))
        tensors[name] = checked(path, name, sums, counts)
    return tensors, chunks, chunk_tokens, datasets


def _metadata(path: Path, header: GgufHeader) -> tuple[int, int, tuple[str, ...]]:
    """Chunks, their tokens, names of the texts. llama-quantize wants all three as well."""
    chunks, chunk_tokens, datasets = (header.metadata.get(key) for key in (CHUNKS, CHUNK_TOKENS, DATASETS))
    for key, value in ((CHUNKS, chunks), (CHUNK_TOKENS, chunk_tokens)):
        if header.kinds.get(key) is not Kind.UINT32:
            raise QuantizeError(f"{path}: {key} is {short(value)}, a number is needed; {AGAIN}")
    if not isinstance(datasets, list) or not all(isinstance(name, str) for name in datasets):
        raise QuantizeError(f"{path}: {DATASETS} is {short(datasets)}, a list of names is needed; {AGAIN}")
    assert isinstance(chunks, int) and isinstance(chunk_tokens, int)
    return chunks, chunk_tokens, tuple(datasets)


def _values(path: Path, f: BinaryIO, tensor: GgufTensor) -> np.ndarray:
    if tensor.format is not F32:
        raise QuantizeError(f"{path}: tensor {short(tensor.name, 120)} is not F32; {AGAIN}")
    f.seek(tensor.begin)
    return _floats(path, f, math.prod(tensor.shape))


def _floats(path: Path, f: BinaryIO, count: int) -> np.ndarray:
    """float32 [count], the next ones in the file; the caller has seen that there are so many."""
    import numpy as np

    values = np.fromfile(f, "<f4", count)
    if values.size != count:
        raise QuantizeError(f"{path}: truncated; {AGAIN}")
    return values.astype(np.float32, copy=False)


# ------------------------------------------------------------------------------------------------------------- .dat form


def _read_legacy(path: Path, f: BinaryIO) -> _Read:
    """Number of tensors, then of each: name, chunks, values; then, if it is there, chunks in all and the text's name. All int32.

    The values are means times the tensor's chunks. As llama.cpp does when it merges such a file, both become those of tokens.
    """
    import numpy as np

    size = os.fstat(f.fileno()).st_size
    (entries,) = struct.unpack("<i", f.read(4).ljust(4, b"\0"))
    if not 1 <= entries <= size // SMALLEST_ENTRY_BYTES:
        raise QuantizeError(f"{path}: is no importance matrix, neither in GGUF nor in the older .dat form; give an imatrix file")
    tensors: dict[str, Inputs] = {}
    for i in range(entries):
        name = _legacy_name(path, f, size, i)
        if name in tensors:
            raise QuantizeError(f"{path}: tensor {short(name, 120)} is there twice; {AGAIN}")
        chunks, values = _int(path, f), _int(path, f)
        if values < 1 or values * 4 > size - f.tell():
            raise QuantizeError(f"{path}: tensor {short(name, 120)} announces {values:,} values, the file does not hold them; {AGAIN}")
        sums, scale = _floats(path, f, values), np.float32(LEGACY_CHUNK_TOKENS)
        with np.errstate(over="ignore", invalid="ignore"):  # `checked` finds it
            # very old files count no chunks and hold the means themselves
            tensors[name] = checked(path, name, sums * scale, np.asarray([(chunks or 1) * LEGACY_CHUNK_TOKENS]))
    return tensors, *_legacy_end(f, size)


def _legacy_name(path: Path, f: BinaryIO, size: int, i: int) -> str:
    length = _int(path, f)
    if not 1 <= length <= min(NAME_LIMIT_BYTES, size - f.tell()):
        raise QuantizeError(f"{path}: the name of tensor {i + 1} has {length:,} bytes; {AGAIN}")
    raw = f.read(length).split(b"\0")[0]  # C ends it there
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise QuantizeError(f"{path}: the name of tensor {i + 1} is {short(raw)}, which is no text; {AGAIN}") from None


def _legacy_end(f: BinaryIO, size: int) -> tuple[int, int, tuple[str, ...]]:
    """Chunks, their tokens, name of the text. Whatever is not there is not known: the values are."""
    chunks, length = struct.unpack("<ii", f.read(8).ljust(8, b"\0"))
    name = f.read(length) if 1 <= length <= min(NAME_LIMIT_BYTES, size - f.tell()) else b""
    return max(0, chunks), LEGACY_CHUNK_TOKENS, (name.split(b"\0")[0].decode("utf-8", "replace"),) if name else ()


def _int(path: Path, f: BinaryIO) -> int:
    raw = f.read(4)
    if len(raw) != 4:
        raise QuantizeError(f"{path}: truncated at byte {f.tell():,}; {AGAIN}")
    value: Any = struct.unpack("<i", raw)[0]
    return int(value)
