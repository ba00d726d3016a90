"""Calibration on a checkpoint folder without an engine, to check the engine's against: the numpy model shows what goes into its matrices.

float32 throughout, where llama.cpp keeps keys and values in float16. The names are those of the GGUF file that `quantize.convert`
makes of the folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from backends.base import Text
from backends.checkpoint import Checkpoint
from backends.reference.config import Config, parse_config
from backends.reference.model import Model
from backends.reference.weights import Linear, Weights
from backends.tokenizer import Tokenizer
from quantize.activations import Activations
from quantize.calibrate import cut
from quantize.dimensions import Model as Dimensions
from quantize.dimensions import read_dimensions
from quantize.gguf_names import TensorName
from quantize.gguf_tokenizer import tokenizer_metadata
from quantize.imatrix import ImportanceMatrix
from quantize.plan import tensor_names

# kv_b_proj is two tensors in GGUF, and neither is multiplied with as it stands: how the reference calls them.
_HALVES = {"attn_k_b.weight": ".keys", "attn_v_b.weight": ".values"}


def collect_reference(
    folder: Path, material: str | Sequence[Sequence[int]], *, chunk_tokens: int = 512, most_chunks: int | None = None
) -> ImportanceMatrix:
    """As `quantize.calibrate.collect`, for the checkpoint in `folder`."""
    with Checkpoint.open(folder) as checkpoint:
        d = read_dimensions(checkpoint.config)
        config = parse_config(checkpoint.config)
        if isinstance(material, str):
            material = cut(*_encode(folder, checkpoint, d, config.vocab_size, material), chunk_tokens, most_chunks)
        seen = Activations()
        model = Model(config, Watched(checkpoint, config, seen, _places(tensor_names(checkpoint, d))))
        for chunk in material:
            model.forward(list(chunk), model.new_cache())
        return seen.matrix(folder, len(material), len(material[0]), ())


class Watched(Weights):
    """Weights that add to `seen` what they are multiplied with."""

    def __init__(self, checkpoint: Checkpoint, config: Config, seen: Activations, places: dict[str, tuple[TensorName, int]]) -> None:
        super().__init__(checkpoint, config, "off")
        self._seen, self._places = seen, places

    def linear(self, prefix: str) -> Linear:
        multiply = super().linear(prefix)

        def watched(x: np.ndarray) -> np.ndarray:
            self.observe(f"{prefix}.weight", x)
            return multiply(x)

        return watched

    def observe(self, name: str, x: np.ndarray) -> None:
        if name in self._places:
            tensor, which = self._places[name]
            if len(tensor.sources) > 1:
                self._seen.add_expert(tensor.gguf, x, which, len(tensor.sources))
            else:
                heads = x.reshape(len(x), -1, x.shape[-1]).swapaxes(0, 1)[None]  # [1, H, T, K]
                self._seen.add(tensor.gguf, heads, (1, heads.shape[1]))


def _places(names: list[TensorName]) -> dict[str, tuple[TensorName, int]]:
    """By the name of a matrix in the checkpoint: the GGUF tensor that holds it, and which of that tensor's matrices it is."""
    places = {}
    for tensor in names:
        if tensor.gguf.startswith("blk.") and len(tensor.shape) > 1 and not tensor.dropped:
            half = _HALVES.get(tensor.gguf.split(".", 2)[2])
            for i, source in enumerate(tensor.sources):
                places[source if half is None else source.removesuffix(".weight") + half] = tensor, i
    return places


def _encode(folder: Path, checkpoint: Checkpoint, d: Dimensions, vocabulary: int, text: str) -> tuple[list[int], int | None]:
    """The text's tokens, and BOS if llama.cpp would put it in front."""
    ids = Tokenizer.open(folder, checkpoint.config, vocabulary).encode([Text(text)])
    values = {
        key.removeprefix("tokenizer.ggml."): value.data
        for key, value in tokenizer_metadata(folder, checkpoint.config, d.architecture, vocabulary).items()
    }
    # where the file does not say, it goes by the way text is split
    adds = values.get("add_bos_token", values["pre"] == "llama-bpe")
    return ids, values.get("bos_token_id") if adds else None
