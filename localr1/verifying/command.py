"""`localr1 verify`: the bundle, a person's own checkpoint, or the teacher's figures; two models beside each other are in `against`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import perf_counter

from backends.base import ModelFileError
from localr1 import paths
from localr1.models import resolve
from localr1.verifying.bundle import bundle_checks, subject_checks
from localr1.verifying.lines import run_checks, tell
from localr1.verifying.subject import Subject

BUNDLE = "the bundle"


def verify(model: str | None, as_json: bool) -> bool:
    """Check and tell; whether nothing failed. `model`: a checkpoint folder's name, None for the bundle. Raises BackendError."""
    begun_s = perf_counter()
    with tempfile.TemporaryDirectory(prefix="localr1-", ignore_cleanup_errors=True) as folder:
        if model is None:
            return tell(run_checks(bundle_checks(paths.assets(), Path(folder))), BUNDLE, begun_s, as_json)
        spec = resolve(model)
        if spec.kind == "gguf":
            raise ModelFileError(f"{spec.path} is a GGUF file; give what to compare it with: --against MODEL[@BACKEND]")
        return tell(run_checks(subject_checks(Subject(spec.name, spec.path, Path(folder)))), spec.name, begun_s, as_json)
