"""Several processes and threads with one store."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from store.keeping import MADE, reply, run, said, word

from localr1.store import Store, StoreError
from localr1.trace.record import Ended

TWO = """
from pathlib import Path
from localr1.store import Store
from localr1.trace.record import Ended
from store.keeping import MADE, reply, word
with Store(Path(sys.argv[1])) as store:
    conversation = store.new(sys.argv[2])
    turn = None
    for i in range(15):
        turn = store.add_turn(conversation, turn, f"{sys.argv[2]} {i}", MADE)
        tokens = [word(f" {sys.argv[2]}{k}", k) for k in range(60)]
        for n in (20, 40):
            store.save(turn, reply(tokens[:n], Ended(), f"{sys.argv[2]} {i}"))
        store.save(turn, reply(tokens, question=f"{sys.argv[2]} {i}"))
"""


def test_two_processes_write(file: Path) -> None:
    """They also make the file at the same time."""
    writers = [run(TWO, file, name, wait=False) for name in ("left", "right")]
    for writer in writers:
        writer.communicate(timeout=30)
        assert writer.returncode == 0
    with Store(file) as store:
        assert store._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        for summary in store.conversations():
            (head,) = {store.conversation(summary.id).head}
            assert head is not None
            assert [turn.trace.question for turn in store.path(head)] == [f"{summary.title} {i}" for i in range(15)]
            for turn in store.path(head):
                assert store.turn(turn.id).trace.thought == "".join(f" {summary.title}{k}" for k in range(60))
        assert {summary.title for summary in store.conversations()} == {"left", "right"}
        assert len(store.search("left59")) == 15


def test_a_store_that_another_process_keeps_locked(store: Store, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store._db.execute("PRAGMA busy_timeout = 10")
    with pytest.raises(StoreError) as caught:
        store.new()
    said(caught, str(file), "locked by another program")
    assert store.conversations() == []  # reading does not wait
    other.execute("ROLLBACK")
    other.close()
    assert store.new() == 1


def test_a_file_that_is_locked_while_it_is_set_up(file: Path) -> None:
    file.parent.mkdir()
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(0.2, lambda: other.execute("ROLLBACK")).start()
    with Store(file) as store:
        assert store.new() == 1
    other.close()


def test_several_threads(store: Store) -> None:
    failed: list[BaseException] = []

    def write(name: str) -> None:
        try:
            conversation = store.new(name)
            for i in range(10):
                tokens = [word(f" {name}{k}", k) for k in range(i + 1)]
                turn = store.add_turn(conversation, None, name, MADE)
                store.save(turn, reply(tokens[:1], Ended(), name))
                store.save(turn, reply(tokens, question=name))
                assert store.turn(turn).trace.thought == "".join(f" {name}{k}" for k in range(i + 1))
                store.search(name)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sorted(summary.turns for summary in store.conversations()) == [10, 10, 10]
