"""A conversion, planned to the last byte and not begun: what `convert` carries out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from backends.checkpoint import Checkpoint, short
from quantize.errors import QuantizeError

if TYPE_CHECKING:
    import numpy as np

# Mapped pages count as memory in use until released: whenever so much of a tensor has been written.
RELEASE_BYTES = 32 << 20


class Writer(Protocol):
    """Writes announced tensors; the target appears on leaving it as a context manager, complete, or not at all."""

    size_bytes: int

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
    def write(self, name: str, pieces: Iterable[Any]) -> None: ...


@dataclass(frozen=True, slots=True)
class Step:
    """One tensor to write; `pieces` computes its bytes, in order, on a pool of threads."""

    name: str
    nbytes: int
    pieces: Callable[[Executor], Iterable[Any]]


@dataclass(frozen=True, slots=True)
class Job:
    """`parameters`: how many weights are written. `fallbacks`: (tensor, format) pairs that take another format than `format`."""

    format: str
    architecture: str
    parameters: int
    steps: list[Step]
    writer: Writer
    fallbacks: tuple[tuple[str, str], ...] = ()


def releasing(pieces: Iterator[np.ndarray], checkpoint: Checkpoint, name: str) -> Iterator[np.ndarray]:
    """Pass the pieces on; give the source's pages back as they are used up, and name the tensor in an encoding error."""
    written = 0
    try:
        for piece in pieces:
            yield piece
            written += piece.nbytes
            if written >= RELEASE_BYTES:
                checkpoint.release(name)
                written = 0
    except QuantizeError as error:
        raise type(error)(f"tensor {short(name, 120)} {error}") from None
    finally:
        checkpoint.release(name)
