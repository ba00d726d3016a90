"""Sums of squared activations by tensor, as they come in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantize.errors import QuantizeError
from quantize.imatrix import ImportanceMatrix, checked

if TYPE_CHECKING:
    import numpy as np


class Activations:
    """Collects what goes into each tensor. Squares are added in float32 within a call, and in float64 from call to call."""

    def __init__(self) -> None:
        self._sums: dict[str, np.ndarray] = {}  # float64 [M, K], of M matrices
        self._counts: dict[str, np.ndarray] = {}  # int64 [M] of experts, else [1]

    def add(self, name: str, x: np.ndarray, matrices: tuple[int, int] = (1, 1)) -> None:
        """x [B, A, T, K] goes into `matrices` = (N, M) of them: x[b, a] into the one at (b % N, a % M), as in ggml."""
        import numpy as np

        b, a, t, k = x.shape
        n, m = matrices
        sums, counts = self._place(name, n * m, k, 1)
        which = (np.arange(b) % n)[:, None] * m + np.arange(a) % m
        np.add.at(sums, which.reshape(-1), np.einsum("batk,batk->bak", x, x).reshape(-1, k))
        counts += b * a * t // (n * m)

    def add_experts(self, name: str, x: np.ndarray, chosen: np.ndarray, experts: int) -> None:
        """x [T, k, K], or [T, 1, K] where all k experts see the same; chosen int [T, k] of the 0 .. experts - 1."""
        import numpy as np

        flat, width = chosen.reshape(-1), chosen.shape[-1]
        order = np.argsort(flat, kind="stable")  # visits, by expert
        ends = np.cumsum(visits := np.bincount(flat, minlength=experts))
        for expert in np.flatnonzero(visits):
            at = order[ends[expert] - visits[expert] : ends[expert]]
            self.add_expert(name, x[at // width, at % width % x.shape[1]], int(expert), experts)

    def add_expert(self, name: str, x: np.ndarray, expert: int, experts: int) -> None:
        """x [T, K] goes into one of them."""
        import numpy as np

        sums, counts = self._place(name, experts, x.shape[-1], experts)
        sums[expert] += np.einsum("tk,tk->k", x, x)
        counts[expert] += len(x)

    def _place(self, name: str, matrices: int, columns: int, counted: int) -> tuple[np.ndarray, np.ndarray]:
        import numpy as np

        if name not in self._sums:
            self._sums[name] = np.zeros((matrices, columns))
            self._counts[name] = np.zeros(counted, np.int64)
        sums, counts = self._sums[name], self._counts[name]
        assert sums.shape == (matrices, columns) and len(counts) == counted
        return sums, counts

    def matrix(self, source: object, chunks: int, chunk_tokens: int, datasets: tuple[str, ...]) -> ImportanceMatrix:
        """All that came in. Raises QuantizeError: activations of `source` were not finite, or nothing came."""
        import numpy as np

        if not self._sums:
            raise QuantizeError(f"{source}: no layer of it multiplies with a matrix, so there is nothing to collect; use another model")
        tensors = {}
        with np.errstate(over="ignore"):  # `checked` finds it
            for name, sums in self._sums.items():
                tensors[name] = checked(source, name, sums.astype(np.float32).reshape(-1), self._counts[name])
        return ImportanceMatrix(tensors, chunks, chunk_tokens, datasets)
