"""A conversion, planned to the last byte and not begun: what `convert` carries out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from backends.checkpoint import short
from quantize.errors import QuantizeError
from quantize.loss import Loss

if TYPE_CHECKING:
    import numpy as np

# Mapped pages count as memory in use until released: whenever so many pieces, of half a MiB to one each, have been read.
RELEASE_PIECES = 48


class Source(Protocol):
    """Where weights come from: a checkpoint, a GGUF file."""

    def release(self, name: str) -> None:
        """Let the system forget the pages of a tensor that has been read."""


class Writer(Protocol):
    """Writes announced tensors; the target appears on leaving it as a context manager, complete, or not at all."""

    size_bytes: int

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
    def write(self, name: str, pieces: Iterable[Any]) -> None: ...


@dataclass(frozen=True, slots=True)
class Step:
    """One tensor to write; `pieces` computes its bytes, in order, on a pool of threads, and adds to the loss what they cost.

    `shape` and `format` are the model's tensor's; None of what is only a part of the one before: its scales, its biases.
    """

    name: str
    nbytes: int
    pieces: Callable[[Executor, Loss], Iterable[Any]]
    shape: tuple[int, ...] | None = None
    format: str | None = None
    loss: Loss = field(default_factory=Loss)


@dataclass(frozen=True, slots=True)
class Job:
    """`parameters`: how many weights are written. `fallbacks`: (tensor, format) pairs that take another format than `format`."""

    format: str
    architecture: str
    parameters: int
    steps: list[Step]
    writer: Writer
    fallbacks: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()


def releasing(pieces: Iterator[np.ndarray], source: Source, name: str) -> Iterator[np.ndarray]:
    """Pass the pieces on; give the source's pages back as they are used up, and name the tensor in an encoding error."""
    try:
        for done, piece in enumerate(pieces, 1):
            yield piece
            if done % RELEASE_PIECES == 0:
                source.release(name)
    except QuantizeError as error:
        raise type(error)(f"tensor {short(name, 120)} {error}") from None
    finally:
        source.release(name)
