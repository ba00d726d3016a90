"""What the store hands out. Times: ISO 8601, UTC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from localr1.trace.record import Trace
from localr1.turn import ThoughtEnd

TextPart = Literal["question", "thought", "answer"]


@dataclass(frozen=True, slots=True)
class Summary:
    """A conversation in a list. `turns`: those of all branches; `model`: of the last reply."""

    id: int
    title: str
    model: str
    created_at: str
    updated_at: str
    turns: int


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its reply. `parent`: the turn before it, None for a first one. `thought_tokens`: also where the trace has none."""

    id: int
    conversation: int
    parent: int | None
    trace: Trace
    thought_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Conversation:
    """`turns`: of all branches, in the order in which they were asked, their traces without tokens. `head`: the turn to go on from."""

    id: int
    title: str
    model: str
    created_at: str
    updated_at: str
    turns: tuple[Turn, ...]
    head: int | None


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """A reply in a list. `id`: of its turn; `question`: its first line; `seconds`: until its last token; `reason`: "" if it never ended."""

    id: int
    conversation: int
    question: str
    model: str
    started_at: str
    thought_tokens: int
    answer_tokens: int
    seconds: float
    reason: str
    thought_end: ThoughtEnd


@dataclass(frozen=True, slots=True)
class Hit:
    """A text in which all words were found. `at`: where they are in `snippet`, which is one line."""

    turn: int
    conversation: int
    title: str
    part: TextPart
    snippet: str
    at: tuple[tuple[int, int], ...]
    started_at: str
