"""A store in a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from localr1.store import Store

pytest.register_assert_rewrite("store.keeping")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "history.db"


@pytest.fixture
def store(file: Path) -> Iterator[Store]:
    with Store(file) as store:
        yield store
