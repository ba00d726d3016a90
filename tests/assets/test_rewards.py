"""Rule-based rewards: what is right, what is well formed, and advantages within a group."""

import random

import pytest

from localr1.student import recipe

data, rewards, curve = recipe("data", "rewards", "curve")
PROBLEM = data.FAMILIES["add"](random.Random(1))
THOUGHT = "I add them."


def test_a_right_answer_in_a_thought_and_answer_gets_both_rewards() -> None:
    assert rewards.reward(PROBLEM, THOUGHT, PROBLEM.answer) == 1 + rewards.FORMAT_WEIGHT


@pytest.mark.parametrize(
    ("thought", "answer", "expected"),
    [
        ("", PROBLEM.answer, 1.0),  # right, but nothing was thought
        (THOUGHT, "The result is **wrong**.", rewards.FORMAT_WEIGHT),
        (THOUGHT, f"The result is {PROBLEM.result}.", 0.0),  # nothing in bold
        (THOUGHT, f"**{PROBLEM.result}** or **7**", 0.0),  # two answers
        (THOUGHT, f"<think>**{PROBLEM.result}**", 1.0),  # a tag in the answer
        (THOUGHT, "", 0.0),  # never ended
    ],
)
def test_rewards(thought: str, answer: str, expected: float) -> None:
    assert rewards.reward(PROBLEM, thought, answer) == expected


def test_advantages_are_normalized_within_the_group() -> None:
    assert rewards.advantages([1, 0, 1, 0]) == [1, -1, 1, -1]
    few = rewards.advantages([1.1, 0, 0, 0, 0, 0, 0, 0])
    assert sum(few) == pytest.approx(0) and sum(a * a for a in few) / 8 == pytest.approx(1) and few[0] == pytest.approx(7**0.5)


def test_a_group_without_differences_teaches_nothing() -> None:
    assert rewards.advantages([1.1] * 8) == [0] * 8


def test_backtracking_is_a_word_not_a_part_of_one() -> None:
    assert rewards.BACKTRACKS.search("1, carry 1. Wait, that is not right")
    assert not rewards.BACKTRACKS.search("The waiter is in Kuwait")


def test_the_curve_is_drawn_with_its_ends() -> None:
    rounds = [dict(reward=r, accuracy=r, tokens=100 + r, backtracks=0.1) for r in (0.5, 0.75, 1.0)]
    svg = curve.picture(rounds)
    assert svg.count("<polyline") == 8 and all(title in svg for _, title, _ in curve.PANELS) and ">0.5<" in svg and ">3<" in svg


def test_problems_of_a_round_are_seeded_and_never_held_out() -> None:
    pytest.importorskip("torch")
    grpo, rejection = recipe("grpo", "rejection")
    for drawn in (grpo.problems, rejection.conversations):
        assert drawn(1, 3, 30) == drawn(1, 3, 30) != drawn(1, 4, 30)
    assert not any(p.held_out for p in grpo.problems(1, 3, 30))
    assert not any(p.held_out for _, p in rejection.conversations(1, 3, 30))


def test_traces_are_of_conversations_as_training_has_them() -> None:
    pytest.importorskip("torch")
    (rejection,) = recipe("rejection")
    drawn = rejection.conversations(1, 3, 300)
    assert 0.1 < sum(bool(turns) for turns, _ in drawn) / 300 < 0.3
    assert all(turns for turns, _ in rejection.conversations(1, 3, 30, earlier=1.0))
