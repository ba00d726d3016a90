"""The training recipe teaches what is true: every worked line, every result, and a clean split."""

import random
import re
from decimal import Decimal
from types import ModuleType

import pytest

from localr1.student import recipe

FAMILIES = ["letters", "add", "subtract", "multiply", "compare", "filter"]


@pytest.fixture(scope="module")
def data() -> ModuleType:
    """assets/recipe/data.py"""
    (module,) = recipe("data")
    return module


def plain(data: ModuleType, thought: str) -> str:
    """A thought as people read it, the deliberate slips taken out."""
    return re.sub(f"[{data.CHANCE}{data.END}]", "", re.sub(f"{data.SLIP}.*?{data.END}", "", thought))


def truth(family: str, question: str, key: str) -> str:
    """The right result, worked out from the question alone."""
    q = question.lower()
    numbers = re.findall(r"\d+(?:\.\d+)?", q)
    if family == "letters":
        word, letter = key.split("/")
        assert word in q
        return str(sum(c == letter for c in word))
    if family == "add":
        return str(sum(map(int, numbers)))
    if family == "multiply":
        return str(int(numbers[0]) * int(numbers[1]))
    if family == "subtract":
        a, b = map(int, numbers)
        reversed_order = re.search(r"subtract \d+ from|take \d+ (away )?from|subtracted from|when you (take|subtract) \d+ from", q)
        return str(b - a if reversed_order else a - b)
    if family == "compare":
        a, b = numbers
        return "equal" if Decimal(a) == Decimal(b) else max(a, b, key=Decimal)
    words, letter = key.rsplit("/", 1)
    listed = sorted(words.split(","), key=lambda w: re.search(rf"(?<![\w]){re.escape(w)}(?![\w])", q).start())  # type: ignore[union-attr]
    return ", ".join(w for w in listed if letter in w) or "none"


@pytest.mark.parametrize("family", FAMILIES)
def test_results_are_right_and_alone_in_bold(data: ModuleType, family: str) -> None:
    rng = random.Random(11)
    for _ in range(400):
        problem = data.FAMILIES[family](rng)
        expected = truth(family, problem.question, problem.key)
        assert problem.result.lower() == expected, problem
        assert re.findall(r"\*\*(.+?)\*\*", problem.answer) == [problem.result]
        if family == "filter":
            assert all(w in problem.question for w in problem.result.split(", ")) or problem.result == "none"


@pytest.mark.parametrize("family", ["add", "subtract", "multiply"])
def test_every_worked_line_is_true(data: ModuleType, family: str) -> None:
    rng = random.Random(12)
    checked = 0
    for _ in range(400):
        thought = plain(data, data.FAMILIES[family](rng).thought).replace(". Wait, that is not right: it is ", "")
        for line in thought.splitlines():
            for left, right in re.findall(r"(?:^|: )(\d+ [-+x] \d+(?: [-+] \d+)?) = (-?\d+)", line):
                assert eval(left.replace("x", "*")) == int(right), line
                checked += 1
    assert checked > 1000


def test_letters_are_spelled_in_order_with_their_count(data: ModuleType) -> None:
    rng = random.Random(13)
    for _ in range(300):
        problem = data.FAMILIES["letters"](rng)
        word, letter = problem.key.split("/")
        line = plain(data, problem.thought).splitlines()[1]
        steps = re.findall(r"(\d+) ([a-z])(?: \((\d+)\))?", re.sub(r" wait, . is not ., still \d+", "", line))
        assert [(int(i), c) for i, c, _ in steps] == list(enumerate(word, 1))
        assert [int(n) for _, c, n in steps if c == letter] == list(range(1, word.count(letter) + 1))


def test_held_out_problems_never_enter_training(data: ModuleType) -> None:
    rng = random.Random(14)
    for family in data.FAMILIES:
        assert all(not data.draw(rng, family).held_out for _ in range(30))
        assert all(data.draw(rng, family, held_out=True).held_out for _ in range(5))


def test_only_the_reply_is_trained_on_and_slips_are_not(data: ModuleType) -> None:
    rng = random.Random(15)
    slips = 0
    for _ in range(1000):
        ids, weights = data.document(rng)
        text = data.decode(ids)
        start = text.rindex(data.ASSISTANT + data.THINK + "\n") + len(data.ASSISTANT + data.THINK + "\n")
        first = len(data.encode(text[:start]))
        assert set(weights[:first]) == {0}
        assert weights[-1] == 1 and text.endswith(data.EOS) and ids[-1] == data.encode(data.EOS)[0]
        slips += 0 in weights[first:]
    assert slips > 10


def test_what_could_as_well_be_another_is_hardly_trained_on(data: ModuleType) -> None:
    rng = random.Random(17)
    heard = set()
    for _ in range(200):
        problem = data.draw(rng, "add")
        ids, weights = data.written([], problem)
        thought = re.sub(f"[{''.join(data.WEIGHTS)}]", "", problem.thought)
        assert data.decode(ids).endswith(f"{thought}\n{data.END_THINK}\n\n{problem.answer}{data.EOS}")
        faint = "".join(data.decode([i]) for i, w in zip(ids, weights, strict=True) if 0 < w < 0.1)
        heard.add(re.sub(r"\d+", "N", faint))
        assert re.fullmatch(r"( My first guess is \d+, but let me work it out.)?\n(So|Check)", faint)
    assert len(heard) == 4


def test_a_step_is_the_same_whenever_it_is_drawn(data: ModuleType) -> None:
    first, again, other = data.documents(1, 5, 8), data.documents(1, 5, 8), data.documents(1, 6, 8)
    assert len(first) == 8 and first == again != other


def test_questions_outside_the_families_get_the_honest_answer(data: ModuleType) -> None:
    rng = random.Random(16)
    honest = [p for p in (data.FAMILIES["talk"](rng) for _ in range(300)) if p.family == "outside"]
    assert len(honest) > 100 and len({p.question for p in honest}) > 90
    assert all("small demonstration model" in p.answer and "localr1 pull" in p.answer and not p.result for p in honest)
