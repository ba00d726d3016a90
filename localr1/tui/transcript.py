"""The transcript: turns and notices, followed to the end unless the person has scrolled away."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from localr1.tui.thought import Thought
from localr1.tui.turn import Turn

WELCOME = Content.from_markup("""\
[b $accent]localr1[/]

A reasoning model on this machine: it thinks first, then answers.
Nothing you type leaves the machine. Larger models: localr1 pull

[dim]Try[/]
  How many r's are in strawberry?
  What is 907 + 195?
  Which is larger, 9.11 or 9.9?

[dim]Enter[/] send   [dim]Ctrl+J[/] new line   [dim]Esc[/] stop   [dim]Ctrl+O[/] open the thought   [dim]Ctrl+T[/] its trace   [dim]/help[/]""")


class Transcript(VerticalScroll, can_focus=False):
    def compose(self) -> ComposeResult:
        yield Static(WELCOME, classes="welcome")

    async def add(self, entry: Widget) -> None:
        """Put an entry at the end, and follow what comes until the person scrolls up."""
        await self.query(".welcome").remove()
        await self.mount(entry)
        self.anchor()

    async def divide(self, line: Static, turns: int) -> None:
        """Put a line behind the first `turns` turns."""
        shown = [turn for turn in self.query(Turn) if turn.display]
        if turns < len(shown):
            await self.mount(line, before=shown[turns])
        else:
            await self.add(line)

    async def notice(self, text: str | Content, classes: str = "") -> None:
        """A line or a block that is not part of the conversation."""
        await self.add(Static(Content(text) if isinstance(text, str) else text, classes=f"notice {classes}"))

    async def clear(self) -> None:
        await self.query("Transcript > *").remove()
        await self.mount(Static(WELCOME, classes="welcome"))

    def page(self, direction: int) -> None:
        if not self.max_scroll_y:
            return  # scrolling would stop the following, with nothing to scroll
        if direction < 0:
            self.scroll_page_up(animate=False)
        else:
            self.scroll_page_down(animate=False)

    def on_thought_toggled(self, event: Thought.Toggled) -> None:
        """Keep the head of an unfolded thought in sight, where following would scroll past it."""
        if event.thought.live:
            return
        if event.thought.folded:
            self.call_after_refresh(self._follow_if_at_end)
        else:
            self.call_after_refresh(self.scroll_to_widget, event.thought, animate=False, top=False)

    def _follow_if_at_end(self) -> None:
        if self.scroll_y >= self.max_scroll_y:
            self.anchor()
