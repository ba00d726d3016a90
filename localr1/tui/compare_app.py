"""CompareApp: two replies to one question side by side; whoever moves in one moves in the other, to the step that is like it."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.content import Content
from textual.widgets import Static

from localr1.settings import Settings
from localr1.trace.compare import compare
from localr1.trace.difference import difference
from localr1.trace.record import Stats, Trace
from localr1.trace.words import count, on_one_line
from localr1.tui.themed import Themed
from localr1.tui.trace_view import TraceView

WIDE = 100  # columns: from here on the traces stand side by side


class CompareApp(Themed):
    """Tab goes to the other trace; q leaves, Esc too when there is nothing it would end."""

    CSS = """
    Screen { background: ansi_default; }
    #head { height: auto; max-height: 9; padding: 0 1; }
    #sides { height: 1fr; layout: vertical; }
    #sides.wide { layout: horizontal; }
    TraceView { padding: 0 1; height: 1fr; border-top: solid ansi_bright_black; }
    TraceView:focus { border-top: solid ansi_bright_blue; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "quit", priority=True),
        Binding("tab", "other", priority=True),
        Binding("shift+tab", "other", priority=True),
    ]

    def __init__(self, a: Trace, b: Trace, settings: Settings | None = None) -> None:
        super().__init__(settings or Settings())
        self.traces = (a, b)
        self.found = compare(a, b)
        self.views = tuple(TraceView("Tab other · q leave", self.keymap, id=name) for name in "ab")

    def compose(self) -> ComposeResult:
        yield Static(Content("\n".join(self._head())), id="head")
        with Container(id="sides"):
            yield from self.views

    def _head(self) -> list[str]:
        headline, rows = difference(self.found.divergence)
        same = {True: "The answers are the same", False: "The answers differ", None: ""}[self.found.same_answer]
        widths = [max(len(row[i]) for row in rows) for i in range(3)] if rows else []
        table = ["  " + "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows[:4]]
        sides = zip("AB", self.traces, (self.found.a, self.found.b), strict=True)
        return [*(_side(*side) for side in sides), *filter(None, [same]), headline[0].upper() + headline[1:], *table]

    def on_mount(self) -> None:
        for view, trace in zip(self.views, self.traces, strict=True):
            view.show(trace)
        self.views[0].focus()

    def on_resize(self, event: events.Resize) -> None:
        self.query_one("#sides").set_class(event.size.width >= WIDE, "wide")

    def on_trace_view_moved(self, event: TraceView.Moved) -> None:
        """Bring the other one to the step that is like this one; to the nearest before it where there is none."""
        if not event.view.has_focus:
            return
        mine = self.views.index(event.view)
        steps, others = (len(trace.steps) for trace in (self.traces[mine], self.traces[1 - mine]))
        if event.entry >= steps:
            entry = others  # the answer
        else:
            entry = 0
            for pair in self.found.pairs:
                own, other = (pair.a, pair.b) if mine == 0 else (pair.b, pair.a)
                entry = entry if other is None else other
                if own == event.entry:
                    break
        if self.views[1 - mine].current != entry:
            self.views[1 - mine].select(entry)

    def action_other(self) -> None:
        self.views[1 if self.views[0].has_focus else 0].focus()

    def on_key(self, event: events.Key) -> None:
        if event.key == "q" or (event.key == "escape" and not any(view.escape() for view in self.views)):
            self.exit()


def _side(letter: str, trace: Trace, stats: Stats) -> str:
    """Which model, and how long it took."""
    how = ", ".join(filter(None, [trace.made.format, trace.made.backend]))
    speed = f", {stats.tokens_per_s:,.1f} tokens/s" if stats.tokens_per_s is not None else ""
    return on_one_line(f"{letter}  {trace.made.model} ({how}): {count(stats.thought_tokens, 'thought token')}{speed}")
