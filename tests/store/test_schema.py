"""Older stores are migrated, wholly or not at all."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from store.keeping import keep, run, text_only

from localr1.store import Store, StoreError, schema


def version(file: Path) -> int:
    db = sqlite3.connect(file)
    try:
        return int(db.execute("PRAGMA user_version").fetchone()[0])
    finally:
        db.close()


def test_an_older_store_is_migrated(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.parent.mkdir()
    file.touch()  # version 0
    with Store(file) as store:
        turn = keep(store, text_only("q", "t", "a"))
    assert version(file) == len(schema.MIGRATIONS) == 1
    monkeypatch.setattr(
        schema, "MIGRATIONS", [*schema.MIGRATIONS, lambda db: db.execute("ALTER TABLE turn ADD COLUMN mood TEXT DEFAULT 'calm'")]
    )
    with Store(file) as store:
        assert store._db.execute("SELECT mood FROM turn").fetchall() == [("calm",)]
        assert store.turn(turn).trace == text_only("q", "t", "a")
    assert version(file) == 2


def test_a_migration_that_fails_changes_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store(file) as store:
        turn = keep(store, text_only("q", "t", "a"))
    half: list[Callable[[sqlite3.Connection], object]] = [lambda db: db.execute("DELETE FROM turn"), lambda db: db.execute("no SQL")]
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, *half])
        with pytest.raises(StoreError):
            Store(file)
    assert version(file) == 1
    with Store(file) as store:
        assert store.turn(turn).trace == text_only("q", "t", "a")


KILLED_MIGRATION = """
import os
from pathlib import Path
from localr1.store import Store, schema
def half(db):
    db.execute("PRAGMA cache_size = 1")  # so that pages of it reach the file
    db.execute("DELETE FROM turn")
    db.execute("CREATE TABLE later AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000) SELECT i, hex(i) FROM n")
    os.kill(os.getpid(), 9)
schema.MIGRATIONS.append(half)
Store(Path(sys.argv[1]))
"""


def test_a_migration_that_is_killed_changes_nothing(file: Path) -> None:
    with Store(file) as store:
        turn = keep(store, text_only("q", "t", "a"))
    assert run(KILLED_MIGRATION, file).returncode == -signal.SIGKILL
    with Store(file) as store:
        assert store.turn(turn).trace == text_only("q", "t", "a")
        assert store._db.execute("SELECT name FROM sqlite_master WHERE name = 'later'").fetchall() == []
    assert version(file) == 1
