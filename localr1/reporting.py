"""What `localr1 quantize` says of a conversion: a few lines after each, tables, one JSON object, an HTML page."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from localr1.files import write_whole
from localr1.output import put_json
from localr1.text import printable
from quantize.convert import Report, open_source
from quantize.errors import TargetError
from quantize.evaluate import Evaluation
from quantize.fit_plan import HEADER, RIVALS_HEADER, Plan, rivals, table
from quantize.parts import check_name
from quantize.report import by_format, mean_relative_error, merged, path_text, report_json, size_ratio, worst
from quantize.report_text import percent, size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

TABLES = Path()  # --report without a file
_TEXTS = ("tensor", "shape", "format", "family", *HEADER[:2], *RIVALS_HEADER[:1])
WIDE = 100  # columns: from here on shapes are shown too


def show(report: Report, evaluation: Evaluation | str, plan: Plan | None = None, *, page: Path | None, as_json: bool) -> None:
    """On stdout, and into the HTML file `page` (TABLES: more tables instead). `evaluation` may be the reason why there is none; `plan`:
    what --fit chose.

    Raises TargetError if the page cannot be written.
    """
    if as_json:
        put_json(report_json(report, evaluation, plan))
    else:
        if plan is not None:
            _print_plan(plan)
        _print_lines(report, evaluation)
    if page == TABLES and not as_json:
        console = _console()
        if not isinstance(evaluation, str) and evaluation.tasks:
            console.print(_tasks(evaluation))
        console.print(_formats(report), _tensors(report, console.width >= WIDE))
    elif page is not None and page != TABLES:
        _write_page(page, report, evaluation, plan)
        print(f"localr1: the report is in {page}", file=sys.stderr)


def check_page(page: Path | None, force: bool) -> None:
    """Before anything starts. Raises TargetError unless the HTML file can be made."""
    if page is None or page == TABLES:
        return
    if not page.parent.is_dir():
        raise TargetError(f"{page.parent}: no such folder; create it first")
    if page.exists() and (not force or not page.is_file()):
        raise TargetError(f"{page}: exists already; choose another name for the report or pass --force to replace it")
    check_name(page)


def _print_plan(plan: Plan) -> None:
    """What takes which format, beside the named mixes that are no larger."""
    console = _console()
    console.print(_filled(HEADER, table(plan)))
    if plan.rivals:
        console.print(_filled(RIVALS_HEADER, rivals(plan)))
    for line in (*((f"expected KL: {plan.basis}",) if plan.basis else ()), *plan.notes):
        print(printable(line))


def _filled(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    filled = _table(header)
    for row in rows:
        _row(filled, *row)
    return filled


def _print_lines(report: Report, evaluation: Evaluation | str) -> None:
    from rich.table import Table
    from rich.text import Text

    seconds = f"{report.seconds:.1f} s"
    print(
        f"{printable(path_text(report.target))}: {report.architecture}, {report.tensors} tensors, {report.target_bytes / 1e6:,.1f} MB, "
        f"{report.bits_per_weight:.2f} bits per weight ({report.format}), {seconds}"
    )
    lines = [("source", f"{size(report.source_bytes)} of weights, {size_ratio(report):.2f} times as large"), ("error", _error(report))]
    if isinstance(evaluation, str):
        lines.append(("loss", f"not measured: {evaluation}"))
    else:
        c = evaluation.comparison
        lines += [
            ("loss", f"KL divergence {c.kl_mean:.3g} nats on average, {c.kl_p99:.3g} at the 99th percentile"),
            ("", f"likeliest token the same for {c.top1_agreement:.1%} of {c.tokens:,}"),
            ("", f"perplexity {c.baseline_perplexity:.4g} -> {c.perplexity:.4g} (x {c.perplexity_ratio:.4f})"),
        ]
        if evaluation.tasks:
            lines.append(("right", _right(evaluation.tasks)))
    grid = Table.grid(padding=(0, 2))
    for name, value in lines:
        grid.add_row(f"  {name}", Text(printable(value)))
    console = _console()
    with console.capture() as drawn:
        console.print(grid)
    print("\n".join(line.rstrip() for line in drawn.get().splitlines()))


def _error(report: Report) -> str:
    mean = mean_relative_error(report.losses)
    if mean == 0:
        return "none: every weight is stored exactly"
    found = (f"{t.name.removesuffix('.weight')} {percent(t.relative_error)} ({t.format})" for t in worst(report, 3))
    return f"{percent(mean)} on average; most in {', '.join(found)}"


def _right(tasks: Mapping[str, tuple[float, float]]) -> str:
    before, after = (sum(shares) / len(tasks) for shares in zip(*tasks.values(), strict=True))
    changed = [f"{family} {a:.0%} -> {b:.0%}" for family, (a, b) in tasks.items() if a != b]
    return f"{before:.1%} -> {after:.1%} of problems" + (f"; {', '.join(changed)}" if changed else "")


def _tasks(evaluation: Evaluation) -> Table:
    table = _table(["family", "source", "target"])
    for family, shares in evaluation.tasks.items():
        _row(table, family, *(f"{share:.0%}" for share in shares))
    return table


def _formats(report: Report) -> Table:
    table = _table(["format", "tensors", "parameters", "bytes", "bits", "RMSE", "rel. error"])
    for s in by_format(report):
        bits = f"{8 * s.nbytes / s.parameters:.2f}"
        _row(table, s.format, f"{s.tensors:,}", f"{s.parameters:,}", f"{s.nbytes:,}", bits, f"{s.rmse:.3g}", percent(s.relative_error))
    return table


def _tensors(report: Report, wide: bool) -> Table:
    table = _table(["tensor", *(["shape"] if wide else []), "format", "bytes", "RMSE", "rel. error"])
    for t in merged(report.losses):
        shape = [" x ".join(map(str, t.shape))] if wide else []
        _row(table, t.name, *shape, t.format, f"{t.nbytes:,}", f"{t.rmse:.3g}", percent(t.relative_error))
    return table


def _table(columns: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        left, wraps = name in _TEXTS, name in ("tensor", *HEADER[1:2])
        table.add_column(name, justify="left" if left else "right", no_wrap=not wraps, overflow="fold")
    return table


def _row(table: Table, *values: str) -> None:
    from rich.text import Text

    table.add_row(*(Text(printable(value)) for value in values))


def _console() -> Console:
    """On stdout, and without an end to its lines where that is no terminal."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 1000)


def _write_page(page: Path, report: Report, evaluation: Evaluation | str, plan: Plan | None) -> None:
    from quantize.report_html import report_html
    from quantize.report_svg import Point
    from quantize.sizes import mix_sizes

    with open_source(report.source) as source:
        points = [Point(name, nbytes) for name, nbytes in mix_sizes(source, imatrix=True).items()]
    try:
        write_whole(page, report_html(report, evaluation, points, plan))
    except OSError as error:
        raise TargetError(f"{page}: cannot be written ({error.strerror}); choose another place for the report") from None
