"""MLX folders and safetensors checkpoints through mlx and mlx-lm's networks: Apple GPUs, CUDA, or the CPU under Linux.

The decode loop, the text and the sampling are ours. One sequence; its cache is kept between calls and trimmed to the prefix that a new
token list shares with it. While a token is handled, the device computes the next one's scores.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from backends.base import (
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
    check_ids,
    common_prefix,
    room_behind,
)  # fmt: skip
from backends.checkpoint import model_name, short
from backends.likelihood import likelihood
from backends.memory import context_within
from backends.mlx_files import ModelFiles
from backends.mlx_model import Network
from backends.mlx_sampling import draw
from backends.tokenizer import Tokenizer

if TYPE_CHECKING:
    import numpy as np

# A prompt is computed in pieces, between which a cancel is noticed: of so many weights times tokens, some tenths of a second on the
# GPU of an M1 (reckoned, not measured) and on two CPU cores. Smaller ones would waste a GPU; the CPU computes token by token anyway.
# The same pieces each time, so that the same tokens give the same numbers.
PIECE_WORK, PIECE_WORK_CPU = 10**12, 10**9
PIECE_TOKENS = 256
PIECE_TOKENS_GPU = 64  # or more
CLEAR_EVERY = 256  # tokens: the cache has grown, and buffers of its old size lie unused


class _Step(NamedTuple):
    """What the device is computing: a token, and the scores that it is drawn from."""

    token: Any
    logits: Any


class MlxBackend:
    """One folder, opened. See `backends.base.Backend` for the calls.

    `context`: tokens to hold; None for DeepSeek's 32,768 or what the model and the free memory allow, if that is less.
    `float32`: computes in float32 whatever the folder holds, to compare it with others.
    Raises ModelFileError if files are missing, damaged or of an unknown kind; EngineError if MLX is missing or fails.
    """

    name = "mlx"

    def __init__(self, folder: Path, context: int | None = None, float32: bool = False) -> None:
        self._net: Network | None = None
        self._wired: int | None = None
        files = ModelFiles.open(folder)
        check_context(context, files.config.max_position_embeddings)
        self._tokenizer = Tokenizer.open(folder, files.checkpoint.config, files.config.vocab_size)
        self._net = net = Network(files, float32)
        self._mx = net.mx
        self.info = ModelInfo(
            name=model_name(folder),
            architecture=net.config.model_type,
            base="",
            context_length=context_within(net.config.max_position_embeddings, net.kv_bytes_per_token) if context is None else context,
            format=net.format,
            bits_per_weight=8 * files.stored_bytes / max(1, net.parameters),
            weight_bytes=files.stored_bytes,
        )
        self._piece_tokens = _piece_tokens(net)
        self._forget()
        self._wire()

    def _wire(self) -> None:
        """Have macOS keep the weights in memory, as mlx-lm does while it generates; `close` undoes it. Unmeasured: needs Metal."""
        if self._mx.metal.is_available():
            device = getattr(self._mx, "device_info", None) or self._mx.metal.device_info
            if limit := device().get("max_recommended_working_set_size"):
                self._wired = self._mx.set_wired_limit(limit)

    def close(self) -> None:
        """Free weights and cache; calling it again does nothing."""
        if self._net is None:
            return
        try:
            self._settle()
        finally:
            self._net = None
            self._cache.clear()
            self._cached.clear()
            self._mx.clear_cache()
            if self._wired is not None:
                self._mx.set_wired_limit(self._wired)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # --------------------------------------------------------------------------------------- text <-> ids

    @property
    def chat_format(self) -> ChatFormat:
        return self._tokenizer.chat_format

    def encode(self, segments: Sequence[Segment]) -> list[int]:
        self._opened()
        return self._tokenizer.encode(segments)

    def decode(self, ids: Sequence[int]) -> str:
        self._check(ids)
        return self._tokenizer.decode(ids)

    # ---------------------------------------------------------------------------------------- continuing

    def stream(self, ids: Sequence[int], sampling: Sampling, cancel: Cancel) -> Iterator[Token | End]:
        import numpy as np

        self._check(ids)
        limit, full = room_behind(ids, self.info.context_length, sampling)
        prompt, began = len(ids), perf_counter()
        reused = self._keep_prefix(ids[:-1])  # the last token is computed again for its logits
        random = np.random.default_rng(sampling.seed)
        hidden = self._compute(ids[reused:], cancel)
        step = None if hidden is None else self._start(hidden, sampling, random)
        prefilled = self._clock(step)

        new = 0
        reason: EndReason = "cancelled"
        utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        try:
            while not cancel.is_set():
                if new >= limit:
                    reason = full
                    break
                assert step is not None
                step, token, logits = self._advance(step, new + 1 < limit, sampling, random)
                if cancel.is_set():
                    break
                if self._tokenizer.is_end(token):
                    reason = "stop"
                    break
                new += 1
                logprob, others = likelihood(logits, token, lambda other: self._tokenizer.decode([other]))
                yield Token(token, utf8.decode(self._tokenizer.piece(token)), logprob, others)
                self._opened()
            yield End(reason, prompt, reused, new, prefilled - began, perf_counter() - prefilled)
        finally:
            self._settle()  # what is computed beyond a cancelled, ended or abandoned stream

    def prefill(self, ids: Sequence[int], cancel: Cancel) -> int:
        self._check(ids)
        ids = ids[: self.info.context_length]
        self._compute(ids[self._keep_prefix(ids) :], cancel)
        return len(self._cached)

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        import numpy as np

        self._check(ids)
        if len(ids) > self.info.context_length:
            raise PromptTooLong(len(ids), self.info.context_length)
        with self._computing() as net:
            out = np.empty((len(ids), net.config.vocab_size), np.float32)
            cache = net.new_cache()
            for start in range(0, len(ids), self._piece_tokens):
                part = list(ids[start : start + self._piece_tokens])
                scores = net.logits(net.hidden(self._mx.array([part]), cache))
                self._mx.eval(scores)
                out[start : start + len(part)] = np.array(scores[0])
        return out

    def _keep_prefix(self, ids: Sequence[int]) -> int:
        """Drop from the cache what `ids` does not start with; returns how many tokens stay."""
        kept = common_prefix(self._cached, ids)
        surplus = len(self._cached) - kept
        if surplus and not self._opened().trim(self._cache, surplus):
            self._forget()
            return 0
        del self._cached[kept:]
        return kept

    def _compute(self, ids: Sequence[int], cancel: Cancel) -> Any:
        """Put `ids` behind the cached tokens, piece by piece; the last piece's hidden state, None when cancelled on the way."""
        hidden = None
        for start in range(0, len(ids), self._piece_tokens):
            if cancel.is_set():
                return None
            part = list(ids[start : start + self._piece_tokens])
            with self._computing() as net:
                hidden = net.hidden(self._mx.array([part]), self._cache)
                self._mx.eval([layer.state for layer in self._cache])
                self._cached += part
        if len(ids) > self._piece_tokens:
            self._mx.clear_cache()
        return hidden

    def _start(self, hidden: Any, sampling: Sampling, random: np.random.Generator) -> _Step:
        """Have the device compute what follows the last token of `hidden`, without waiting for it."""
        with self._computing() as net:
            logits = net.logits(hidden[:, -1])[0]
            step = _Step(draw(self._mx, logits, sampling, random.random()), logits)
            self._mx.async_eval(step.token, step.logits)
            return step

    def _advance(self, step: _Step, more: bool, sampling: Sampling, random: np.random.Generator) -> tuple[_Step | None, int, np.ndarray]:
        """If `more`, start the step after `step`, which need not have ended; then wait for `step`: its token and logits."""
        import numpy as np

        with self._computing() as net:
            following = None
            if more:
                following = self._start(net.hidden(step.token.reshape(1, 1), self._cache), sampling, random)
            token, logits = int(step.token.item()), np.array(step.logits)
            if more:
                self._cached.append(token)
            if len(self._cached) % CLEAR_EVERY == 0:
                self._mx.clear_cache()
        if not np.isfinite(logits.max()):
            self._forget()
            raise EngineError(f"{self.info.name} gives scores that are no numbers: its weights are damaged; download or convert it again")
        return following, token, logits

    def _clock(self, step: _Step | None) -> float:
        """The time when `step` has ended."""
        with self._computing():
            if step is not None:
                self._mx.eval(step.token)
        return perf_counter()

    def _settle(self) -> None:
        """Wait for all that was begun: another call may come from another thread."""
        if self._net is not None:
            with self._computing():
                self._mx.eval([layer.state for layer in self._cache])

    def _forget(self) -> None:
        self._cache: list[Any] = self._opened().new_cache()
        self._cached: list[int] = []  # the tokens it holds

    @contextmanager
    def _computing(self) -> Iterator[Network]:
        """MLX's failures as our own. The cache may be half-written then, or when Ctrl+C came: it begins anew."""
        net = self._opened()
        try:
            yield net
        except BaseException as error:
            self._forget()
            self._mx.clear_cache()
            if isinstance(error, RuntimeError | ValueError | MemoryError):
                raise EngineError(f"MLX failed to compute ({short(str(error), 200)}); try a smaller --context or a smaller model") from None
            raise

    def _opened(self) -> Network:
        if self._net is None:
            raise EngineError("the model is closed; open it again")
        return self._net

    def _check(self, ids: Sequence[int]) -> None:
        check_ids(ids, self._opened().config.vocab_size)


def _piece_tokens(net: Network) -> int:
    """A power of two."""
    cpu = net.mx.default_device() == net.mx.cpu
    tokens = (PIECE_WORK_CPU if cpu else PIECE_WORK) // max(1, net.parameters)
    return min(PIECE_TOKENS, max(1 if cpu else PIECE_TOKENS_GPU, 1 << max(0, tokens.bit_length() - 1)))
