"""A stand-in for the teacher: its architecture and format, weights drawn, the bundled tokenizer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from goldens import checkpoints

from localr1 import paths
from localr1.verifying.lines import Check, Line
from localr1.verifying.subject import Subject

STUDENT = paths.assets() / "r1-tiny"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command sets is taken back."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def drawn_teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind = checkpoints.KINDS["deepseek_v3-fp8"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(checkpoints.KINDS, "teacher", replace(kind, config=kind.config | {"vocab_size": 320, "num_hidden_layers": 2}))
        folder = checkpoints.build("teacher", tmp_path_factory.mktemp("teacher") / "r1-tiny-teacher")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(STUDENT / name, folder)
    return folder


@pytest.fixture
def subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], Subject]:
    """A folder to verify, briefly."""
    for module in ("subject", "checkpoint"):
        monkeypatch.setattr(f"localr1.verifying.{module}.WINDOW_TOKENS", 48)
        monkeypatch.setattr(f"localr1.verifying.{module}.WINDOWS", 2)
    monkeypatch.setattr("localr1.verifying.checkpoint.NEW_TOKENS", 8)
    return lambda folder: Subject("it", folder, tmp_path)


def ran(checks: list[Check]) -> dict[str, Line]:
    """Lines by the words behind the model's name."""
    from localr1.verifying.lines import run_checks

    return {line.name.rpartition(": ")[2]: line for line in run_checks(checks)}


def statuses(checks: list[Check]) -> dict[str, Any]:
    return {name: line.status for name, line in ran(checks).items()}
