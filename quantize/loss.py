"""What encoding cost: sums of squared errors and of squared weights, tensor by tensor, as they are encoded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

# Sums of squares beyond these may have left, square by square, the range where float32 is precise.
_SMALL, _LARGE = 1e-16, 1e30


@dataclass(slots=True)
class Loss:
    """Sums over the finite weights encoded so far. What is stored exactly adds nothing to either.

    `allow_nan`: whether weights that are infinite or not a number are taken; `kept` and `zeroed` then count what became of them.
    """

    squared_error: float = 0.0
    squared_weights: float = 0.0
    kept: int = 0
    zeroed: int = 0
    allow_nan: bool = False

    def add(self, other: Loss) -> None:
        self.squared_error += other.squared_error
        self.squared_weights += other.squared_weights
        self.kept += other.kept
        self.zeroed += other.zeroed


@dataclass(frozen=True, slots=True)
class TensorLoss:
    """One of the model's tensors as it was written. `nbytes`: with its scales and biases, where these are tensors of their own."""

    name: str
    shape: tuple[int, ...]
    format: str
    nbytes: int
    squared_error: float
    squared_weights: float

    @property
    def parameters(self) -> int:
        return math.prod(self.shape)

    @property
    def rmse(self) -> float:
        """Root of the mean squared error of a weight."""
        return math.sqrt(self.squared_error / self.parameters)

    @property
    def relative_error(self) -> float:
        """Root of the squared errors' share in the squared weights; 0 of a tensor of zeros."""
        return math.sqrt(self.squared_error / self.squared_weights) if self.squared_weights > 0 else 0.0


def measure(weights: np.ndarray, decoded: np.ndarray) -> Loss:
    """Of float32 weights [n, K], all finite, and what they were stored as; overwrites `decoded`.

    Squares are added in float32 within a row, and in float64 from row to row.
    """
    import numpy as np

    with np.errstate(over="ignore"):
        error = np.subtract(decoded, weights, out=decoded)
        sums = [_squares(x, np.float32) for x in (error, weights)]
    if not (_SMALL < sums[1] < _LARGE and sums[0] < _LARGE):
        sums = [_squares(x, np.float64) for x in (error, weights)]
    return Loss(sums[0], sums[1])


def _squares(x: np.ndarray, dtype: type[np.floating[Any]]) -> float:
    import numpy as np

    return float(np.einsum("nk,nk->n", x, x, dtype=dtype).sum(dtype=np.float64))
