"""The transcript: turns and notices, followed to the end unless the person has scrolled away.

Of a conversation that was kept, only turns that are near what is seen are mounted; others follow as the person scrolls.
"""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from localr1.keys import Keymap, shown
from localr1.tui.thought import Thought
from localr1.tui.turn import Kept, Turn

FEW = 3  # turns that are mounted at once

ABOUT = """

A reasoning model on this machine: it thinks first, then answers.
Nothing you type leaves the machine. Larger models: localr1 pull

"""
TRY = """
  How many r's are in strawberry?
  What is 907 + 195?
  Which is larger, 9.11 or 9.9?

"""


def welcome(keymap: Keymap) -> Content:
    writing = [(keymap.first("send"), "send"), (shown(keymap.keys("new_line")[-1]), "new line"), (keymap.first("stop"), "stop")]
    looking = [(keymap.first("fold"), "open the thought"), (keymap.first("trace"), "its trace"), ("/help", "")]
    told = [part for row in (writing, looking) for key, what in row for part in ((key, "dim"), f" {what}   ")]
    told.insert(2 * len(writing), "\n")
    return Content.assemble(("localr1", "bold $accent"), ABOUT, ("Try", "dim"), TRY, *told)


class Transcript(VerticalScroll, can_focus=False):
    def __init__(self, keymap: Keymap) -> None:
        super().__init__()
        self._keymap = keymap
        self._kept: list[Kept] = []  # all of those that were shown
        self._last: Turn | None = None  # of these, mounted or not
        self._before: list[Kept] = []  # those that are not mounted yet
        self._behind: list[Kept] = []  # nothing is added while there are any
        self._aside: list[Widget] = []  # hidden while something else is tried in their place
        self._aside_before: list[Kept] = []
        self._more = Static(classes="notice more")
        self._mounting = False

    def compose(self) -> ComposeResult:
        yield Static(welcome(self._keymap), classes="welcome")

    async def add(self, entry: Widget) -> None:
        """Put an entry at the end, and follow what comes until the person scrolls up."""
        await self._to_end()
        await self.query(".welcome").remove()
        if isinstance(entry, Turn):
            entry.number = self.count + 1
        await self.mount(entry)
        self.anchor()

    async def follow(self) -> None:
        """Scroll to the end, and follow it from there."""
        await self._to_end()
        self.anchor()

    @property
    def last(self) -> Turn | None:
        """The last turn of the conversation."""
        return self._last if self._behind else next(reversed(self._turns()), None)

    @property
    def count(self) -> int:
        """Turns of the conversation."""
        return len(self._before) + len(self._turns()) + len(self._behind)

    def _turns(self) -> list[Turn]:
        """Those that are mounted, in their order."""
        return [turn for turn in self.children if isinstance(turn, Turn) and turn.display and not turn.failure]

    # a conversation that was kept

    async def show(self, kept: Sequence[Kept], number: int | None = None) -> None:
        """This conversation alone: at its end, or at the turn `number`."""
        self.forget()
        start = max(0, len(kept) - FEW) if number is None else number - 1
        self._kept, self._before, self._behind = list(kept), list(kept[:start]), list(kept[start + FEW :])
        self._last = Turn.kept(kept[-1]) if kept else None
        with self.app.batch_update():  # laid out once
            await self.query("Transcript > *").remove()
            self._more = Static(classes="notice more")
            await self.mount(self._more, *self._made(kept[start : start + FEW]))
        self.anchor(not self._behind and number is None)
        self._count_more()
        if number is not None:
            self.call_after_refresh(self.scroll_to_widget, self._turns()[0], animate=False, top=True)
        self.call_after_refresh(self._look)

    def _made(self, kept: Sequence[Kept]) -> list[Turn]:
        turns = [Turn.kept(each) for each in kept]
        if self._last is not None and kept[-1] is self._kept[-1]:
            turns[-1] = self._last
        return turns

    async def _to_end(self) -> None:
        if self._behind:
            await self.show(self._kept)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if self._before or self._behind:
            self.call_later(self._look)

    async def _look(self) -> None:
        """Mount more where the end of what is mounted is less than a screen away, or in sight while the end is followed."""
        if self._mounting:
            return
        self._mounting = True
        try:
            follows = self.is_anchored and not self._anchor_released
            if self._before and (not self.max_scroll_y if follows else self.scroll_y < self.size.height):
                await self._mount_before()
            elif self._behind and self.max_scroll_y - self.scroll_y < self.size.height:
                taken, self._behind = self._behind[:FEW], self._behind[FEW:]
                await self.mount(*self._made(taken))
            else:
                return
        finally:
            self._mounting = False
        self.call_after_refresh(self._look)

    async def _mount_before(self) -> None:
        """What is seen stays where it is."""
        taken, self._before = self._before[-FEW:], self._before[:-FEW]
        below = self.max_scroll_y - self.scroll_y
        with self.app.batch_update():
            await self.mount(*self._made(taken), after=self._more)
        self._count_more()
        self.call_after_refresh(lambda: self.scroll_to(y=self.max_scroll_y - below, animate=False, immediate=True))

    def _count_more(self) -> None:
        count = len(self._before)
        self._more.display = bool(count)
        self._more.update(f"↑ {count} earlier {'turn' if count == 1 else 'turns'}")

    # another branch is tried

    async def set_aside(self, after: int) -> None:
        """Hide what comes after so many turns (-1: all but the last), until `bring_back` or `drop`."""
        await self._to_end()
        after = self.count - 1 if after < 0 else after
        self._before, self._aside_before = self._before[:after], self._before[after:]
        first = next((turn for turn in self._turns() if turn.number > after), None)
        shown = [child for child in self.children if child.display and child is not self._more]
        self._aside = shown[shown.index(first) :] if first is not None else []
        for widget in self._aside:
            widget.display = False
        self._count_more()
        self.call_after_refresh(self._look)

    @property
    def has_aside(self) -> bool:
        return bool(self._aside)

    async def bring_back(self) -> None:
        hidden, before = self._aside, self._aside_before
        self._aside, self._aside_before = [], []
        if before:
            await self.mount(*self._made(before), before=hidden[0])
        for widget in hidden:
            widget.display = True

    async def drop(self) -> None:
        hidden = self._aside
        self.forget()
        for widget in hidden:
            await widget.remove()

    def forget(self) -> None:
        """What was set aside stays away."""
        self._aside, self._aside_before = [], []

    async def divide(self, line: Static, turns: int) -> None:
        """Put a line behind the first `turns` turns."""
        behind = next((turn for turn in self._turns() if turn.number > turns), None)
        if behind is not None and behind.number == turns + 1:
            await self.mount(line, before=behind)
        elif behind is None:
            await self.add(line)

    async def notice(self, text: str | Content, classes: str = "") -> None:
        """A line or a block that is not part of the conversation."""
        await self.add(Static(Content(text) if isinstance(text, str) else text, classes=f"notice {classes}"))

    async def clear(self) -> None:
        self.forget()
        self._kept, self._last, self._before, self._behind = [], None, [], []
        await self.query("Transcript > *").remove()
        await self.mount(Static(welcome(self._keymap), classes="welcome"))

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
