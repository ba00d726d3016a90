"""What attention remembers of the tokens so far: per layer one array of rows for each thing it caches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backends.reference.config import Config


def cache_widths(config: Config, *, absorbed: bool = True) -> tuple[int, ...]:
    """float32 values per token and layer in each cached array.

    Latent attention, absorbed: the latent and the rotated key together, kv_lora_rank + qk_rope_head_dim (R1: 576). Naive: keys and
    values of every head, H (qk_head_dim), H v_head_dim (R1: 40,960). Grouped-query attention: keys, values.
    """
    mla, heads = config.mla, config.num_attention_heads
    if mla is not None:
        if absorbed:
            return (mla.kv_lora_rank + mla.qk_rope_head_dim,)
        return heads * mla.qk_head_dim, heads * mla.v_head_dim
    assert config.gqa is not None
    return (config.gqa.num_key_value_heads * config.gqa.head_dim,) * 2


class Cache:
    """Rows of `length` tokens for each of `layers` layers. A layer writes with `extend`; once all have, `advance` counts the tokens."""

    def __init__(self, layers: int, widths: Sequence[int]) -> None:
        self.length = 0
        self._widths = tuple(widths)
        self._rows = [[np.empty((0, width), np.float32) for width in self._widths] for _ in range(layers)]

    def extend(self, layer: int, *new: np.ndarray) -> list[np.ndarray]:
        """Put [T, width] behind the counted tokens; returns views [length + T, width]."""
        total = self.length + len(new[0])
        rows = self._rows[layer]
        for i, part in enumerate(new):
            if len(rows[i]) < total:
                grown = np.empty((max(64, 2 * total), self._widths[i]), np.float32)
                grown[: self.length] = rows[i][: self.length]
                rows[i] = grown
            rows[i][self.length : total] = part
        return [array[:total] for array in rows]

    def advance(self, tokens: int) -> None:
        self.length += tokens

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` tokens."""
        assert 0 <= length <= self.length
        self.length = length

    @property
    def bytes_per_token(self) -> int:
        return len(self._rows) * sum(self._widths) * 4
