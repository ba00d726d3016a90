"""The tables of the store; a file is opened, made and migrated here, and what can go wrong with it is put into words."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

WAIT_S = 5.0  # for another process that writes
_APPLICATION = 0x6C6F7231  # "lor1": whose SQLite file this is

# A conversation is a tree of turns. `question`: packing.pack_text. `indexed`: the reply is in `words`, which it is once it is over.
# The chunks of a reply count from 0; chunk -1 is its text where that is not what its tokens add up to (packing.pack_reply).
# words: rowid 3 * turn + 0, 1, 2 (question, thought, answer); it holds which terms occur, and no text.
_TABLES = (
    """CREATE TABLE conversation (
        id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT NOT NULL, model TEXT NOT NULL,
        created_at TEXT NOT NULL, updated_at TEXT NOT NULL, head INTEGER REFERENCES turn ON DELETE SET NULL)""",
    """CREATE TABLE turn (
        id INTEGER PRIMARY KEY AUTOINCREMENT, conversation INTEGER NOT NULL REFERENCES conversation ON DELETE CASCADE,
        parent INTEGER REFERENCES turn ON DELETE CASCADE, question BLOB NOT NULL, made TEXT NOT NULL, ended TEXT NOT NULL,
        started_at TEXT NOT NULL, opens_thought INTEGER NOT NULL, thought_tokens INTEGER NOT NULL DEFAULT 0,
        answer_tokens INTEGER NOT NULL DEFAULT 0, seconds REAL NOT NULL DEFAULT 0, indexed INTEGER NOT NULL DEFAULT 0)""",
    """CREATE TABLE chunk (
        turn INTEGER NOT NULL REFERENCES turn ON DELETE CASCADE, n INTEGER NOT NULL, text BLOB NOT NULL, numbers BLOB NOT NULL,
        UNIQUE (turn, n))""",
    "CREATE INDEX turn_conversation ON turn (conversation)",
    "CREATE INDEX turn_parent ON turn (parent)",
    "CREATE INDEX turn_unindexed ON turn (id) WHERE indexed = 0",
    """CREATE VIRTUAL TABLE words USING fts5 (
        terms, content = '', columnsize = 0, detail = none, tokenize = "unicode61 remove_diacritics 0 categories 'L* M* N* P* S* C*'")""",
)


def _create(db: sqlite3.Connection) -> None:
    for statement in _TABLES:
        db.execute(statement)


# What takes a file of version i to i + 1. All that a file needs are run in one transaction, so they must not end it.
MIGRATIONS: list[Callable[[sqlite3.Connection], None]] = [_create]


class StoreError(Exception):
    """The history cannot be read or written. One line: what, where, the remedy. The chat can go on without it."""


@contextmanager
def problems(path: Path) -> Iterator[None]:
    """What SQLite and the system complain about, as StoreError."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", -1) & 0xFF
        what, remedy = _SAID.get(code, (str(error), "check the file, or move it away to begin a new one"))
        raise StoreError(f"the history {path} {what}; {remedy}") from error
    except OSError as error:
        what = error.strerror or str(error)
        raise StoreError(f"the history {path} cannot be opened ({what}); check the folder, or go on with --no-history") from error
    except OverflowError as error:  # an integer of more than 64 bits
        raise StoreError("there is no such number in the history; look at the list again") from error


_SAID = {
    sqlite3.SQLITE_FULL: ("has no room to grow: the disk is full", "free some space"),
    sqlite3.SQLITE_READONLY: ("cannot be written: the file or its folder is read-only", "make both writable, or go on with --no-history"),
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", "check that it is a file, in a folder that is writable"),
    sqlite3.SQLITE_PERM: ("cannot be opened: permission denied", "make it readable and writable"),
    sqlite3.SQLITE_NOTADB: ("is no SQLite database", "move it away to begin a new one"),
    sqlite3.SQLITE_CORRUPT: ("is damaged", "restore a copy, or move it away to begin a new one"),
    sqlite3.SQLITE_BUSY: (f"has been locked by another program for {WAIT_S:g} s", "close that and try again"),
    sqlite3.SQLITE_IOERR: ("cannot be read or written (input/output error)", "check the disk"),
}


def opened(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode to the file (or ":memory:"), which is made (mode 0600) or migrated where it has to be. Raises StoreError."""
    with problems(path):
        if path.name != ":memory:":
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        db = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
        try:
            _set_up(db, path)
        except BaseException:
            db.close()
            raise
        return db


def _set_up(db: sqlite3.Connection, path: Path) -> None:
    db.execute("PRAGMA synchronous = NORMAL")  # a killed process loses nothing, a power cut the last second
    if _version(db, path) < len(MIGRATIONS):
        db.execute("PRAGMA page_size = 2048")  # of a file without tables, as the next one; a short reply wastes less of it
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")  # which the file keeps
        _migrate(db, path)
    db.execute("PRAGMA foreign_keys = ON")


def _version(db: sqlite3.Connection, path: Path) -> int:
    """Of the schema, 0 in an empty file. Raises StoreError if this program cannot read it."""
    version, application, tables = db.execute(
        "SELECT user_version, application_id, (SELECT count(*) FROM sqlite_master) FROM pragma_user_version, pragma_application_id"
    ).fetchone()
    if tables and application != _APPLICATION:
        raise StoreError(f"{path} is a database of another program; name another file for the history")
    if version > len(MIGRATIONS):
        known = len(MIGRATIONS)
        raise StoreError(f"the history {path} is of version {version}, and this program reads up to {known}; update localr1")
    return int(version)


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    with transaction(db):
        for migrate in MIGRATIONS[_version(db, path) :]:  # read again: another process may have been here
            migrate(db)
        db.execute(f"PRAGMA application_id = {_APPLICATION}")
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


@contextmanager
def transaction(db: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """All of it or nothing."""
    db.execute(f"BEGIN {kind}")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


# ------------------------------------------------------------------------------------------------------------- rows


def row(db: sqlite3.Connection, table: str, id: int, columns: str) -> tuple[Any, ...]:
    """Raises StoreError if there is none."""
    found = db.execute(f"SELECT {columns} FROM {table} WHERE id = ?", (id,)).fetchone()
    if found is None:
        raise StoreError(f"there is no {table.split()[0]} {id} in the history; it may have been deleted: look at the list again")
    return cast("tuple[Any, ...]", found)


def count(db: sqlite3.Connection, where: str, *values: int) -> int:
    return int(db.execute(f"SELECT count(*) FROM {where}", values).fetchone()[0])


def inserted(db: sqlite3.Connection, table: str, **values: object) -> int:
    """The id of the new row."""
    places = ", ".join("?" * len(values))
    return cast(int, db.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({places})", tuple(values.values())).lastrowid)


def plain(text: str) -> str:
    """What SQLite takes as text: no lone surrogates."""
    return text.encode("utf-8", "replace").decode("utf-8")
