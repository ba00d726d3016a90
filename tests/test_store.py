"""The store: what is kept comes back, in little room and little time, whatever happens to the process, the file or the text."""

from __future__ import annotations

import json
import math
import os
import random
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from backends.base import Sampling, Token
from localr1 import paths
from localr1.store import Store, StoreError, packing, schema
from localr1.store.words import Query, fold, indexed
from localr1.trace.record import Ended, Made, Trace, to_json
from localr1.turn import Written

ROOT = Path(__file__).parents[1]
MADE = Made("r1.gguf", "llamacpp", "Qwen2.5-7B", "Q4_K_M", Sampling(temperature=0.6, seed=7), 500)
ENDED = Ended("stop", "model", 20, 5, 4, 0.25, 1.5)
STARTED = "2026-01-02T03:04:05+00:00"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / "history.db"


@pytest.fixture
def store(file: Path) -> Iterator[Store]:
    with Store(file) as store:
        yield store


def word(text: str, i: int = 0, part: str = "thought", given: bool = False) -> Written:
    logprob = math.nan if given else -0.001 * (i % 700)
    others = ((9, " other", -1.5 - i % 5), (10, "\n", -math.inf)) if i % 4 == 1 else ()
    own = {part: text}
    return Written(Token(1000 + len(text), text, logprob, others), part, own.get("thought", ""), own.get("answer", ""), given, 0.02 * i)


def reply(tokens: Sequence[Written], ended: Ended = ENDED, question: str = "Why?") -> Trace:
    thought, answer = "".join(w.thought for w in tokens), "".join(w.answer for w in tokens)
    return Trace(question, thought, answer, MADE, ended, STARTED, True, tuple(tokens))


def text_only(question: str, thought: str, answer: str) -> Trace:
    return Trace(question, thought, answer, MADE, ENDED, STARTED)


def keep(store: Store, trace: Trace, conversation: int | None = None, parent: int | None = None) -> int:
    if conversation is None:
        conversation = store.new()
    turn = store.add_turn(conversation, parent, trace.question, trace.made)
    store.save(turn, trace)
    return turn


def near(logprob: float) -> float:
    """What packing promises."""
    return (abs(logprob) + 1 / 64) / 255 if math.isfinite(logprob) else 0.0


def check_same(found: Trace, trace: Trace) -> None:
    """Everything exactly, but for numbers of tokens, which are within what packing promises."""
    assert replace(found, tokens=()) == replace(trace, tokens=())
    assert len(found.tokens) == len(trace.tokens)
    for a, b in zip(found.tokens, trace.tokens, strict=True):
        assert (a.token.id, a.token.text, a.part, a.thought, a.answer, a.given) == (
            b.token.id,
            b.token.text,
            b.part,
            b.thought,
            b.answer,
            b.given,
        )
        assert abs(a.at_s - b.at_s) < 0.0006
        assert [other[:2] for other in a.token.alternatives] == [other[:2] for other in b.token.alternatives]
        pairs = [(a.token.logprob, b.token.logprob)] + [
            (x[2], y[2]) for x, y in zip(a.token.alternatives, b.token.alternatives, strict=True)
        ]
        for x, y in pairs:
            assert x == y or (x != x and y != y) or abs(x - y) <= near(y), (x, y)


def terms(store: Store) -> set[str]:
    """Every term that the index knows."""
    db = store._db
    db.execute("CREATE VIRTUAL TABLE IF NOT EXISTS temp.terms USING fts5vocab(main, words, row)")
    return {term for (term,) in db.execute("SELECT term FROM temp.terms")}


def run(script: str, *args: str | Path, wait: bool = True) -> subprocess.Popen[str]:
    head = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
    process = subprocess.Popen([sys.executable, "-c", head + script, *map(str, args)], stdout=subprocess.PIPE, text=True)
    if wait:
        process.communicate(timeout=30)
    return process


# ------------------------------------------------------------------------------------------------------------- traces


def test_a_trace_comes_back(store: Store) -> None:
    tokens = [
        Written(Token(1, "<think>", math.nan), "thought", "", "", True, 0.0),  # a tag is no text
        Written(Token(2, " Hm", -0.5, ((3, " So", -1.25), (4, "嗯", -7.5))), "thought", "Hm", "", False, 0.1234),  # white space dropped
        Written(Token(5, "<", -0.01), "thought", "", "", False, 0.2),  # held back
        Written(Token(6, "x", -1e-9), "thought", "<x", "", False, 0.3),
        Written(Token(2, " Hm", -30.0), "thought", " Hm", "", False, 0.4),
        Written(Token(7, "</think> 4", -math.inf), "answer", " end", "4", True, 0.5),  # both parts at once
        Written(Token(8, "", 0.0), "answer", "", "", False, 0.6),
        Written(Token(9, "2", -2.0), "answer", "", "2", False, 0.6),
    ]
    trace = reply(tokens)
    turn = keep(store, trace)
    check_same(store.turn(turn).trace, trace)


@pytest.mark.parametrize(
    "text", ["", "\0a\0", "\ud800 \udc00\ud83d\ude00", "é\u0301\u202e\x1b[2J", "多少个 r？", '"; DROP TABLE turn; --', "\n\n"]
)
def test_any_text_comes_back(store: Store, text: str) -> None:
    by_tokens = reply([word(text, part="thought"), word(text, 1, part="answer")], question=text)
    known_as_text = Trace(text, text, text, MADE, ENDED, STARTED)
    for trace in (by_tokens, known_as_text):
        turn = keep(store, trace)
        check_same(store.turn(turn).trace, trace)
        store.search(text)
        json.dumps(store.export(store.turn(turn).conversation))
    store.rename(1, text)
    assert store.conversations()[-1].title == text.encode("utf-8", "replace").decode()


def test_a_huge_reply(store: Store) -> None:
    trace = text_only("Why?", "0123456789 " * 950_000, "x" * 500_000)
    turn = keep(store, trace)
    check_same(store.turn(turn).trace, trace)
    assert store.search("0123456789")[0].part == "thought"
    assert store.search("xxxx")[0].part == "answer"


def test_times_and_ids_of_any_size(store: Store) -> None:
    tokens = [
        Written(Token(i, "a", -1.0), "thought", "a", "", False, at_s)
        for i, at_s in ((0, 3.0), (-1, 2.5), (2**70, math.nan), (3, 1e30), (4, -math.inf))
    ]
    turn = keep(store, reply(tokens))
    found = store.turn(turn).trace.tokens
    assert [w.token.id for w in found] == [0, -1, 2**70, 3, 4]
    assert [w.at_s for w in found] == [3.0, 2.5, 0.0, 2**30 / 1000, 0.0]


def test_a_text_that_is_not_what_its_tokens_add_up_to(store: Store) -> None:
    tokens = tuple(word(f" {i}", i) for i in range(3))
    for thought in ("no such thing", " 0 9 2"):  # of another length, and of the same one
        trace = replace(reply(tokens), thought=thought)
        turn = keep(store, trace)
        check_same(store.turn(turn).trace, trace)
        assert store.path(turn)[-1].trace.thought == thought


def test_packing_says_how_near_the_numbers_are() -> None:
    for exponent in range(-12, 12):
        for mantissa in (1.0, 1.7, 3.1, 7.7):
            logprob = -mantissa * 10.0**exponent
            found = packing._logprob(packing._level(logprob))
            assert abs(found - logprob) <= near(logprob)
    assert packing._logprob(packing._level(-1e308)) == pytest.approx(-1e30, rel=0.01)  # no logprob of a model
    assert packing._logprob(packing._level(math.inf)) == 0.0
    assert packing._logprob(packing._level(0.0)) == 0.0
    assert math.copysign(1, packing._logprob(packing._level(-0.0))) == 1  # "-0.0" would be read aloud


# ------------------------------------------------------------------------------------------------------------- while it streams


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
from test_store import *
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


# ------------------------------------------------------------------------------------------------------------- conversations


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
        assert json.loads(json.dumps(other.export(imported))) == exported
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


# ------------------------------------------------------------------------------------------------------------- search


def test_search(store: Store) -> None:
    store.new("empty")
    turn = keep(
        store, text_only("How many r's?", "Okay, so I count.\nWait, let me check: three.", "There are **three**."), store.new("berries")
    )
    keep(store, text_only("Sum?", "", "Three and four"))
    first, second, third = store.search("three")
    assert [(hit.turn, hit.part) for hit in (first, second, third)] == [(turn + 1, "answer"), (turn, "answer"), (turn, "thought")]
    assert (third.title, third.started_at, third.conversation) == ("berries", STARTED, store.turn(turn).conversation)
    assert third.snippet == "Okay, so I count. Wait, let me check: three."
    assert [third.snippet[a:b] for a, b in third.at] == ["three"]
    assert [hit.part for hit in store.search("three wait")] == ["thought"]  # every word, in any order
    assert [first.snippet[a:b] for a, b in first.at] == ["Three"]
    assert [hit.snippet[a:b] for hit in store.search("ther") for a, b in hit.at] == ["There"]  # the last word may be unfinished
    assert store.search("ther are") == []  # others not
    assert len(store.search("three", limit=2)) == 2
    assert store.search("three", limit=0) == []


@pytest.mark.parametrize(
    "typed",
    ["", " ", '"', '""', "*", "(", ")", "AND", "OR NOT", "NEAR(a b)", "terms:x", "^a", "a* b*", "a-b", "'", "\0", "\ud800", "-", "+x", "a" * 100_000,
     " ".join(f"w{i}" for i in range(20_000)), "NEAR", "{a}", "多少 AND", "☃", "\\", "%", "_"],
)  # fmt: skip
def test_nothing_that_is_typed_is_an_error(store: Store, typed: str) -> None:
    keep(store, text_only("What AND OR NOT NEAR (a b) is it?", "", ""))
    began = time.process_time()
    hits = store.search(typed)
    assert len(hits) == (typed in ("AND", "OR NOT", "NEAR(a b)", "^a", "a* b*", "a-b", "NEAR", "{a}"))
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize(
    ("text", "typed", "found"),
    [
        ("这个单词里有多少个字母？", "多少个", ["多少个"]),
        ("这个单词里有多少个字母？", "母", ["母"]),
        ("这个单词里有多少个字母？", "单", ["单"]),
        ("多人，少个", "多少个", None),  # the characters, but not in a row
        ("个少多 少个 多少", "多少个", None),  # even the pairs
        ("用Python写的程序", "python 程序", ["Python", "程序"]),
        ("いちごにはいくつ", "いくつ", ["いくつ"]),
        ("がか", "か", ["か"]),
        ("𠀋𠀌𠀍", "𠀌𠀍", ["𠀌𠀍"]),
        ("Une crème brûlée", "CREME brulee", ["crème", "brûlée"]),
        ("a cafe\u0301 there", "café there", ["cafe\u0301", "there"]),
        ("Straße", "STRASSE", ["Straße"]),
        ("딸기에는", "딸기", ["딸기에는"]),
        ("snake_case(x)", "snake_case", ["snake", "case"]),
        ("x" * 200, "x" * 150, ["x" * 160]),
        ("x" * 200, "x" * 150 + "y", None),
        ("x" * 150 + " end", "x" * 150 + " end", ["x" * 150, "end"]),
        ("concatenate", "cat", None),
        ("it's 3.14159", "3.14", ["3", "14159"]),
    ],
)
def test_words(store: Store, text: str, typed: str, found: list[str] | None) -> None:
    keep(store, text_only(text, "", ""))
    hits = store.search(typed)
    assert len(hits) == (found is not None)
    if found is not None:
        assert [hits[0].snippet[a:b] for a, b in hits[0].at] == found


def test_a_snippet_is_where_most_of_the_words_are() -> None:
    text = "alpha " + "filler " * 500 + "the beta and\nthe alpha are here " + "filler " * 500 + "beta"
    found = Query("alpha beta").snippet(text)
    assert found is not None
    assert (found.text[0], found.text[-1]) == ("…", "…")
    assert "the beta and the alpha are here" in found.text
    assert len(found.text) <= 162
    assert [found.text[a:b] for a, b in found.at] == ["beta", "alpha"]
    assert Query("gamma").snippet(text) is None


def test_folded_text_has_its_places() -> None:
    assert fold("ÀÉ ẞ") == "ae ss"
    assert indexed("B a b") == "a b"
    text = "ß" * 50 + " e\u0301\u0301 then the WORD is here"
    found = Query("word").snippet(text)
    assert found is not None
    assert [found.text[a:b] for a, b in found.at] == ["WORD"]


# ------------------------------------------------------------------------------------------------------------- figures


def prose(tokens: int) -> list[Written]:
    """As a model with a large vocabulary writes English: 4 characters a token, 3.2 times smaller when zipped; every fifth token
    unsure, with four alternatives."""
    dice = random.Random(1)
    source = (ROOT / "tests" / "trace" / "paragraphs.py").read_text(encoding="utf-8")
    words = re.findall(r"\s?[!-~]+", re.sub(r"[ \t]+", " ", source[source.index('"""', 50) :]))
    follow: dict[str, list[str]] = {}
    for a, b in pairwise(words):
        follow.setdefault(a, []).append(b)
    names = [" " + "".join(dice.choice("bcdfglmnprst") + dice.choice("aeiou") for _ in range(dice.randint(2, 4))) for _ in range(2500)]
    pieces: list[str] = []
    now = words[0]
    while len(pieces) < tokens:
        now = dice.choice(names) if dice.random() < 0.1 else dice.choice(follow.get(now, words))
        pieces += re.findall(r"\s?[A-Za-z]{1,12}|\s?\d{1,3}|\s?[^\w\s]+|\s|\w", now)
    ids: dict[str, int] = {}
    at, written = 0.5, []
    for piece in pieces[:tokens]:
        at += max(0.001, dice.gauss(0.03, 0.003))
        logprob, others = -(10 ** dice.uniform(-5, -1)), []
        if dice.random() < 0.2:
            logprob = -0.11 - dice.expovariate(1)
            left = 1 - math.exp(logprob)
            for text in dice.sample(pieces, 4):
                chance = left * dice.uniform(0.4, 0.8)
                left -= chance
                others.append((ids.setdefault(text, dice.randrange(150_000)), text, math.log(chance)))
        token = Token(ids.setdefault(piece, dice.randrange(150_000)), piece, logprob, tuple(others))
        written.append(Written(token, "thought", piece, "", False, at))
    return written


def took_s(call: Callable[[], object]) -> float:
    """Of the CPU, the better of two: other programs may be running."""
    times = []
    for _ in range(2):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return min(times)


def test_a_long_trace_takes_twice_its_text_at_most(file: Path) -> None:
    tokens = prose(32_000)
    trace = reply(tokens)
    text_bytes = len((trace.question + trace.thought).encode())
    assert 3.7 <= text_bytes / len(tokens) <= 4.3
    with Store(file) as store:
        turn = store.add_turn(store.new(), None, trace.question, MADE)
    before = file.stat().st_size
    with Store(file) as store:
        for n in range(4000, 32_000, 4000):
            store.save(turn, reply(tokens[:n], Ended()))
        store.save(turn, trace)
    assert file.stat().st_size - before <= 2 * text_bytes
    with Store(file) as store:
        check_same(store.turn(turn).trace, trace)
        assert took_s(lambda: store.turn(turn)) < 0.3


def test_search_over_10_000_messages(file: Path) -> None:
    dice = random.Random(2)
    words = sorted(set(re.findall(r"[a-z]+", (ROOT / "README.md").read_text(encoding="utf-8").lower())))
    with Store(file) as store:
        conversations = [store.new() for _ in range(17)]
        with schema.transaction(store._db):
            for i in range(3334):
                texts = [" ".join(dice.choices(words, k=k)) for k in (10, 60, 30)]
                turn = store._replies.insert(conversations[i // 200], None, text_only(*texts))
                store._replies.write(turn, text_only(*texts), is_over=True)
        for typed in ("model tokens", "t", "the", words[0] + " " + words[5] + " " + words[10], "nowhere"):
            assert took_s(lambda typed=typed: store.search(typed)) < 0.1, typed
        assert len(store.search("model")) == 50
        assert took_s(lambda: store.conversation(conversations[0])) < 0.2
        assert len(store.conversation(conversations[0]).turns) == 200


# ------------------------------------------------------------------------------------------------------------- the file


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


def said(caught: pytest.ExceptionInfo[StoreError], *parts: str) -> None:
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


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


# ------------------------------------------------------------------------------------------------------------- migration


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


# ------------------------------------------------------------------------------------------------------------- several at once


TWO = """
from test_store import *
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
