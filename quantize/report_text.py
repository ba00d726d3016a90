"""Figures and names from files, as people read them."""

from __future__ import annotations


def percent(share: float) -> str:
    """Three digits that matter; 0 is nothing but 0."""
    return "0" if share == 0 else f"{100 * share:.3g}%"


def size(nbytes: int) -> str:
    return f"{nbytes / 1e9:,.2f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:,.1f} MB"


def visible(text: str) -> str:
    """Control characters, those that reorder or hide what follows, and halves of surrogate pairs: shown, not obeyed."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
