"""Matrices that are read a few rows at a time: as they lie in a checkpoint, decoded from block FP8, or in another order.

An array is one; the classes here wrap one and copy only the rows that are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np

FP8_BLOCK = 128  # an FP8 weight has one scale for 128 x 128 values


class Rows(Protocol):
    """[R, K]; some rows of it are an array [r, K] of float32, float16 or bfloat16."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray: ...


class Fp8Rows:
    """Block FP8: uint8 codes [R, K] and their scales [ceil(R/128), ceil(K/128)] -> float32."""

    def __init__(self, codes: np.ndarray, scales: np.ndarray) -> None:
        import numpy as np

        self.shape: tuple[int, ...] = codes.shape
        self._codes, self._scales = codes, np.asarray(scales, np.float32)

    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray:
        import numpy as np

        from backends.reference.fp8 import e4m3_decode

        weights = e4m3_decode(self._codes[rows])
        scales = self._scales[np.arange(self.shape[0])[rows] // FP8_BLOCK]
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite then is found by whoever takes the rows
            weights *= np.repeat(scales, FP8_BLOCK, axis=1)[:, : self.shape[1]]
        return weights


class Span:
    """`rows` rows of another one, from `start` on."""

    def __init__(self, inner: Rows, start: int, rows: int) -> None:
        self.shape: tuple[int, ...] = (rows, inner.shape[1])
        self._inner, self._start = inner, start

    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray:
        assert isinstance(rows, slice)
        start, stop, _ = rows.indices(self.shape[0])
        return self._inner[self._start + start : self._start + stop]


class Picked:
    """The rows of another one that `order` names, in that order."""

    def __init__(self, inner: Rows, order: np.ndarray) -> None:
        self.shape: tuple[int, ...] = (len(order), inner.shape[1])
        self._inner, self._order = inner, order

    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray:
        return self._inner[self._order[rows]]


class TransposedHeads:
    """Each head's rows, which `order` [H, n] names, as columns: [R, K] -> [H * K, n]."""

    def __init__(self, inner: Rows, order: np.ndarray) -> None:
        self.shape: tuple[int, ...] = (len(order) * inner.shape[1], order.shape[1])
        self._inner, self._order = inner, order

    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray:
        assert isinstance(rows, slice)
        start, stop, _ = rows.indices(self.shape[0])
        width, n = self._inner.shape[1], self.shape[1]
        first, last = start // width, -(-stop // width)  # the heads that are touched
        heads = self._inner[self._order[first:last].reshape(-1)].reshape(last - first, n, width)
        return heads.swapaxes(1, 2).reshape(-1, n)[start - first * width : stop - first * width]
