"""`localr1 quantize`: the conversion with a progress bar, then what it changed in what the model says."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from backends.base import BackendError
from localr1.reporting import check_page, show
from localr1.student import exam, is_student
from quantize.convert import Progress, Report, convert
from quantize.errors import QuantizeError, TargetError
from quantize.evaluate import Evaluation, NotEvaluated, Plan, evaluate, plan
from quantize.imatrix import ImportanceMatrix

BUILT_IN = Path()  # --calibrate without a file


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is wanted beside the file. `evaluate`: None for small models only. `page`: reporting.TABLES, or an HTML file to write."""

    evaluate: bool | None = None
    page: Path | None = None
    as_json: bool = False


def quantize(
    source: Path,
    target: Path,
    form: str,
    force: bool = False,
    imatrix: Path | None = None,
    text: Path | None = None,
    wishes: Wishes = Wishes(),
) -> None:
    """Convert `source`; progress on stderr, the result on stdout. Raises ModelFileError, EngineError or QuantizeError.

    `imatrix`: an importance matrix to use; else one is made of `text`, a file (BUILT_IN for the built-in corpus), and kept beside the target.
    """
    check_page(wishes.page, force)
    planned = _planned(source, target, form, wishes.evaluate)
    report = _converted(source, target, form, force, imatrix, text)
    for warning in report.warnings:
        print(f"localr1: {warning}", file=sys.stderr)
    if report.fallbacks:
        tensor, taken = report.fallbacks[0]
        print(f"{len(report.fallbacks)} tensors do not fit {report.format} and took another format ({tensor}: {taken})", file=sys.stderr)
    try:
        evaluation = planned if isinstance(planned, str) else _evaluated(planned)
    except (KeyboardInterrupt, SystemExit, BackendError, QuantizeError) as error:  # the target is whole, whatever came then
        failed = isinstance(error, BackendError | QuantizeError)
        show(report, str(error) if failed else "interrupted", page=wishes.page, as_json=wishes.as_json)
        if failed:
            raise QuantizeError(f"{target} is written; what it says could not be measured: {error}") from error
        raise
    show(report, evaluation, page=wishes.page, as_json=wishes.as_json)


def _planned(source: Path, target: Path, form: str, wanted: bool | None) -> Plan | str:
    """How to evaluate, or why not. Raises QuantizeError if that is wanted and cannot be."""
    if wanted is False:
        return "--no-eval"
    try:
        return plan(source, target, form, asked=wanted is True)
    except NotEvaluated as reason:
        if wanted:
            raise QuantizeError(f"--eval is not possible: {reason}; leave it away") from None
        return str(reason)


def _evaluated(planned: Plan) -> Evaluation:
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description:32.32}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("evaluating", total=None)

        def show_progress(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        def say(line: str) -> None:
            print(f"localr1: {line}", file=sys.stderr)

        material = exam() if is_student(planned.source) else None
        return evaluate(planned, material, say=say, on_progress=show_progress)


def _converted(source: Path, target: Path, form: str, force: bool, imatrix: Path | None, text: Path | None) -> Report:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description:32.32}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("reading the checkpoint", total=None)

        def show_progress(progress: Progress) -> None:
            bar.update(task, description=progress.tensor, completed=progress.done_bytes, total=progress.total_bytes)

        def count(done: int, total: int) -> None:
            bar.update(task, description="calibrating (chunks)", completed=done, total=total)

        matrix = None
        if imatrix is not None:
            matrix = ImportanceMatrix.read(imatrix)
        elif text is not None:
            matrix = calibrated(source, target, text, count)
        return convert(source, target, form, imatrix=matrix, on_progress=show_progress, force=force)


def calibrated(source: Path, target: Path, text: Path, on_progress: Callable[[int, int], None]) -> ImportanceMatrix:
    """The importance matrix of `source`, written to TARGET.imatrix.gguf too, so that --imatrix can take it the next time.

    A checkpoint runs from an unquantized GGUF file beside the target, which is removed. Raises as `quantize`.
    """
    import tempfile

    from quantize import calibrate

    name, material = (calibrate.BUILT_IN, calibrate.corpus()) if text == BUILT_IN else (text.name, calibrate.read_text(text))
    try:
        made = tempfile.TemporaryDirectory(prefix=f"{target.name}.", suffix=".part", dir=target.parent)
    except OSError as error:
        raise TargetError(f"{target.parent}: cannot be written to ({error.strerror}); choose another folder") from None
    with made as folder:
        model = source
        if not source.is_file():
            model = Path(folder) / "unquantized.gguf"
            print(f"localr1: calibrating on {name}; the model runs from the temporary file {model}", file=sys.stderr)
            convert(source, model, "BF16")
        matrix = calibrate.collect(model, material, datasets=(name,), on_progress=on_progress)
    matrix.write(target.with_name(f"{target.name}.imatrix.gguf"), force=True)
    return matrix
