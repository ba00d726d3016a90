"""The splitter must give the same parts wherever the stream is cut."""

from itertools import combinations

import pytest

from localr1.reasoning import ReasoningSplitter

# (prompt opens the thought, stream, thought, answer); the cases of ollama's, vLLM's and llama.cpp's own tests
CASES = [
    (False, "<think> internal </think> world", "internal ", "world"),
    (False, "<think>a</think><think>b</think>c", "a", "<think>b</think>c"),
    (False, "  abc <think>def</think> ghi", "", "  abc <think>def</think> ghi"),
    (False, "<think>abc</thing>def</think>ghi", "abc</thing>def", "ghi"),
    (False, "<think>abc</thing>defghi</think>jkl", "abc</thing>defghi", "jkl"),
    (False, "<think>\n</think>\n\nHi there", "", "Hi there"),
    (False, "Just content", "", "Just content"),
    (False, " \n <think>x</think>y", "x", "y"),
    (False, "<thi", "", "<thi"),
    (False, " \n", "", " \n"),
    (False, "", "", ""),
    (True, "Outer <think>inner</think> content</think>Final", "Outer <think>inner", "content</think>Final"),
    (True, "</think>Just content", "", "Just content"),
    (True, "<think>Let me think...</think>Answer.", "Let me think...", "Answer."),
    (True, "\n<think>\nLet me</think>Answer.", "Let me", "Answer."),
    (True, "Thinking content</th", "Thinking content</th", ""),
    (True, "Reasoning that never closes", "Reasoning that never closes", ""),
    (True, "a</</think>b", "a</", "b"),
    (True, "a</think>\n\n", "a", ""),
    (True, " \n", "", ""),
    (True, "", "", ""),
]


def split(opens_thought: bool, chunks: list[str]) -> tuple[str, str, ReasoningSplitter]:
    splitter = ReasoningSplitter(opens_thought)
    pieces = [p for chunk in chunks for p in splitter.feed(chunk)] + splitter.flush()
    assert all(p.text for p in pieces)
    thought = "".join(p.text for p in pieces if p.part == "thought")
    answer = "".join(p.text for p in pieces if p.part == "answer")
    return thought, answer, splitter


@pytest.mark.parametrize(("opens", "stream", "thought", "answer"), CASES)
def test_same_parts_at_every_cut(opens: bool, stream: str, thought: str, answer: str) -> None:
    assert split(opens, [stream])[:2] == (thought, answer)
    assert split(opens, list(stream))[:2] == (thought, answer)
    for a, b in combinations(range(len(stream) + 1), 2):
        assert split(opens, [stream[:a], stream[a:b], stream[b:]])[:2] == (thought, answer)


def test_knows_whether_the_thought_was_closed() -> None:
    assert split(True, ["a</think>b"])[2].closed
    assert not split(True, ["a</thin"])[2].closed
    assert split(True, ["a"])[2].in_thought
    assert not split(False, ["a"])[2].in_thought


def test_nothing_is_held_back_longer_than_a_tag() -> None:
    splitter = ReasoningSplitter(opens_thought=True)
    assert "".join(p.text for p in splitter.feed("x" * 100)) == "x" * 100
    assert splitter.feed("</thin") == []
    assert "".join(p.text for p in splitter.feed("g")) == "</thing"
