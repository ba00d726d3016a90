"""A model as it is before it is quantized, to be run in llama.cpp: a GGUF file, temporary if the source is none, or none that can be changed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from backends.base import Text
from backends.checkpoint import Checkpoint
from quantize.calibrate import check_chunks, cut
from quantize.convert import Progress as Converted
from quantize.convert import convert
from quantize.fit_targets import GgufTarget
from quantize.gguf_source import GgufSource
from quantize.live_model import LiveModel
from quantize.parts import Part, check_room
from quantize.sizes import mix_sizes

FINE = ("F32", "F16", "BF16", "Q8_0")
SMALL = 500_000_000  # parameters: F32 costs nothing there, and every layer can be probed
MOST_TOKENS, LEAST_TOKENS = 4096, 128  # to measure KL with
TOKEN_PARAMETERS = 1 << 39  # tokens x parameters, which take seconds to compute
SCORES = 1 << 26  # tokens x vocabulary, which are held in float32
LONG_CHUNK, SHORT_CHUNK = 512, 128
SLACK_BYTES = 1 << 29  # the engine's own, beside weights and scores

Material = str | Sequence[Sequence[int]]
Progress = Callable[[str, int, int], None]


class Unquantized:
    """A context manager; the temporary file is made when it is first asked for, and removed at the end whatever happens.

    `then_bytes`: what the target will take beside it. `to_change`: weights are going to be overwritten; a GGUF file that holds them more
    coarsely than Q8_0 is decoded for that, for each change would cost its own rounding, too. Raises TargetError: there is no room for both.
    """

    def __init__(
        self,
        source: Path,
        opened: Checkpoint | GgufSource,
        target: Path,
        then_bytes: int,
        say: Callable[[str], None],
        on_progress: Progress,
        *,
        to_change: bool = False,
    ) -> None:
        self._source, self._target, self._say, self._on_progress = source, target, say, on_progress
        self._then_bytes = then_bytes
        self._part: Part | None = None
        as_it_is = isinstance(opened, GgufSource) and not (to_change and _is_coarse(opened))
        self._path: Path | None = source if as_it_is else None
        weights = GgufTarget(opened).weights(None)
        self.parameters = sum(math.prod(w.shape) for w in weights)
        self.vocabulary = next((w.shape[0] for w in weights if w.name == "token_embd.weight"), 1)
        sizes = mix_sizes(opened)
        if as_it_is:
            self._mix, self._bytes = "", opened.bytes_total
        else:
            # what memory holds of: exact, as the checkpoint has it, nearly so
            choices = ["F32"] if self.is_small else ["BF16", "Q8_0"]
            self._mix = next((mix for mix in choices if self._fits(sizes[mix])), choices[-1])
            self._bytes = sizes[self._mix]

    @property
    def is_small(self) -> bool:
        return self.parameters < SMALL

    @property
    def tokens(self) -> int:
        """To measure KL with: as many as do not take long, and whose scores do not take much memory."""
        return max(LEAST_TOKENS, min(MOST_TOKENS, TOKEN_PARAMETERS // self.parameters, SCORES // self.vocabulary))

    @property
    def can_change(self) -> bool:
        """Whether weights can be overwritten: they fit memory."""
        return self._fits(self._bytes)

    def _fits(self, nbytes: int) -> bool:
        from backends.hardware import memory

        return nbytes + 3 * 4 * self.tokens * self.vocabulary + SLACK_BYTES <= memory()[1]

    @property
    def path(self) -> Path:
        """The GGUF file."""
        if self._path is None:
            check_room(self._target, self._bytes + self._then_bytes)
            self._part = Part(self._target)
            self._part.create(Path.mkdir)
            path = self._part.path / f"source-{self._mix}.gguf"
            self._say(f"the model runs from {path} ({self._bytes / 1e6:,.0f} MB), which is removed afterwards")
            convert(self._source, path, self._mix, on_progress=self._converted)
            self._path = path
        return self._path

    def _converted(self, progress: Converted) -> None:
        self._on_progress(f"writing the model as {self._mix}", progress.done_bytes, progress.total_bytes)

    def live(self) -> LiveModel:
        """Raises ModelFileError or EngineError."""
        return LiveModel(self.path, self._chunk_tokens)

    def chunks(self, material: Material, bos: int | None) -> list[list[int]]:
        """Evenly spaced ones, `tokens` in all; or one. Raises QuantizeError: the text is too short for one."""
        if isinstance(material, str):
            from backends.llamacpp import LlamaCppBackend

            with LlamaCppBackend(self.path, 16) as backend:
                chunks = cut(backend.encode([Text(material)]), bos, self._chunk_tokens)
        else:
            chunks = [chunk[: self._chunk_tokens] for chunk in check_chunks(material, self.vocabulary)]
        n = max(1, min(len(chunks), self.tokens // len(chunks[0])))
        return [chunks[i * len(chunks) // n] for i in range(n)]

    @property
    def _chunk_tokens(self) -> int:
        return LONG_CHUNK if self.tokens >= 4 * LONG_CHUNK else SHORT_CHUNK

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._part is not None:
            self._part.discard()


def _is_coarse(source: GgufSource) -> bool:
    return any(t.format is not None and t.format.name not in FINE for t in source.header.tensors)
