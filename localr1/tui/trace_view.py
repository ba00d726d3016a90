"""TraceView: what a person does with a trace: moves, folds, searches, copies, looks at what the model was not sure of, steers."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

from rich.segment import Segment
from textual import events
from textual.message import Message
from textual.reactive import reactive

from localr1.keys import STEERING, TRACE, Keymap
from localr1.trace.words import count, shown
from localr1.tui.status import Field
from localr1.tui.trace_lines import DIM, REVERSE, SHADES, clean, step_in_cell
from localr1.tui.trace_panels import Keys, Unsure
from localr1.tui.trace_rows import TraceRows
from localr1.tui.trace_tape import Search

Action = Literal["answer_now", "longer", "edit", "reroll", "reroll_answer", "alternative"]

WHEEL = 3
_STEERING: dict[str, Action] = {
    "trace_answer": "answer_now", "trace_longer": "longer", "trace_edit": "edit", "trace_reroll": "reroll",
    "trace_reroll_answer": "reroll_answer",
}  # fmt: skip


class TraceView(TraceRows, can_focus=True):
    """`can_steer`: the keys for it post Steer. `hint`: a key of the app around it. Keys that mean nothing here go on to the app.

    Where the app has taken Escape, PageUp and PageDown for itself, it calls `escape` and `page`.
    """

    can_steer: reactive[bool] = reactive(False)

    class Steer(Message):
        """The reply is to go on in another way: from `token`, counted among all tokens of the reply; `choice`: of its alternatives."""

        def __init__(self, view: TraceView, action: Action, token: int | None = None, choice: int | None = None) -> None:
            super().__init__()
            self.view, self.action, self.token, self.choice = view, action, token, choice

        @property
        def control(self) -> TraceView:
            return self.view

    class Moved(Message):
        """Another entry is the current one: a step, or the answer behind the last step."""

        def __init__(self, view: TraceView, entry: int) -> None:
            super().__init__()
            self.view, self.entry = view, entry

        @property
        def control(self) -> TraceView:
            return self.view

    def __init__(self, hint: str = "", keymap: Keymap | None = None, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._hint = hint
        self._typing = False  # the words to search for
        self.keymap = keymap or Keymap()
        self._does: dict[str, Callable[[], object]] = {
            "pageup": lambda: self.page(-1), "pagedown": lambda: self.page(1), "trace_up": lambda: self.move(-1),
            "trace_down": lambda: self.move(1), "trace_first": lambda: self.end(-1), "trace_last": lambda: self.end(1),
            "trace_open": self._enter, "trace_fold": self._fold, "trace_fold_all": self._fold_all, "trace_next": lambda: self._next(1),
            "trace_previous": lambda: self._next(-1), "trace_shade": self._shade, "trace_unsure": self._unsure,
            "trace_search": self._ask_words, "trace_copy": self._copy_step, "trace_copy_all": self._copy_all, "trace_help": self._help,
        }  # fmt: skip

    # keys and mouse

    def on_key(self, event: events.Key) -> None:
        key = event.character if event.is_printable and event.character else event.key
        if self._pressed(key):
            event.stop()
            event.prevent_default()

    def _pressed(self, key: str) -> bool:
        """Whether the key means something here."""
        self.note = ""
        self.refresh()
        if key == "escape":
            return self.escape()
        if self._typing:
            return self._type(key)
        meant = self.keymap.meant(key, TRACE, STEERING) or key
        if isinstance(self.panel, Keys):
            self.panel.top += self.rows
            self.panel = self.panel if self.panel.top < len(self.panel) else None
        elif isinstance(self.panel, Unsure) and key.isdecimal():
            self._take(int(key) - 1)
        elif meant in _STEERING:
            self._steer(_STEERING[meant])
        elif meant in self._does:
            self._does[meant]()
        else:
            return False
        return True

    def escape(self) -> bool:
        """End what is going on here; False: there is nothing."""
        open_here = self._typing or self.panel is not None or self.search is not None or self.token is not None
        if self.panel is not None:
            self.panel = None
        elif self._typing or self.search is not None:
            self._typing, self.search = False, None
        else:
            self.token = None
        self.redraw()
        return open_here

    def on_click(self, event: events.Click) -> None:
        place = event.get_content_offset(self)
        if place is None:
            return
        y = place.y - self.body
        if place.y == self.stat_rows and self.panel is None and self.tape.steps:
            self.select(step_in_cell(self.tape, self.width, place.x))
        elif not 0 <= y < self.rows:
            return
        elif isinstance(self.panel, Unsure):
            self.panel.select(self.panel.top + y)
        elif self.panel is None and self.top + y < self.outline.height:
            if place.x == self.width - 1 and self.last_top:
                self._scroll(y * self.outline.height // self.rows - self.rows // 2 - self.top)
                return
            entry, within = self.outline.locate(self.top + y)
            self.select(entry)
            if within < 0:
                self._fold()
        self.refresh()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self._wheel(WHEEL)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self._wheel(-WHEEL)

    def _wheel(self, by: int) -> None:
        if self.panel is None:
            self._scroll(by)
        elif isinstance(self.panel, Unsure):
            self.move(1 if by > 0 else -1)

    # moving

    def select(self, entry: int) -> None:
        last = len(self.outline) - 1
        self.current = max(0, min(entry, last))
        self.following = self.tape.ended is None and self.current == last
        self.token = None
        self.reveal()
        self.post_message(self.Moved(self, self.current))

    def move(self, by: int) -> None:
        if isinstance(self.panel, Unsure):
            self.panel.select(self.panel.selected + by)
            self.panel.top = max(self.panel.selected - self.rows + 1, min(self.panel.top, self.panel.selected))
            self.refresh()
        else:
            self.select(self.current + by)

    def end(self, by: int) -> None:
        if self.panel is not None:
            self.move(by * len(self.panel))
            return
        self.select(len(self.outline) - 1 if by > 0 else 0)
        self.top = self.last_top if by > 0 else 0

    def page(self, by: int) -> None:
        """The current entry comes along, when it would be left behind."""
        if self.panel is not None:
            self.move(by * self.rows)
            return
        before = self.top
        self._scroll(by * max(1, self.rows - 1))
        if self.top == before:
            self.end(by)
        elif len(self.outline) and not self.following:
            first, _ = self.outline.locate(self.top)
            last, _ = self.outline.locate(self.top + self.rows - 1)
            self.current = max(first, min(self.current, last))
            self.post_message(self.Moved(self, self.current))

    def _scroll(self, by: int) -> None:
        self.top = max(0, min(self.top + by, self.last_top))
        self.following = self.tape.ended is None and self.top == self.last_top
        self.redraw()

    def _next(self, by: int) -> None:
        """The next match, else the next backtrack or check."""
        if self.search is not None:
            self._go(by)
            return
        notable = self.tape.notable if self.tape.steps else []
        i = bisect_right(notable, self.current) if by > 0 else bisect_left(notable, self.current) - 1
        if 0 <= i < len(notable):
            self.select(notable[i])
        else:
            self.note = f"No backtrack or check {'after' if by > 0 else 'before'} this"

    # folding and shading

    def _enter(self) -> None:
        if isinstance(self.panel, Unsure):
            self._show_unsure(self.panel)
        elif self.search is not None:
            self._go(1)
        else:
            self._fold()

    def _fold(self) -> None:
        if len(self.outline) and self.panel is None:
            with self.steady():
                self.outline.fold(self.current, not self.outline.is_open(self.current))
            self.reveal()
            self.go_on_wrapping()

    def _fold_all(self) -> None:
        entries = range(len(self.outline))
        with self.steady():
            self.outline.fold_all(not all(self.outline.is_open(entry) for entry in entries))
        self.go_on_wrapping()

    def _shade(self) -> None:
        self.shaded = not self.shaded
        limits = [f"{style} below {least:.0%}" for (least, _, _), (_, _, style) in pairwise(SHADES)]
        self.note = f"Shaded by likelihood: {', '.join(limits)}" if self.shaded else "No shading"
        self.redraw()

    # panels

    def _help(self) -> None:
        self.panel = Keys(self.keymap, self.can_steer)

    def _unsure(self) -> None:
        self.panel = None if self.panel is not None else Unsure(self.tape)

    def _show_unsure(self, panel: Unsure) -> None:
        """The token in its text; on an alternative: go on from that."""
        if panel.token is None:
            return
        if panel.alternative >= 0:
            self._take(panel.alternative)
            return
        self.panel = None
        self.reveal_text(self.tape.thought, self.tape.thought.starts[panel.token])
        self.token = panel.token
        self.post_message(self.Moved(self, self.current))

    def _take(self, choice: int) -> None:
        panel = self.panel
        if not isinstance(panel, Unsure) or panel.token is None:
            return
        if not 0 <= choice < len(panel.alternatives):
            self.note = f"No alternative {choice + 1} is known here"
        elif not self.can_steer:
            self.note = "This reply cannot be steered"
        else:
            self.panel = None
            self.post_message(self.Steer(self, "alternative", self.tape.thought.places[panel.token], choice))

    # search

    def _ask_words(self) -> None:
        self.panel, self._typing, self.search = None, True, Search(self.tape, "")

    def _type(self, key: str) -> bool:
        words = self.search.words if self.search is not None else ""
        if key == "enter":
            self._typing = False
            if not words:
                self.search = None
            elif len(self.outline) and self.search is not None:
                part, start, _ = self.outline.text(self.current)
                self.search.begin(part, start)
                self._go(1)
        elif key == "backspace":
            self.search = Search(self.tape, words[:-1])
        elif len(key) == 1:
            self.search = Search(self.tape, words + key)
        else:
            return False
        self.redraw()
        return True

    def on_paste(self, event: events.Paste) -> None:
        if self._typing and self.search is not None:
            event.stop()
            self.search = Search(self.tape, self.search.words + " ".join(event.text.split()))
            self.redraw()

    def _go(self, by: int) -> None:
        place = self.search.go(by) if self.search is not None else None
        if place is not None:
            self.reveal_text(*place)
            self.post_message(self.Moved(self, self.current))

    # copying and steering

    def _copy_step(self) -> None:
        if len(self.outline):
            part, start, end = self.outline.text(self.current)
            self._copy(part.text[start:end], "the step" if self.outline.is_step(self.current) else "the answer")

    def _copy_all(self) -> None:
        self._copy("\n\n".join(filter(None, [self.tape.thought.text.strip(), self.tape.answer.text.strip()])), "thought and answer")

    def _copy(self, text: str, what: str) -> None:
        self.app.copy_to_clipboard(shown(text))  # whoever pastes it would have its control characters obeyed
        self.note = f"Copied {what}: {count(len(text), 'character')}"

    def _steer(self, action: Action) -> None:
        token = None
        if action in ("edit", "reroll"):
            thought, step = self.tape.thought, self.current
            if self.outline.is_step(step) and thought.places:
                first = self.tape.steps[step].first_token if self.token is None else self.token
                token = thought.places[min(first, len(thought.places) - 1)]
            elif action == "reroll":
                action = "reroll_answer"
        if self.can_steer:
            self.post_message(self.Steer(self, action, token))
        else:
            self.note = "This reply cannot be steered"

    # footer

    def footer(self, width: int) -> list[Segment]:
        if self._typing and self.search is not None:
            found = f"   {count(len(self.search), 'match').replace('matchs', 'matches')} · Enter goes there · Esc ends"
            return [Segment("/" + clean(self.search.words)), Segment(" ", REVERSE), Segment(found, DIM)]
        return super().footer(width)

    def keys_now(self) -> list[Field]:
        if isinstance(self.panel, Keys):
            return [Field("Any key goes on" if self.panel.top + self.rows < len(self.panel) else "Any key closes", 0)]
        if isinstance(self.panel, Unsure):
            return _fields("Enter shows it", "1-9 take another" if self.can_steer else "", "Esc closes")
        if self.search is not None:
            at = f"{self.search.current + 1} of {len(self.search)}" if len(self.search) else "not found"
            return _fields(f"/{clean(self.search.words)}  {at}", "Esc ends", "n N next, previous")
        steering: tuple[str, ...] = ()
        if self.can_steer and self.tape.ended is None:
            steering = ("a answer now", "w think longer", "e edit", "r re-roll")
        elif self.can_steer:
            steering = ("w think longer", "e edit", "r re-roll", "R answer anew")
        marks = "n N backtracks, checks" if self.tape.notable else ""
        return _fields("? keys", self._hint, *steering, "Enter unfold", marks, "u unsure", "c shade", "/ search", "y copy")


def _fields(*texts: str) -> list[Field]:
    """The first are kept longest."""
    return [Field(text, rank) for rank, text in enumerate(texts) if text]
