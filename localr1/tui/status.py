"""The status bar: what is running, how full the context is, how fast it goes; the less important goes first when space is short."""

from __future__ import annotations

from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Static

from backends.base import Backend
from localr1.text import printable

HINT_S = 4.0
METER_CELLS = 8
_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
_SEPARATOR = " · "
_ENGINES = {"gguf": "llama.cpp", "mlx": "MLX"}


@dataclass(frozen=True, slots=True)
class Field:
    """A piece of the bar; of those that do not fit together, the one of the highest `rank` goes first. `tight`: the next one is its own."""

    text: str
    rank: int
    right: bool = False
    tight: bool = False


class StatusBar(Static):
    """Shows fields; a hint takes their place for some seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._fields: list[Field] = []
        self._hint = ""
        self._timer: Timer | None = None
        self._drawn = ""

    def show(self, fields: list[Field]) -> None:
        self._fields = fields
        self._draw()

    def hint(self, text: str) -> None:
        self._hint = _clean(text)
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(HINT_S, self._drop_hint)
        self._draw()

    def _drop_hint(self) -> None:
        self._hint = ""
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def _draw(self) -> None:
        fields = [Field(self._hint, 0)] if self._hint else self._fields
        line = fit(fields, self.content_size.width)
        if line != self._drawn:
            self._drawn = line
            self.set_class(bool(self._hint), "hint")
            self.update(Content(line), layout=False)


def model_fields(backend: Backend, context_tokens: int, tokens_per_s: float | None) -> list[Field]:
    """What is loaded and how it goes."""
    info = backend.info
    fields = [
        Field(_clean(info.name), 0),
        Field(f"from {_clean(info.base)}" if info.base else "", 6),
        Field(_ENGINES.get(backend.name, backend.name), 5),
        Field(_clean(info.format), 3),
        Field(meter(context_tokens / info.context_length), 4, right=True, tight=True),
        Field(f"context {context_tokens:,} / {info.context_length:,}", 1, right=True),
        Field("" if tokens_per_s is None else f"{tokens_per_s:.1f} tokens/s", 2, right=True),
    ]
    return [f for f in fields if f.text]


def fit(fields: list[Field], width: int) -> str:
    """One line of at most `width` cells: the fields on the left, a gap, the fields on the right."""
    kept = list(fields)
    while kept:
        left, right = (_joined([f for f in kept if f.right is side]) for side in (False, True))
        gap = width - cell_len(left) - cell_len(right)
        if gap >= (2 if right else 0):
            return left + " " * gap + right if right else left
        if len(kept) == 1:
            return set_cell_size(left or right, max(0, width - 1)).rstrip() + "…" if width > 0 else ""
        kept.remove(max(kept, key=lambda f: f.rank))
    return ""


def meter(share: float) -> str:
    """A bar of so much of its cells."""
    eighths = round(8 * METER_CELLS * min(1.0, max(0.0, share)))
    full, rest = divmod(eighths, 8)
    return f"▕{('█' * full + _EIGHTHS[rest]):<{METER_CELLS}}▏"


def _joined(fields: list[Field]) -> str:
    return "".join(f.text + (" " if f.tight else _SEPARATOR) for f in fields).removesuffix(_SEPARATOR)


def _clean(text: str) -> str:
    """One line; names come out of model files, whoever wrote them."""
    return " ".join(printable(text).split())
