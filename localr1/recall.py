"""What was sent before, to be sent again: Up goes back, Down comes forward to the draft."""

from __future__ import annotations

from collections.abc import Iterable


class Recall:
    """`draft`: what was being written when the going back began."""

    def __init__(self) -> None:
        self._lines: list[str] = []  # the latest last, each once
        self._at = 0  # len(_lines): at the draft
        self._draft = ""

    def add(self, text: str) -> None:
        """The latest from now on; the next going back begins at it."""
        if text.strip():
            self._lines = [line for line in self._lines if line != text] + [text]
        self._at = len(self._lines)

    def put_before(self, earlier: Iterable[str]) -> None:
        """What was sent before all that is here, the latest first."""
        known = set(self._lines)
        new = [text for text in dict.fromkeys(earlier) if text.strip() and text not in known]
        self._lines[:0] = reversed(new)
        self._at += len(new)

    def older(self, shown: str) -> str | None:
        """What comes in the place of `shown`; None: there is nothing older."""
        if self._at == 0:
            return None
        if self._at == len(self._lines):
            self._draft = shown
        self._at -= 1
        return self._lines[self._at]

    def newer(self) -> str | None:
        """The draft at last; None: it is shown already."""
        if self._at >= len(self._lines):
            return None
        self._at += 1
        return self._draft if self._at == len(self._lines) else self._lines[self._at]
