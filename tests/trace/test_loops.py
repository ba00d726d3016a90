"""The loop guard: how early it is sure of a loop, and what it must not take for one."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from itertools import islice

import pytest

from backends.base import Sampling, Text
from backends.llamacpp import LlamaCppBackend
from backends.tokenizer import Tokenizer
from localr1 import paths
from localr1.chat import ChatSession, TurnEnd
from localr1.student import recipe
from localr1.trace.loops import MAX_PERIOD, RICH, Loop, LoopGuard, needed
from localr1.turn import Rules

VERSES = [
    "The miller rose before the sun and set his sails to run,", "A stranger came at noon and asked what all the flour was for,",
    "At night the wind lay down at last behind the chapel door,", "The children carried home the bread while it was warm and new,",
]  # fmt: skip
REFRAIN = "Turn, mill, turn, the wind is in the wheel,\nturn, mill, turn, and grind us all a meal.\n" * 2
COLUMNS = "ones: 7 + 6 = 13, carry 1, so far 3\ntens: 2 + 7 + 1 = 10, carry 1, so far 03\nhundreds: 4 + 0 + 1 = 5, carry 0, so far 503\nSo 427 + 76 = 503.\n"
BOARD = "r n b q k b n r\np p p p p p p p\n" + ". . . . . . . .\n" * 4 + "P P P P P P P P\nR N B Q K B N R\n\n"

NO_LOOPS = {
    "list": "\n".join(f"- {a} {b}" for a in "red green blue old new big small fresh".split() for b in "apples pears plums bread milk eggs flour".split()),
    "enumeration": "\n".join(f"{i}. The term number {i} is {i} * 3 + 1 = {3 * i + 1}." for i in range(1, 200)),
    "counting": ", ".join(map(str, range(1, 501))),
    "counting in lines": "\n".join(map(str, range(1, 501))),
    "counting in words": "\n".join(f"{i} is odd, {i + 1} is even," for i in range(1, 400, 2)),
    "counting in Chinese": "\n".join(f"第{i}个数是{i}，它的平方是{i * i}。" for i in range(1, 120)),
    "table": "| n | n² | even |\n| --- | --- | --- |\n" + "\n".join(f"| {n} | {n * n} | {'yes' if n % 2 == 0 else 'no'} |" for n in range(150)),
    "wide table": "| --- " * 24 + "|\n" + "|     " * 24 + "|\n" + "| --- " * 24 + "|",
    "empty rows": "| day | what |\n| --- | --- |\n" + "|     |      |\n" * 12,
    "times table": "\n".join(f"{a} x {b} = {a * b}" for a in range(1, 11) for b in range(1, 11)),
    "rules": ("=" * 80 + "\nPart\n" + "-" * 120 + "\n") * 3 + "- " * 60 + "\n" + "." * 150,
    "64 bits": "\n".join([" ".join("1" * 64), "0" * 64, "10" * 32, f"{0xF0F0F0F0F0F0F0F0:064b}", "0000 " * 16]),
    "matrix of zeros": "\n".join(["[0, 0, 0, 0, 0, 0, 0, 0, 0, 0],"] * 10),
    "array of zeros": json.dumps([0] * 64),
    "array of digits": json.dumps(random.Random(5).choices(range(10), k=400)),
    "array of objects": json.dumps([{"id": i, "name": f"item {i}", "price": i * 7 % 100, "tags": []} for i in range(60)], indent=1),
    "equal objects": json.dumps([{"x": 0, "y": 0}] * 8),
    "equal lines of code": "```python\n" + "    queue.append(queue.popleft())\n" * 8 + "    x = f(x)\n" * 12 + "```",
    "cases": "\n".join(f"    case {i}: return {i};" for i in range(80)),
    "assignments": "\n".join(f"a[{i}] = 0;" for i in range(120)),
    "closing brackets": "}\n" * 12 + "</div>\n" * 10 + "\n" * 60 + " " * 120,
    "dump": "\n".join(f"{i * 16:08x}  " + "00 " * 16 for i in range(12)),
    "boards": BOARD * 2 + " | | \n-+-+-\n | | \n-+-+-\n | | \n\n" * 4 + "| . . . | . . . | . . . |\n" * 9,
    "poem with a refrain": "\n".join(f"{verse}\nand nobody in all the town had seen so much get done.\n{REFRAIN}" for verse in VERSES),
    "round": "Row, row, row your boat,\ngently down the stream,\nmerrily, merrily, merrily, merrily,\nlife is but a dream.\n" * 3 + "ha" * 40,
    "song that counts": "\n".join(f"{n} bottles of beer on the wall, {n} bottles of beer.\nTake one down and pass it around, {n - 1} bottles of beer on the wall.\n" for n in range(30, 1, -1)),
    "diary": "\n".join(f"Day {i}: I get up, I eat bread, I go to the field, and at night I sleep." for i in range(1, 25)),
    "periodic fraction": "\n".join(f"{10 * r} / 7 = {10 * r // 7} remainder {10 * r % 7}" for r in [1, 3, 2, 6, 4, 5] * 4) + "\n0." + "142857" * 20,
    "sum done three times": COLUMNS * 3,
    "equal terms": " + ".join(["1/2"] * 30) + " = 15, " + " * ".join(["2"] * 50),
    "letters": ", ".join(f"{i} {c}" for i, c in enumerate("mississippi" * 12, 1)),
}  # fmt: skip

CAREFUL = "I have to be careful with the signs here, because the second factor is negative and the first one is not, so the product must be negative as well."
LOOPS = {  # what repeats, and within how many copies it is found in the bundled model's tokens
    "remark": (lambda i: "Wait, let me check that again.\n", 11),
    "Chinese remark": (lambda i: "等一下，让我再检查一遍。\n", 6),
    "two remarks": (lambda i: "But that's not right. Let me try again. The sum is 12.\n\nHmm, but then y is 8, and the sum is 13.\n\n", 6),
    "paragraph": (lambda i: f"Hmm, but the problem says that no box is empty. {CAREFUL} Let me go back to the beginning and count again.\n\n", 4),
    "paragraph that counts": (lambda i: f"Wait, let me check step {i} again. {CAREFUL}\n\n", 15),
}  # fmt: skip


@pytest.fixture(scope="module")
def encode() -> Callable[[str], list[int]]:
    folder = paths.assets() / "r1-tiny"
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.open(folder, config, config["vocab_size"])
    return lambda text: tokenizer.encode([Text(text)])


def alarms(ids: list[int]) -> Iterator[tuple[int, Loop]]:
    """(tokens fed, what was found)"""
    guard = LoopGuard()
    for n, token_id in enumerate(ids, 1):
        if found := guard.feed(token_id):
            yield n, found


@pytest.mark.parametrize("period", [*range(1, 61), 100, 200, 400])
def test_an_exact_loop_is_found_once_as_early_as_promised(period: int) -> None:
    rng = random.Random(period)
    before, loop = [rng.randrange(1000) for _ in range(500)], rng.sample(range(1000), period)
    found = list(alarms(before + loop * (5000 // period)))
    due = period + needed(period, rich=period >= RICH)
    assert [n - len(before) for n, _ in found] == [due]
    assert found[0][1] == Loop(period, -(-due // period), due)
    assert due <= (253 if period < RICH else 6 * period)


def test_a_period_within_which_tokens_recur() -> None:
    for loop in ([1, 1, 1, 1, 2], [1, 2, 1, 2, 1, 2, 3], [1] * 40 + [2]):
        [(n, found)] = alarms(loop * 60)
        assert found.period == len(loop)
        assert n <= 2 * len(loop) + needed(len(loop))


@pytest.mark.parametrize("name", LOOPS)
def test_written_loops(name: str, encode: Callable[[str], list[int]]) -> None:
    part, copies = LOOPS[name]
    ids = encode("The task.\n\n" + "".join(part(i) for i in range(12, 12 + copies)))
    assert len(list(alarms(ids))) == 1


@pytest.mark.parametrize("name", NO_LOOPS)
def test_written_material_that_is_no_loop(name: str, encode: Callable[[str], list[int]]) -> None:
    assert list(alarms(encode(f"So I write it down.\n\n{NO_LOOPS[name]}\n\nThat is all."))) == []


def test_memory_is_bounded() -> None:
    guard, rng = LoopGuard(), random.Random(1)
    for _ in range(20_000):
        guard.feed(rng.randrange(100_000))
        assert len(guard._ids) <= 2 * MAX_PERIOD and len(guard._last) + len(guard._older) <= 2 * MAX_PERIOD + 2
    for _ in range(20_000):  # periods of every kind at a time
        guard.feed(rng.randrange(2))
        assert len(guard._runs) <= 16


def test_a_loop_that_is_left_and_comes_again_is_told_again() -> None:
    assert [found.period for _, found in alarms([1, 2, 3] * 100 + list(range(10, 60)) + [4, 5] * 200)] == [3, 2]


def check_traces(backend: LlamaCppBackend, of_each_family: int) -> None:
    """Thoughts of the bundled model, at temperatures up to where it goes astray."""
    (data,) = recipe("data")
    for family in data.FAMILIES:
        for i, problem in enumerate(islice(data.evaluation(0, family), of_each_family)):
            ids: list[int] = []
            session = ChatSession(backend, Rules(Sampling(temperature=(0.6, 1.0, 0.0, 1.3)[i % 4], seed=i, max_tokens=2000)))
            for event in session.send(problem.question):
                if not isinstance(event, TurnEnd) and event.token is not None:
                    ids.append(event.token.id)
            assert list(alarms(ids)) == [], problem.question


def test_no_thought_of_the_bundled_model_is_taken_for_a_loop(student: LlamaCppBackend) -> None:
    check_traces(student, 3)


@pytest.mark.slow
def test_no_thought_of_the_bundled_model_is_taken_for_a_loop_500_times(student: LlamaCppBackend) -> None:
    check_traces(student, 72)
