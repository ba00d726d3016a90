"""The Backend protocol: a backend continues a list of tokens, and reuses whatever prefix of it it has already computed.

Errors (every message names the thing, the value and the remedy):

    BackendError
    +-- ModelFileError      a checkpoint or model file is missing, damaged or of an unknown kind
    +-- EngineError         the engine is not installed, or failed while running
    |   +-- ContextTooLong  more tokens than the model was trained for
    +-- PromptTooLong       the tokens do not fit the context
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Protocol, Self

if TYPE_CHECKING:
    import numpy as np

DEFAULT_CONTEXT = 32_768  # DeepSeek's advice for R1: room for 32,768 generated tokens

EndReason = Literal["stop", "length", "context", "cancelled", "loop"]


class BackendError(Exception):
    """Anything a backend can say went wrong."""


class ModelFileError(BackendError):
    """A checkpoint or model file is missing, damaged or of an unknown kind."""


class EngineError(BackendError):
    """The engine is not installed, or failed while running."""


class ContextTooLong(EngineError):
    """A context was asked for that the model was not trained for."""

    def __init__(self, asked: int, trained: int) -> None:
        super().__init__(f"a context of {asked:,} tokens was asked for and the model was trained for {trained:,}; choose 1 to {trained:,}")
        self.trained = trained


class PromptTooLong(BackendError):
    """The tokens to continue leave no room in the context."""

    def __init__(self, prompt_tokens: int, context_tokens: int) -> None:
        super().__init__(
            f"the prompt has {prompt_tokens:,} tokens and the context holds {context_tokens:,}; "
            "shorten it, start a new chat, or raise --context"
        )


@dataclass(frozen=True, slots=True)
class Special:
    """Text written by the chat template that stands for exactly one added token."""

    text: str


@dataclass(frozen=True, slots=True)
class Text:
    """Text that never yields the id of an added token, whatever it spells."""

    text: str


Segment = Special | Text


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn: logits / temperature -> top-p -> min-p; temperature 0 is argmax.

    The defaults are DeepSeek's advice for R1. `top_k` 0 means no limit; `max_tokens` None means up to the context;
    `seed` None means a fresh one each time. Raises ValueError for numbers that are none or out of range.
    """

    temperature: float = 0.6
    top_p: float = 0.95
    top_k: int = 0
    min_p: float = 0.0
    max_tokens: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}, a number of 0 or more is needed")
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}, a whole number of 0 (no limit) or more is needed")
        for name, share in (("top_p", self.top_p), ("min_p", self.min_p)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share}, a number from 0 to 1 is needed")

    @property
    def greedy(self) -> bool:
        """Argmax: at temperature 0, and so near to it that dividing by it would leave float32's range."""
        return self.temperature < 1e-5


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is loaded. `context_length`: tokens this backend can hold now; `bits_per_weight`, `weight_bytes`: as stored."""

    name: str
    architecture: str
    base: str
    context_length: int
    format: str
    bits_per_weight: float
    weight_bytes: int


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """What rendering a prompt needs to know of the model. `added_tokens`: texts of every control or user-defined token."""

    template: str
    bos_token: str
    eos_token: str
    added_tokens: frozenset[str]


@dataclass(frozen=True, slots=True)
class Token:
    """One sampled token. `text` is complete UTF-8: bytes of an unfinished character are held back for the next token.

    `logprob` (nats) is the model's own, before temperature and truncation; `alternatives` are (id, text, logprob), the
    likeliest first, of a token that was not sure (backends.likelihood); never the token itself.
    """

    id: int
    text: str
    logprob: float
    alternatives: tuple[tuple[int, str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """Why a stream ended and what it cost. The end-of-generation token is not counted in `new_tokens`."""

    reason: EndReason
    prompt_tokens: int
    reused_tokens: int
    new_tokens: int
    prefill_s: float
    decode_s: float


class Cancel:
    """A switch that one thread sets and an engine on another reads.

    Engines written in C read it too, without the interpreter lock: `address` points at a C string that is empty
    until `set()` and one character long afterwards.
    """

    __slots__ = ("_flag",)

    def __init__(self) -> None:
        self._flag = ctypes.create_string_buffer(2)

    def set(self) -> None:
        self._flag[0] = b"\x01"

    def is_set(self) -> bool:
        return self._flag[0] != b"\x00"

    @property
    def address(self) -> int:
        return ctypes.addressof(self._flag)


class Backend(Protocol):
    """Synchronous; one call at a time. Token lists are absolute: a stream continues `ids` from the first token on."""

    name: str  # what --backend calls it

    @property
    def info(self) -> ModelInfo: ...

    @property
    def chat_format(self) -> ChatFormat: ...

    def encode(self, segments: Sequence[Segment]) -> list[int]:
        """Token ids; no BOS is added (the template writes it). Raises EngineError if a Special is no single token."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, special tokens included, invalid UTF-8 replaced."""
        ...

    def stream(self, ids: Sequence[int], sampling: Sampling, cancel: Cancel) -> Iterator[Token | End]:
        """Continue `ids`: tokens, then exactly one End. Raises PromptTooLong before anything is computed."""
        ...

    def prefill(self, ids: Sequence[int], cancel: Cancel) -> int:
        """Compute and keep `ids`, so that a later stream starting with them is fast; returns how many are kept."""
        ...

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """float32 [T, V]: after each of the T tokens, the scores of the next one."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


def check_context(asked: int | None, trained: int) -> None:
    """Raises ContextTooLong."""
    if asked is not None and not 1 <= asked <= trained:
        raise ContextTooLong(asked, trained)


def check_ids(ids: Sequence[int], vocabulary: int) -> None:
    """Raises EngineError: one of them is no token."""
    if ids and not (min(ids) >= 0 and max(ids) < vocabulary):
        raise EngineError(f"a token id is out of range: {min(ids)} to {max(ids)} were given, the vocabulary has 0 to {vocabulary - 1}")


def room_behind(ids: Sequence[int], context_length: int, sampling: Sampling) -> tuple[int, EndReason]:
    """How many new tokens may follow `ids`, and why a stream ends that has brought them. Raises EngineError: there is nothing to
    continue; PromptTooLong."""
    if not ids:
        raise EngineError("there is nothing to continue: the token list is empty; check the model's chat template")
    room = context_length - len(ids)
    if room < 1:
        raise PromptTooLong(len(ids), context_length)
    if sampling.max_tokens is None or sampling.max_tokens > room:
        return room, "context"
    return sampling.max_tokens, "length"


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading tokens two lists share."""
    n = min(len(a), len(b))
    for i in range(n):
        if a[i] != b[i]:
            return i
    return n
