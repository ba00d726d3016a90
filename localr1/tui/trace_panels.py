"""What takes the place of the outline when asked for: the least certain tokens with what else was likely there, and the keys."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style

from localr1.keys import STEERING, TRACE, Keymap
from localr1.trace.steps import MARKS
from localr1.tui.trace_lines import BOLD, COLOURS, DIM, MARK_OF_ANSWER, PLAIN, SHADES, clean, likely
from localr1.tui.trace_tape import UNSURE, Tape

LEAST = 50  # tokens listed
CONTEXT = 200  # characters read on either side of one


class Keys:
    """All keys, the marks, and the shades."""

    def __init__(self, keymap: Keymap, can_steer: bool) -> None:
        self.top = 0
        listed = keymap.rows(TRACE, *([STEERING] if can_steer else []))
        width = max(len(keys) for keys, _ in listed) + 1
        self._rows = [[Segment(f" {keys:<{width}}", BOLD), Segment(what)] for keys, what in listed]
        marks = [Segment(f"{MARKS[kind]} {kind}  ", Style(color=colour)) for kind, colour in COLOURS.items()]
        names = [part for _, style, name in SHADES for part in (Segment(name, style), Segment("  "))]
        self._rows.append([Segment(f" {'marks':<{width}}", BOLD), *marks, Segment(f"{MARK_OF_ANSWER} answer")])
        least = ", ".join(f"{least:.0%}" for least, _, _ in SHADES[:-1])
        self._rows.append([Segment(f" {'shading':<{width}}", BOLD), *names, Segment(f"from {least}, below", DIM)])

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, i: int, width: int) -> tuple[list[Segment], bool]:
        return self._rows[i], False


class Unsure:
    """A row for each token, below the selected one a row for each alternative. `alternative` is -1 on the row of the token itself."""

    def __init__(self, tape: Tape) -> None:
        self.tokens = tape.least_certain(LEAST)
        self.at, self.alternative, self.top = 0, -1, 0
        self._part = tape.thought
        self._known = tape.counted

    @property
    def token(self) -> int | None:
        return self.tokens[self.at] if self.tokens else None

    @property
    def alternatives(self) -> tuple[tuple[int, str, float], ...]:
        return self._part.tokens[self.tokens[self.at]].alternatives if self.tokens else ()

    def __len__(self) -> int:
        return max(1, len(self.tokens) + len(self.alternatives))

    @property
    def selected(self) -> int:
        return self.at + 1 + self.alternative

    def select(self, row: int) -> None:
        """Of the rows as they are now."""
        if not self.tokens:
            return
        row = max(0, min(row, len(self) - 1))
        if self.at < row <= self.at + len(self.alternatives):
            self.alternative = row - self.at - 1
        else:
            self.at = row if row <= self.at else row - len(self.alternatives)
            self.alternative = -1

    def row(self, i: int, width: int) -> tuple[list[Segment], bool]:
        """And whether it is the selected one."""
        if not self.tokens:
            why = f"Every token was at least {UNSURE:.0%} likely" if self._known else "How likely its tokens were is not known"
            return [Segment(f" {why}", DIM)], False
        others = len(self.alternatives)
        if self.at < i <= self.at + others:
            _, text, logprob = self.alternatives[i - self.at - 1]
            return [Segment(f"{i - self.at:>9}  {likely(logprob):>4}  "), Segment(quoted(text), BOLD)], i == self.selected
        return self._token_row(i if i <= self.at else i - others, width), i == self.selected

    def _token_row(self, i: int, width: int) -> list[Segment]:
        token = self._part.tokens[self.tokens[i]]
        start, end = self._part.span(self.tokens[i])
        text = self._part.text
        tail = ""
        if token.alternatives and i != self.at and width >= 60:
            _, other, logprob = token.alternatives[0]
            tail = f"  or {_cut(quoted(other), 16)} {likely(logprob)}"
        shown = f"[{_cut(clean(text[start:end]), width // 3)}]"
        left = max(0, (width - 8) * 2 // 5)
        before = clean(text[max(0, start - CONTEXT) : start])
        while cell_len(before) > left:
            before = before[max(1, (cell_len(before) - left) // 2) :]
        before = " " * (left - cell_len(before)) + before  # so that the tokens stand below one another
        after = clean(text[end : end + CONTEXT])
        head = f"{likely(token.logprob):>5}  "
        return [
            Segment(head, BOLD),
            Segment(before, DIM),
            Segment(shown, BOLD),
            Segment(set_cell_size(after, max(0, width - 8 - left - cell_len(shown) - cell_len(tail))), DIM),
            Segment(tail, PLAIN),
        ]


def quoted(text: str) -> str:
    return f'"{clean(text.replace(chr(10), "⏎"))}"'


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else set_cell_size(text, max(0, width - 1)) + "…"
