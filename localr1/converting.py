"""`localr1 quantize`: the conversion with a progress bar, then what it changed in what the model says."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from backends.base import BackendError
from localr1 import paths
from localr1.reporting import check_page, show
from localr1.student import exam, is_student
from quantize.convert import Progress, Report, convert, open_source
from quantize.errors import QuantizeError
from quantize.evaluate import Evaluation, NotEvaluated, Plan, evaluate, plan
from quantize.imatrix import ImportanceMatrix
from quantize.mlx_formats import MlxFormat
from quantize.recipe import Mix

if TYPE_CHECKING:
    from quantize import fit_plan

BUILT_IN = Path()  # --calibrate without a file

Show = Callable[[str, int, int], None]  # what is being done; how much of it, of how much


@dataclass(frozen=True, slots=True)
class Order:
    """What a person asked for. `form`: a format; with `fit` (a size, or "auto" for this machine at
    `context` tokens) gguf or mlx.

    `imatrix`: an importance matrix to use; else one is made of `text`, a file (BUILT_IN for the built-in corpus), and kept beside
    the target. `evaluate`: None for small models only. `page`: reporting.TABLES, or an HTML file to write.
    """

    source: Path
    target: Path
    form: str
    fit: str | None = None
    context: int | None = None
    force: bool = False
    allow_nan: bool = False
    imatrix: Path | None = None
    text: Path | None = None
    evaluate: bool | None = None
    page: Path | None = None
    as_json: bool = False


def quantize(order: Order) -> None:
    """Convert; progress on stderr, the result on stdout. Raises ModelFileError, EngineError or QuantizeError."""
    check_page(order.page, order.force)
    planned = _planned(order)
    fitted = None
    form: str | Mix | MlxFormat = order.form
    if order.fit is not None:
        matrix, fitted = _fitted(order, order.fit)
        form = fitted.target()
    else:
        matrix = _matrix(order)
    report = _converted(order, form, matrix)
    for warning in report.warnings:
        print(f"localr1: {warning}", file=sys.stderr)
    if report.fallbacks:
        tensor, taken = report.fallbacks[0]
        print(f"{len(report.fallbacks)} tensors do not fit {report.format} and took another format ({tensor}: {taken})", file=sys.stderr)
    try:
        evaluation = planned if isinstance(planned, str) else _evaluated(planned)
    except (KeyboardInterrupt, SystemExit, BackendError, QuantizeError) as error:  # the target is whole, whatever came then
        failed = isinstance(error, BackendError | QuantizeError)
        show(report, str(error) if failed else "interrupted", fitted, page=order.page, as_json=order.as_json)
        if failed:
            raise QuantizeError(f"{order.target} is written; what it says could not be measured: {error}") from error
        raise
    show(report, evaluation, fitted, page=order.page, as_json=order.as_json)


def _planned(order: Order) -> Plan | str:
    """How to evaluate, or why not. Raises QuantizeError if that is wanted and cannot be."""
    if order.evaluate is False:
        return "--no-eval"
    if order.allow_nan:
        return "a model whose weights are no numbers predicts none"
    form = order.form if order.fit is None or order.form == "gguf" else f"{order.form}-fit"
    try:
        return plan(order.source, order.target, form, asked=order.evaluate is True)
    except NotEvaluated as reason:
        if order.evaluate:
            raise QuantizeError(f"--eval is not possible: {reason}; leave it away") from None
        return str(reason)


def _evaluated(planned: Plan) -> Evaluation:
    material = exam() if is_student(planned.source) else None
    with _bar("evaluating") as on_progress:
        return evaluate(planned, material, say=_say, on_progress=on_progress)


def _matrix(order: Order) -> ImportanceMatrix | None:
    """The one to use; one that is made is written to TARGET.imatrix.gguf too, so that --imatrix can take it the next time."""
    if order.imatrix is not None:
        return ImportanceMatrix.read(order.imatrix)
    if order.text is None:
        return None
    from quantize import calibrate
    from quantize.gguf_file import check_target
    from quantize.parts import check_name
    from quantize.report import path_text
    from quantize.sizes import mix_sizes
    from quantize.unquantized import Unquantized

    check_target(order.target, force=order.force)  # before minutes are spent
    kept = order.target.with_name(f"{order.target.name}.imatrix.gguf")
    check_target(kept, force=order.force)
    check_name(kept)
    built_in = order.text == BUILT_IN
    name = calibrate.BUILT_IN if built_in else path_text(Path(order.text.name))
    material = calibrate.corpus() if built_in else calibrate.read_text(order.text)
    _say(f"calibrating on {name}")
    with _bar("calibrating") as on_progress, open_source(order.source) as opened:
        then_bytes = mix_sizes(opened, imatrix=True).get(order.form.upper(), 0)
        with Unquantized(order.source, opened, order.target, then_bytes, _say, on_progress) as model:
            progress = partial(on_progress, f"calibrating on {name}")
            matrix = calibrate.collect(model.path, material, datasets=(name,), on_progress=progress)
    matrix.write(kept, force=order.force)
    return matrix


def _fitted(order: Order, size: str) -> tuple[ImportanceMatrix | None, fit_plan.Plan]:
    """The plan, and the importance matrix it was made with."""
    from quantize import calibrate
    from quantize.fit import fit
    from quantize.fit_size import auto_budget, parse_size, size_text

    budget = parse_size(size)
    if budget is None:
        budget = auto_budget(order.source, order.context)
        _say(f"--fit auto: memory leaves {size_text(budget)} for the weights")
    matrix = None if order.imatrix is None else ImportanceMatrix.read(order.imatrix)
    text = None if order.text is None or order.text == BUILT_IN else calibrate.read_text(order.text)
    with _bar("measuring") as on_progress:
        found = fit(
            order.source,
            order.target,
            budget,
            cache=paths.cache() / "fit",
            kind="mlx" if order.form == "mlx" else "gguf",
            imatrix=matrix,
            material=text,
            force=order.force,
            say=_say,
            on_progress=on_progress,
        )
    return (None if order.form == "mlx" else found.imatrix), found.plan


def _converted(order: Order, form: str | Mix | MlxFormat, matrix: ImportanceMatrix | None) -> Report:
    from rich.progress import DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

    with _bar("reading the checkpoint", DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()) as on_progress:

        def show_progress(progress: Progress) -> None:
            on_progress(progress.tensor, progress.done_bytes, progress.total_bytes)

        return convert(
            order.source, order.target, form, imatrix=matrix, on_progress=show_progress, force=order.force, allow_nan=order.allow_nan
        )


@contextmanager
def _bar(first: str, *columns: object) -> Iterator[Show]:
    """A progress bar on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    more = [column for column in columns if isinstance(column, ProgressColumn)] or [TaskProgressColumn(), TimeElapsedColumn()]
    shown = (TextColumn("{task.description:32.32}", markup=False), BarColumn(), *more)
    with Bar(*shown, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(first, total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


def _say(line: str) -> None:
    print(f"localr1: {line}", file=sys.stderr)
