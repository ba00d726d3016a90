"""Calibration on a checkpoint folder, without an engine: the numpy model computes, and shows what goes into its matrices.

Slow, and exact: float32 throughout, where llama.cpp keeps keys and values in float16. The names are those of the GGUF file that
`quantize.convert` makes of the folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backends.base import Cancel, Text
from backends.checkpoint import Checkpoint
from quantize.activations import Activations
from quantize.calibrate import CHUNK_TOKENS, Cancelled, Progress, check_chunks, cut
from quantize.dimensions import Model as Dimensions
from quantize.dimensions import read_dimensions
from quantize.gguf_names import TensorName
from quantize.gguf_tokenizer import tokenizer_metadata
from quantize.imatrix import ImportanceMatrix
from quantize.plan import tensor_names

if TYPE_CHECKING:
    import numpy as np

    from backends.reference.weights import Weights

# kv_b_proj is two tensors in GGUF, and neither is multiplied with as it stands: how the reference calls them.
_HALVES = {"attn_k_b.weight": ".keys", "attn_v_b.weight": ".values"}


def collect_reference(
    folder: Path,
    material: str | Sequence[Sequence[int]],
    *,
    datasets: tuple[str, ...] = (),
    chunk_tokens: int = CHUNK_TOKENS,
    most_chunks: int | None = None,
    on_progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> ImportanceMatrix:
    """As `quantize.calibrate.collect`, for the checkpoint in `folder`.

    Raises ModelFileError (the checkpoint is damaged or of an unknown kind), UnsupportedModel (GGUF has no name for it), QuantizeError
    (the text is too short for one chunk, a token is out of range, activations are not finite), Cancelled (`cancel` was set).
    """
    from backends.reference.config import parse_config
    from backends.reference.model import Model

    with Checkpoint.open(folder) as checkpoint:
        d = read_dimensions(checkpoint.config)
        places = _places(tensor_names(checkpoint, d))
        config = parse_config(checkpoint.config)
        if isinstance(material, str):
            chunks = cut(*_encode(folder, checkpoint, d, config.vocab_size, material), chunk_tokens, most_chunks)
        else:
            chunks = check_chunks(material, config.vocab_size, most_chunks)
        seen = Activations()
        model = Model(config, _watched(seen, places)(checkpoint, config, "off"))
        for done, chunk in enumerate(chunks):
            if on_progress is not None:
                on_progress(done, len(chunks))
            if cancel is not None and cancel.is_set():
                raise Cancelled
            model.forward(chunk, model.new_cache())
        if on_progress is not None:
            on_progress(len(chunks), len(chunks))
        return seen.matrix(folder, len(chunks), len(chunks[0]), datasets)


def _places(names: list[TensorName]) -> dict[str, tuple[TensorName, int]]:
    """By the name of a matrix in the checkpoint: the GGUF tensor that holds it, and which of that tensor's matrices it is."""
    places = {}
    for tensor in names:
        if tensor.gguf.startswith("blk.") and len(tensor.shape) > 1 and not tensor.dropped:
            half = _HALVES.get(tensor.gguf.split(".", 2)[2])
            for i, source in enumerate(tensor.sources):
                places[source if half is None else source.removesuffix(".weight") + half] = tensor, i
    return places


def _watched(seen: Activations, places: dict[str, tuple[TensorName, int]]) -> type[Weights]:
    """Weights that add to `seen` what they are multiplied with. A class made here: numpy's model is imported when it is used."""
    from backends.reference.weights import Linear, Weights

    class Watched(Weights):
        def linear(self, prefix: str) -> Linear:
            multiply = super().linear(prefix)

            def watched(x: np.ndarray) -> np.ndarray:
                self.observe(f"{prefix}.weight", x)
                return multiply(x)

            return watched

        def observe(self, name: str, x: np.ndarray) -> None:
            if name in places:
                tensor, which = places[name]
                if len(tensor.sources) > 1:
                    seen.add_expert(tensor.gguf, x, which, len(tensor.sources))
                else:
                    heads = x.reshape(len(x), -1, x.shape[-1]).swapaxes(0, 1)[None]  # [1, H, T, K]
                    seen.add(tensor.gguf, heads, (1, heads.shape[1]))

    return Watched


def _encode(folder: Path, checkpoint: Checkpoint, d: Dimensions, vocabulary: int, text: str) -> tuple[list[int], int | None]:
    """The text's tokens, and BOS if llama.cpp would put it in front."""
    from backends.tokenizer import Tokenizer

    ids = Tokenizer.open(folder, checkpoint.config, vocabulary).encode([Text(text)])
    values = {
        key.removeprefix("tokenizer.ggml."): value.data
        for key, value in tokenizer_metadata(folder, checkpoint.config, d.architecture, vocabulary).items()
    }
    # where the file does not say, it goes by the way text is split
    adds = values.get("add_bos_token", values["pre"] == "llama-bpe")
    return ids, values.get("bos_token_id") if adds else None
