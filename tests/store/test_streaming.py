"""A reply is saved while it streams: at little cost, and whatever happens to the process."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from store.keeping import MADE, check_same, reply, run, terms, word

from localr1.store import Store
from localr1.trace.record import Ended


@pytest.mark.parametrize("steps", [[1, 2, 3], [700, 1024, 1500, 1500, 2048, 5000], [4000, 4001]])
def test_a_reply_is_saved_as_it_grows(file: Path, steps: list[int]) -> None:
    tokens = [word(f" w{i}", i, given=i % 100 == 7) for i in range(steps[-1])]
    with Store(file) as store:
        turn = store.add_turn(store.new(), None, "Why?", MADE)
        for n in steps:
            trace = reply(tokens[:n], Ended())
            store.save(turn, trace)
            check_same(store.turn(turn).trace, trace)
            assert (store.traces()[0].thought_tokens, store.traces()[0].seconds) == (n, tokens[n - 1].at_s)
        store.save(turn, reply(tokens))
        check_same(store.turn(turn).trace, reply(tokens))
        assert store._db.execute("SELECT count(*) FROM chunk").fetchone() == (1,)  # large chunks take less room
        store.save(turn, reply(tokens[:2]))  # once more, after its end
        check_same(store.turn(turn).trace, reply(tokens[:2]))
    with Store(file) as store:  # another process goes on
        store.save(turn, reply(tokens))
        check_same(store.turn(turn).trace, reply(tokens))


def test_a_reply_that_begins_again_or_whose_last_text_grew(store: Store) -> None:
    turn = store.add_turn(store.new(), None, "Why?", MADE)
    tokens = [word(f" w{i}", i) for i in range(2048)]
    store.save(turn, reply(tokens, Ended()))
    grown = [*tokens[:-1], replace(tokens[-1], thought=" w2047<")]
    for now in (grown, [word("Okay", 3, given=True)], [word(" new", i) for i in range(3000)]):
        store.save(turn, reply(now, Ended()))
        check_same(store.turn(turn).trace, reply(now, Ended()))


def test_the_room_of_chunks_that_go_is_given_back(store: Store) -> None:
    turn = store.add_turn(store.new(), None, "Why?", MADE)
    tokens = [word(f" w{i * 7919}", i) for i in range(5000)]
    store.save(turn, reply(tokens, Ended()))
    store.save(turn, reply(tokens[:1]))
    assert store._db.execute("PRAGMA freelist_count").fetchone() == (0,)


def test_another_process_saved_the_same_reply(store: Store, file: Path) -> None:
    turn = store.add_turn(store.new(), None, "Why?", MADE)
    tokens = [word(f" w{i}", i) for i in range(3000)]
    store.save(turn, reply(tokens[:2900], Ended()))
    with Store(file) as other:
        other.save(turn, reply(tokens[:1], Ended()))
    store.save(turn, reply(tokens, Ended()))
    check_same(store.turn(turn).trace, reply(tokens, Ended()))


def test_another_question_than_was_asked(store: Store) -> None:
    turn = store.add_turn(store.new(), None, "first", MADE)
    store.save(turn, reply([word("a")], question="second"))
    assert store.turn(turn).trace.question == "second"
    assert (store.search("first"), len(store.search("second"))) == ([], 1)


def test_saving_costs_what_is_new(store: Store) -> None:
    """Of 20,000 tokens, a save writes the last ones: a few pages of 4 KiB."""
    tokens = [word(f" w{i * i % 997}", i) for i in range(20_050)]
    turn = store.add_turn(store.new(), None, "Why?", MADE)
    store.save(turn, reply(tokens[:20_000], Ended()))
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.save(turn, reply(tokens, Ended()))
    assert Path(f"{store._file}-wal").stat().st_size < 100_000
    check_same(store.turn(turn).trace, reply(tokens, Ended()))


WRITER = """
from pathlib import Path
from localr1.store import Store
from localr1.trace.record import Ended
from store.keeping import MADE, reply, word
tokens = [word(f" w{i}", i) for i in range(5000)]
store = Store(Path(sys.argv[1]))
turn = store.add_turn(store.new(), None, "Why?", MADE)
for n in range(40, 5001, 40):
    store.save(turn, reply(tokens[:n], Ended()))
    print(n, flush=True)
"""


def test_a_killed_process_loses_what_came_after_its_last_save(file: Path) -> None:
    process = run(WRITER, file, wait=False)
    assert process.stdout is not None
    saved = [int(process.stdout.readline()) for _ in range(30)][-1]
    os.kill(process.pid, signal.SIGKILL)  # in the midst of the saves that follow
    said = process.communicate()[0].split()
    saved = int(said[-1]) if said else saved
    assert saved < 5000
    with Store(file) as store:
        (kept,) = store.traces()
        trace = store.turn(kept.id).trace
        assert (trace.ended.reason, kept.reason) == ("", "")
        assert len(trace.tokens) in (saved, saved + 40)  # it may have been killed before it could say so
        assert trace.thought == "".join(f" w{i}" for i in range(len(trace.tokens)))
        assert store.search("w39")[0].turn == kept.id  # it is found although it never ended


def test_a_reply_is_searched_once_it_has_ended(file: Path) -> None:
    with Store(file) as store:
        turn = store.add_turn(store.new(), None, "Why?", MADE)
        store.save(turn, reply([word("alpha")], Ended()))
        assert [hit.part for hit in store.search("why")] == ["question"]
        assert store.search("alpha") == []
        with Store(file) as other:  # takes it for an orphan
            assert len(other.search("alpha")) == 1
        store.save(turn, reply([word("beta")], Ended()))
        store.save(turn, reply([word("beta"), word(" gamma", 1, "answer")]))
        assert [(hit.part, hit.snippet) for hit in store.search("gamma")] == [("answer", " gamma")]
        assert terms(store) == {"why", "beta", "gamma"}
