"""`localr1 quantize`: the conversion with a progress bar, and what came of it in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from quantize.convert import Progress, convert
from quantize.errors import TargetError
from quantize.imatrix import ImportanceMatrix

BUILT_IN = Path()  # --calibrate without a file


def quantize(source: Path, target: Path, form: str, force: bool = False, imatrix: Path | None = None, text: Path | None = None) -> None:
    """Convert `source`; progress on stderr, the result on stdout. Raises ModelFileError, EngineError or QuantizeError.

    `imatrix`: an importance matrix to use; else one is made of `text`, a file (BUILT_IN for the built-in corpus), and kept beside the target.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description:32.32}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("reading the checkpoint", total=None)

        def show(progress: Progress) -> None:
            bar.update(task, description=progress.tensor, completed=progress.done_bytes, total=progress.total_bytes)

        def count(done: int, total: int) -> None:
            bar.update(task, description="calibrating (chunks)", completed=done, total=total)

        matrix = None
        if imatrix is not None:
            matrix = ImportanceMatrix.read(imatrix)
        elif text is not None:
            matrix = calibrated(source, target, text, count)
        report = convert(source, target, form, imatrix=matrix, on_progress=show, force=force)
    print(
        f"{report.target}: {report.architecture}, {report.tensors} tensors, {report.target_bytes / 1e6:,.1f} MB, "
        f"{report.bits_per_weight:.2f} bits per weight ({report.format}), {report.seconds:.1f} s"
    )
    for warning in report.warnings:
        print(f"localr1: {warning}", file=sys.stderr)
    if report.fallbacks:
        tensor, taken = report.fallbacks[0]
        print(f"{len(report.fallbacks)} tensors do not fit {report.format} and took another format ({tensor}: {taken})", file=sys.stderr)


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
