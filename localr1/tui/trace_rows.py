"""TraceRows: a trace on the screen, live or saved. One widget without children: it draws the rows that can be seen, and no others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from localr1.trace.record import Trace
from localr1.tui.status import Field, fit
from localr1.tui.trace_lines import BOLD, DIM, REVERSE, RULE, entry_row, figures, nothing, pack, text_row, timeline
from localr1.tui.trace_outline import Outline
from localr1.tui.trace_panels import Keys, Unsure
from localr1.tui.trace_tape import Part, Search, Tape
from localr1.turn import AnswerDelta, ThoughtDelta

ROOMY, WIDE = 20, 120  # rows from which on the outline stands apart; cells in which the statistics fit on a line
MOST_CACHED = 1_000


class TraceRows(Widget):
    """From top to bottom: statistics, timeline, outline or the panel in its place, footer."""

    ALLOW_SELECT = False
    DEFAULT_CSS = "TraceRows { width: 1fr; height: 1fr; background: ansi_default; color: ansi_default; }"

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.shaded = False
        self.width = self.height = 0  # of the content, at the last resize
        self._base = Style()
        self._load(Tape())

    def _load(self, tape: Tape, question: str = "") -> None:
        self.tape, self.outline, self.question = tape, Outline(tape), question
        self.current = self.top = 0  # an entry; the row that is seen first
        self.following = False  # the end, as it comes
        self.token: int | None = None  # of the thought, pointed out
        self.search: Search | None = None
        self.panel: Unsure | Keys | None = None
        self.note = ""  # in the footer, until the next key
        self._cache: dict[tuple[int, int], list[Segment]] = {}
        self.outline.resize(self.width - 1)
        self.refresh()

    # what is shown

    def begin(self, question: str) -> None:
        """A reply begins: follow it."""
        self._load(Tape(), question)
        self.following = True

    def feed(self, events: Iterable[ThoughtDelta | AnswerDelta]) -> None:
        """What has come since the last call. Costs what is new, however long the thought has become."""
        last, before = max(0, len(self.tape.steps) - 1), (self.top, self.last_top)
        self.tape.feed(events)
        if self.search is not None:
            self.search.update()
        self.outline.update(last)
        if self.following:
            self._to_end()
        self.top = min(self.top, self.last_top)
        self._cache = {key: row for key, row in self._cache.items() if key[0] < last}
        self.go_on_wrapping()
        if before != (self.top, self.last_top) or self.panel is not None or len(self.outline) <= last:
            self.refresh()
        else:  # the rows before are as they were
            y = min(self.rows, max(0, self.outline.top(last) - self.top))
            self.refresh(Region(0, 0, self.width, self.body), Region(0, self.body + y, self.width, self.rows - y + 1))

    def finish(self, trace: Trace) -> None:
        """The reply is over, and this is what is kept of it."""
        self.tape.finish(trace)
        if self.search is not None:
            current, self.search = self.search.current, Search(self.tape, self.search.words)
            self.search.current = current
        with self.steady():
            self.outline.update()
            self.current = max(0, min(self.current, len(self.outline) - 1))
        if self.following:
            self._to_end()
            self.following = False

    def show(self, trace: Trace) -> None:
        """A reply that is over."""
        self._load(Tape.of(trace), trace.question)

    def _to_end(self) -> None:
        self.current, self.top = max(0, len(self.outline) - 1), self.last_top

    def go_on_wrapping(self) -> None:
        if self.outline.unwrapped:
            self.call_later(self._wrap_more)

    def _wrap_more(self) -> None:
        if self.outline.unwrapped:
            with self.steady():
                self.outline.wrap_more()
            self.go_on_wrapping()

    # where it is

    @property
    def stat_rows(self) -> int:
        return 2 if self.height >= ROOMY and self.width < WIDE else 1

    @property
    def body(self) -> int:
        """The first line of the outline; the one of the timeline is above it."""
        return self.stat_rows + (2 if self.height >= ROOMY else 1)

    @property
    def rows(self) -> int:
        """Of the outline, as many as there is room for."""
        return max(1, self.height - self.body - 1)

    @property
    def last_top(self) -> int:
        return max(0, self.outline.height - self.rows)

    @contextmanager
    def steady(self) -> Iterator[None]:
        """Keep what is looked at in its place while rows come and go: the current entry, else what the first row shows."""
        outline, entry, offset = self.outline, self.current, None
        row = outline.top(entry) - self.top if len(outline) else 0
        if not 0 <= row < self.rows:
            entry, within = outline.locate(self.top)
            row, offset = 0, outline.offset_at(entry, within) if within >= 0 else None
        yield
        if self.following:
            self.top = self.last_top
        elif len(outline):
            entry = min(entry, len(outline) - 1)
            top = outline.top(entry) if offset is None or not outline.is_open(entry) else outline.row_at(entry, offset)
            self.top = max(0, min(top - row, self.last_top))
        self.redraw()

    def on_resize(self) -> None:
        seen = len(self.outline) and 0 <= self.outline.top(self.current) - self.top < self.rows
        with self.steady():
            self.width, self.height = self.content_size
            self.outline.resize(self.width - 1)
        if seen and not self.following:
            self.reveal()
        self.go_on_wrapping()

    def reveal(self) -> None:
        """Bring the current entry into view, as much of it as there is room for."""
        if len(self.outline):
            first, end = self.outline.top(self.current), self.outline.top(self.current + 1)
            self.top = min(first, max(self.top, end - self.rows))
        self.redraw()

    def reveal_text(self, part: Part, offset: int) -> None:
        """Unfold what has this character, and bring that into view."""
        self.current = self.tape.step_at(offset) if part is self.tape.thought else len(self.outline) - 1
        self.following = False
        self.outline.fold(self.current, True)
        row = self.outline.row_at(self.current, offset)
        if not self.top <= row < self.top + self.rows:
            self.top = max(0, min(row - self.rows // 3, self.last_top))
        self.go_on_wrapping()
        self.redraw()

    # how it looks

    def redraw(self) -> None:
        self._cache.clear()
        self.refresh()

    def on_focus(self) -> None:
        self.redraw()

    def on_blur(self) -> None:
        self.redraw()

    def render_line(self, y: int) -> Strip:
        width = self.width
        if not width:  # just come into sight: on_resize follows
            return Strip([])
        if y == 0:
            self._base = self.rich_style
        if y == self.height - 1:
            line = self.footer(width)
        elif y < self.stat_rows:
            packed = list(pack(figures(self.tape), width, self.stat_rows))
            line = [Segment(packed[y] if y < len(packed) else "")]
        elif y == self.stat_rows:
            line = timeline(self.tape, width, self.current) or [Segment(nothing(self.tape, self.question, width), DIM)]
        elif y < self.body:
            line = []
        else:
            line = self._body_row(y - self.body, width)
        return Strip(line).adjust_cell_length(width).apply_style(self._base)

    def _body_row(self, y: int, width: int) -> list[Segment]:
        top, total = (self.top, self.outline.height) if self.panel is None else (self.panel.top, len(self.panel))
        if not 0 <= top + y < total:
            return []
        row, selected = self._outline_row(top + y, width - 1) if self.panel is None else self.panel.row(top + y, width - 1)
        strip = Strip(row).adjust_cell_length(width - 1)
        if selected:
            strip = Strip(Segment.apply_style(strip, post_style=REVERSE if self.has_focus else BOLD), width - 1)
        thumb = total > self.rows and self.rows * top // total <= y <= self.rows * (top + self.rows) // total
        return [*strip, Segment("▐" if thumb else " ", RULE)]

    def _outline_row(self, row: int, width: int) -> tuple[list[Segment], bool]:
        entry, within = self.outline.locate(row)
        selected = entry == self.current and within < 0
        key = entry, within
        if key not in self._cache:
            if len(self._cache) > MOST_CACHED:
                self._cache.clear()
            if within < 0:
                self._cache[key] = entry_row(self.outline, entry, width)
            else:
                part, token = self.outline.text(entry)[0], self.token
                here = token if part is self.tape.thought else None
                self._cache[key] = text_row(part, *self.outline.span(entry, within), self.shaded, self.search, here)
        return self._cache[key], selected

    def footer(self, width: int) -> list[Segment]:
        if self.note:
            return [Segment(fit([Field(self.note, 0)], width))]
        return [Segment(fit(self.keys_now(), width), DIM)]

    def keys_now(self) -> list[Field]:
        """The keys that matter now."""
        raise NotImplementedError
