"""Formulas in LaTeX as readable Unicode, on one line or laid out over several. What cannot be read for certain stays as it is.

Pylatexenc, unicodeit, flatlatex and TeXicode were tried and lose what is there: (a+b)/c becomes a+b/c, unknown commands and the index
of a root vanish, deep nesting takes minutes or ends the program.
"""

from __future__ import annotations

import re
from functools import lru_cache

from localr1.latex.delimiters import BLANK_LINE, formula_at, opens

# What reads and writes formulas is imported with the first one: many conversations have none, and start-up would wait for it.

MARKERS = r"[ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*"  # of list items, before what they begin with
_CODE_OR_START = (
    rf"(?ms)^{MARKERS}"
    r"(?P<fence>`{3,}|~{3,})[^\n]*(?:\n.*?(?:^[ \t]*(?P=fence)[`~]*[ \t]*$|\Z)|\Z)"
    r"|(?<!`)(?P<ticks>`+)(?!`).{1,2000}?(?<!`)(?P=ticks)(?!`)"
    r"|(?P<start>\$\$?|\\[(\[]|\\boxed\{|\\begin\{)|\\."
)


@lru_cache(maxsize=1024)  # an answer that streams is read again and again
def in_pieces(formula: str) -> tuple[tuple[str, bool], ...] | None:
    """On one line; True: this piece is boxed. None: it cannot be read."""
    from localr1.latex.line import pieces
    from localr1.latex.parse import parse
    from localr1.latex.tree import Unreadable

    try:
        return tuple(pieces(parse(formula)))
    except Unreadable:
        return None


def on_one_line(formula: str) -> str | None:
    """None: it cannot be read."""
    found = in_pieces(formula)
    return None if found is None else "".join(text for text, _ in found)


@lru_cache(maxsize=256)
def in_lines(formula: str) -> tuple[str, ...] | None:
    """Laid out over as many lines as it takes. None: it cannot be read, or would be too large."""
    from localr1.latex.block import block
    from localr1.latex.parse import parse
    from localr1.latex.tree import Unreadable

    try:
        return block(parse(formula))
    except Unreadable:
        return None


def render_text(markdown: str) -> str:
    """Markdown with its formulas on one line each; code, and what cannot be read, as they are."""
    code_or_start = re.compile(_CODE_OR_START)
    parts: list[str] = []
    at = 0
    while (found := code_or_start.search(markdown, at)) is not None:
        parts.append(markdown[at : found.start()])
        at = found.end()
        formula = formula_at(markdown, found.start()) if found["start"] else None
        shown = on_one_line(formula.formula) if formula is not None else None
        if formula is not None:
            at = formula.end
        elif opens(markdown, found.start()):  # it has no end: nothing is looked for within it
            blank = BLANK_LINE.search(markdown, at)
            at = blank.start() if blank is not None else len(markdown)
        parts.append(markdown[found.start() : at] if shown is None else shown)
    return "".join([*parts, markdown[at:]])
