r"""Where formulas stand in Markdown: $…$, $$…$$, \(…\), \[…\], environments like align, and \boxed{…} with nothing around it.

Dollars are money more often than not: $…$ has no space inside of its ends, unless at both of them and a command or a power between, no Latin
letter or digit before it and no digit behind it.
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
_PROSE = re.compile(
    r"[A-Za-z]{2,}\s+[A-Za-z]{2,}|[，。；：、（）“”]"
)  # without a command in it: two amounts of money, and what is between them
_COMMAND = re.compile(r"\\[A-Za-z]|\^")
_CUT = re.compile(r"""["]|(?:[(\[{+*‹“‘（和或与到至]|\s')$""")  # what no formula has, or ends with: its dollars belong to others
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
    if inside is None or (before.isascii() and before.isalnum()) or before == "$" or not inside[0].strip():
        return None
    formula, end = inside[0], inside.end()
    if not text.startswith("$", end) or text.startswith("$$", end) or text[end + 1 : end + 2].isdigit():
        return None
    if text.startswith("{", end + 1):
        return None  # ${USER}:${HOME}
    if "`" in formula or BLANK_LINE.search(formula):
        return None
    if (formula[0].isspace() or formula[-1].isspace()) and not (
        formula[0].isspace() and formula[-1].isspace() and _COMMAND.search(formula)
    ):
        return None
    if "\\" not in formula and (_PROSE.search(formula) or _CUT.search(formula)):
        return None
    if "\\" not in formula and formula[-1] in "/:=,;.-" and text[end + 1 : end + 2].isalpha():
        return None  # $HOME/bin:$PATH
    return Found(end + 1, formula, False)


def _boxed(text: str, at: int) -> Found | None:
    depth = 0
    for brace in _BRACE.finditer(text, at + len(_BOXED) - 1, at + MOST_CHARACTERS):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            formula = text[at : brace.end()]
            return None if BLANK_LINE.search(formula) else Found(brace.end(), formula, False)
    return None
