"""An existing GGUF file to be written again in other formats: its metadata as it stands, its matrices decoded a few rows at a time."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from backends.base import ModelFileError
from backends.checkpoint import check_stamp, short, stamp
from quantize.errors import UnsupportedModel
from quantize.formats import UNREADABLE, Format, decode, encode, not_finite
from quantize.gguf_file import GgufWriter, Kind, Metadata, TensorInfo, Value, text, uint
from quantize.gguf_metadata import FIT, QUANTIZATION_VERSION
from quantize.gguf_reader import AGAIN, GgufTensor, read_gguf_header
from quantize.job import Job, Step, releasing
from quantize.loss import Loss
from quantize.recipe import Mix, Traits, choose, importance_for, misfits, takes_format

if TYPE_CHECKING:
    import numpy as np

    from quantize.imatrix import ImportanceMatrix

ARCHITECTURES = ("qwen2", "llama", "qwen3", "deepseek2")


class GgufSource:
    """An open GGUF file. Raises ModelFileError (damaged), UnsupportedModel (split, of an unknown architecture or format)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header = read_gguf_header(path)
        self._stamp = stamp(path.stat())
        self.architecture = str(self.header.metadata.get("general.architecture"))
        if self.architecture not in ARCHITECTURES:
            raise UnsupportedModel(f"{path}: a {short(self.architecture)} model; supported are {', '.join(ARCHITECTURES)}")
        if self.header.metadata.get("split.count", 0) not in (0, 1):
            raise UnsupportedModel(f"{path}: one part of a model split into several files; join them with llama-gguf-split --merge first")
        unknown = next((t for t in self.header.tensors if t.format is None), None)
        if unknown is not None:
            raise UnsupportedModel(
                f"{path}: tensor {short(unknown.name, 120)} is of ggml type {unknown.ggml_type}, which is not known here"
            )
        self._check()
        self._by_name = {tensor.name: tensor for tensor in self.header.tensors}
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    @property
    def bytes_total(self) -> int:
        return sum(tensor.nbytes or 0 for tensor in self.header.tensors)

    def _check(self) -> None:
        """Raises what the class does: nothing could be made of the file that llama.cpp loads."""
        integers = next(
            (t for t in self.header.tensors if t.format and t.format.name in UNREADABLE and takes_format(t.name, t.shape)), None
        )
        if integers is not None and integers.format is not None:
            raise UnsupportedModel(
                f"{self.path}: tensor {short(integers.name, 120)} is {integers.format.name}, which ggml cannot decode; convert the model again"
            )
        if not self.header.tensors:
            raise ModelFileError(f"{self.path}: holds no tensor; {AGAIN}")
        odd = next((name for name in (*self.header.metadata, *(t.name for t in self.header.tensors)) if not name.isprintable()), None)
        if odd is not None:
            raise ModelFileError(f"{self.path}: damaged: the name {short(odd, 120)} holds what is no text; {AGAIN}")
        embedding = next((t for t in self.header.tensors if t.name == "token_embd.weight"), None)
        if embedding is None:
            return
        tokens: Any = self.header.metadata.get("tokenizer.ggml.tokens", [])
        bare = self.header.metadata.get("tokenizer.ggml.model") in ("none", "no_vocab")
        if not isinstance(tokens, list) or (len(tokens) != embedding.shape[0] and not bare):
            found = f"{len(tokens):,}" if isinstance(tokens, list) else short(tokens)
            raise ModelFileError(f"{self.path}: damaged: {found} tokens and an embedding of {embedding.shape[0]:,}; {AGAIN}")
        for key in ("context_length", "embedding_length"):
            if self.count(key) < 1:
                raise ModelFileError(f"{self.path}: damaged: {self.architecture}.{key} is {self.count(key)}; {AGAIN}")

    def traits(self) -> Traits:
        """Raises ModelFileError if the metadata lacks what the choice of formats depends on."""
        layers, heads = self.count("block_count"), self.count("attention.head_count")
        kv_heads = self.count("attention.head_count_kv", heads)
        experts = self.count("expert_count", 0)
        large = layers == 80 and (self.architecture == "qwen2" or (self.architecture == "llama" and heads != kv_heads))
        return Traits(layers, heads // max(1, kv_heads), experts, large)

    def check_unchanged(self) -> None:
        """Raises ModelFileError: the file was written since it was opened."""
        check_stamp(self.path, self._stamp)

    def rows(self, tensor: GgufTensor) -> GgufRows:
        return GgufRows(self._map, tensor)

    def release(self, name: str) -> None:
        """Let the system forget the pages of a tensor that has been read."""
        tensor = self._by_name[name]
        begin = -(-tensor.begin // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (tensor.begin + (tensor.nbytes or 0)) // mmap.PAGESIZE * mmap.PAGESIZE
        if end > begin and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, begin, end - begin)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """The map is closed when the last array that looks into it is gone."""

    def count(self, key: str, default: int | None = None) -> int:
        """A whole number of the architecture's metadata. Raises ModelFileError: it is none, or missing without a default."""
        value: Any = self.header.metadata.get(f"{self.architecture}.{key}", default)
        if isinstance(value, list) and value:  # one number a layer: llama.cpp judges by the first
            value = value[0]
        if type(value) is not int or value < 0:
            raise ModelFileError(
                f"{self.path}: {self.architecture}.{key} is {short(value)}, a whole number is needed; convert the model again"
            )
        return value


class GgufRows:
    """A tensor of a mapped file as a matrix [R, K] of rows, decoded when they are asked for."""

    def __init__(self, data: mmap.mmap, tensor: GgufTensor) -> None:
        assert tensor.format is not None
        self.format = tensor.format
        columns = tensor.shape[-1]
        self.shape: tuple[int, ...] = (math.prod(tensor.shape[:-1]), columns)
        self._data, self._begin, self._row_bytes = data, tensor.begin, self.format.nbytes((columns,))

    def stored(self, start: int, stop: int) -> np.ndarray:
        """uint8: the rows as they lie in the file."""
        import numpy as np

        return np.frombuffer(self._data, np.uint8, (stop - start) * self._row_bytes, self._begin + start * self._row_bytes)

    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray:
        assert isinstance(rows, slice)
        start, stop, _ = rows.indices(self.shape[0])
        raw, shape = self.stored(start, stop), (stop - start, self.shape[1])
        if self.format.name == "BF16":
            import ml_dtypes

            halves: np.ndarray = raw.view(ml_dtypes.bfloat16).reshape(shape)
            return halves
        return decode(raw, self.format, shape)


def requantize_job(source: GgufSource, target: Path, to: Mix, *, force: bool, imatrix: ImportanceMatrix | None = None) -> Job:
    """Raises ModelFileError, QuantizeError or TargetError, before anything is written."""
    header = source.header
    chosen = choose(to, [(t.name, t.shape) for t in header.tensors], source.traits(), imatrix=imatrix is not None)
    infos, steps, fallbacks, again = [], [], [], set()
    for tensor, choice in zip(header.tensors, chosen, strict=True):
        assert tensor.format is not None and tensor.nbytes is not None
        form = choice.format if takes_format(tensor.name, tensor.shape) else tensor.format
        importance = importance_for(tensor.name, tensor.shape, form, to, imatrix)
        infos.append(info := TensorInfo(tensor.name, tensor.shape, form))
        steps.append(Step(info.name, info.nbytes, partial(_pieces, source, tensor, form, importance), info.shape, form.name))
        if form is choice.format and choice.instead_of is not None:
            fallbacks.append((info.name, form.name))
        if tensor.format.block > 1 and tensor.format is not form:
            again.add(tensor.format.name)
    metadata = _metadata(header.metadata, header.kinds, header.items)
    metadata["general.file_type"] = uint(to.file_type)
    metadata["general.quantization_version"] = uint(QUANTIZATION_VERSION)
    metadata.pop(FIT, None)
    if to.note:
        metadata[FIT] = text(to.note)
    warning = (
        f"{source.path} is quantized already ({', '.join(sorted(again))}), so this loses twice; start from the original weights if you can"
    )
    return Job(
        format=to.name,
        architecture=source.architecture,
        parameters=sum(math.prod(info.shape) for info in infos),
        steps=steps,
        writer=GgufWriter(target, metadata, infos, force=force),
        fallbacks=tuple(fallbacks),
        warnings=(*((warning,) if again else ()), *misfits(infos, imatrix)),
    )


def _metadata(values: dict[str, Any], kinds: dict[str, Kind], items: dict[str, Kind]) -> Metadata:
    """As it stands, text to the byte; how tensors are aligned is up to whoever writes them."""

    def stored(value: Any) -> Any:
        if isinstance(value, list):
            return [stored(item) for item in value]
        return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value

    return {key: Value(kinds[key], stored(value), items.get(key)) for key, value in values.items() if key != "general.alignment"}


def _pieces(
    source: GgufSource, tensor: GgufTensor, to: Format, importance: np.ndarray | None, pool: Executor, loss: Loss
) -> Iterator[np.ndarray]:
    rows = source.rows(tensor)
    pieces = _copied(rows, loss) if to is rows.format else encode(rows, to, pool, loss, importance)
    yield from releasing(pieces, source, tensor.name)


def _copied(rows: GgufRows, loss: Loss) -> Iterator[np.ndarray]:
    """As they are. Raises QuantizeError unless they are finite, or need not be."""
    step = max(1, (1 << 20) // max(1, rows.format.nbytes((rows.shape[1],))))
    for start in range(0, rows.shape[0], step):
        piece = slice(start, min(start + step, rows.shape[0]))
        if rows.format.name not in UNREADABLE:
            loss.kept += not_finite(rows[piece], loss.allow_nan)
        yield rows.stored(piece.start, piece.stop)
