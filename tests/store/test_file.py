"""The store's file: the person's own, another program's, read-only, full, damaged, closed."""

from __future__ import annotations

import sqlite3
import stat
import sys
from pathlib import Path

import pytest
from store.keeping import MADE, check_same, keep, reply, said, text_only, word

from localr1 import paths
from localr1.store import Store, StoreError, schema
from localr1.trace.record import Ended


def test_the_file_is_the_persons_own(file: Path, store: Store) -> None:
    keep(store, text_only("q", "", ""))
    for each in file.parent.iterdir():
        assert stat.S_IMODE(each.stat().st_mode) == 0o600, each
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_the_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert paths.data().name == "localr1"
    if sys.platform == "linux":
        assert paths.data() == tmp_path / "localr1"


def test_no_store_to_open(tmp_path: Path) -> None:
    other, text, folder, newer = (tmp_path / name for name in ("other.db", "text.db", "folder", "newer.db"))
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE bookmarks (url)")
    db.close()
    text.write_text("Dear diary, " * 1000)
    folder.mkdir()
    with Store(newer) as store:
        store._db.execute("PRAGMA user_version = 99")
    before = [path.read_bytes() for path in (other, text, newer)]
    for path, what in [
        (other, "another program"), (text, "is no SQLite database"), (folder, "cannot be opened"), (text / "history.db", "cannot be opened"),
        (newer, f"version 99, and this program reads up to {len(schema.MIGRATIONS)}; update localr1"),
    ]:  # fmt: skip
        with pytest.raises(StoreError) as caught:
            Store(path)
        said(caught, str(path), what, ";")
    assert [path.read_bytes() for path in (other, text, newer)] == before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that even root cannot write to")
def test_a_folder_that_cannot_be_written() -> None:
    for path in (Path("/proc/localr1/history.db"), Path("/proc/history.db")):
        with pytest.raises(StoreError) as caught:
            Store(path)
        said(caught, str(path), "--no-history")


def test_a_read_only_file_is_read(file: Path) -> None:
    with Store(file) as store:
        turn = keep(store, text_only("q", "", "a"))
        live = store.add_turn(1, turn, "open", MADE)  # an orphan that cannot be indexed
    with Store(file) as store:
        store._db.execute("PRAGMA query_only = ON")  # answers as a read-only file does, also to root
        for call in (lambda: store.new(), lambda: store.save(live, text_only("q", "", "a")), lambda: store.delete(1)):
            with pytest.raises(StoreError) as caught:
                call()
            said(caught, str(file), "read-only", "--no-history")
        assert store.turn(turn).trace.answer == "a"


def test_an_orphan_that_cannot_be_indexed_does_not_keep_the_file_shut(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store(file) as store:
        keep(store, reply([word("lost")], Ended()))
    opened = schema.opened

    def read_only(path: Path) -> sqlite3.Connection:
        db = opened(path)
        db.execute("PRAGMA query_only = ON")
        return db

    monkeypatch.setattr("localr1.store.store.opened", read_only)
    with Store(file) as store:
        assert len(store.traces()) == 1


@pytest.mark.parametrize("count", [900, 9000])
def test_a_full_disk(store: Store, file: Path, count: int) -> None:
    turn = store.add_turn(store.new(), None, "q", MADE)
    store.save(turn, reply([word("kept")], Ended()))
    tokens = [word("kept"), *(word(f" {i * 7919}", i) for i in range(1, count))]
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError) as caught:
        store.save(turn, reply(tokens, Ended()))
    said(caught, str(file), "disk is full", "free some space")
    assert store.turn(turn).trace.thought == "kept"
    store._db.execute("PRAGMA max_page_count = 100000")
    store.save(turn, reply(tokens, Ended()))  # there is room again: nothing of the failed save is taken for written
    check_same(store.turn(turn).trace, reply(tokens, Ended()))


def test_a_damaged_turn_spoils_nothing_else(store: Store) -> None:
    good = keep(store, text_only("good", "", "word"))
    bad = keep(store, reply([word("word")]))
    store._db.execute("UPDATE chunk SET text = x'00ff' WHERE turn = ?", (bad,))
    with pytest.raises(StoreError) as caught:
        store.turn(bad)
    said(caught, f"turn {bad}", "damaged", ";")
    assert [hit.turn for hit in store.search("word")] == [good]
    store.delete(2)
    assert [hit.turn for hit in store.search("word")] == [good]


def test_a_closed_store(file: Path) -> None:
    store = Store(file)
    store.close()
    with pytest.raises(StoreError, match="closed"):
        store.conversations()
