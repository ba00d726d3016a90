"""`localr1 verify`: the bundle's whole proof."""

from __future__ import annotations

from pathlib import Path

from backends.base import BackendError
from localr1.models import BUNDLED
from localr1.verifying.checkpoint import checkpoint_checks
from localr1.verifying.checksums import checksums
from localr1.verifying.engines import engine_checks, quantization_checks
from localr1.verifying.goldens import Tiny, golden_checks
from localr1.verifying.lines import Check, Line, Status
from localr1.verifying.subject import Subject

TEACHER = "r1-tiny-teacher"


def bundle_checks(assets: Path, scratch: Path) -> list[Check]:
    """All of `assets`. `scratch`: an empty folder for temporary files."""
    checks = [Check("checksums of the bundle", lambda: checksums(assets))]
    try:
        checks += golden_checks(Tiny(assets / "goldens", scratch))
    except ImportError as error:
        checks.append(_said("goldens", "FAIL", f"{error}; reinstall localr1"))
    return (
        checks + _of_model(Subject("student", assets / BUNDLED, scratch), True) + _of_model(Subject("teacher", assets / TEACHER, scratch))
    )


def subject_checks(subject: Subject) -> list[Check]:
    return checkpoint_checks(subject) + engine_checks(subject)


def _of_model(subject: Subject, quantized: bool = False) -> list[Check]:
    if not subject.folder.is_dir():  # the list of checksums says whether it should be there
        return [_said(subject.label, "skipped", f"{subject.folder} is missing; reinstall localr1")]
    try:
        return subject_checks(subject) + (quantization_checks(subject) if quantized else [])
    except BackendError as error:
        return [_said(subject.label, "FAIL", str(error))]


def _said(name: str, status: Status, note: str) -> Check:
    return Check(name, lambda: [Line(name, status, note=note)])
