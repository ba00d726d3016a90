"""Conversations as trees of turns: listed, named, copied, deleted, exported, imported."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from store.keeping import MADE, STARTED, check_same, keep, reply, terms, text_only, word

from localr1.store import Store, StoreError
from localr1.trace.record import Ended, to_json


def test_a_tree_of_turns(store: Store) -> None:
    conversation = store.new()
    first = keep(store, text_only("one", "t1", "a1"), conversation)
    second = keep(store, text_only("two", "t2", "a2"), conversation, first)
    again = keep(store, reply([word("t3")], question="two again"), conversation, first)
    other_start = keep(store, text_only("other", "", ""), conversation)
    found = store.conversation(conversation)
    assert [(turn.id, turn.parent) for turn in found.turns] == [(first, None), (second, first), (again, first), (other_start, None)]
    assert found.head == other_start
    assert found.turns[2].trace == replace(reply([word("t3")], question="two again"), tokens=())  # without tokens
    assert [turn.trace.question for turn in store.path(again)] == ["one", "two again"]
    assert store.branches(second) == [second, again]
    assert store.branches(other_start) == [first, other_start]
    store.set_head(conversation, second)
    assert store.conversation(conversation).head == second
    store.set_head(conversation, None)
    assert store.conversation(conversation).head is None


def test_the_list_shows_the_latest_changed_first(store: Store) -> None:
    assert (store.latest(), store.conversations()) == (None, [])
    first, second = store.new("first"), store.new("second", "a model")
    assert [summary.id for summary in store.conversations()] == [second, first]
    turn = keep(store, text_only("Why?", "", ""), first)
    assert store.latest() == first
    keep(store, text_only("Why not?", "", ""), second)
    store.save(turn, text_only("Why?", "", "so"))
    assert [(s.title, s.model, s.turns) for s in store.conversations()] == [("first", "r1.gguf", 1), ("second", "r1.gguf", 1)]
    assert [s.title for s in store.conversations(limit=1)] == ["first"]
    store.rename(second, "renamed")
    assert store.conversation(second).title == "renamed"
    assert store.latest() == first  # a name is no change


def test_the_first_question_names_a_conversation(store: Store) -> None:
    long, named = store.new(), store.new("mine")
    keep(store, text_only("\n  How many r's are in strawberry, and how many in raspberry, and is it more?\nTell me.", "", ""), long)
    keep(store, text_only("Another", "", ""), long)
    keep(store, text_only("Another", "", ""), named)
    assert store.conversation(long).title == "How many r's are in strawberry, and how many in raspberry,…"
    assert store.conversation(named).title == "mine"


def test_delete_leaves_nothing(store: Store) -> None:
    kept = keep(store, text_only("stays", "", ""))
    noise = " ".join(f"{random.Random(i).random()}" for i in range(20_000))
    turn = keep(store, text_only("goes", noise, "gone"))
    keep(store, reply([word("unfinished")], Ended(), "open"), store.turn(turn).conversation, turn)
    before = terms(store)
    store.delete(store.turn(turn).conversation)
    assert {"goes", "gone"} <= before
    assert terms(store) == {"stays"}
    assert [summary.id for summary in store.traces()] == [kept]
    assert store._db.execute("SELECT count(*) FROM chunk WHERE turn != ?", (kept,)).fetchone() == (0,)
    assert store._db.execute("PRAGMA freelist_count").fetchone() == (0,)  # the room is given back
    assert keep(store, text_only("next", "", "")) > turn  # an id is not used again


def test_delete_a_long_conversation(store: Store) -> None:
    """SQLite follows a chain of cascades for a thousand turns only."""
    conversation, turn = store.new(), None
    for i in range(1050):
        turn = store.add_turn(conversation, turn, f"q{i}", MADE)
    store.delete(conversation)
    assert store.conversations() == [] and store._db.execute("SELECT count(*) FROM turn").fetchone() == (0,)


def test_duplicate(store: Store) -> None:
    conversation = store.new("mine")
    first = keep(store, reply([word("t1"), word("a1", 1, "answer")]), conversation)
    second = keep(store, reply([word("live")], Ended()), conversation, first)
    keep(store, text_only("branch", "", "leaf"), conversation, first)
    store.set_head(conversation, second)
    copy = store.duplicate(conversation)
    store.delete(conversation)
    found = store.conversation(copy)
    assert (found.title, len(found.turns)) == ("mine (copy)", 3)
    assert [turn.parent for turn in found.turns] == [None, found.turns[0].id, found.turns[0].id]
    assert found.head == found.turns[1].id
    check_same(store.turn(found.turns[0].id).trace, reply([word("t1"), word("a1", 1, "answer")]))
    assert [hit.turn for hit in store.search("leaf")] == [found.turns[2].id]
    store.save(found.turns[1].id, reply([word("live"), word(" done", 1)]))
    assert len(store.search("done")) == 1


def test_traces_are_listed_without_their_tokens(store: Store) -> None:
    tokens = [word("a", 0), word("b", 1), word("c", 50, "answer")]
    keep(store, reply(tokens, question="\n First line \nsecond"))
    keep(store, reply([], Ended(), "x" * 5000))
    assert [len(s.question) for s in store.traces(limit=1)] == [200]
    found = store.traces()[1]
    assert (found.question, found.model, found.started_at) == ("First line", "r1.gguf", STARTED)
    assert (found.thought_tokens, found.answer_tokens, found.seconds, found.reason, found.thought_end) == (2, 1, 1.0, "stop", "model")


def test_export_and_import(store: Store, tmp_path: Path) -> None:
    conversation = store.new("mine")
    first = keep(store, reply([word("t1"), word("\ud800", 1, "answer")]), conversation)
    second = keep(store, reply([word("left")], Ended()), conversation, first)
    keep(store, text_only("right?", "", "right"), conversation, first)
    store.set_head(conversation, second)
    exported = json.loads(json.dumps(store.export(conversation)))
    assert exported["turns"][0]["trace"] == json.loads(json.dumps(to_json(store.turn(first).trace)))
    with Store(tmp_path / "other.db") as other:
        keep(other, text_only("here before", "", ""))
        imported = other.import_(exported)
        again = json.loads(json.dumps(other.export(imported)))
        assert again.pop("updated_at") >= exported.pop("updated_at") and again == exported
        assert other.conversations()[0].id == imported  # the latest
        undated = other.import_(exported | {"created_at": "", "updated_at": ""})
        assert other.conversations()[0].id == undated and other.export(undated)["created_at"]
        assert {hit.part for hit in other.search("left")} == {"thought"}
        assert [turn.parent is None for turn in other.conversation(imported).turns] == [True, False, False]


@pytest.mark.parametrize(
    "broken",
    [
        None,
        [],
        {},
        {"version": 2},
        {"version": True},
        {"head": 5},
        {"head": 0.0},
        {"turns": [{"parent": 0, "trace": {}}]},
        {"title": 3},
        {"turns": 1},
    ],
)
def test_import_refuses_what_it_cannot_read(store: Store, broken: object) -> None:
    conversation = store.new("mine")
    keep(store, text_only("q", "", "a"), conversation)
    value = store.export(conversation) | broken if isinstance(broken, dict) and broken else broken
    with pytest.raises(StoreError, match=r"^this is no conversation of localr1|^the conversation is of version") as caught:
        store.import_(value)
    assert "\n" not in str(caught.value)
    assert len(store.conversations()) == 1


@pytest.mark.parametrize("id", [7, -1, 2**80])
def test_what_is_not_there(store: Store, id: int) -> None:
    conversation = store.new()
    calls: list[Callable[[], object]] = [
        lambda: store.conversation(id), lambda: store.rename(id, "x"), lambda: store.delete(id), lambda: store.duplicate(id),
        lambda: store.set_head(id, None), lambda: store.set_head(conversation, id), lambda: store.add_turn(id, None, "q", MADE),
        lambda: store.add_turn(conversation, id, "q", MADE), lambda: store.save(id, text_only("", "", "")), lambda: store.turn(id),
        lambda: store.path(id), lambda: store.branches(id), lambda: store.export(id),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(StoreError, match="there is no"):
            call()


def test_a_turn_of_another_conversation(store: Store) -> None:
    turn, other = keep(store, text_only("q", "", "")), store.new()
    for call in (lambda: store.set_head(other, turn), lambda: store.add_turn(other, turn, "q", MADE)):
        with pytest.raises(StoreError, match="another conversation"):
            call()
    assert store.conversation(other).turns == ()
