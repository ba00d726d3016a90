"""The words in which everything says how a reply was made, what it cost and how it ended; and text made safe for any file."""

from __future__ import annotations

import math
import re

from localr1.text import printable
from localr1.trace.record import Trace, stats
from localr1.trace.steps import Step

REASONS = {
    "": "not finished", "stop": "finished", "length": "stopped at the limit of tokens", "context": "stopped, its context was full",
    "cancelled": "stopped by a person", "loop": "stopped, it repeated itself",
}  # fmt: skip
THOUGHT_ENDS = {
    "model": "", "budget": "the thought was closed when its budget was spent", "user": "the thought was closed by a person",
    "loop": "the thought was closed because it repeated itself", "unclosed": "in mid-thought", "bypassed": "there was no thought",
}  # fmt: skip

# what `printable` leaves: halves of surrogate pairs, U+061C (a bidi control), and what XML does not allow
_NO_TEXT = re.compile("[\ud800-\udfff\u061c\ufffe\uffff]")


def shown(text: str) -> str:
    """`text` with nothing in it that a reader's program would obey or refuse; of the same length."""
    return _NO_TEXT.sub("\ufffd", printable(text))


def on_one_line(text: str) -> str:
    return " ".join(shown(text).split())


def count(number: int, name: str) -> str:
    return f"{number:,} {name}" if number == 1 else f"{number:,} {name}s"


def seconds(value: float) -> str:
    if value >= 120:
        return f"{round(value) // 60:,} min {round(value) % 60} s"
    return f"{value:.{2 if value < 1 else 1 if value < 10 else 0}f} s"


def percent(logprob: float) -> str:
    p = 100 * math.exp(min(0.0, logprob))
    return f"{p:.1f}%" if 99 <= p < 99.95 else f"{p:.0f}%" if p >= 10 else f"{p:.2g}%" if p >= 0.01 else "<0.01%"


def made(trace: Trace) -> str:
    """The model as what it is, and how it was asked."""
    m, s = trace.made, trace.made.sampling
    model = [m.base and f"distilled into {m.base}", m.format, m.backend]
    how = [f"temperature {s.temperature:g}", f"top-p {s.top_p:g}", f"seed {s.seed}" if s.seed is not None else ""]
    how += ["" if m.think_budget is None else f"budget of {count(m.think_budget, 'thought token')}", trace.started_at]
    whole = f"{m.model or 'unknown model'} ({', '.join(filter(None, model))}); {', '.join(filter(None, how))}"
    return on_one_line(whole.replace(" ()", ""))


def ending(trace: Trace) -> str:
    """How the reply ended."""
    reason, end = trace.ended.reason, trace.ended.thought_end
    thought = "" if end == "unclosed" and trace.answer else THOUGHT_ENDS.get(end, end)
    return on_one_line(", ".join(filter(None, [REASONS.get(reason, reason), thought])))


def figures(trace: Trace) -> list[tuple[str, str]]:
    """Statistics: names and values."""
    s = stats(trace)
    found = [
        (
            "thought",
            f"{count(s.thought_tokens, 'token')}, {seconds(s.thought_s)}" if trace.tokens else count(len(trace.thought), "character"),
        ),
        ("answer", f"{count(s.answer_tokens, 'token')}, {seconds(s.answer_s)}" if trace.tokens else count(len(trace.answer), "character")),
    ]
    if trace.thought.strip():
        found.append(("steps", f"{s.steps:,}: {count(s.backtracks, 'backtrack')}, {count(s.checks, 'check')}"))
    if trace.thought.strip() and s.longest_step_tokens:
        found.append(("longest step", f"number {s.longest_step + 1:,}, {count(s.longest_step_tokens, 'token')}"))
    if s.tokens_per_s is not None:
        found.append(("tokens per second", f"{s.tokens_per_s:.1f}"))
    if s.mean_logprob is not None:
        found.append(("probability of a token (geometric mean)", percent(s.mean_logprob)))
    return found


def cost(step: Step) -> str:
    """What a step took, as far as it is known."""
    return f"{count(step.tokens, 'token')}, {seconds(step.seconds)}" if step.tokens else count(step.end - step.start, "character")
