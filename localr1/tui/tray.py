"""The tray: what goes with the next question, a chip each, and what it costs, in a line over the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from textual import events
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from localr1.attachments import Attachment, size_text
from localr1.counting import tokens_text

_GAP = "   "
_NAME = 32  # cells of a name that are shown


@dataclass(frozen=True, slots=True)
class Chip:
    attachment: Attachment
    tokens: int
    is_estimate: bool

    def __str__(self) -> str:
        name = self.attachment.name
        if cell_len(name) > _NAME:
            name = set_cell_size(name, _NAME - 1).rstrip() + "…"
        return f"{name} {size_text(self.attachment.nbytes)} · {tokens_text(self.tokens, self.is_estimate)} ×"


class Tray(Static):
    class Removed(Message):
        """The cross of the chip at `index` was clicked."""

        def __init__(self, index: int) -> None:
            super().__init__()
            self.index = index

    def __init__(self) -> None:
        super().__init__()
        self.display = False
        self._chips: tuple[Chip, ...] = ()
        self._warning = ""
        self._crosses: dict[int, int] = {}  # column -> chip

    def show(self, chips: Sequence[Chip], warning: str) -> None:
        """`warning`: a line of its own; "" for none."""
        if (tuple(chips), warning) != (self._chips, self._warning):
            self._chips, self._warning = tuple(chips), warning
            self.display = bool(chips)
            self._draw()

    def on_resize(self) -> None:
        self._draw()

    def on_click(self, event: events.Click) -> None:
        place = event.get_content_offset(self)
        index = self._crosses.get(place.x) if place is not None and place.y == 0 else None
        if index is not None:
            self.post_message(self.Removed(index))

    def _draw(self) -> None:
        line, self._crosses = fit(self._chips, self.content_size.width or 80)
        content = Content.styled(line, "bold")
        self.update(Content.assemble(content, "\n", (self._warning, "$error")) if self._warning else content)


def fit(chips: Sequence[Chip], width: int) -> tuple[str, dict[int, int]]:
    """One line of at most `width` cells, as many chips as it holds and the number of the others; where the crosses are, by chip."""
    total = f"{tokens_text(sum(c.tokens for c in chips), any(c.is_estimate for c in chips))} in {len(chips)} files"
    for shown in range(len(chips), -1, -1):
        left = len(chips) - shown
        parts = [*map(str, chips[:shown]), *([f"+{left} more"] if left else []), *([total] if len(chips) > 1 else [])]
        line = _GAP.join(parts)
        if cell_len(line) <= width:
            break
    else:
        shown, line = 0, set_cell_size(line, width)
    crosses, at = dict[int, int](), 0
    for i, chip in enumerate(chips[:shown]):
        at += cell_len(str(chip))
        crosses[at - 1] = i
        at += len(_GAP)
    return line, crosses
