r"""Where formulas stand in Markdown: $…$, $$…$$, \(…\), \[…\], environments like align, and \boxed{…} with nothing around it.

Dollars are money more often than not: $…$ has no space inside of its ends, no letter or digit before it and no digit behind it.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from localr1.latex.symbols import ALIGNED

MOST_CHARACTERS = 4_000  # of a formula


class Found(NamedTuple):
    end: int  # behind the closing delimiter
    formula: str  # without the delimiters
    display: bool  # in lines of its own


BLANK_LINE = re.compile(r"\n[ \t]*\n")
_TO_DOLLAR = re.compile(r"(?:[^$\\]|\\.)*", re.DOTALL)
_PROSE = re.compile(r"[A-Za-z]{2,}\s+[A-Za-z]{2,}")  # without a command in it: two amounts of money, and what is between them
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_BEGIN = re.compile(r"\\begin\{([a-z]+\*?)\}")
_CLOSING = {"\\(": "\\)", "\\[": "\\]"}
_BOXED = "\\boxed{"


def opens(text: str, at: int) -> bool:
    """Whether a formula begins here for certain, be its end there or not."""
    return text.startswith(("\\(", "\\[", _BOXED), at)


def formula_at(text: str, at: int) -> Found | None:
    """The formula that begins here and is complete."""
    if text.startswith("$$", at):
        return _double_dollar(text, at)
    if text.startswith("$", at):
        return _dollar(text, at)
    if text.startswith(_BOXED, at):
        return _boxed(text, at)
    closing = _CLOSING.get(text[at : at + 2])
    if closing is not None:
        return _closed(text, at, 2, closing, display=closing == "\\]")
    begin = _BEGIN.match(text, at)
    if begin is None or begin[1] not in ALIGNED:
        return None
    end = text.find(f"\\end{{{begin[1]}}}", at, at + MOST_CHARACTERS)
    if end < 0:
        return None
    end += len(begin[0]) - 2  # as long as its \begin, less two letters
    return None if BLANK_LINE.search(text, at, end) else Found(end, text[at:end], True)


def closing_of(line: str) -> str:
    """What ends the display formula that this line begins with; "": it begins with none."""
    if line.startswith("$$"):
        return "" if line.startswith("$$$") else "$$"
    begin = _BEGIN.match(line)
    if begin is not None:
        return f"\\end{{{begin[1]}}}" if begin[1] in ALIGNED else ""
    return "\\]" if line.startswith("\\[") else ""


def _closed(text: str, at: int, length: int, closing: str, display: bool) -> Found | None:
    end = text.find(closing, at + length, at + MOST_CHARACTERS)
    if end < 0 or BLANK_LINE.search(text, at, end) or not text[at + length : end].strip():
        return None
    return Found(end + len(closing), text[at + length : end], display)


def _double_dollar(text: str, at: int) -> Found | None:
    return None if text.startswith("$$$", at) or text[at - 1 : at] == "$" else _closed(text, at, 2, "$$", display=True)


def _dollar(text: str, at: int) -> Found | None:
    before = text[at - 1 : at]
    inside = _TO_DOLLAR.match(text, at + 1, at + MOST_CHARACTERS)
    if inside is None or before.isalnum() or before == "$" or not inside[0] or inside[0][0].isspace() or inside[0][-1].isspace():
        return None
    end = inside.end()
    if not text.startswith("$", end) or text.startswith("$$", end) or text[end + 1 : end + 2].isdigit():
        return None
    if text.startswith("{", end + 1):
        return None  # ${USER}:${HOME}
    if "\\" not in inside[0] and inside[0][-1] in "/:=,;.-" and text[end + 1 : end + 2].isalpha():
        return None  # $HOME/bin:$PATH
    if "`" in inside[0] or BLANK_LINE.search(inside[0]) or ("\\" not in inside[0] and _PROSE.search(inside[0])):
        return None
    return Found(end + 1, inside[0], False)


def _boxed(text: str, at: int) -> Found | None:
    depth = 0
    for brace in _BRACE.finditer(text, at + len(_BOXED) - 1, at + MOST_CHARACTERS):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            formula = text[at : brace.end()]
            return None if BLANK_LINE.search(formula) else Found(brace.end(), formula, False)
    return None
