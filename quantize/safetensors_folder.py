"""Checkpoint folders: an atomic writer of config.json, safetensors in shards, their index, and the source's small files.

Source: format description of safetensors (README.md@huggingface/safetensors); `split_torch_state_dict_into_shards`@huggingface/huggingface_hub.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from backends.base import ModelFileError
from backends.checkpoint import CONFIG, DTYPE_BYTES, INDEX, WEIGHTS, Checkpoint, check_link, read_json
from quantize.errors import QuantizeError, TargetError
from quantize.parts import Part, check_room, put_back, sync_folder

SHARD_BYTES = 4_000_000_000
SMALL_FILE_BYTES = 64 << 20
CARD = "README.md"
# What a model folder can hold beside the weights that are written, and no copy should have: the same weights in other formats.
OTHER_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".h5", ".msgpack", ".part", ".index.json")


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor to write, with its dtype as safetensors spells it."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * DTYPE_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Habits:
    """What one program's folders have that another's have not. `format`: in each file's metadata. `card`: a README.md in place of the
    source's. `index`: more metadata for the index, which is then written for a single file too."""

    format: str = "pt"
    shard_bytes: int | None = None  # None: SHARD_BYTES
    card: str | None = None
    index: dict[str, int] | None = None


class FolderWriter:
    """Writes a checkpoint folder: announced tensors in any order, and everything else on leaving. A context manager.

    Everything goes to a temporary folder beside the target, which takes the target's name when all is on disk, and is
    removed if anything comes in between. Of `source`, the small files are copied: tokenizer, chat template, model card.

    Raises TargetError: the target exists and may not be replaced, its parent is missing, there is no room.
    """

    def __init__(
        self,
        target: Path,
        source: Path,
        config: dict[str, Any],
        tensors: Sequence[StoredTensor],
        *,
        force: bool = False,
        habits: Habits = Habits(),
    ) -> None:
        self.target, self._force = check_folder(target, force=force), force
        self._config = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        try:
            self._config.encode()
        except UnicodeEncodeError:  # JSON can spell half a surrogate pair
            raise QuantizeError(f"{source / CONFIG}: holds text that is no valid Unicode; repair it") from None
        self._habits = habits
        self._copies = [path for path in small_files(source) if habits.card is None or path.name != CARD]
        self._headers: dict[str, bytes] = {}
        self._places: dict[str, tuple[str, int, int]] = {}  # of each tensor that is not written yet: file, offset, size
        shard_bytes = SHARD_BYTES if habits.shard_bytes is None else habits.shard_bytes
        for file, shard in _named(_shards(tensors, shard_bytes)).items():
            self._headers[file], places = pack_shard(shard, habits.format)
            self._places |= {name: (file, *place) for name, place in places.items()}
        self._weight_map = {name: file for name, (file, _, _) in sorted(self._places.items())}
        self._total_bytes = sum(tensor.nbytes for tensor in tensors)
        self.size_bytes = sum(map(len, self._headers.values())) + self._total_bytes
        self._part = Part(self.target)
        self._files: dict[str, BinaryIO] = {}
        check_room(self.target, self.size_bytes + sum(path.stat().st_size for path in self._copies))

    def __enter__(self) -> Self:
        try:
            self._part.create(Path.mkdir)
            for file, header in self._headers.items():
                self._files[file] = (self._part.path / file).open("xb")
                self._files[file].write(header)
        except BaseException as error:
            self._discard()
            raise self._explain(error) from error
        return self

    def write(self, name: str, pieces: Iterable[Any]) -> None:
        """Write a tensor, given as buffers of bytes. Raises ValueError if it was not announced, or with another size."""
        if name not in self._places:
            raise ValueError(f"tensor {name!r} was not announced, or is written already")
        file, begin, expected = self._places.pop(name)
        written = 0
        self._seek(file, begin)
        for piece in pieces:
            written += self._put(file, piece)
        if written != expected:
            raise ValueError(f"tensor {name!r} has {written:,} bytes, {expected:,} were announced")

    def _seek(self, file: str, begin: int) -> None:
        try:
            self._files[file].seek(begin)
        except OSError as error:  # what is buffered is written first
            raise self._explain(error) from error

    def _put(self, file: str, piece: Any) -> int:
        try:
            return self._files[file].write(piece)
        except OSError as error:
            raise self._explain(error) from error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is not None:
                return
            if self._places:
                raise ValueError(f"tensor {next(iter(self._places))!r} was announced and not written")
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())
                file.close()
            self._write_small_files()
            sync_folder(self._part.path)
            _check_free(self.target, force=self._force)  # it may have come meanwhile
            _take_place(self._part.path, self.target)
            sync_folder(self.target.parent)
        except OSError as failure:
            raise self._explain(failure) from failure
        finally:
            self._discard()

    def _write_small_files(self) -> None:
        for path in self._copies:
            try:
                shutil.copyfile(path, self._part.path / path.name)
            except OSError as error:
                raise TargetError(
                    f"{path}: cannot be copied ({error.strerror}); check that it can be read and that there is room"
                ) from error
        if self._habits.card is not None:
            (self._part.path / CARD).write_text(self._habits.card, encoding="utf-8")
        if len(self._headers) > 1 or self._habits.index is not None:
            metadata = {"total_size": self._total_bytes} | (self._habits.index or {})
            index = {"metadata": metadata, "weight_map": self._weight_map}
            (self._part.path / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        (self._part.path / CONFIG).write_text(self._config, encoding="utf-8")
        for path in self._part.path.iterdir():
            if path.name not in self._files:
                with path.open("r+b") as file:
                    os.fsync(file.fileno())

    def _discard(self) -> None:
        for file in self._files.values():
            with suppress(OSError):
                file.close()
        self._part.discard()

    def _explain(self, error: BaseException) -> BaseException:
        if not isinstance(error, OSError):
            return error
        return TargetError(f"{self.target}: cannot be written ({error.strerror}); choose another place or make room")


def pack_shard(tensors: Sequence[StoredTensor], format: str = "pt") -> tuple[bytes, dict[str, tuple[int, int]]]:
    """A safetensors header, and where in the file each tensor goes: (offset, size). Wide types come first, so that all are aligned."""
    header: dict[str, Any] = {"__metadata__": {"format": format}}
    offsets, end = {}, 0
    for tensor in sorted(tensors, key=lambda t: (-DTYPE_BYTES[t.dtype], t.name)):
        header[tensor.name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": (end, end + tensor.nbytes)}
        offsets[tensor.name] = (end, tensor.nbytes)
        end += tensor.nbytes
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    packed = len(raw).to_bytes(8, "little") + raw
    return packed, {name: (len(packed) + begin, size) for name, (begin, size) in offsets.items()}


def _shards(tensors: Sequence[StoredTensor], most_bytes: int) -> list[list[StoredTensor]]:
    """In the order given; a tensor that would make a shard too large begins the next."""
    shards: list[list[StoredTensor]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + tensor.nbytes > most_bytes:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.nbytes
    return shards


def _named(shards: list[list[StoredTensor]]) -> dict[str, list[StoredTensor]]:
    if len(shards) == 1:
        return {WEIGHTS: shards[0]}
    return {f"model-{i:05d}-of-{len(shards):05d}.safetensors": shard for i, shard in enumerate(shards, 1)}


def small_files(source: Path) -> list[Path]:
    """A checkpoint folder's files beside its weights and its config. Folders, large files and what is no file stay behind.

    Raises ModelFileError: one cannot be read, or is a link out of the folder, whose target is nobody's to copy.
    """
    try:
        found = [
            path
            for path in sorted(source.iterdir())
            if path.is_file() and path.name != CONFIG and not path.name.endswith(OTHER_WEIGHTS) and path.stat().st_size <= SMALL_FILE_BYTES
        ]
        for path in found:
            check_link(path)
    except OSError as error:
        raise ModelFileError(f"{source}: cannot be read ({error.strerror})") from None
    return found


def check_folder(target: Path, *, force: bool) -> Path:
    """The target's full path. Raises TargetError unless a folder may be written there; only a quantized checkpoint is ever replaced."""
    try:
        path = target.resolve()
        put_back(path)
        if not path.parent.is_dir():
            raise TargetError(f"{target.parent}: no such folder; create it first")
        _check_free(target, force=force)
        return path
    except OSError as error:
        raise TargetError(f"{target}: cannot be used ({error.strerror}); choose another name") from None


def _check_free(target: Path, *, force: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise TargetError(f"{target}: is a file; give the name of a folder to be made")
    if not force:
        raise TargetError(f"{target}: exists already; choose another name or pass --force to replace it")
    if not _is_ours(target):
        raise TargetError(f"{target}: is not a checkpoint in block FP8 or MLX's formats, and is not replaced; choose another name")


def _is_ours(folder: Path) -> bool:
    """Whether a folder is empty, or a checkpoint in FP8 or MLX's formats and nothing else: no folder in it, no weights beside its own."""
    entries = list(folder.iterdir())
    if not entries:
        return True
    try:
        q = read_json(folder / CONFIG).get("quantization_config")
        with Checkpoint.open(folder) as held:
            own = {*held.files(), INDEX}
    except ModelFileError:
        return False
    ours = isinstance(q, dict) and (q.get("quant_method") == "fp8" or {"group_size", "bits", "mode"} <= q.keys())
    return ours and not any(entry.is_dir() or (entry.name.endswith(OTHER_WEIGHTS) and entry.name not in own) for entry in entries)


def _take_place(part: Path, target: Path) -> None:
    """Rename the finished folder. One that is to be replaced steps aside first, and comes back if the renaming fails."""
    if not target.exists():
        part.rename(target)
        return
    aside = part.with_suffix(".old")
    target.rename(aside)
    try:
        part.rename(target)
    except BaseException:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)  # the new one is in place, and what cannot be removed is not in its way
