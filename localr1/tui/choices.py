"""The list over the input that completes what is typed."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.widgets import Static

from localr1.completion import Choice

_ROWS = 8


class Choices(Static):
    """Shows the part of a list that the chosen one is in. The input has the keys."""

    def __init__(self) -> None:
        super().__init__()
        self.display = False

    def show(self, choices: Sequence[Choice], chosen: int) -> None:
        self.display = bool(choices)
        if not choices:
            return
        first = max(0, min(chosen - _ROWS // 2, len(choices) - _ROWS))
        rows = choices[first : first + _ROWS]
        width = max(len(choice.shown) for choice in rows)
        lines = [_line(choice, width, first + i == chosen) for i, choice in enumerate(rows)]
        if len(choices) > _ROWS:
            lines.append(Content.styled(f"  {chosen + 1} of {len(choices)}", "dim"))
        self.update(Content("\n").join(lines))


def _line(choice: Choice, width: int, is_chosen: bool) -> Content:
    mark = "❯ " if is_chosen else "  "
    return Content.assemble((f"{mark}{choice.shown:{width}}", "bold" if is_chosen else ""), (f"  {choice.help}", "dim"))
