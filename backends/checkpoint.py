"""Checkpoint: a published model folder - config.json and safetensors weights, in one file or in shards - read lazily.

Headers are checked in full when the folder is opened, so a damaged download is named before any work starts; weights
are memory mapped and cost nothing until read.

Source: format description of safetensors (README.md@huggingface/safetensors).
"""

from __future__ import annotations

import json
import math
import mmap
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeGuard

from backends.base import ModelFileError

if TYPE_CHECKING:
    import numpy as np

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"

# Bytes per element of each safetensors dtype that checkpoints use.
DTYPE_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip

# A header costs about 130 bytes a tensor: one file with all 92,000 tensors of DeepSeek-V3 needs 12 MB. More is no checkpoint,
# and parsed JSON takes many times its size in memory.
HEADER_LIMIT_BYTES = 32 << 20
JSON_LIMIT_BYTES = 32 << 20

# Linux maps so much around a page that is read; a neighbour's pages that came along are forgotten too.
FAULT_AROUND_BYTES = 64 << 10

AGAIN = "download it again"
CHANGED = "was written while it was read; run the same command again when nothing writes it"


def repo_of(folder: Path) -> str:
    """owner/name where the folder is a snapshot in the hub's cache, whose own name is a commit; else its name."""
    folder = folder.resolve()
    if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
        return folder.parent.parent.name.removeprefix("models--").replace("--", "/")
    return folder.name


def model_name(folder: Path) -> str:
    """What to call the model in a folder."""
    return repo_of(folder).rpartition("/")[2]


def source_files(folder: Path) -> list[Path]:
    """What a model is made of: weights, configs, tokenizer and template. Nothing else that lies in its folder changes it."""
    return [p for p in folder.iterdir() if p.suffix in (".safetensors", ".json", ".jinja") and p.is_file()]


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one tensor lies: `begin` and `end` are byte offsets in `file`."""

    file: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class Checkpoint:
    """An open checkpoint folder. `config` is config.json; tensors are in file order: shards by name, names within a shard."""

    def __init__(self, folder: Path, config: dict[str, Any], entries: dict[str, Entry]) -> None:
        self.folder = folder
        self.config = config
        self._entries = entries
        self._maps: dict[str, mmap.mmap] = {}
        self._stamps = {file: stamp((folder / file).stat()) for file in self.files()}

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """Read config.json and every header. Raises ModelFileError: one line naming the file, what is wrong, the remedy."""
        folder = Path(folder)
        try:
            found = folder.is_dir()
        except OSError:  # no permission, a name that is too long
            found = False
        if folder.name.endswith(PICKLES) and not found:
            raise ModelFileError(_pickle(folder))
        if not found:
            raise ModelFileError(f"{folder}: not a folder; give the folder that holds {CONFIG} and {WEIGHTS}")
        config = read_json(folder / CONFIG)
        if (folder / WEIGHTS).is_file():
            entries = read_header(folder / WEIGHTS)
        elif (folder / INDEX).is_file():
            entries = _read_shards(folder)
        else:
            raise ModelFileError(_why_no_weights(folder))
        if not entries:
            raise ModelFileError(f"{folder}: the weights hold no tensor; {AGAIN}")
        try:
            return cls(folder, config, entries)
        except OSError as error:
            raise ModelFileError(f"{folder}: cannot be read ({error.strerror})") from None

    @property
    def bytes_total(self) -> int:
        """Size of all weights as stored."""
        return sum(e.end - e.begin for e in self._entries.values())

    def names(self) -> list[str]:
        return list(self._entries)

    def files(self) -> list[str]:
        """Of the folder, those that hold the weights."""
        return sorted({entry.file for entry in self._entries.values()})

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def dtype(self, name: str) -> str:
        """The dtype as safetensors spells it: "BF16", "F32", "F8_E4M3"..."""
        return self._entries[name].dtype

    def shape(self, name: str) -> tuple[int, ...]:
        return self._entries[name].shape

    def nbytes(self, name: str) -> int:
        return self._entries[name].end - self._entries[name].begin

    def read(self, name: str) -> np.ndarray:
        """A read-only view of the memory map, in the tensor's shape. BF16 and F8 come as ml_dtypes types."""
        import numpy as np

        entry = self._entries[name]
        dtype = _numpy_dtype(entry.dtype)
        count = (entry.end - entry.begin) // dtype.itemsize
        return np.frombuffer(self._map(entry.file), dtype, count, entry.begin).reshape(entry.shape)

    def release(self, name: str) -> None:
        """Let the system forget the pages of a tensor that has been read; a later read fetches them from the file again."""
        entry = self._entries[name]
        if entry.file in self._maps and hasattr(mmap, "MADV_DONTNEED"):
            pages = self._maps[entry.file]
            begin = max(0, entry.begin - FAULT_AROUND_BYTES) // mmap.PAGESIZE * mmap.PAGESIZE
            pages.madvise(mmap.MADV_DONTNEED, begin, min(entry.end + FAULT_AROUND_BYTES, len(pages)) - begin)

    def check_unchanged(self) -> None:
        """Raises ModelFileError: a file of weights was written since it was opened, and what was read may be of either. One that is gone
        was read as it was."""
        for file, before in self._stamps.items():
            check_stamp(self.folder / file, before)

    def close(self) -> None:
        """Drop the maps; arrays still in use keep theirs alive."""
        self._maps.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _map(self, file: str) -> mmap.mmap:
        if file not in self._maps:
            path = self.folder / file
            try:
                with path.open("rb") as f:
                    if stamp(os.fstat(f.fileno())) != self._stamps[file]:
                        raise ModelFileError(f"{path}: {CHANGED}")
                    self._maps[file] = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise ModelFileError(f"{path}: cannot be read ({error}); check that the file is still there") from None
        return self._maps[file]


def stamp(about: os.stat_result) -> tuple[int, int, int]:
    """Differs when a file was written, or is another one."""
    return about.st_size, about.st_mtime_ns, about.st_ino


def check_stamp(path: Path, before: tuple[int, int, int]) -> None:
    """Raises ModelFileError: it was written since. No error where it is gone."""
    with suppress(OSError):
        if stamp(path.stat()) != before:
            raise ModelFileError(f"{path}: {CHANGED}")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a model folder. Raises ModelFileError if it is missing, too large or no JSON object."""
    try:
        return _json_object(read_small(path), path, path.name)
    except FileNotFoundError:
        raise ModelFileError(f"{path}: missing; a model folder needs it, download the model's small files too") from None


def read_small(path: Path) -> bytes:
    """A small file of a model folder, whole. Raises FileNotFoundError; ModelFileError if it is too large, a device or unreadable."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe waits for ever, /dev/zero never ends
            raise ModelFileError(f"{path}: is no regular file; {AGAIN}")
        with path.open("rb") as f:
            raw = f.read(JSON_LIMIT_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror})") from None
    if len(raw) > JSON_LIMIT_BYTES:
        raise ModelFileError(f"{path}: over {JSON_LIMIT_BYTES:,} bytes, more than any {path.name} needs; {AGAIN}")
    return raw


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of one safetensors file by name, checked against each other and against the file's size.

    Raises ModelFileError: truncated file, absurd header length, invalid JSON, duplicate name, unknown dtype, a size that is
    not dtype x shape, overlapping tensors, or bytes that belong to none.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as f:
            length = int.from_bytes(f.read(8), "little")
            if size < 8 or length > size - 8:
                raise ModelFileError(f"{path}: truncated, the header should take {length:,} bytes and the file has {size:,}; {AGAIN}")
            if length > HEADER_LIMIT_BYTES:
                raise ModelFileError(f"{path}: a header of {length:,} bytes, more than any checkpoint needs; this is no safetensors file")
            header = _json_object(f.read(length), path, "the header")
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror})") from None
    header.pop("__metadata__", None)
    data = 8 + length
    entries = {name: _entry(path, name, header[name], data) for name in sorted(header)}
    _check_layout(path, entries, data, size)
    return entries


def _entry(path: Path, name: str, value: Any, data: int) -> Entry:
    """One tensor of a header; `data` is where the tensors' bytes begin in the file."""
    where = f"{path}: tensor {short(name, 120)}"
    if not isinstance(value, dict):
        raise ModelFileError(f"{where} is described by {short(value)} instead of an object; {AGAIN}")
    dtype, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise ModelFileError(f"{where} has the unknown dtype {short(dtype)}; known are {', '.join(DTYPE_BYTES)}")
    if not _whole_numbers(shape) or 0 in shape or len(shape) > 8:
        raise ModelFileError(f"{where} has the shape {short(shape)}; up to 8 whole numbers above 0 are possible")
    if not _whole_numbers(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ModelFileError(f"{where} has the offsets {short(offsets)}; a begin and an end are needed; {AGAIN}")
    begin, end = offsets
    wanted = math.prod(shape) * DTYPE_BYTES[dtype]
    if end - begin != wanted:
        raise ModelFileError(f"{where} takes {end - begin:,} bytes, but {dtype} {short(shape)} needs {short(wanted)}; {AGAIN}")
    return Entry(path.name, dtype, tuple(shape), data + begin, data + end)


def _check_layout(path: Path, entries: dict[str, Entry], data: int, size: int) -> None:
    """The tensors must tile the file exactly, as the format demands: no overlap, no hole, nothing missing at the end."""
    at, before = data, "the header"
    for name, entry in sorted(entries.items(), key=lambda item: item[1].begin):
        if entry.begin != at:
            what = "overlaps" if entry.begin < at else "leaves a hole after"
            raise ModelFileError(f"{path}: tensor {short(name, 120)} at byte {entry.begin:,} {what} {before} ending at {at:,}; {AGAIN}")
        at, before = entry.end, f"tensor {short(name, 120)}"
    if at > size:
        raise ModelFileError(f"{path}: truncated, the header promises {at:,} bytes and the file has {size:,}; {AGAIN}")
    if at < size:
        raise ModelFileError(f"{path}: {size - at:,} bytes follow the last tensor; {AGAIN}")


def _read_shards(folder: Path) -> dict[str, Entry]:
    """All tensors of a sharded checkpoint; index and shards must name the same ones."""
    index = folder / INDEX
    where = read_json(index).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(file, str) for file in where.values()):
        raise ModelFileError(f"{index}: no weight_map from tensor names to files; {AGAIN}")
    entries: dict[str, Entry] = {}
    for file in sorted(set(where.values())):
        # The index comes from a stranger: a shard is a plain file name of this folder, never a path.
        plain = file == Path(file).name and "\\" not in file and file.isprintable() and len(file.encode()) <= 255
        if not plain or not file.endswith(".safetensors"):
            raise ModelFileError(f"{index}: names the shard {short(file)}; only *.safetensors files in the same folder are allowed")
        if not (folder / file).is_file():
            raise ModelFileError(f"{folder / file}: missing, {INDEX} lists it; download this shard")
        check_link(folder / file)
        for name, entry in read_header(folder / file).items():
            if name in entries:
                raise ModelFileError(f"{folder / file}: holds tensor {short(name, 120)}, which {entries[name].file} holds too; {AGAIN}")
            if name not in where:
                raise ModelFileError(f"{folder / file}: holds tensor {short(name, 120)}, which {INDEX} does not list; download both again")
            entries[name] = entry
    for name, file in where.items():
        if name not in entries or entries[name].file != file:
            raise ModelFileError(f"{folder / file}: lacks tensor {short(name, 120)}, which {INDEX} places there; download both again")
    return entries


def _why_no_weights(folder: Path) -> str:
    if any(folder.glob("model-*.safetensors")):
        return f"{folder / INDEX}: missing, and the weights are in shards; download it"
    pickles = sorted(path for path in folder.iterdir() if path.name.endswith(PICKLES))
    if pickles:
        return _pickle(pickles[0])
    return f"{folder / WEIGHTS}: missing, and so is {INDEX}; download the weights"


def _pickle(path: Path) -> str:
    return f"{path}: a pickle file can run code when read and is not supported; convert the model to safetensors first"


def check_link(path: Path) -> None:
    """Raises ModelFileError: a file of a model folder is a link out of it. Hugging Face's cache has its own way of linking."""
    if path.is_symlink():
        folder, real = path.parent.resolve(), path.resolve()
        cache = folder.parent.parent / "blobs" if folder.parent.name == "snapshots" else folder
        if folder not in real.parents and real.parent != cache:
            raise ModelFileError(f"{path}: is a link out of the folder, to {short(str(real), 120)}; put the file itself there")


def _json_object(raw: bytes, path: Path, what: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for name, value in pairs:
            if name in made:
                raise ModelFileError(f"{path}: {what} names {short(name)} twice; {AGAIN}")
            made[name] = value
        return made

    try:
        value = json.loads(raw.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise ModelFileError(f"{path}: {what} is not valid JSON ({str(error)[:80]}); {AGAIN}") from None
    if not isinstance(value, dict):
        raise ModelFileError(f"{path}: {what} is not a JSON object; {AGAIN}")
    return value


def _whole_numbers(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in value)


def short(value: Any, limit: int = 60) -> str:
    """A value from a file, as it is shown in a message: whatever it holds, a piece of one line."""
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "..."


def _numpy_dtype(dtype: str) -> np.dtype[Any]:
    """F8 and BF16 as ml_dtypes types, the others as numpy's own."""
    import ml_dtypes
    import numpy as np

    types: dict[str, Any] = {
        "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
        "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2,
        "F8_E8M0": ml_dtypes.float8_e8m0fnu,
        "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "BOOL": np.bool_,
        "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8,
    }  # fmt: skip
    found: np.dtype[Any] = np.dtype(types[dtype])
    return found
