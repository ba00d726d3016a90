"""Small random checkpoints of every architecture, and what independent programs computed from them (assets/goldens)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from goldens.checkpoints import build

from localr1 import paths

GOLDENS = paths.assets() / "goldens"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a kind of checkpoint; built once, not to be changed."""
    built: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in built:
            built[kind] = build(kind, tmp_path_factory.mktemp("checkpoints") / kind)
        return built[kind]

    return folder


@pytest.fixture
def golden() -> Callable[[str], dict[str, np.ndarray]]:
    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDENS / f"{name}.npz") as file:
            return dict(file)

    return load
