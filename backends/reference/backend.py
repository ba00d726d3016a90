"""The reference as a `Backend`: chat with a checkpoint through the numpy model, and check the engines in the same words."""

from __future__ import annotations

import codecs
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Self

import numpy as np

from backends.base import (
    DEFAULT_CONTEXT,
    Cancel,
    ChatFormat,
    End,
    EndReason,
    EngineError,
    ModelInfo,
    PromptTooLong,
    Sampling,
    Segment,
    Token,
    check_context,
    common_prefix,
    room_behind,
)
from backends.checkpoint import Checkpoint, model_name
from backends.likelihood import likelihood
from backends.reference.config import parse_config
from backends.reference.model import Model
from backends.reference.sampling import draw
from backends.reference.weights import SCALE, Fp8Mode, Weights
from backends.tokenizer import Tokenizer

PREFILL_TOKENS = 256  # computed at once; between two such pieces a cancel is noticed


class ReferenceBackend:
    """One checkpoint folder, opened. See `backends.base.Backend` for the calls.

    `context`: tokens to hold; None for DeepSeek's 32,768 or what the model was trained for, if that is less.
    Raises ModelFileError if the checkpoint is damaged or of an unknown kind; EngineError for an impossible context.
    """

    name = "reference"

    def __init__(self, folder: Path, context: int | None = None, fp8: Fp8Mode = "off") -> None:
        checkpoint = Checkpoint.open(folder)
        config = parse_config(checkpoint.config)
        trained = config.max_position_embeddings
        check_context(context, trained)
        self._tokenizer = Tokenizer.open(folder, checkpoint.config, config.vocab_size)
        self.model = Model(config, Weights(checkpoint, config, fp8))
        self.info = _model_info(folder, checkpoint, config.model_type, min(trained, DEFAULT_CONTEXT) if context is None else context)
        self._cache = self.model.new_cache()
        self._cached: list[int] = []  # the tokens it holds
        self._closed = False

    @property
    def chat_format(self) -> ChatFormat:
        return self._tokenizer.chat_format

    @property
    def ends(self) -> frozenset[int]:
        """Tokens that end a reply."""
        return self._tokenizer.ends

    def encode(self, segments: Sequence[Segment]) -> list[int]:
        return self._tokenizer.encode(segments)

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids)

    def stream(self, ids: Sequence[int], sampling: Sampling, cancel: Cancel) -> Iterator[Token | End]:
        self._check_open()
        limit, full = room_behind(ids, self.info.context_length, sampling)
        prompt, began = len(ids), perf_counter()
        reused = self._keep_prefix(ids[:-1])  # the last token is computed again for its logits
        logits = self._compute(ids[reused:], cancel)
        prefilled = perf_counter()

        new = 0
        reason: EndReason = "cancelled"
        utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        random = np.random.default_rng(sampling.seed)
        while logits is not None and not cancel.is_set():
            if new >= limit:
                reason = full
                break
            token = draw(logits, sampling, random)
            if self._tokenizer.is_end(token):
                reason = "stop"
                break
            new += 1
            logprob, others = likelihood(logits, token, lambda other: self._tokenizer.decode([other]))
            yield Token(token, utf8.decode(self._tokenizer.piece(token)), logprob, others)
            self._check_open()
            if not cancel.is_set() and new < limit:
                logits = self._compute([token], cancel)
        yield End(reason, prompt, reused, new, prefilled - began, perf_counter() - prefilled)

    def prefill(self, ids: Sequence[int], cancel: Cancel) -> int:
        self._check_open()
        ids = ids[: self.info.context_length]
        self._compute(ids[self._keep_prefix(ids) :], cancel)
        return len(self._cached)

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        self._check_open()
        if len(ids) > self.info.context_length:
            raise PromptTooLong(len(ids), self.info.context_length)
        out = np.empty((len(ids), self.model.config.vocab_size), np.float32)
        cache = self.model.new_cache()
        for start in range(0, len(ids), PREFILL_TOKENS):
            part = ids[start : start + PREFILL_TOKENS]
            out[start : start + len(part)] = self.model.logits(part, cache)
        return out

    def close(self) -> None:
        """Drop weights and cache; calling it again does nothing."""
        if not self._closed:
            self._closed = True
            del self.model, self._cache
            self._cached.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _keep_prefix(self, ids: Sequence[int]) -> int:
        """Drop from the cache what `ids` does not start with; returns how many tokens stay."""
        kept = common_prefix(self._cached, ids)
        self._cache.truncate(kept)
        del self._cached[kept:]
        return kept

    def _compute(self, ids: Sequence[int], cancel: Cancel) -> np.ndarray | None:
        """Put `ids` behind the cached tokens; the last one's logits [V], None when cancelled on the way."""
        hidden = None
        for start in range(0, len(ids), PREFILL_TOKENS):
            if cancel.is_set():
                return None
            part = ids[start : start + PREFILL_TOKENS]
            hidden = self.model.forward(part, self._cache)
            self._cached += part
        logits: np.ndarray | None = None if hidden is None else self.model.head(hidden[-1:])[0]
        return logits

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("the model is closed; open it again")


def _model_info(folder: Path, checkpoint: Checkpoint, architecture: str, context: int) -> ModelInfo:
    weights = [name for name in checkpoint.names() if not name.endswith(SCALE)]
    dtypes: Counter[str] = Counter()
    for name in weights:
        dtypes[checkpoint.dtype(name)] += checkpoint.nbytes(name)
    return ModelInfo(
        name=model_name(folder),
        architecture=architecture,
        base="",
        context_length=context,
        format=dtypes.most_common(1)[0][0],
        bits_per_weight=8 * checkpoint.bytes_total / sum(math.prod(checkpoint.shape(name)) for name in weights),
        weight_bytes=checkpoint.bytes_total,
    )
