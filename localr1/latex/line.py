"""A formula as one line of Unicode: x², (a+b)/c, √(x+1). Brackets are added where the line would say something else without them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from localr1.latex import symbols
from localr1.latex.spacing import ordinary, spaced
from localr1.latex.tree import Accented, Boxed, Fenced, Fraction, Node, Root, Row, Scripts, Symbol, Table

_LETTER = re.compile("[^\\s\u0300-\u036f\u20d0-\u20ff][\u0300-\u036f\u20d0-\u20ff]*")  # and the accents it has
_ROOTS = {"": "√", "2": "√", "3": "∛", "4": "∜"}


class _Holds(IntEnum):
    """How firmly a text holds together."""

    ENCLOSED = 0  # in round brackets
    ATOM = 1
    PRODUCT = 2
    QUOTIENT = 3
    SUM = 4


@dataclass(frozen=True, slots=True)
class _Text:
    text: str
    holds: _Holds = _Holds.ATOM
    open_end: bool = False  # a letter right behind it would be taken for a part of it
    raised_start: bool = False  # right behind a letter it would be taken for its superscript

    def within(self, limit: _Holds) -> str:
        """In brackets, if it holds less firmly than that."""
        return self.text if self.holds <= limit else f"({self.text})"


def line(node: Node, tight: bool = False) -> str:
    """`tight`: without gaps, as in scripts."""
    return _text(node, tight).text


def pieces(node: Node) -> list[tuple[str, bool]]:
    """The line in pieces; True: boxed."""
    items = node.items if isinstance(node, Row) else (node,)
    found: list[tuple[str, bool]] = []
    for gap, text, item in _joined(items, tight=False):
        found += [(gap, False)] if gap else []
        found.append((text.text, isinstance(item, Boxed)))
    return found


def _text(node: Node, tight: bool) -> _Text:
    match node:
        case Symbol(text):
            return _Text(text, _Holds.SUM if " " in text.strip() else _Holds.ATOM)
        case Row():
            return _row(node, tight)
        case Fraction():
            return _fraction(node, tight)
        case Root():
            return _root(node)
        case Scripts():
            return _scripts(node, tight)
        case Fenced(left, body, right):
            return _Text(left + _text(body, tight).text + right, _Holds.ENCLOSED if (left, right) == ("(", ")") else _Holds.ATOM)
        case Accented(body, mark):
            return _Text(_LETTER.sub(rf"\g<0>{mark}", _text(body, tight).text))
        case Boxed(body):
            return _Text(f"[ {_text(body, tight).text} ]")
        case Table():
            return _table(node)


def _row(row: Row, tight: bool) -> _Text:
    if len(row.items) == 1:
        return _text(row.items[0], tight)
    joined = list(_joined(row.items, tight))
    ends = joined[-1][1].open_end if joined else False
    starts = joined[0][1].raised_start if joined else False
    return _Text("".join(gap + text.text for gap, text, _ in joined), _row_holds(row), ends, starts)


def _row_holds(row: Row) -> _Holds:
    depth, holds = 0, _Holds.PRODUCT
    enclosed = bool(row.items)  # by one pair of round brackets
    items = spaced(row.items)
    for i, each in enumerate(items):
        depth += each.kind == "open"
        if depth == 0:
            enclosed = False
            if each.kind in ("binary", "relation", "comma", "function", "big", "text"):
                holds = max(holds, _Holds.SUM)
            elif isinstance(each.node, Row):
                holds = max(holds, _row_holds(each.node))
            elif isinstance(each.node, Fraction) or (isinstance(each.node, Symbol) and each.node.text == "/"):
                holds = max(holds, _Holds.QUOTIENT)
        depth -= each.kind == "close"
        if depth == 0 and i + 1 < len(items):
            enclosed = False
    round_ = enclosed and items[0].node == Symbol("(", "open") and items[-1].node == Symbol(")", "close")
    return _Holds.ENCLOSED if round_ else holds


def _joined(nodes: tuple[Node, ...], tight: bool) -> Iterator[tuple[str, _Text, Node]]:
    """Each with the gap before it."""
    items = spaced(nodes, tight)
    last = _Text("")
    for i, each in enumerate(items):
        before = next((other.kind for other in reversed(items[:i]) if other.kind != "space"), "")
        following = next((other for other in items[i + 1 :] if other.kind != "space"), None)
        after = "" if following is None else following.kind
        text, gap = _text(each.node, tight), each.gap
        mixed = bool(i) and items[i - 1].kind == "number" and _numeric(each.node)
        apart = i + 1 < len(items) and items[i + 1].kind == "space"  # a unit follows
        if mixed and (apart or not ordinary(after) or after == "text" or (following is not None and following.node == Symbol("%"))):
            text, gap = _Text(text.text), " "  # 2 1/2
        elif text.holds == _Holds.QUOTIENT and (ordinary(before) or before == "function" or ordinary(after) or after == "open"):
            text = _Text(f"({text.text})", _Holds.ENCLOSED)
            gap = "" if before == "function" else gap
        if (last.open_end and (ordinary(each.kind) or each.kind == "open")) or (text.raised_start and ordinary(before)):
            gap = gap or " "
        yield gap, text, each.node
        last = text


def _numeric(node: Node) -> bool:
    return isinstance(node, Fraction) and node.bar and all(_is_number(part) for part in (node.top, node.bottom))


def _is_number(node: Node) -> bool:
    symbol = only(node)
    return isinstance(symbol, Symbol) and symbol.kind == "number"


def only(node: Node) -> Node:
    return node.items[0] if isinstance(node, Row) and len(node.items) == 1 else node


def _fraction(node: Fraction, tight: bool) -> _Text:
    top, bottom = _text(node.top, tight), _text(node.bottom, tight)
    if not node.bar:
        return _Text(f"({top.text} choose {bottom.text})", _Holds.ENCLOSED)
    differential = _differential(node.top) and bottom.holds == _Holds.PRODUCT and _differential(node.bottom) == _differential(node.top)
    below = bottom.text if differential else bottom.within(_Holds.ATOM)
    return _Text(f"{top.within(_Holds.PRODUCT)}/{below}", _Holds.QUOTIENT)


def _differential(node: Node) -> str:
    """The d or ∂ that it begins with, d² too; "" of others: d₁ is a length."""
    first = node.items[0] if isinstance(node, Row) and node.items else node
    if isinstance(first, Scripts) and first.sub is None:
        first = first.base
    first = only(first)
    return first.text if isinstance(first, Symbol) and first.text in ("d", "∂") else ""


def _root(node: Root) -> _Text:
    body = _text(node.body, tight=False)
    index = _text(node.index, tight=True).text if node.index is not None else ""
    alone = isinstance(only(node.body), Symbol)
    under = body.text if alone or body.holds == _Holds.ENCLOSED else f"({body.text})"
    if index in _ROOTS:
        return _Text(_ROOTS[index] + under, open_end=alone)
    raised = symbols.small(index, up=True)
    return _Text(f"{raised}√{under}" if raised else f"root({index}, {body.text})", open_end=alone, raised_start=True)


def _scripts(node: Scripts, tight: bool) -> _Text:
    base = _text(node.base, tight)
    text = f"({base.text})" if base.holds == _Holds.QUOTIENT or isinstance(only(node.base), Root | Scripts) else base.text
    open_end = False
    for script, up in ((node.sub, False), (node.sup, True)):
        if script is not None:
            added, open_end = _script(script, up)
            text += added
    raised_start = not base.text
    return _Text(text, _Holds.ATOM, open_end, raised_start)


def _script(node: Node, up: bool) -> tuple[str, bool]:
    """As Unicode has it, else behind ^ or _; and whether it has an open end."""
    text, is_small = script(node, up)
    if is_small:
        return text, False
    alone = isinstance(only(node), Symbol) and " " not in text
    bare = alone or _text(node, tight=True).holds == _Holds.ENCLOSED
    return ("^" if up else "_") + (text if bare else f"({text})"), alone


def script(node: Node, up: bool) -> tuple[str, bool]:
    """What is raised or lowered; True: in letters that are raised or lowered themselves."""
    text = _text(node, tight=True).text
    if text == "∘" and up:
        return "°", True
    small = None if _has_word(node) else symbols.small(text, up)
    return (text, False) if small is None else (small, True)


def _has_word(node: Node) -> bool:
    """Words are not for small letters."""
    items = node.items if isinstance(node, Row) else (node,)
    return any(isinstance(item, Symbol) and item.kind in ("text", "function") and len(item.text) > 1 for item in items)


def _table(table: Table) -> _Text:
    if table.aligned:
        rows = [_aligned(row) for row in table.rows]
    else:
        trimmed = " ," if "{" in (table.left, table.right) else " "  # of cases: the comma is often there already
        cells = [[_text(cell, tight=False).text.rstrip(trimmed) for cell in row] for row in table.rows]
        rows = ["".join((" | " if table.barred(i) else ", ") * bool(i) + cell for i, cell in enumerate(row)) for row in cells]
    left, right = (table.left, table.right) if table.left or table.right or table.aligned else ("[", "]")
    right = right or {"{": "}"}.get(left, "")
    left = left or {"}": "{"}.get(right, "")
    return _Text(left + "; ".join(rows) + right, _Holds.SUM if table.aligned else _Holds.ATOM)


def _aligned(row: tuple[Node, ...]) -> str:
    """The cells as the one row they are: a = behind & has a gap before it all the same."""
    items = [item for cell in row for item in (cell.items if isinstance(cell, Row) else (cell,))]
    return _text(Row(tuple(items)), tight=False).text
