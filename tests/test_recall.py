"""What was sent before comes back, the latest first, and the draft is not lost over it."""

from localr1.recall import Recall


def test_back_and_forth_ends_at_the_draft() -> None:
    recall = Recall()
    recall.add("one")
    recall.add("two")
    assert [recall.older("draft"), recall.older("two"), recall.older("one")] == ["two", "one", None]
    assert [recall.newer(), recall.newer(), recall.newer()] == ["two", "draft", None]


def test_each_once_where_it_was_sent_last() -> None:
    recall = Recall()
    for text in ("a", "b", "a", "  "):
        recall.add(text)
    assert [recall.older(""), recall.older(""), recall.older("")] == ["a", "b", None]


def test_earlier_sessions_come_before_this_one() -> None:
    recall = Recall()
    recall.add("now")
    recall.put_before(["yesterday", "now", "before", "yesterday", ""])
    assert [recall.older("") for _ in range(4)] == ["now", "yesterday", "before", None]
    recall = Recall()
    recall.put_before(["b", "a"])
    assert [recall.older("draft"), recall.older("b"), recall.newer(), recall.newer()] == ["b", "a", "b", "draft"]
