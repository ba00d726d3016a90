"""`localr1 quantize`: the conversion with a progress bar, and what came of it in one line."""

from __future__ import annotations

import sys
from pathlib import Path

from quantize.convert import Progress, convert


def quantize(source: Path, target: Path, form: str, force: bool = False) -> None:
    """Convert `source`; progress on stderr, the result on stdout. Raises ModelFileError or QuantizeError."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description:32.32}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("reading the checkpoint", total=None)

        def show(progress: Progress) -> None:
            bar.update(task, description=progress.tensor, completed=progress.done_bytes, total=progress.total_bytes)

        report = convert(source, target, form, on_progress=show, force=force)
    print(
        f"{report.target}: {report.architecture}, {report.tensors} tensors, {report.target_bytes / 1e6:,.1f} MB, "
        f"{report.bits_per_weight:.2f} bits per weight ({report.format}), {report.seconds:.1f} s"
    )
    if report.fallbacks:
        tensor, taken = report.fallbacks[0]
        print(f"{len(report.fallbacks)} tensors do not fit {report.format} and took another format ({tensor}: {taken})", file=sys.stderr)
