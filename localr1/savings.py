"""The savings line: tokens made here, ever and in this session, and what they would have cost at the settings' price per million."""

from __future__ import annotations

from localr1.history import History
from localr1.settings import SavingsSettings
from localr1.settings_layers import Layers
from localr1.store.schema import StoreError
from localr1.text import printable


class Savings:
    """Of a chat. Nothing is read or counted up before the line is wanted."""

    def __init__(self, history: History, layers: Layers) -> None:
        self._history, self._layers = history, layers
        self._before: int | None = None  # made before this session

    def line(self) -> str:
        """Empty where it is not wanted."""
        settings = self._layers.settings.savings
        if not settings.show:
            return ""
        if self._before is None:
            new = self._history.new_tokens  # which are in the store already
            try:
                self._before = max(0, self._history.store().tokens() - new)
            except StoreError:  # nothing is kept
                self._before = 0
        return worth(self._before + self._history.new_tokens, settings)


def worth(tokens: int, settings: SavingsSettings) -> str:
    """In words."""
    cost = tokens * settings.price / 1e6
    price = f"{settings.currency}{cost:,.2f}" if cost >= 0.01 or not cost else f"under {settings.currency}0.01"
    return printable(f"{tokens:,} tokens made here, {price} elsewhere")
