"""What a plan can choose from: the tensors of a GGUF file or an MLX folder, the formats each can take, and their sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from functools import partial
from typing import TYPE_CHECKING, Protocol

from backends.checkpoint import Checkpoint
from quantize.dimensions import read_dimensions
from quantize.fit_plan import Kind
from quantize.formats import FORMATS
from quantize.gguf_file import pad
from quantize.gguf_reader import GgufTensor
from quantize.gguf_source import GgufSource
from quantize.mlx_folder import _dtypes
from quantize.mlx_formats import MLX_FORMATS, Packing, mlx, mlx_format
from quantize.mlx_names import MlxTensor, mlx_tensors
from quantize.plan import source_rows, tensor_names
from quantize.recipe import MIXES, Traits, choose, takes_format
from quantize.rows import Rows
from quantize.safetensors_folder import StoredTensor
from quantize.sensitivity import RoundTrip, Weight, ggml_round_trip

if TYPE_CHECKING:
    import numpy as np

    from quantize.imatrix import ImportanceMatrix

WHOLE = ("Q2_K", "Q3_K", "IQ4_XS", "Q4_K", "Q5_K", "Q6_K", "Q8_0")  # rows of whole blocks of 256
HALVES = ("Q4_0", "IQ4_NL", "Q4_1", "Q5_0", "Q5_1", "Q8_0")  # of 32
NO_BLOCKS = ("F16",)
# Found by long searching: only where the budget leaves fewer bits a weight than the number says. IQ3_S: better than Q3_K of the same size.
SEARCHED = {"IQ3_S": 3.9, "IQ3_XXS": 3.9, "IQ2_S": 3.1, "IQ2_XS": 3.1, "IQ2_XXS": 3.1}
BITS = (2, 3, 4, 5, 6, 8)

Formats = Mapping[str, str]  # by tensor


class FitTarget(Protocol):
    """Names of formats are those of a plan. `small`: a named format, and what each tensor takes in it. `held`: formats of
    a GGUF source's tensors, which are copied as they are where the plan says the same."""

    kind: Kind
    slow: frozenset[str]
    packings: tuple[Packing, ...]
    names: list[str]
    small: str
    held: Formats

    def weights(self, imatrix: ImportanceMatrix | None) -> list[Weight]: ...
    def candidates(self, name: str, budget_bits: float) -> list[str]: ...
    def nbytes(self, name: str, form: str) -> int: ...
    def round_trip(self, pool: Executor) -> Callable[[str], RoundTrip]: ...
    def named(self) -> dict[str, Formats]: ...


class GgufTarget:
    """Of a checkpoint, or of another GGUF file."""

    kind: Kind = "gguf"
    slow = frozenset(SEARCHED)
    packings: tuple[Packing, ...] = ()
    small = "Q2_K"

    def __init__(self, source: Checkpoint | GgufSource) -> None:
        self._source = source
        self._all: list[tuple[str, tuple[int, ...]]]
        self.held: Formats
        self._parts: dict[str, Callable[[], Iterator[tuple[str, Rows]]]]
        if isinstance(source, GgufSource):
            self._all, self._traits = [(t.name, t.shape) for t in source.header.tensors], source.traits()
            self._parts = {t.name: partial(_rows, source, t) for t in source.header.tensors}
            self.held = {t.name: t.format.name for t in source.header.tensors if t.format is not None}
        else:
            d = read_dimensions(source.config)
            tensors = [t for t in tensor_names(source, d) if not t.dropped]
            self._all, self._traits = [(t.gguf, t.shape) for t in tensors], Traits.of(d)
            self._parts = {t.gguf: partial(source_rows, t, source) for t in tensors}
            self.held = {}
        self._shapes = {name: shape for name, shape in self._all if takes_format(name, shape)}
        self.names = list(self._shapes)

    def weights(self, imatrix: ImportanceMatrix | None) -> list[Weight]:
        found = []
        for name, shape in self._shapes.items():
            importance = None if imatrix is None else imatrix.weights(name, shape)
            found.append(Weight(name, shape, (name,), self._parts[name], self._source.release, importance))
        return found

    def candidates(self, name: str, budget_bits: float) -> list[str]:
        """Those that a budget of so many bits a weight calls for."""
        shape = self._shapes[name]
        if not FORMATS["Q2_K"].fits(shape):
            return list(HALVES if FORMATS["Q4_0"].fits(shape) else NO_BLOCKS)
        return [*(form for form, bits in SEARCHED.items() if budget_bits < bits), *WHOLE]

    def nbytes(self, name: str, form: str) -> int:
        return pad(FORMATS[form].nbytes(self._shapes[name]))

    def round_trip(self, pool: Executor) -> Callable[[str], RoundTrip]:
        return lambda form: ggml_round_trip(FORMATS[form], pool)

    def named(self) -> dict[str, Formats]:
        """What each tensor takes in the named mixes, with an importance matrix."""
        found: dict[str, Formats] = {}
        for mix in MIXES.values():
            choices = choose(mix, self._all, self._traits, imatrix=True)
            found[mix.name] = {name: c.format.name for (name, _), c in zip(self._all, choices, strict=True) if name in self._shapes}
        return found


class MlxTarget:
    """Of a checkpoint: affine formats with groups of one size."""

    kind: Kind = "mlx"
    slow: frozenset[str] = frozenset()

    def __init__(self, checkpoint: Checkpoint, group: int) -> None:
        self.held: Formats = {}
        self._checkpoint, self._d = checkpoint, read_dimensions(checkpoint.config)
        self.packings = tuple(Packing(group, bits) for bits in BITS)
        self._packings = {packing.name: packing for packing in self.packings}
        tensors = mlx_tensors(tensor_names(checkpoint, self._d), self._d)
        self._tensors = {tensor.name: tensor for tensor in tensors if tensor.is_matrix}
        self._dtypes = {name: _dtypes(tensor, checkpoint) for name, tensor in self._tensors.items()}
        self.names = list(self._tensors)
        self.small = mlx_format(f"mlx-2bit-g{group}").name

    def weights(self, imatrix: ImportanceMatrix | None) -> list[Weight]:
        return [self._weight(tensor, imatrix) for tensor in self._tensors.values()]

    def _weight(self, tensor: MlxTensor, imatrix: ImportanceMatrix | None) -> Weight:
        origin = tensor.origin
        names: tuple[str, ...] = (origin.gguf,)
        importance = None
        if tensor.shape != origin.shape:  # DeepSeek-V2's kv_b_proj, which GGUF has in two halves
            names = (origin.gguf, origin.gguf.replace("attn_k_b", "attn_v_b"))
        elif imatrix is not None:
            importance = imatrix.weights(origin.gguf, tensor.shape)
        parts = partial(source_rows, origin, self._checkpoint)
        return Weight(tensor.name, tensor.shape, names, parts, self._checkpoint.release, importance)

    def candidates(self, name: str, budget_bits: float) -> list[str]:
        fits = self.packings[0].fits(self._tensors[name].shape)
        return [packing.name for packing in self.packings] if fits else [self._dtypes[name][-1]]

    def nbytes(self, name: str, form: str) -> int:
        shape, dtype = self._tensors[name].shape, self._dtypes[name][-1]
        packing = self._packings.get(form)
        stored = [StoredTensor(name, dtype, shape)] if packing is None else packing.stored(name, shape, dtype)
        return sum(tensor.nbytes for tensor in stored)

    def round_trip(self, pool: Executor) -> Callable[[str], RoundTrip]:
        return lambda form: partial(_mlx_round_trip, self._packings.get(form))

    def named(self) -> dict[str, Formats]:
        """What each tensor takes in the named formats whose groups are as large."""
        found: dict[str, Formats] = {}
        for form in MLX_FORMATS.values():
            packings = {name: form.packing(name, self._d.layers) for name in self._tensors}
            if all(packing in self.packings for packing in packings.values()):
                found[form.name] = {
                    name: packing.name if packing is not None and packing.fits(self._tensors[name].shape) else self._dtypes[name][-1]
                    for name, packing in packings.items()
                }
        return found


def _mlx_round_trip(packing: Packing | None, rows: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
    """MLX rounds without looking at importances. None: what stays as it is in the checkpoint."""
    import numpy as np

    if packing is None:
        return rows
    mx = mlx()
    parts = mx.quantize(mx.array(rows), packing.group, packing.bits, mode=packing.mode)
    return np.array(mx.dequantize(*parts, packing.group, packing.bits, mode=packing.mode), np.float32)


def _rows(source: GgufSource, tensor: GgufTensor) -> Iterator[tuple[str, Rows]]:
    yield tensor.name, source.rows(tensor)
