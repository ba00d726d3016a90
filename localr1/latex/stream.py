"""Formulas of Markdown that comes in parts, for programs that write and never go back."""

from __future__ import annotations

import re

from localr1.latex import MARKERS, render_text
from localr1.latex.delimiters import BLANK_LINE

_SIGN = re.compile(r"[$\\`]|~~~")  # of a formula, or of code, in which there are none
_FENCE = re.compile(rf"^{MARKERS}(`{{3,}}|~{{3,}})[^\n]*\n", re.MULTILINE)
_WORDS = re.compile(r"(?s).*\S\s")  # a line's indentation waits for what it belongs to


class FormulaStream:
    """Gives back what is told of it, formulas on one line each; in all, `render_text` of every paragraph.

    Words go through at once. From a line with a sign of a formula on, a paragraph is held back until it ends: before, the formula might not.
    """

    def __init__(self) -> None:
        self._held = ""
        self._fence = ""  # that the code which goes on began with
        self._fresh = True  # what is held begins a line

    def feed(self, text: str) -> str:
        """What of the text so far can be told for certain."""
        self._held += text
        shown = ""
        while part := self._code() if self._fence else self._paragraph():
            shown += part
        return shown

    def end(self) -> str:
        """The rest."""
        return self._take(len(self._held), raw=bool(self._fence))

    def _code(self) -> str:
        """Whole lines, as they are."""
        closing = re.search(rf"^[ \t]*{self._fence}[`~]*[ \t]*\n", self._held, re.MULTILINE)
        if closing is not None:
            self._fence = ""
        return self._take(self._held.rfind("\n") + 1 if closing is None else closing.end(), raw=True)

    def _paragraph(self) -> str:
        """A paragraph, and the line at which code begins behind it; what of one goes on, words alone."""
        fence = _FENCE.search(self._held, 0 if self._fresh else self._held.find("\n") + 1 or len(self._held))
        blank = BLANK_LINE.search(self._held)
        if fence is not None and (blank is None or fence.start() < blank.start()):
            self._fence = fence[1]
            return self._take(fence.start(), raw=False) + self._take(fence.end() - fence.start(), raw=True)
        if blank is not None:
            return self._take(blank.end(), raw=False)
        sign = _SIGN.search(self._held)
        words = _WORDS.match(self._held, 0, len(self._held) if sign is None else self._held.rfind("\n", 0, sign.start()) + 1)
        end = 0 if words is None else words.end()
        line = self._held.rfind("\n", 0, end) + 1
        if (line or self._fresh) and re.fullmatch(MARKERS, self._held[line:end]):  # code may begin behind them
            end = line
        return self._take(end, raw=True)

    def _take(self, count: int, raw: bool) -> str:
        part, self._held = self._held[:count], self._held[count:]
        self._fresh = part.endswith("\n") if part else self._fresh
        return part if raw else render_text(part)
