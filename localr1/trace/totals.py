"""Totals: statistics of many traces, together and by model."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from localr1.store import Store, TraceSummary
from localr1.trace.steps import cut

HEADER = ("traces", "thought tokens", "answer tokens", "seconds", "mean thought", "backtracks/1k", "budget", "loop", "by hand", "unclosed")


@dataclass(slots=True)
class Totals:
    """Of several traces. `ended`: how often their thoughts ended which way, "unfinished" among them. `counted`: those of which more is known
    than the text, which alone count for means and backtracks."""

    traces: int = 0
    counted: int = 0
    thought_tokens: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0
    backtracks: int = 0
    ended: Counter[str] = field(default_factory=Counter)

    def add(self, trace: TraceSummary, thought: str) -> None:
        self.traces += 1
        self.thought_tokens += trace.thought_tokens
        self.answer_tokens += trace.answer_tokens
        self.seconds += trace.seconds
        if trace.thought_tokens or trace.answer_tokens:
            self.counted += 1
            self.backtracks += sum(step.kind == "backtrack" for step in cut(thought))
        self.ended[trace.thought_end if trace.reason else "unfinished"] += 1

    @property
    def mean_thought_tokens(self) -> float:
        return self.thought_tokens / self.counted if self.counted else 0.0

    @property
    def backtracks_per_1000_tokens(self) -> float:
        return 1000 * self.backtracks / self.thought_tokens if self.thought_tokens else 0.0

    def share(self, ended: str) -> float:
        return self.ended[ended] / self.traces if self.traces else 0.0

    def as_object(self) -> dict[str, Any]:
        """For JSON. `ended`: shares of 1, of each way that occurred."""
        return {
            "traces": self.traces, "thought_tokens": self.thought_tokens, "answer_tokens": self.answer_tokens,
            "seconds": round(self.seconds, 3), "mean_thought_tokens": round(self.mean_thought_tokens, 2), "backtracks": self.backtracks,
            "backtracks_per_1000_tokens": round(self.backtracks_per_1000_tokens, 3),
            "ended": {way: round(self.share(way), 4) for way in sorted(self.ended)},
        }  # fmt: skip

    def as_row(self) -> tuple[str, ...]:
        shares = (f"{self.share(way):.0%}" for way in ("budget", "loop", "user", "unclosed"))
        counts = (f"{n:,}" for n in (self.traces, self.thought_tokens, self.answer_tokens))
        return (*counts, f"{self.seconds:,.1f}", f"{self.mean_thought_tokens:,.0f}", f"{self.backtracks_per_1000_tokens:.1f}", *shares)


def totals(store: Store) -> tuple[Totals, dict[str, Totals]]:
    """Of all traces, and by model: the one with most traces first."""
    everything, models = Totals(), dict[str, Totals]()
    summaries = {trace.id: trace for trace in store.traces()}
    for conversation in store.conversations():
        for turn in store.conversation(conversation.id).turns:
            trace = summaries.get(turn.id)
            if trace is not None:  # not asked since
                for each in (everything, models.setdefault(trace.model, Totals())):
                    each.add(trace, turn.trace.thought)
    return everything, dict(sorted(models.items(), key=lambda item: -item[1].traces))
