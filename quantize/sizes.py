"""How large a model would be in each named mix, from the headers alone."""

from __future__ import annotations

from backends.checkpoint import Checkpoint
from quantize.dimensions import read_dimensions
from quantize.formats import F32
from quantize.gguf_names import rope_frequency_divisors
from quantize.gguf_source import GgufSource
from quantize.plan import tensor_names
from quantize.recipe import MIXES, Traits, choose, takes_format


def mix_sizes(source: Checkpoint | GgufSource, *, imatrix: bool = False) -> dict[str, int]:
    """Bytes of all tensors in a GGUF file of each mix; those that cannot be made without an importance matrix only with one.

    Raises ModelFileError or UnsupportedModel.
    """
    if isinstance(source, GgufSource):
        tensors, traits, kept = [(t.name, t.shape) for t in source.header.tensors], source.traits(), 0
        fixed = {t.name: t.nbytes or 0 for t in source.header.tensors if not takes_format(t.name, t.shape)}
    else:
        d = read_dimensions(source.config)
        tensors, traits = [(t.gguf, t.shape) for t in tensor_names(source, d) if not t.dropped], Traits.of(d)
        divisors = rope_frequency_divisors(d)
        fixed, kept = {}, 0 if divisors is None else F32.nbytes(divisors.shape)
    sizes = {}
    for name, mix in MIXES.items():
        if imatrix or not mix.needs_imatrix:
            choices = choose(mix, tensors, traits, imatrix=imatrix)
            sizes[name] = kept + sum(
                fixed.get(tensor, choice.format.nbytes(shape)) for (tensor, shape), choice in zip(tensors, choices, strict=True)
            )
    return sizes
