"""Two traces side by side: where they part, which steps belong together, whether they answer the same."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from backends.base import Sampling, Token
from backends.llamacpp import LlamaCppBackend
from backends.reference.backend import ReferenceBackend
from localr1 import paths
from localr1.chat import ChatSession
from localr1.history import made_by
from localr1.trace.compare import Comparison, Pair, _likeness, align, compare, to_json
from localr1.trace.record import Ended, Made, Trace
from localr1.trace.words import seconds
from localr1.turn import Reply, Rules, Written
from scripted import ScriptedBackend

Piece = str | tuple[str, int, float]
Others = dict[int, tuple[tuple[int, str, float], ...]]


def trace(
    pieces: Sequence[Piece], answer: Sequence[Piece] = (), others: Others | None = None, opens: bool = True, q: str = "Why?"
) -> Trace:
    """Of pieces of text; a piece may bring its id and log-probability."""
    tokens = []
    for part, found in (("thought", pieces), ("answer", answer)):
        for piece in found:
            text, id, logprob = piece if isinstance(piece, tuple) else (piece, sum(map(ord, piece)), -0.1)
            own = {part: text}
            token = Token(id, text, logprob, (others or {}).get(len(tokens), ()))
            tokens.append(Written(token, part, own.get("thought", ""), own.get("answer", ""), False, 0.01 * len(tokens)))
    thought, said = "".join(w.thought for w in tokens), "".join(w.answer for w in tokens)
    return Trace(
        q, thought, said, Made("m", "gguf"), Ended("stop", "model", 5, 0, len(tokens), 0.1, 0.5), "2026-01-02", opens, tuple(tokens)
    )


def text_only(thought: str, answer: str = "") -> Trace:
    return Trace("Why?", thought, answer, Made("m", "gguf"), Ended("stop", "model"), "2026-01-02")


def pairs(found: Sequence[Pair]) -> list[tuple[int | None, int | None]]:
    return [(pair.a, pair.b) for pair in found]


# --------------------------------------------------------------------------------------------------- where they part


def test_the_first_token_that_differs_with_both_distributions() -> None:
    a = trace(["I", " think", (" so", 50, -0.5)], ["Yes"], {2: ((60, " not", -1.0),)})
    b = trace(["I", " think", (" not", 60, -0.7)], ["No"], {2: ((50, " so", -0.9),)})
    d = compare(a, b).divergence
    assert d is not None and (d.at, d.before) == (7, "I think")
    assert (d.a.index, d.a.part, d.a.text, d.a.id, d.a.logprob, d.a.alternatives) == (2, "thought", " so", 50, -0.5, ((60, " not", -1.0),))
    assert (d.b.index, d.b.text, d.b.id, d.b.ended) == (2, " not", 60, False)


def test_the_same_reply_has_none() -> None:
    a = trace(["I", " think"], ["Yes"])
    found = compare(a, a)
    assert found.divergence is None and found.same_answer and found.same_question and found.same_vocabulary
    assert [pair.similarity for pair in found.pairs] == [1.0] and found.a == found.b
    assert compare(trace([]), trace([])).divergence is None


def test_the_same_text_in_other_tokens_is_no_difference_between_vocabularies() -> None:
    a = trace([("I th", 1, -0.1), ("ink", 2, -0.1), (" so", 3, -0.1)])
    b = trace([("I", 7, -0.1), (" think", 1, -0.1), (" not", 9, -0.1)])
    found = compare(a, b)
    assert not found.same_vocabulary and found.divergence is not None
    assert (found.divergence.a.text, found.divergence.b.text) == (" so", " not")
    assert (found.divergence.at, found.divergence.before) == (8, "I think ")
    same = compare(a, trace([("I", 7, -0.1), (" think so", 1, -0.1)]))
    assert same.divergence is None


def test_the_same_text_in_other_tokens_is_one_in_a_vocabulary() -> None:
    a, b = trace([("x", 1, -0.1), ("12", 4, -0.1)]), trace([("x", 1, -0.1), ("1", 2, -0.1), ("2", 3, -0.1)])
    found = compare(a, b)
    assert found.same_vocabulary and found.divergence is not None
    assert (found.divergence.at, found.divergence.a.text, found.divergence.b.text) == (1, "12", "1")


def test_parts_of_a_character_are_compared_by_id() -> None:
    """Their bytes are held back, so that their own texts are empty."""
    a, b = trace([("x", 1, -0.1), ("", 5, -0.1), ("é", 6, -0.1)]), trace([("x", 1, -0.1), ("", 7, -0.1), ("ß", 6, -0.1)])
    found = compare(a, b).divergence
    assert found is not None  # by text: id 6 stands for two
    b = trace([("x", 1, -0.1), ("", 7, -0.1), ("ß", 8, -0.1)])
    found = compare(a, b).divergence
    assert found is not None and (found.a.index, found.a.id, found.b.id) == (1, 5, 7)


def test_one_reply_is_over_where_the_other_goes_on() -> None:
    d = compare(trace(["I"]), trace(["I", " think"])).divergence
    assert d is not None and d.a.ended and (d.a.text, d.a.id, math.isnan(d.a.logprob)) == ("", None, True)
    assert (d.b.text, d.b.ended) == (" think", False)
    d = compare(trace([]), trace(["I"])).divergence
    assert d is not None and d.a.ended and d.at == 0 and d.before == ""


def test_a_tag_in_the_prompt_and_one_in_the_reply_are_the_same() -> None:
    a, b = trace(["I", " think"], ["Yes"]), trace(["I", " think"], ["No"], opens=False)
    tag = Written(Token(99, "<think>\n", -0.1), "thought", "", "", False, 0.0)
    b = Trace(b.question, b.thought, b.answer, b.made, b.ended, b.started_at, False, (tag, *b.tokens))
    d = compare(a, b).divergence
    assert d is not None and (d.a.index, d.a.text, d.b.index, d.b.text, d.at) == (2, "Yes", 3, "No", 7)


def test_without_tokens_words_are_compared() -> None:
    d = compare(text_only("I think so", "Yes"), text_only("I think not", "Yes")).divergence
    assert d is not None and (d.a.text, d.b.text, d.a.index, d.a.id) == (" so", " not", 2, None)
    d = compare(text_only("I think so", "Yes"), trace(["I think", " so"], ["No"])).divergence
    assert d is not None and (d.a.text, d.b.text, d.b.part) == ("Yes", "No", "answer")


# ------------------------------------------------------------------------------------------------------------- steps

COUNT = "I count r in strawberry.\n\n"
LETTERS = "1 s, 2 t, 3 r, 4 a, 5 w.\n\n"
WAIT = "Wait, that's not right. I missed the letter at the end.\n\n"
CHECK = "Let me check: r is at 3, 8 and 9. That makes three of them.\n\n"
SO = "So the answer is 3."


def test_steps_of_the_same_words_are_pairs_and_others_stand_alone() -> None:
    found = align(text_only(COUNT + LETTERS + WAIT + CHECK + SO), text_only(COUNT + LETTERS + CHECK + SO))
    assert pairs(found) == [(0, 0), (1, 1), (2, None), (3, 2), (4, 3)]
    assert [pair.similarity for pair in found] == [1, 1, 0, 1, 1]
    other = align(text_only(COUNT + LETTERS + CHECK + SO), text_only(COUNT + LETTERS + WAIT + CHECK + SO))
    assert pairs(other) == [(0, 0), (1, 1), (None, 2), (2, 3), (3, 4)]


def test_steps_that_are_alike_are_pairs_across_other_ones() -> None:
    alike = "Let me check: r is at 3, 8 and 10. That makes four of them.\n\n"
    found = align(text_only(COUNT + CHECK + LETTERS + SO), text_only(COUNT + WAIT + alike + "So the answer is 4."))
    assert pairs(found) == [(0, 0), (None, 1), (1, 2), (2, None), (3, 3)]
    assert 0.3 < found[2].similarity < 1 and found[4].similarity < 1


def test_steps_of_a_kind_are_pairs_where_nothing_else_is_alike() -> None:
    found = align(text_only(COUNT + "Wait, what about zero?\n\n" + SO), text_only(COUNT + "Hmm, no, I misread it.\n\n" + SO))
    assert pairs(found) == [(0, 0), (1, 1), (2, 2)] and found[1].similarity < 0.3


def test_thoughts_without_steps() -> None:
    assert align(text_only(""), text_only("")) == ()
    assert pairs(align(text_only(""), text_only(COUNT + SO))) == [(None, 0), (None, 1)]
    assert pairs(align(text_only(COUNT + SO), text_only(""))) == [(0, None), (1, None)]


def test_every_step_is_there_once_and_in_order() -> None:
    chance = random.Random(3)
    texts = [COUNT, LETTERS, WAIT, CHECK, SO + "\n\n", "...\n\n", "---\n\n", "好的，我们来看。\n\n"]
    for _ in range(200):
        a, b = (text_only("".join(chance.choices(texts, k=chance.randrange(12)))) for _ in "ab")
        found = align(a, b)
        assert [p.a for p in found if p.a is not None] == list(range(len(a.steps)))
        assert [p.b for p in found if p.b is not None] == list(range(len(b.steps)))
        for p in found:
            alone = p.a is None or p.b is None
            assert p.similarity == 0 if alone else 0 <= p.similarity <= 1


def test_of_long_thoughts_a_part_at_a_time_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []

    def likeness(x: Sequence[object], y: Sequence[object]) -> object:
        compared.append(len(x) * len(y))
        return _likeness(x, y)  # type: ignore[arg-type]

    monkeypatch.setattr("localr1.trace.compare._likeness", likeness)
    chance = random.Random(5)
    words = [f"word{i}" for i in range(3000)]
    lines = [f"Wait, {' '.join(chance.choices(words, k=20))}.\n\n" for _ in range(3000)]
    a, b = text_only("".join(lines)), text_only("".join(line for line in lines if chance.random() > 0.1))
    assert len(a.steps) == 3000
    found = compare(a, b)
    assert max(compared) <= 1_000_000
    assert sum(compared) < len(a.steps) * len(b.steps) / 4
    assert sum(pair.similarity == 1 for pair in found.pairs) > 0.95 * len(b.steps)


def test_minutes_are_whole() -> None:
    assert [seconds(s) for s in (119.9, 179.7, 3599.9)] == ["120 s", "3 min 0 s", "60 min 0 s"]


# ----------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("There are **3**.", "It has **3** of them.", True),
        ("There are **3**.", "There are **4**.", False),
        (r"So \boxed{\frac{1}{2}}.", r"Hence **x**: \boxed{\frac{1}{2}}", True),
        (r"So \boxed{1}.", r"Hence \boxed{2}", False),
        (r"So it is \boxed{\frac{1}{\sqrt{2}}}.", r"Thus \boxed{\frac{1}{\sqrt{2}}}", True),
        (r"\boxed{ \frac{1}{2} }", r"So $\boxed{\dfrac{1}{2}}$", True),
        ("**Answer:** 72", "**Answer:** 71", False),
        ("**Final Answer**: 72.", "So it is **$72$**", True),
        ("**答案：** 72", r"**Answer:** \(72\)", True),
        ("**Step 1:** do\n\nSo 5.", "**Step 1:** do\n\nSo 7.", False),
        ("**Solution**\n\nIt is 5.", "**Solution**\n\nIt is 6.", False),
        ("**42**", "It is **42**.", True),
        ("Yes, it is.", "yes,  it is", True),
        ("Yes.", "No.", False),
        ("Yes.", " ", None),
    ],
)
def test_whether_the_answers_are_the_same(a: str, b: str, same: bool | None) -> None:
    assert compare(text_only("", a), text_only("", b)).same_answer is same


# ------------------------------------------------------------------------------------------------------------- JSON


def test_json_says_it_all() -> None:
    a = trace(["I", " think", (" so", 50, -0.5)], ["Yes"], {2: ((60, " not", -math.inf),)})
    b = trace(["I", " think"], q="Why not?")
    value = json.loads(json.dumps(to_json(a, b, compare(a, b)), allow_nan=False))
    assert set(value) == {"version", "same_question", "same_vocabulary", "same_answer", "divergence", "steps", "a", "b"}
    assert (value["version"], value["same_question"], value["same_answer"]) == (1, False, None)
    assert value["divergence"]["a"] == {
        "index": 2, "part": "thought", "text": " so", "id": 50, "probability": pytest.approx(math.exp(-0.5)),
        "alternatives": [{"id": 60, "text": " not", "probability": 0.0}], "ended": False,
    }  # fmt: skip
    assert value["divergence"]["b"]["probability"] is None and value["divergence"]["b"]["ended"]
    assert value["steps"] == [{"a": 0, "b": 0, "similarity": pytest.approx(0.8, abs=0.15)}]
    assert value["a"]["stats"]["thought_tokens"] == 3 and value["a"]["steps"][0]["tokens"] == 3
    json.dumps(to_json(a, a, compare(a, a)), allow_nan=False)


# ------------------------------------------------------------------------------------------------------- real models


def reply_of(backend: LlamaCppBackend | ReferenceBackend | ScriptedBackend, question: str) -> Trace:
    session = ChatSession(backend, Rules(Sampling(temperature=0, seed=0)))
    end = list(session.send(question))[-1]
    assert isinstance(session.reply, Reply)
    return Trace.of(session.reply, made_by(session), "2026-01-02T03:04:05+00:00", end)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from quantize.convert import convert

    target = tmp_path_factory.mktemp("exact") / "r1-tiny-F32.gguf"
    convert(paths.assets() / "r1-tiny", target, "F32")
    return target


QUESTIONS = (
    "What is 917 * 38?", "What is 98765 + 43217?", "Which of these words contain the letter q: quick, brown, antique, fox, Iraq?",
    "How many e's are in nevertheless?", "What is 864 * 79?", "Tell me a story about dragons.", "Which is larger, 9.11 or 9.9?",
)  # fmt: skip


def compared(a: Trace, b: Trace) -> Comparison:
    found = compare(a, b)
    assert found.same_question and found.same_vocabulary
    return found


def test_quantizing_makes_the_student_take_another_way(exact: Path, tmp_path: Path) -> None:
    from quantize.convert import convert

    coarse = tmp_path / "r1-tiny-Q4_0.gguf"
    convert(paths.assets() / "r1-tiny", coarse, "Q4_0")
    replies = []
    for path in (exact, coarse):
        with LlamaCppBackend(path) as backend:
            replies.append([reply_of(backend, question) for question in QUESTIONS])
    differing = 0
    for a, b in zip(*replies, strict=True):
        found = compared(a, b)
        assert (a.made.format, b.made.format) == ("F32", "Q4_0")
        assert len(found.pairs) >= max(len(a.steps), len(b.steps))
        d = found.divergence
        if d is None or d.a.ended or d.b.ended:
            continue
        differing += 1
        assert d.a.id != d.b.id and d.a.index == d.b.index
        assert [w.token.id for w in a.tokens[: d.a.index]] == [w.token.id for w in b.tokens[: d.b.index]]
        # greedy: what either side chose is at least as likely to it as what the other one did
        for own, other in ((d.a, d.b), (d.b, d.a)):
            assert all(logprob <= own.logprob for id, _, logprob in own.alternatives if id == other.id)
    assert differing


def test_the_reference_and_the_engine_agree_where_the_weights_are_exact(exact: Path) -> None:
    """Both compute in float32; a difference may only come where two tokens are as good as equally likely."""
    question = "How many r's are in strawberry?"
    with LlamaCppBackend(exact) as backend:
        a = reply_of(backend, question)
    with ReferenceBackend(paths.assets() / "r1-tiny", None) as backend:
        b = reply_of(backend, question)
    found = compared(a, b)
    assert found.same_answer
    if found.divergence is not None:
        assert found.divergence.at > 20
        chosen, others = found.divergence.a, {id: p for id, _, p in found.divergence.a.alternatives}
        assert chosen.logprob - others[found.divergence.b.id or 0] < 0.01
