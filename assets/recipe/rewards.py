"""Rule-based rewards, as in DeepSeek-R1-Zero (arXiv 2501.12948, 2.2.2): accuracy and format; and advantages within a group."""

from __future__ import annotations

import re
from collections.abc import Sequence

from problem import Problem

FORMAT_WEIGHT = 0.1
BACKTRACKS = re.compile(r"\bwait\b", re.IGNORECASE)


def right(problem: Problem, answer: str) -> bool:
    """One bold part that is the result; where no result is asked for, the expected answer."""
    if problem.result:
        return re.findall(r"\*\*(.+?)\*\*", answer) == [problem.result]
    return answer.strip() == problem.answer


def well_formed(problem: Problem, thought: str, answer: str) -> bool:
    """A thought, then an answer without tags, with as many bold parts as are asked for."""
    return bool(thought and answer) and "<" not in answer and len(re.findall(r"\*\*.+?\*\*", answer)) == bool(problem.result)


def reward(problem: Problem, thought: str, answer: str) -> float:
    return float(right(problem, answer)) + FORMAT_WEIGHT * well_formed(problem, thought, answer)


def advantages(rewards: Sequence[float]) -> list[float]:
    """Each reward's distance from its group's mean in standard deviations; 0 where all are the same."""
    mean = sum(rewards) / len(rewards)
    deviation = (sum((r - mean) ** 2 for r in rewards) / len(rewards)) ** 0.5
    return [(r - mean) / deviation if deviation > 1e-6 else 0.0 for r in rewards]
