"""A trace to look at, the view of it alone in an app, and what its screen shows."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from textual import events
from textual.app import App, ComposeResult
from textual.pilot import Pilot
from tui.driving import screen, settle

from backends.base import Token
from localr1.trace.record import Ended, Made, Trace
from localr1.tui.trace_view import TraceView
from localr1.turn import AnswerDelta, ThoughtDelta, Written

STEPS = (
    "Okay, so I need to count the tiles of a floor that is 3 m wide.\n\n",
    "First, I should get everything into the same unit.\n\n",
    "3 m is 300 cm, and 300 divided by 15 is 20 tiles in a row.\n\n",
    "Wait, that is not right, because the tiles have gaps between them.\n\n",
    "Let me check that again with the areas of the tiles.\n\n",
    "So the answer is 600 tiles.",
)
KINDS = ["restate", "plan", "work", "backtrack", "check", "conclude"]
THOUGHT = "".join(STEPS)
ANSWER = "There are **600** tiles."
NASTY = "[red]a[/red] [/ \x1b[31mb\x1b]0;title\x07 \x9b2J \u202ec \ud800"
HARMLESS = "[red]a[/red] [/ ␛[31mb␛]0;title␇ �2J �c �"
# how likely some tokens were; all others: surely
LIKELY = {" gaps": 0.03, " right": 0.4, " same": 0.7}
OTHERS = ((901, " edges", math.log(0.5)), (902, "\x1b[2J", math.log(0.25)))


def tokens(text: str) -> list[str]:
    return re.findall(r" ?\w+|\n\n|.", text, re.DOTALL)


def written(thought: Sequence[str], answer: Sequence[str] = (), closed: bool = True) -> tuple[Written, ...]:
    found: list[Written] = []

    def add(text: str, part: str, shown: str) -> None:
        p = LIKELY.get(text, 0.999)
        token = Token(len(found), text, math.log(p), OTHERS if p < 0.9 else ())
        found.append(Written(token, part, shown if part == "thought" else "", shown if part == "answer" else "", False, 0.1 * len(found)))  # type: ignore[arg-type]

    for text in thought:
        add(text, "thought", text)
    if closed:
        add("</think>", "thought", "")
    for text in answer:
        add(text, "answer", text)
    return tuple(found)


def trace(
    thought: str | Sequence[str] = THOUGHT, answer: str = ANSWER, reason: str = "stop", end: str = "model", plain: bool = False
) -> Trace:
    """`plain`: text alone, as it is imported."""
    pieces = tokens(thought) if isinstance(thought, str) else thought
    made = () if plain else written(pieces, tokens(answer), end != "unclosed")
    ended = Ended(reason, end, 9, 0, len(made), 0.1, 0.1 * len(made))  # type: ignore[arg-type]
    return Trace("How many tiles?", "".join(pieces), answer, Made("tiny", "test"), ended, "2026-01-01T00:00:00Z", True, made)


def deltas(t: Trace, thought: slice = slice(None), answer: slice = slice(0)) -> list[ThoughtDelta | AnswerDelta]:
    found: list[ThoughtDelta | AnswerDelta] = [ThoughtDelta(w.thought, w.token, w.given, w.at_s) for w in t.thought_tokens[thought]]
    return found + [AnswerDelta(w.answer, w.token, w.given, w.at_s) for w in t.answer_tokens[answer]]


class Host(App[None]):
    def __init__(self, can_steer: bool = True) -> None:
        super().__init__(ansi_color=True)
        self.view = TraceView()
        self.view.can_steer = can_steer
        self.steered: list[tuple[str, int | None, int | None]] = []
        self.missed: list[str] = []

    def compose(self) -> ComposeResult:
        yield self.view

    def on_mount(self) -> None:
        self.view.focus()

    def on_trace_view_steer(self, event: TraceView.Steer) -> None:
        assert event.control is self.view
        self.steered.append((event.action, event.token, event.choice))

    def on_key(self, event: events.Key) -> None:
        self.missed.append(event.key)


async def shown(app: Host, pilot: Pilot[None], t: Trace | None = None) -> None:
    app.view.show(trace() if t is None else t)
    await settle(pilot)


def line(app: App[None], text: str) -> str:
    """The first line of the screen that has the text."""
    return next(line for line in screen(app).splitlines() if text in line)


def styles(app: App[None], text: str) -> str:
    """What the first piece of the screen with exactly this text looks like, colours left out."""
    for strip in app.screen._compositor.render_strips():
        for segment in strip:
            if segment.text == text and segment.style is not None:
                style = segment.style
                return " ".join(name for name in ("dim", "bold", "underline", "reverse") if getattr(style, name))
    raise AssertionError(f"no piece {text!r} in\n{screen(app)}")
