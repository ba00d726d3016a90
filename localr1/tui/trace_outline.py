"""Outline: which rows the steps of a trace take, folded and unfolded. Text is wrapped when it is unfolded, a slice at a time."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from functools import cache

from rich.cells import cell_len

from localr1.trace.words import shown
from localr1.tui.trace_tape import Part, Tape

INDENT = "  │ "
TEXT_WIDTH = 100  # cells of a line that is read with ease
SLICE = 60_000  # characters wrapped at a time
TAB = 4

BREAK = re.compile(r"\S")


@cache
def _cells(character: str) -> int:
    if character == "\ufe0f":  # may widen the sign before it
        return 1
    return TAB if character == "\t" else cell_len(shown(character))


def next_row(text: str, start: int, end: int, width: int) -> int:
    """Where the row that begins at `start` ends and the next one begins."""
    chunk = text[start : min(end, start + width + 1)]
    newline = chunk.find("\n")
    line = chunk if newline < 0 else chunk[:newline]
    if line.isascii() and "\t" not in line:
        if len(line) <= width:
            return start + len(line) + (newline >= 0)
        space = line.rfind(" ")
        return start + (space + 1 if space > 0 and not line[:space].isspace() else width)
    used, at, better = 0, start, start
    limit = min(end, start + 4 * width)  # of characters that take no room
    while at < limit:
        character = text[at]
        if character == "\n":
            return at + 1
        used += _cells(character)
        if used > width and character != " ":
            wide = _cells(character) == 2
            return max(start + 1, at if wide else better if better > start else at)
        at += 1
        if character in " \t" or (_cells(character) == 2):
            better = at
    return at


class Wrap:
    """Where the rows of a text begin at a width. More text, or less, changes the last ones only; a long text is wrapped in slices."""

    def __init__(self, start: int, width: int) -> None:
        self.rows: list[int] = []
        self.end = start
        self._width = width

    def extend(self, text: str, end: int, budget: int = SLICE) -> None:
        """Go on to `end`, or for about `budget` characters."""
        del self.rows[bisect_left(self.rows, end) :]
        at = self.rows.pop() if self.rows else min(self.end, end)
        stop = min(end, max(self.end, at) + budget)
        while at < stop and self._width > 0:
            self.rows.append(at)
            at = next_row(text, at, end, self._width)
        self.end = at if self._width > 0 else end

    def row(self, i: int) -> tuple[int, int]:
        return self.rows[i], self.rows[i + 1] if i + 1 < len(self.rows) else self.end


class Outline:
    """A row for each step, the answer last; below it the rows of its text, if it is unfolded."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.width = 0
        self._folds: dict[int, bool] = {}  # as the person has set them; -1 is the answer
        self._wraps: dict[int, Wrap] = {}
        self._unwrapped: set[int] = set()  # open entries that are not wrapped to their end
        self._tops = [0]  # the first row of each entry, and of what comes after them

    def __len__(self) -> int:
        return len(self.tape.steps) + bool(self.tape.answer.length)

    @property
    def height(self) -> int:
        return self._tops[-1]

    def top(self, entry: int) -> int:
        return self._tops[entry]

    def is_step(self, entry: int) -> bool:
        return 0 <= entry < len(self.tape.steps)

    def text(self, entry: int) -> tuple[Part, int, int]:
        if self.is_step(entry):
            step = self.tape.steps[entry]
            return self.tape.thought, step.start, step.end
        return self.tape.answer, 0, self.tape.answer.length

    def is_open(self, entry: int) -> bool:
        """The step that is being thought is open, if it is not folded."""
        live = self.tape.ended is None and not self.tape.answer.length and entry == len(self.tape.steps) - 1
        return self._folds.get(self._key(entry), live)

    def fold(self, entry: int, is_open: bool) -> None:
        self._folds[self._key(entry)] = is_open
        self.update(entry)

    def fold_all(self, is_open: bool) -> None:
        self._folds = {self._key(entry): is_open for entry in range(len(self))}
        self.update()

    def resize(self, width: int) -> None:
        if width != self.width:
            self.width = width
            self._wraps.clear()
        self.update()

    def update(self, first: int = 0) -> None:
        """Entries from `first` on have changed."""
        first = max(0, min(first, len(self._tops) - 1))
        del self._tops[first + 1 :]
        budget = SLICE
        self._unwrapped = {entry for entry in self._unwrapped if entry < first}
        for entry in range(first, len(self)):
            height = 1
            if self.is_open(entry):
                wrap, end = self._wrap(entry), self._end(entry)
                if wrap.end != end:
                    before = wrap.end
                    wrap.extend(self.text(entry)[0].text, end, budget)
                    budget = max(0, budget - max(0, wrap.end - before))
                    if wrap.end < end:
                        self._unwrapped.add(entry)
                height += len(wrap.rows)
            self._tops.append(self._tops[-1] + height)

    @property
    def unwrapped(self) -> bool:
        """Something open is not wrapped to its end: `update` again."""
        return bool(self._unwrapped)

    def wrap_more(self) -> None:
        self.update(min(self._unwrapped))

    def locate(self, row: int) -> tuple[int, int]:
        """Entry, and row of its text; -1 is the row of the entry itself."""
        entry = min(max(0, bisect_right(self._tops, row) - 1), max(0, len(self) - 1))
        return entry, row - self._tops[entry] - 1

    def row_at(self, entry: int, offset: int) -> int:
        """The row that shows this character of the part, of an open entry."""
        wrap = self._wrap(entry)
        if wrap.end <= offset < self._end(entry):
            wrap.extend(self.text(entry)[0].text, self._end(entry), offset - wrap.end + SLICE)
            self.update(entry)
        return self._tops[entry] + 1 + max(0, bisect_right(wrap.rows, offset) - 1) if wrap.rows else self._tops[entry]

    def offset_at(self, entry: int, row: int) -> int:
        """The first character in a row of its text."""
        rows = self._wrap(entry).rows
        return rows[min(row, len(rows) - 1)] if rows and row >= 0 else self.text(entry)[1]

    def span(self, entry: int, row: int) -> tuple[int, int]:
        return self._wrap(entry).row(row)

    def _key(self, entry: int) -> int:
        return entry if self.is_step(entry) else -1

    def _wrap(self, entry: int) -> Wrap:
        key = self._key(entry)
        if key not in self._wraps:
            part, start, end = self.text(entry)
            begin = BREAK.search(part.text, start, end)
            self._wraps[key] = Wrap(begin.start() if begin else end, min(TEXT_WIDTH, self.width - len(INDENT)))
        return self._wraps[key]

    def _end(self, entry: int) -> int:
        """Without the blank lines it may end with."""
        part, start, end = self.text(entry)
        text, least = part.text, max(start, end - 1_000)
        while end > least and text[end - 1].isspace():
            end -= 1
        return end
