"""What a formula is made of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["letter", "number", "binary", "relation", "comma", "open", "close", "big", "function", "text", "space"]


class Unreadable(Exception):
    """The formula says something that is not known here."""


@dataclass(frozen=True, slots=True)
class Symbol:
    text: str
    kind: Kind = "letter"
    limits: bool = False  # its scripts stand above and below


@dataclass(frozen=True, slots=True)
class Row:
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Fraction:
    top: Node
    bottom: Node
    bar: bool = True  # without: n choose k


@dataclass(frozen=True, slots=True)
class Root:
    body: Node
    index: Node | None


@dataclass(frozen=True, slots=True)
class Scripts:
    base: Node
    sub: Node | None
    sup: Node | None
    limits: bool = False


@dataclass(frozen=True, slots=True)
class Fenced:
    left: str
    body: Node
    right: str


@dataclass(frozen=True, slots=True)
class Accented:
    body: Node
    mark: str  # a combining character


@dataclass(frozen=True, slots=True)
class Boxed:
    body: Node


@dataclass(frozen=True, slots=True)
class Table:
    """`aligned`: the columns meet, right- and left-aligned by turns; otherwise they are a matrix's. `columns`: of an array, how each is aligned
    (l, c, r), and the lines between (|)."""

    left: str
    rows: tuple[tuple[Node, ...], ...]
    right: str
    aligned: bool = False
    columns: str = ""

    def barred(self, column: int) -> bool:
        """Whether a line stands before this column; behind the last one, before the one that would follow."""
        return "|" in re.split("[lcr]", self.columns)[column : column + 1]


RULE = Symbol("―")  # alone in a row of a table: a line across it

Node = Symbol | Row | Fraction | Root | Scripts | Fenced | Accented | Boxed | Table
