"""Search: whatever is typed, in any script, and where the words are."""

from __future__ import annotations

import pytest
from store.keeping import STARTED, keep, text_only

from localr1.store import Store
from localr1.store.words import Query, fold, indexed


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
    hits = store.search(typed)
    assert len(hits) == (typed in ("AND", "OR NOT", "NEAR(a b)", "^a", "a* b*", "a-b", "NEAR", "{a}"))
    assert len(Query(typed).expression) < 10_000  # however much is typed: what takes the index long


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
