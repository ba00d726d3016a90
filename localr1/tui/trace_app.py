"""TraceApp: a saved trace on the whole screen."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from localr1.attachments import brief
from localr1.settings import Settings
from localr1.trace.record import Trace
from localr1.tui.themed import Themed
from localr1.tui.trace_lines import words
from localr1.tui.trace_view import TraceView


class TraceApp(Themed):
    """`title`: the first line; else the question. q leaves, Esc too when there is nothing it would end."""

    CSS = """
    Screen { background: ansi_default; }
    #title { height: 1; padding: 0 1; text-style: bold; color: ansi_bright_blue; }
    TraceView { padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+c", "quit", priority=True)]

    def __init__(self, trace: Trace, title: str = "", settings: Settings | None = None) -> None:
        super().__init__(settings or Settings())
        self._trace, self._line = trace, title or brief(trace.question)
        self.view = TraceView("q leave", self.keymap)

    def compose(self) -> ComposeResult:
        yield Static(id="title")
        yield self.view

    def on_mount(self) -> None:
        self.view.show(self._trace)
        self.view.focus()

    def on_resize(self) -> None:
        line = words(self._line, 0, len(self._line), self.size.width - 2)
        self.query_one("#title", Static).update(Content(line))

    def on_key(self, event: events.Key) -> None:
        if event.key in ("q", "escape"):
            self.exit()
