"""Named mixes: which tensor of a GGUF file takes which format, as llama-quantize of llama.cpp chooses them.

A mix has a default format; tensors that suffer more - the output, values, the way out of the feed-forward block, early and late layers -
take a larger one, others a smaller. Source: llama_tensor_get_type_impl, tensor_type_fallback, tensor_requires_imatrix and
init_quantize_state_counters, llama-quant.cpp@ggml-org/llama.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quantize.dimensions import DeepseekDimensions, DenseDimensions, Model
from quantize.errors import QuantizeError
from quantize.formats import F16, F32, FORMATS, Format
from quantize.mlx_formats import MLX_NAMES

if TYPE_CHECKING:
    import numpy as np

    from quantize.gguf_file import TensorInfo
    from quantize.imatrix import ImportanceMatrix


@dataclass(frozen=True, slots=True)
class Mix:
    """`file_type`: what GGUF's general.file_type says (llama_ftype). `needs_imatrix`: too few bits to do without one.

    `formats`: of a plan, what each tensor takes; `note`: what the file is to say of it (see quantize.fit_plan).
    """

    name: str
    default: Format
    file_type: int
    needs_imatrix: bool = False
    formats: Mapping[str, Format] | None = None
    note: str = ""


def _mix(name: str, file_type: int, default: str | None = None, needs_imatrix: bool = False) -> Mix:
    return Mix(name, FORMATS[default or name], file_type, needs_imatrix)


MIXES = {
    mix.name: mix
    for mix in (
        _mix("F32", 0), _mix("F16", 1), _mix("BF16", 32), _mix("Q8_0", 7), _mix("Q6_K", 18),
        _mix("Q5_K_M", 17, "Q5_K"), _mix("Q5_K_S", 16, "Q5_K"), _mix("Q5_0", 8), _mix("Q5_1", 9),
        _mix("Q4_K_M", 15, "Q4_K"), _mix("Q4_K_S", 14, "Q4_K"), _mix("Q4_0", 2), _mix("Q4_1", 3),
        _mix("Q3_K_L", 13, "Q3_K"), _mix("Q3_K_M", 12, "Q3_K"), _mix("Q3_K_S", 11, "Q3_K"), _mix("Q2_K", 10),
        _mix("IQ4_NL", 25), _mix("IQ4_XS", 30), _mix("IQ3_M", 27, "IQ3_S"), _mix("IQ3_S", 26),
        _mix("IQ3_XXS", 23, needs_imatrix=True), _mix("IQ2_M", 29, "IQ2_S", True), _mix("IQ2_S", 28, "IQ2_XS", True),
        _mix("IQ2_XS", 20, needs_imatrix=True), _mix("IQ2_XXS", 19, needs_imatrix=True),
        _mix("IQ1_M", 31, needs_imatrix=True), _mix("IQ1_S", 24, needs_imatrix=True),
    )
}  # fmt: skip


def mix(name: str) -> Mix:
    """The mix a user asked for, upper or lower case. Raises QuantizeError if there is none of that name."""
    if name.upper() not in MIXES:
        raise QuantizeError(f"unknown format {name!r}; choose one of {', '.join(MIXES)}, FP8, {MLX_NAMES}")
    return MIXES[name.upper()]


# Formats that cannot be made without an importance matrix, but for the embedding and the output.
NEED_IMATRIX = {"IQ3_XXS", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ1_M", "IQ1_S"}
# What a tensor takes whose rows are not whole blocks of 256: the next larger format with blocks of 32.
SMALLER_BLOCKS = {
    "IQ1_S": "IQ4_NL", "IQ1_M": "IQ4_NL", "IQ2_XXS": "IQ4_NL", "IQ2_XS": "IQ4_NL", "IQ2_S": "IQ4_NL", "IQ3_XXS": "IQ4_NL",
    "IQ3_S": "IQ4_NL", "IQ4_XS": "IQ4_NL", "Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0",
}  # fmt: skip

_TINY = ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ1_S", "IQ1_M")
_TWO_BIT_AND_A_HALF = ("IQ2_S", "IQ2_M")


@dataclass(frozen=True, slots=True)
class Traits:
    """What the choice depends on. `gqa`: heads that share a key-value head; `layers`: with MTP layers that are in the file."""

    layers: int
    gqa: int
    experts: int
    is_70b: bool

    @classmethod
    def of(cls, d: Model) -> Traits:
        if isinstance(d, DeepseekDimensions):
            return cls(d.layers, d.heads, d.experts, is_70b=False)  # latent attention: one key-value head
        assert isinstance(d, DenseDimensions)
        large = d.layers == 80 and (d.architecture == "qwen2" or (d.architecture == "llama" and d.heads != d.kv_heads))
        return cls(d.layers, d.heads // d.kv_heads, 0, large)


@dataclass(frozen=True, slots=True)
class Choice:
    """A tensor's format; `instead_of` is the one that its rows cannot hold."""

    format: Format
    instead_of: Format | None = None


def choose(mix: Mix, tensors: Sequence[tuple[str, tuple[int, ...]]], traits: Traits, *, imatrix: bool = False) -> list[Choice]:
    """A format for each tensor, given as GGUF name and shape [..., K]; `imatrix`: an importance matrix will be used.

    Vectors, norms and routers stay F32. The order of `tensors` is free: what counts is the order of layers.
    """
    tied = not any(name == "output.weight" for name, _ in tensors)
    wanted = [i for i, (name, shape) in enumerate(tensors) if takes_format(name, shape)]
    rank = _ranks(wanted, [name for name, _ in tensors])
    values = sum(_kind(tensors[i][0]) == "value" for i in wanted)
    choices = [Choice(F32)] * len(tensors)
    for i in wanted:
        name, shape = tensors[i]
        if mix.formats is not None:
            choices[i] = Choice(mix.formats[name])
            continue
        named = mix.default.name
        if mix.default.block > 1:
            named = _named(mix, name, shape, _Place(rank[i], values, _layer(name), tied, imatrix), traits)
        choices[i] = fitting(FORMATS[named], shape)
    return choices


def fitting(form: Format, shape: tuple[int, ...]) -> Choice:
    """The format, or what replaces it where rows are not whole blocks of it: one with smaller blocks, or F16."""
    if form.fits(shape):
        return Choice(form)
    smaller = FORMATS[SMALLER_BLOCKS.get(form.name, "F16")]
    return Choice(smaller if smaller.fits(shape) else F16, instead_of=form)


def takes_format(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a mix has a say in a tensor's format: matrices, but for norms (of one head, in some models) and the router."""
    return len(shape) > 1 and name.endswith("weight") and not name.endswith("_norm.weight") and "ffn_gate_inp.weight" not in name


def needs_imatrix(name: str, form: Format) -> bool:
    """Whether a tensor cannot take this format without its own importance matrix."""
    return form.name in NEED_IMATRIX and name not in ("token_embd.weight", "output.weight")


def importance_for(name: str, shape: tuple[int, ...], form: Format, to: Mix, imatrix: ImportanceMatrix | None) -> np.ndarray | None:
    """float32 [E, K], None where the matrix has nothing on the tensor. Raises QuantizeError where the format cannot do without."""
    found = None if imatrix is None or form.block == 1 else imatrix.weights(name, shape)
    if found is None and needs_imatrix(name, form):
        lacking = "an importance matrix" if imatrix is None else f"importances of {name}, which the matrix lacks"
        raise QuantizeError(f"{to.name} needs {lacking}; give one with --imatrix, make one with --calibrate, or choose Q2_K or larger")
    return found


def misfits(infos: Iterable[TensorInfo], imatrix: ImportanceMatrix | None) -> tuple[str, ...]:
    """Warnings of tensors that are rounded without the matrix, because what it has on them is of another size."""
    return tuple(
        f"the importance matrix does not fit {info.name}, which is rounded without it; was it made for this model?"
        for info in infos
        if imatrix is not None and info.format.block > 1 and imatrix.misfits(info.name, info.shape)
    )


# ------------------------------------------------------------------------------------------------- the rules


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor stands: `rank` among those of its kind, of `values` value matrices; in which layer."""

    rank: int
    values: int
    layer: int
    tied: bool
    imatrix: bool


def _named(mix: Mix, name: str, shape: tuple[int, ...], at: _Place, t: Traits) -> str:
    kind = _kind(name)
    if kind == "output" or (kind == "embedding" and at.tied):
        return _output(mix, shape)
    if kind == "embedding":
        return _embedding(mix)
    if mix.name in _TINY:
        return _tiny(mix, kind, at, t)
    match kind:
        case "value":
            return _value(mix, at, t)
        case "key" if t.experts == 8:
            return "Q8_0"
        case "key" | "query":
            return {"IQ3_XXS": "IQ2_S"}.get(mix.name, mix.default.name)
        case "down":
            return _down(mix, at, t)
        case "attention out":
            return _attention_out(mix, t)
    return mix.default.name


def _output(mix: Mix, shape: tuple[int, ...]) -> str:
    """The output multiplies every token's last state: it keeps 5 to 8 bits."""
    if not mix.default.fits(shape) or mix.default.name == "Q8_0":
        return "Q8_0"
    return "Q5_K" if mix.name in _TINY or mix.name == "IQ3_XXS" else "Q6_K"


def _embedding(mix: Mix) -> str:
    larger = dict.fromkeys(("IQ2_XXS", "IQ2_XS", "IQ1_S", "IQ1_M"), "Q2_K") | dict.fromkeys((*_TWO_BIT_AND_A_HALF, "IQ3_XXS"), "IQ3_S")
    return larger.get(mix.name, mix.default.name)


def _tiny(mix: Mix, kind: str, at: _Place, t: Traits) -> str:
    """One and two bits: values and the first eighth of the layers are spared."""
    spared = "IQ3_S" if mix.name in _TWO_BIT_AND_A_HALF else "Q2_K"
    match kind:
        case "value":
            return "Q4_K" if t.gqa >= 4 or t.experts >= 4 else spared
        case "key" if t.experts == 8:
            return "Q4_K"
        case "down" if at.rank < t.layers // 8:
            return spared
        case "attention out" if t.experts == 8:
            return "Q5_K"
        case "attention out" if mix.name in ("IQ1_S", "IQ1_M"):
            return "IQ2_XXS"
        case "attention out" if mix.name in _TWO_BIT_AND_A_HALF:
            return "IQ3_S"
    return mix.default.name


def _value(mix: Mix, at: _Place, t: Traits) -> str:
    if t.experts == 8:
        return "Q8_0"
    shared = t.gqa >= 4  # few and small value matrices: more bits cost little
    form = mix.default.name
    match mix.name:
        case "Q2_K":
            form = "Q4_K" if shared else "Q3_K"
        case "IQ3_XXS":
            form = "Q4_K" if shared else "IQ3_XXS" if at.imatrix else "IQ3_S"
        case "IQ3_S" if shared:
            form = "Q4_K"
        case "IQ3_M":
            form = "Q4_K"
        case "Q3_K_M":
            form = "Q5_K" if at.rank < 2 else "Q4_K"
        case "Q3_K_L":
            form = "Q5_K"
        case "IQ4_NL" | "IQ4_XS" if shared:
            form = "Q5_K"
        case "Q4_K_M" | "Q5_K_M" if _sensitive(at.rank, at.values):
            form = "Q6_K"
        case "Q4_K_S" if at.rank < 4:
            form = "Q5_K"
    return "Q5_K" if t.is_70b and form in ("Q3_K", "Q4_K") else form


def _down(mix: Mix, at: _Place, t: Traits) -> str:
    layer = at.layer if t.experts > 1 else at.rank
    first_eighth = layer < t.layers // 8
    match mix.name:
        case "Q2_K":
            return "Q3_K"
        case "IQ3_XXS" if not at.imatrix:
            return "Q4_K" if first_eighth else "Q3_K"
        case "Q3_K_M":
            return "Q5_K" if layer < t.layers // 16 else "Q4_K"
        case "IQ3_M" if first_eighth or (t.experts == 8 and _sensitive(layer, t.layers)):
            return "Q4_K"
        case "Q3_K_L":
            return "Q5_K"
        case "Q4_K_M" | "Q5_K_M" if _sensitive(layer, t.layers):
            return "Q6_K"
        case "IQ4_NL" | "IQ4_XS" if first_eighth and not at.imatrix:
            return "Q5_K"
        case "Q4_K_S" if first_eighth:
            return "Q5_K"
        case "Q4_0" | "Q5_0" if first_eighth and at.imatrix:
            return mix.name.replace("_0", "_1")
    return mix.default.name


def _attention_out(mix: Mix, t: Traits) -> str:
    if t.experts == 8:
        larger = ("Q2_K", "IQ3_XXS", "Q3_K_S", "Q3_K_M", "IQ4_NL", "Q4_K_S", "Q4_K_M", "IQ3_S", "IQ3_M", "IQ4_XS")
        return "Q5_K" if mix.name in larger else mix.default.name
    larger_by = {"Q2_K": "Q3_K", "IQ3_XXS": "IQ3_S", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}
    return larger_by.get(mix.name, mix.default.name)


def _sensitive(i: int, n: int) -> bool:
    """The first and the last eighth, and every third between them."""
    return i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2


# ------------------------------------------------------------------------------------------------- the tensors

_KINDS = (
    ("attn_v.weight", "value"), ("attn_kv_b.weight", "value"), ("attn_k.weight", "key"), ("attn_q.weight", "query"), ("attn_output.weight", "attention out"),
    ("ffn_up", "up"), ("ffn_gate", "gate"), ("ffn_down", "down"),
)  # fmt: skip


def _kind(name: str) -> str:
    if name in ("output.weight", "token_embd.weight"):
        return "output" if name == "output.weight" else "embedding"
    return next((kind for part, kind in _KINDS if part in name), "other")


def _layer(name: str) -> int:
    found = re.match(r"blk\.(\d+)\.", name)
    return int(found[1]) if found else -1


def _ranks(wanted: Iterable[int], names: Sequence[str]) -> dict[int, int]:
    """The how-manieth of its kind each tensor is, counted layer by layer and by name within a layer."""
    seen: dict[str, int] = {}
    ranks = {}
    for i in sorted(wanted, key=lambda i: (_layer(names[i]), names[i].encode())):
        kind = _kind(names[i])
        ranks[i] = seen.get(kind, 0)
        seen[kind] = ranks[i] + 1
    return ranks
