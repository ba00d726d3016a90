"""What `localr1 verify` says: lines of one table, each a figure beside its tolerance.

A check is a generator of lines, so that what was found before it fails is told all the same.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any, Literal

from localr1.output import put, put_json, put_table
from localr1.text import printable

VERSION = 2  # of the JSON object
NOTES_FROM = 120  # columns

Status = Literal["PASS", "FAIL", "skipped", "measured"]


@dataclass(frozen=True, slots=True)
class Line:
    """`figure` PASSes at most at `tolerance`. "skipped": it cannot be checked here, `note` says why; "measured": nothing depends on it."""

    name: str
    status: Status
    figure: float | None = None
    tolerance: float | None = None
    unit: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """`run` raises Skipped where something is missing that it needs; any other exception is a failure."""

    name: str
    run: Callable[[], Iterable[Line]]


class Skipped(Exception):
    """Why a check cannot be made here."""


def gate(name: str, figure: float, tolerance: float, unit: str = "", note: str = "") -> Line:
    """A figure that is no number fails."""
    if not math.isfinite(figure):
        return Line(name, "FAIL", None, tolerance, unit, f"the figure is {figure}" + (f"; {note}" if note else ""))
    return Line(name, "PASS" if figure <= tolerance else "FAIL", float(figure), tolerance, unit, note)


def measured(name: str, figure: float, unit: str = "", note: str = "") -> Line:
    return Line(name, "measured", float(figure), None, unit, note)


def run_checks(checks: Sequence[Check]) -> list[Line]:
    """One after the other, with a progress bar on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    lines: list[Line] = []
    columns = (TextColumn("{task.description:44.44}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=len(checks))
        for check in checks:
            bar.update(task, description=check.name)
            try:
                for line in check.run():
                    lines.append(line)
            except Skipped as why:
                lines.append(Line(check.name, "skipped", note=str(why)))
            except Exception as error:  # damaged files make a check fail in any way
                lines.append(Line(check.name, "FAIL", note=" ".join(f"{type(error).__name__}: {error}".split())))
            bar.advance(task)
    return lines


def passed(lines: Sequence[Line]) -> bool:
    return all(line.status != "FAIL" for line in lines)


def tell(lines: Sequence[Line], model: str, begun_s: float, as_json: bool) -> bool:
    """On stdout: the table and its sum, or one JSON object; whether nothing failed."""
    taken_s = perf_counter() - begun_s
    if as_json:
        put_json(to_json(lines, model, taken_s))
    else:
        show(lines, taken_s)
    return passed(lines)


def show(lines: Sequence[Line], taken_s: float) -> None:
    """On a narrow terminal the notes stay away, but for those of what failed or was skipped, which stand below."""
    from localr1.output import console

    out = console()
    wide = not out.is_terminal or out.width >= NOTES_FROM
    rows = [[line.name, line.status, *figures(line), *([printable(line.note)] if wide else [])] for line in lines]
    put_table(("check", "", "figure", "tolerance", *(["note"] if wide else [])), rows, numbers=(2, 3))
    for line in lines:
        if line.note and line.status in ("FAIL", "skipped"):
            put(f"{line.status}: {line.name}: {printable(line.note)}")
    counts = {status: sum(line.status == status for line in lines) for status in ("PASS", "FAIL", "skipped")}
    said = ", ".join(f"{n} {what}" for n, what in zip(counts.values(), ("passed", "failed", "skipped"), strict=True) if n)
    put(f"{'PASS' if passed(lines) else 'FAIL'}: {said} in {taken_s:.0f} s")


def figures(line: Line) -> tuple[str, str]:
    """Figure and tolerance in words, the unit behind the figure."""
    found = "" if line.figure is None else f"{number(line.figure)}{f' {line.unit}' if line.unit else ''}"
    return found, "" if line.tolerance is None else number(line.tolerance)


def number(value: float) -> str:
    """Whole numbers as they are, others with three digits."""
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:.3g}"


def to_json(lines: Sequence[Line], model: str, taken_s: float) -> dict[str, Any]:
    """Keys: version; model; passed; seconds; lines: [{name, status (PASS, FAIL, skipped, measured), figure, tolerance (null: none), unit, note}]."""
    return {
        "version": VERSION,
        "model": model,
        "passed": passed(lines),
        "seconds": round(taken_s, 1),
        "lines": [asdict(line) for line in lines],
    }
