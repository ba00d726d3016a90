"""A formula laid out over several lines: fractions with a bar, limits above and below, tall brackets around matrices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from localr1.latex.line import line, only, script
from localr1.latex.spacing import Spaced, ordinary, spaced
from localr1.latex.tree import RULE, Accented, Boxed, Fenced, Fraction, Node, Root, Row, Scripts, Symbol, Table, Unreadable

_MOST_CELLS = 20_000

# of tall brackets: top, middle, bottom, and what is between these
_TALL = {
    "(": "⎛⎜⎝⎜", ")": "⎞⎟⎠⎟", "[": "⎡⎢⎣⎢", "]": "⎤⎥⎦⎥", "{": "⎧⎨⎩⎪", "}": "⎫⎬⎭⎪", "|": "││││", "‖": "‖‖‖‖",
    "⌊": "⎢⎢⎣⎢", "⌋": "⎥⎥⎦⎥", "⌈": "⎡⎢⎢⎢", "⌉": "⎤⎥⎥⎥",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Box:
    """Lines of one width; `base`: the one that its neighbours stand on."""

    lines: tuple[str, ...]
    base: int = 0

    @property
    def width(self) -> int:
        return _width(self.lines[0])

    @property
    def below(self) -> int:
        return len(self.lines) - 1 - self.base


def block(node: Node) -> tuple[str, ...]:
    """Raises Unreadable: it would be too large."""
    return tuple(text.rstrip() for text in _box(node).lines)


def _box(node: Node) -> _Box:
    match node:
        case Row():
            return _row(node)
        case Fraction(top, bottom, bar):
            return _fraction(_box(top), _box(bottom), bar)
        case Root():
            return _root(node)
        case Scripts():
            return _scripts(node)
        case Fenced(left, body, right):
            return _fenced(left, _box(body), right)
        case Boxed(body):
            return _framed(_box(body))
        case Table():
            return _table(node)
        case Symbol() | Accented():
            return _text(line(node))


def _width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _text(text: str) -> _Box:
    return _Box((text,))


def _pad(text: str, width: int, align: str = "<") -> str:
    room = width - _width(text)
    before = 0 if align == "<" else room if align == ">" else room // 2
    return " " * before + text + " " * (room - before)


def _stack(boxes: list[_Box], base: int, align: str = "^") -> _Box:
    """One below the other; `base` counts lines."""
    width = max(box.width for box in boxes)
    lines = [text for box in boxes for text in box.lines]
    if len(lines) * width > _MOST_CELLS:
        raise Unreadable("too large")
    return _Box(tuple(_pad(text, width, align) for text in lines), base)


def _beside(boxes: Iterable[_Box]) -> _Box:
    parts = [box for box in boxes if box.width]
    if not parts:
        return _text("")
    above, below = max(box.base for box in parts), max(box.below for box in parts)
    if (above + below + 1) * sum(box.width for box in parts) > _MOST_CELLS:
        raise Unreadable("too large")
    columns = []
    for box in parts:
        blank = " " * box.width
        columns.append([blank] * (above - box.base) + list(box.lines) + [blank] * (below - box.below))
    return _Box(tuple("".join(row) for row in zip(*columns, strict=True)), above)


def _fraction(top: _Box, bottom: _Box, bar: bool) -> _Box:
    if not bar:
        gap = _text("")
        return _fenced("(", _stack([top, gap, bottom], len(top.lines)), ")")
    rule = _text("─" * (max(top.width, bottom.width) + 2))
    return _stack([top, rule, bottom], len(top.lines))


def _root(node: Root) -> _Box:
    body = _box(node.body)
    if len(body.lines) == 1:
        return _text(line(node))
    index = line(node.index) if node.index is not None else ""
    width = max(_width(index), 1)
    sign = [" " * width + "┌", *[" " * width + "│"] * (len(body.lines) - 1), "╲".rjust(width) + "│"]
    sign[-2] = _pad(index, width) + "│"
    return _beside([_Box(tuple(sign), body.base + 1), _stack([_text("─" * body.width), body], body.base + 1)])


def _row(row: Row) -> _Box:
    parts: list[_Box] = []
    before: Spaced | None = None
    for each in spaced(row.items):
        gap = each.gap
        if before is not None and ordinary(each.kind) and ordinary(before.kind):  # a bar, or √2 and an x, would run into each other
            apart = isinstance(before.node, Root | Fraction) or isinstance(each.node, Fraction)
            gap = " " if apart and "fenced" not in (each.kind, before.kind) else gap
        parts += [_text(gap), _box(each.node)]
        before = each
    return _beside(parts)


def _scripts(node: Scripts) -> _Box:
    base = _box(node.base)
    if isinstance(only(node.base), Fraction | Scripts | Root):
        base = _fenced("(", base, ")")
    if node.limits:
        above, below = ([_text(line(part, tight=True))] if part is not None else [] for part in (node.sup, node.sub))
        return _stack([*above, base, *below], base.base + len(above))
    height = len(base.lines)
    rows: dict[int, str] = {}  # beside the base, whose own are 0 to height - 1
    for part, up in ((node.sub, False), (node.sup, True)):
        if part is not None:
            text, small = script(part, up)
            row = (0 if up else height - 1) if small else (-1 if up else height)
            rows[row] = rows.get(row, "") + text
    top, bottom, width = min([0, *rows]), max([height - 1, *rows]), max([0, *map(_width, rows.values())])
    return _beside([base, _Box(tuple(_pad(rows.get(row, ""), width) for row in range(top, bottom + 1)), base.base - top)])


def _fenced(left: str, body: _Box, right: str) -> _Box:
    return _beside([_tall(left, body), body, _tall(right, body)])


def _tall(bracket: str, body: _Box) -> _Box:
    """As high as what it encloses."""
    height = len(body.lines)
    if height == 1 or not bracket:
        return _text(bracket)
    if bracket not in _TALL:
        return _Box(tuple(bracket if row == body.base else " " for row in range(height)), body.base)
    top, middle, bottom, between = tuple(_TALL[bracket])
    lines = [top, *[between] * (height - 2), bottom]
    if height > 2:
        lines[min(max(body.base, 1), height - 2)] = middle
    return _Box(tuple(lines), body.base)


def _framed(body: _Box) -> _Box:
    rule = "─" * (body.width + 2)
    return _Box((f"┌{rule}┐", *[f"│ {text} │" for text in body.lines], f"└{rule}┘"), body.base + 1)


def _table(table: Table) -> _Box:
    columns = max(len(row) for row in table.rows)
    cells = [[_box(cell) for cell in row] + [_text("")] * (columns - len(row)) for row in table.rows]
    widths = [max(row[column].width for row in cells) for column in range(columns)]
    loose = any(len(box.lines) > 1 for row in cells for box in row)
    rows: list[_Box] = []
    for row, nodes in zip(cells, table.rows, strict=True):
        rows += [_text("")] * (loose and bool(rows))
        rows.append(_text(RULE.text) if nodes == (RULE,) else _beside(_spread(row, widths, table)))
    width = max(row.width for row in rows)
    rows = [_text("─" * width) if row.lines == (RULE.text,) else row for row in rows]
    stack = _stack(rows, sum(len(box.lines) for box in rows) // 2, "<")
    return _fenced(table.left, stack, table.right)


def _spread(row: list[_Box], widths: list[int], table: Table) -> Iterable[_Box]:
    """The cells of a row in columns of these widths. Lengths are kept: trailing blanks are needed for what stands behind the table."""
    aligns = dict(enumerate(table.columns.replace("|", "")))
    for column, (box, width) in enumerate(zip(row, widths, strict=True)):
        if table.barred(column):
            yield _bar(" " * bool(column) + "│ ", row)
        elif column:
            yield _text((" " if column % 2 else "    ") if table.aligned else "  ")
        align = (
            {"l": "<", "c": "^", "r": ">"}[aligns[column]]
            if column in aligns
            else (">" if column % 2 == 0 and len(row) > 1 else "<")
            if table.aligned
            else "<"
            if "{" in (table.left, table.right)
            else "^"
        )
        yield _Box(tuple(_pad(text, width, align) for text in box.lines), box.base)
    if table.barred(len(row)):
        yield _bar(" │", row)


def _bar(text: str, row: list[_Box]) -> _Box:
    """As high as the row."""
    above, below = max(box.base for box in row), max(box.below for box in row)
    return _Box((text,) * (above + below + 1), above)
