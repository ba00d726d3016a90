"""`localr1 verify`: the bundle, a person's own checkpoint, or the teacher's figures; two models beside each other are in `against`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from backends.base import ModelFileError
from backends.checkpoint import model_name
from backends.model_file import describe
from localr1 import paths
from localr1.files import write_whole
from localr1.models import resolve
from localr1.output import put
from localr1.verifying.bundle import TEACHER, bundle_checks, subject_checks
from localr1.verifying.lines import passed, run_checks, tell
from localr1.verifying.subject import Subject


def verify(model: str | None, as_json: bool) -> bool:
    """Check and tell; whether nothing failed. `model`: a checkpoint folder's name, None for the bundle. Raises BackendError."""
    begun_s = perf_counter()
    with _scratch() as scratch:
        if model is None:
            _one_thread()
            return tell(run_checks(bundle_checks(paths.assets(), scratch)), "the bundle", begun_s, as_json)
        subject = _subject(model, scratch)
        return tell(run_checks(subject_checks(subject)), model_name(subject.folder), begun_s, as_json)


def verify_teacher(model: str | None, problems: int, as_json: bool, as_markdown: bool, svg: Path | None) -> bool:
    """Measure the bundled teacher, or another checkpoint of its kind and tokens; `svg` is drawn: which experts each family of tasks uses."""
    _one_thread()
    from backends.reference.route import families_as_svg
    from localr1.verifying.teacher import Measured, markdown, teacher_checks

    begun_s = perf_counter()
    with _scratch() as scratch:
        folder = paths.assets() / TEACHER
        if model is None and not folder.is_dir():
            raise ModelFileError(f"the bundled teacher is missing ({folder}); reinstall localr1, or name a folder of its kind")
        subject = Subject("", folder, scratch) if model is None else _subject(model, scratch)
        if subject.reference.model.config.moe is None or not subject.speaks_tiny:
            raise ModelFileError(f"{subject.folder} is no DeepSeek-V3 model with the bundled tokens, whose tasks --teacher asks")
        found = Measured(subject, problems)
        lines = run_checks(teacher_checks(found))
        if as_markdown:
            put(markdown(found, lines))
        else:
            tell(lines, model_name(subject.folder), begun_s, as_json)
        if svg is not None and found.routing:  # last: should it fail, what was measured is told
            write_whole(svg, families_as_svg(found.routing, subject.reference.model.config))
        return passed(lines)


def _one_thread() -> None:
    """For the bundle's small matrices: numpy's threads wait for each other by spinning, which on a busy machine takes ten times as long.
    Tells OpenBLAS, where numpy is not loaded yet."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@contextmanager
def _scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="localr1-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _subject(model: str, scratch: Path) -> Subject:
    spec = resolve(model)
    if spec.kind == "gguf":
        raise ModelFileError(f"{spec.path} is a GGUF file; give what to compare it with: --against MODEL[@BACKEND]")
    if describe(spec.path).kind == "mlx":
        raise ModelFileError(f"{spec.path} is a folder for MLX; give what to compare it with: --against MODEL[@BACKEND]")
    return Subject("", spec.path, scratch)
