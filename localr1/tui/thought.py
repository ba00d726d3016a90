"""The thought: a bounded tail of plain text while it streams, one line once it is over, all of it when unfolded."""

from __future__ import annotations

from time import monotonic

from rich.cells import cell_len
from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from localr1.text import printable
from localr1.turn import ThoughtEnd

TAIL_LINES = 8
TAIL_CHARACTERS = 2_000  # more than TAIL_LINES of the widest line
FULL_CHARACTERS = 20_000  # laying out more at once would be felt

_HEADS: dict[ThoughtEnd, str] = {
    "model": "Thought for {}",
    "budget": "Thought for {}, up to the budget",
    "user": "Thought for {}, then asked to answer",
    "loop": "Thought for {}, then went in circles",
    "unclosed": "Stopped mid-thought after {}",
}


class Thought(Vertical):
    """Foldable: a head that can be clicked or focused, and below it the text."""

    class Toggled(Message):
        """A person folded or unfolded the thought."""

        def __init__(self, thought: Thought) -> None:
            super().__init__()
            self.thought = thought

    def __init__(self) -> None:
        super().__init__()
        self.live = True
        self.tokens = 0
        self.folded = False
        self._began_at = monotonic()
        self._seconds: float | None = 0.0
        self._end: ThoughtEnd | None = None  # of one that was kept
        self._verb = "Thinking… {}"
        self._pieces: list[str] = []
        self._head = _Head(classes="thought-head")
        self._tail = _Tail(classes="thought-text")
        self._full: Static | None = None

    @classmethod
    def kept(cls, text: str, tokens: int, seconds: float | None, end: ThoughtEnd) -> Thought:
        """One that was over before. `seconds` None: not known."""
        thought = cls()
        thought.live, thought.folded, thought.tokens, thought._seconds, thought._end = False, True, tokens, seconds, end
        thought.replace(text)
        return thought

    def compose(self) -> ComposeResult:
        yield self._head
        if self.live:
            yield self._tail

    def on_mount(self) -> None:
        if self._end is not None:
            self.finish(self._end)

    @property
    def text(self) -> str:
        return "".join(self._pieces).rstrip()

    def add(self, text: str, tokens: int) -> None:
        self.tokens += tokens
        self._pieces.append(printable(text))
        self._tail.add(self._pieces[-1])

    def replace(self, text: str) -> None:
        """What the whole thought turned out to be."""
        self._pieces = [printable(text)]

    def tick(self) -> None:
        """Let the clock in the head run."""
        if self.live:
            self._seconds = monotonic() - self._began_at
            self._draw_head()

    def finish(self, end: ThoughtEnd) -> None:
        """No more will come. A thought that was cut short stays open: it is all there is to read."""
        if self.live:
            self._seconds = monotonic() - self._began_at
            self.live = False
            self._tail.remove()
            self.folded = True
        self._verb = _HEADS.get(end, _HEADS["model"])
        if end == "unclosed":
            self._fold(False)
        self._draw_head()

    def toggle(self) -> None:
        self._fold(not self.folded)
        self.post_message(self.Toggled(self))

    def _fold(self, folded: bool) -> None:
        self.folded = folded
        if self.live:
            self._tail.display = not folded
        elif self._full is not None:
            self._full.display = not folded
        elif not folded:  # mounted only now: most thoughts are never read again
            text = self.text
            if len(text) > FULL_CHARACTERS:
                text = f"… what comes before is in the trace: /trace\n{text[-FULL_CHARACTERS:]}"
            self._full = Static(Content(text), classes="thought-text")
            self.mount(self._full)
        self._draw_head()

    def _draw_head(self) -> None:
        unit = "token" if self.tokens == 1 else "tokens"
        tokens = f"{self.tokens:,} {unit}" if self.tokens or self.live else f"{len(self.text):,} characters"
        seconds = [] if self._seconds is None else [f"{self._seconds:.1f} s"]
        amount = ", ".join([tokens, *seconds] if self.live else [*seconds, tokens])
        self._head.show(("▸ " if self.folded else "▾ ") + self._verb.format(amount))


class _Head(Static, can_focus=True):
    FOCUS_ON_CLICK = False  # typing goes on in the input

    def show(self, text: str) -> None:
        self.update(Content(text), layout=cell_len(text) > self.size.width)  # it seldom grows, and a layout costs

    def on_click(self) -> None:
        self._toggle()

    def on_key(self, event: events.Key) -> None:
        if event.key in ("enter", "space"):
            event.stop()  # or the app would take the space for typing
            self._toggle()

    def _toggle(self) -> None:
        if isinstance(self.parent, Thought):
            self.parent.toggle()


class _Tail(Static):
    """The last lines of a text that grows; drawing it costs the same however long the text has become."""

    def __init__(self, classes: str) -> None:
        super().__init__(classes=classes)
        self._text = ""
        self._lines = 0

    def add(self, text: str) -> None:
        self._text = (self._text + text)[-TAIL_CHARACTERS:]
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def _draw(self) -> None:
        width = self.content_size.width
        if not width:  # not laid out yet: on_resize follows
            return
        lines = Content(self._text.rstrip()).wrap(width)[-TAIL_LINES:]
        self.update(Content("\n").join(lines), layout=len(lines) != self._lines)
        self._lines = len(lines)
