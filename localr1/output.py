"""Results on stdout: text, JSON and tables, for a terminal or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from localr1.text import json_text
from localr1.trace.words import on_one_line

if TYPE_CHECKING:
    from rich.console import Console

_GAP = "  "
_LAST, _LEAST = 72, 12  # columns: of a last column in a pipe, and at least on a terminal


def put(text: str, end: str = "\n") -> None:
    print(text, end=end, flush=True)  # a reader that has gone is told now


def put_json(value: object) -> None:
    """Exact in any encoding: what it lacks, and half a character, by JSON's own escapes."""
    text = json_text(value)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json_text(value, ascii_only=True)
    put(text)


def console() -> Console:
    """On stdout, and without an end to its lines where that is no terminal."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 1000)


def put_table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> None:
    """Columns, a line a row. `numbers`: columns set to the right; others are cut where a terminal is too narrow, the last one first."""
    from rich.cells import cell_len
    from rich.text import Text

    out = console()
    lines = [[on_one_line(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    shrinking = [i for i in range(len(header)) if i not in numbers]
    if not out.is_terminal:
        widths[-1] = min(widths[-1], _LAST)
    while out.is_terminal and sum(widths) + len(_GAP) * (len(widths) - 1) > out.width:
        i = len(widths) - 1 if widths[-1] > _LEAST else max(shrinking, key=widths.__getitem__, default=0)
        if widths[i] <= _LEAST:
            break
        widths[i] -= 1
    for n, line in enumerate(lines):
        cells = [Text(cell) for cell in line]
        for i, cell in enumerate(cells):
            cell.truncate(widths[i], overflow="ellipsis")
            cell.align("right" if i in numbers else "left", widths[i])
        text = Text(_GAP).join(cells)
        text.rstrip()
        if out.is_terminal:
            out.print(text, style="bold" if n == 0 else "", soft_wrap=True)
        else:
            put(text.plain)
