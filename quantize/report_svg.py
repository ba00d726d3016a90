"""The report's pictures, as SVG that takes its colours from a style sheet: size against loss, and errors by layer and kind of tensor."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from quantize.convert import Report
from quantize.evaluate import Evaluation
from quantize.loss import TensorLoss
from quantize.report import mean_relative_error, place
from quantize.report_text import percent, size, visible

# of the heat map's cells, from the smallest error to the largest: background and text
LIGHT = (
    "#fff3e6 #1b1b1b",
    "#fee0c2 #1b1b1b",
    "#fdc38d #1b1b1b",
    "#fda057 #1b1b1b",
    "#f27a1f #1b1b1b",
    "#c04a02 #ffffff",
    "#7f2704 #ffffff",
)
DARK = ("#2b2119 #e8e6e3", "#43290f #f0eeeb", "#5f3508 #ffffff", "#874607 #ffffff", "#b05a0a #ffffff", "#f0923a #14110e", "#ffcf9c #14110e")
STEPS = len(LIGHT)

# Every picture has its own, so that it can be taken out of the page.
STYLE = """
text { font-family: system-ui, sans-serif; font-size: 12px; fill: #1b1b1b; }
.soft { fill: #5a5a5a; } .axis { stroke: #8a8a8a; } .grid { stroke: #e4e4e4; } .lead { stroke: #b5b5b5; } .axis, .lead { fill: none; }
.ours { fill: #c04a02; } .other { fill: #2a6f97; } .hollow { fill: #ffffff; stroke: #1b1b1b; } .exact { fill: #f4f4f4; stroke: #cfcfcf; }
"""
STYLE_DARK = """
text { fill: #e8e6e3; }
.soft { fill: #a9a6a1; } .axis { stroke: #77797c; } .grid { stroke: #2a2d30; } .lead { stroke: #55585b; }
.ours { fill: #f0923a; } .other { fill: #76b8de; } .hollow { fill: #16181a; stroke: #e8e6e3; } .exact { fill: #1f2225; stroke: #44474a; }
"""

WIDTH, LEFT, RIGHT, TOP, HEIGHT = 900, 66, 40, 40, 250  # of the plot; HEIGHT: between the axes
LABEL_SPACING = 14  # of names below the axis
LETTER = 7.2  # width of an average one
LEGEND_WIDTH = 566.0  # of the heat map

# the parts of a layer in the order in which they are computed
_PARTS = ("q", "k", "kv", "v", "embed_q", "unembed_out", "o", "output", "gate", "up", "down")
_PART = re.compile(rf"(?:^|[._])({'|'.join(sorted(_PARTS, key=len, reverse=True))})(?=[._]|$)")


@dataclass(frozen=True, slots=True)
class Point:
    """A mix of the same model: bytes of its weights, and its loss, as the plot has it, where that is known."""

    name: str
    nbytes: int
    loss: float | None = None


# ------------------------------------------------------------------------------------------------------- size against loss


def size_plot(report: Report, evaluation: Evaluation | str, points: Sequence[Point]) -> str:
    """Up: the mean KL divergence where there is an evaluation, else the mean relative error; right: bytes."""
    nbytes = sum(tensor.nbytes for tensor in report.losses)
    measured = not isinstance(evaluation, str)
    loss = mean_relative_error(report.losses) if isinstance(evaluation, str) else evaluation.comparison.kl_mean
    if not math.isfinite(loss):
        loss = 0.0
    points = [p for p in points if p.nbytes <= max(nbytes, report.source_bytes)]
    axes = _Axes([nbytes, report.source_bytes, *(p.nbytes for p in points)], [loss, *(p.loss for p in points if p.loss is not None)])
    shown = f"KL {loss:.3g}" if measured else f"{percent(loss)} error"
    parts = [*axes.grid(percent if not measured else lambda value: f"{value:.3g}")]
    unknown = sorted((p for p in points if p.loss is None), key=lambda p: p.nbytes)
    parts += _names_below(axes, unknown)
    for p in points:
        if p.loss is not None:
            x, y = axes.x(p.nbytes), axes.y(p.loss)
            parts.append(
                f'<path class="other" d="M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z"><title>{_text(p.name)}: {size(p.nbytes)}</title></path>'
            )
            parts.append(_label(x + 9, y + 4, p.name))
    sx, sy, x, y = axes.x(report.source_bytes), axes.y(0), axes.x(nbytes), axes.y(loss)
    parts.append(f'<circle class="hollow" cx="{sx:.1f}" cy="{sy:.1f}" r="5"/>' + _label(sx, sy - 12, "source", "middle"))
    near = abs(x - sx) < 200 and abs(y - sy) < 20
    parts.append(f'<circle class="ours" cx="{x:.1f}" cy="{y:.1f}" r="6"/>')
    anchor = "start" if x < WIDTH / 2 else "end"
    parts.append(_label(x, y - (30 if near else 13), f"{report.format}: {size(nbytes)}, {shown}", anchor))
    below = 34 + (12 + LETTER * max(len(p.name) for p in unknown) + 26 if unknown else 0)
    return _svg(WIDTH, TOP + HEIGHT + below, "size against loss", parts)


class _Axes:
    """Bytes to the right, on a logarithmic scale; loss upwards from 0."""

    def __init__(self, sizes: Sequence[int], losses: Sequence[float]) -> None:
        self._low, self._high = math.log(min(sizes) / 1.12), math.log(max(sizes) * 1.12)
        top = max(losses)
        self._step = _round_step(top / 4) if top > 0 else 0.25
        self._top = self._step * (math.floor(top / self._step) + 1)

    def x(self, nbytes: float) -> float:
        return LEFT + (math.log(nbytes) - self._low) / (self._high - self._low) * (WIDTH - LEFT - RIGHT)

    def y(self, loss: float) -> float:
        return TOP + HEIGHT * (1 - loss / self._top)

    def grid(self, shown: object) -> Iterator[str]:
        assert callable(shown)
        left, right, bottom = LEFT, WIDTH - RIGHT, TOP + HEIGHT
        for i in range(round(self._top / self._step) + 1):
            y = self.y(i * self._step)
            yield f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
            yield _label(left - 8, y + 4, shown(i * self._step), "end", "soft")
        for nbytes in self._round_sizes():
            x = self.x(nbytes)
            yield f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{bottom}"/>'
            yield _label(x, bottom + 20, _round_size(nbytes), "middle", "soft")
        yield f'<path class="axis" d="M{left} {TOP}V{bottom}H{right}"/>'

    def _round_sizes(self) -> Iterator[float]:
        """1, 2 and 5 times powers of ten; where these are fewer than three, every tenth of the range."""
        low, high = math.exp(self._low), math.exp(self._high)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [digit * 10.0**power for power in powers for digit in (1, 1.5, 2, 3, 5, 7) if low <= digit * 10.0**power <= high]
        if len(found) > 7:
            found = [nbytes for nbytes in found if str(nbytes)[0] in "125" and not f"{nbytes:e}".startswith("1.5")]
        yield from found


def _names_below(axes: _Axes, points: Sequence[Point]) -> Iterator[str]:
    """Names in a row, each led to from its place on the axis: sizes of mixes lie close together."""
    bottom, row = TOP + HEIGHT, TOP + HEIGHT + 60
    at = [axes.x(point.nbytes) for point in points]
    for i in range(1, len(at)):
        at[i] = max(at[i], at[i - 1] + LABEL_SPACING)
    limit = WIDTH - RIGHT / 2
    for i in reversed(range(len(at))):  # what was pushed out on the right comes back
        at[i] = min(at[i], limit)
        limit = at[i] - LABEL_SPACING
    for point, x in zip(points, at, strict=True):
        begin = axes.x(point.nbytes)
        # interrupted where the axis has its own figures
        yield f'<path class="lead" d="M{begin:.1f} {bottom - 4}v8M{begin:.1f} {bottom + 26}v4L{x:.1f} {row - 6}"/>'
        label = f"<title>{_text(point.name)}: {size(point.nbytes)}</title>{_text(point.name)}"
        yield f'<text class="soft" text-anchor="end" transform="translate({x + 4:.1f} {row}) rotate(-90)">{label}</text>'


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(digit * power for digit in (1, 2, 2.5, 5, 10) if digit * power >= least)


def _round_size(nbytes: float) -> str:
    return f"{nbytes / 1e9:g} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:g} MB"


# ------------------------------------------------------------------------------------------------------- errors by layer


def heat_map(tensors: Sequence[TensorLoss]) -> str:
    """Matrices: a row for each layer, a column for each kind; a row of their own for those outside the layers."""
    cells: dict[tuple[int | None, str], TensorLoss] = {}
    for tensor in tensors:
        where = place(tensor.name)
        if len(tensor.shape) > 1 and (where not in cells or cells[where].relative_error < tensor.relative_error):
            cells[where] = tensor
    layers = sorted({layer for layer, _ in cells if layer is not None})
    kinds = sorted({kind for layer, kind in cells if layer is not None}, key=_order)
    outside = sorted((kind for layer, kind in cells if layer is None), key=lambda kind: ("emb" not in kind, kind))
    most = max((cell.relative_error for cell in cells.values()), default=0.0)
    high, left, top = 22, 44, 84
    below = top + len(layers) * high + 40
    parts = list(_legend(most))
    if layers:
        parts.append(_label(left - 8, top - 8, "layer", "end", "soft"))
    for row, layer in enumerate(layers):
        parts.append(_label(left - 8, top + row * high + 15, str(layer), "end", "soft"))
    ends = [LEGEND_WIDTH]
    for columns, rows, first in ((kinds, layers, top), (outside, [None], below)):
        x = float(left)
        for kind in columns:
            column = {row: cells[layer, kind] for row, layer in enumerate(rows) if (layer, kind) in cells}
            wide = LETTER * max(map(len, [*_lines(kind), *map(_said, column.values())])) + 14
            parts += _heading(x + wide / 2, first - 8, kind)
            parts += [_cell(x, first + row * high, wide, high, cell, most) for row, cell in column.items()]
            x += wide
        ends.append(x)
    return _svg(max(ends), below + high + 6, "relative error by layer and kind of tensor", parts)


def _order(kind: str) -> tuple[bool, int, str]:
    part = _PART.search(kind)
    return "attn" not in kind, _PARTS.index(part[1]) if part else len(_PARTS), kind


def _shade(error: float, most: float) -> int:
    return min(STEPS - 1, int(error / most * STEPS))


def _cell(x: float, y: float, wide: float, high: float, tensor: TensorLoss, most: float) -> str:
    back, front = (
        ("exact", "soft")
        if tensor.relative_error == 0
        else (f"h{_shade(tensor.relative_error, most)}", f"t{_shade(tensor.relative_error, most)}")
    )
    title = f"{_text(tensor.name)}: {_text(tensor.format)}, relative error {percent(tensor.relative_error)}"
    return (
        f'<g><title>{title}</title><rect class="{back}" x="{x + 1:.1f}" y="{y + 1:.1f}" width="{wide - 2:.1f}" height="{high - 2}" rx="2"/>'
        + _label(x + wide / 2, y + 15, _said(tensor), "middle", front)
        + "</g>"
    )


def _said(tensor: TensorLoss) -> str:
    return f"{tensor.format} {100 * tensor.relative_error:.2g}%" if tensor.relative_error else f"{tensor.format} 0"


def _legend(most: float) -> Iterator[str]:
    if most == 0:
        return
    yield _label(44, 22, "relative error up to")
    for i in range(STEPS):
        x = 170 + i * 56
        yield f'<rect class="h{i}" x="{x}" y="7" width="54" height="21" rx="2"/>'
        yield _label(x + 27, 22, f"{100 * most * (i + 1) / STEPS:.2g}%", "middle", f"t{i}")


def _heading(x: float, y: float, kind: str) -> Iterator[str]:
    lines = _lines(kind)
    for i, line in enumerate(lines):
        yield _label(x, y - 14 * (len(lines) - 1 - i), line, "middle")


def _lines(kind: str) -> list[str]:
    """A long name in two lines."""
    if len(kind) <= 14 or "." not in kind:
        return [kind]
    first, last = kind.rsplit(".", 1)
    return [f"{first}.", last]


# ------------------------------------------------------------------------------------------------------- SVG


def _label(x: float, y: float, value: str, anchor: str = "start", kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{_text(value)}</text>'


def _svg(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    box = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" aria-label="{label}">\n<style>{_style()}</style>\n'
        + "\n".join(parts)
        + "\n</svg>"
    )


def _style() -> str:
    light, dark = STYLE + _shades(LIGHT), STYLE_DARK + _shades(DARK)
    return f"{light}@media (prefers-color-scheme: dark) {{{dark}}}\n"


def _shades(colours: Sequence[str]) -> str:
    pairs = [pair.split() for pair in colours]
    return "".join(f".h{i} {{ fill: {back}; }} text.t{i} {{ fill: {front}; }}\n" for i, (back, front) in enumerate(pairs))


def _text(value: str) -> str:
    return html.escape(visible(value))
