"""Themes. Every screen is written in the terminal's own sixteen colours, and looks right on any background; a theme that brings its own
puts them in their place as the last thing before a line is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from rich.color import Color as RichColor
from rich.color_triplet import ColorTriplet
from rich.segment import Segment
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from textual.color import Color
from textual.filter import LineFilter, NoColor
from textual.theme import BUILTIN_THEMES

THEME = replace(BUILTIN_THEMES["ansi-dark"], name="terminal", primary="ansi_bright_blue", accent="ansi_bright_blue")
_DIM = 0.65  # of a dim colour's way from its background is left


@dataclass(frozen=True, slots=True)
class Palette:
    """`back`, `text`, then black, red, green, yellow, blue, magenta, cyan, white, and the same bright. `least`: contrast of text, as WCAG
    counts it; what has less is taken towards black or white."""

    back: str
    text: str
    normal: tuple[str, ...]
    bright: tuple[str, ...]
    least: float

    @property
    def colours(self) -> TerminalTheme:
        return TerminalTheme(_rgb(self.back), _rgb(self.text), [*map(_rgb, self.normal)], [*map(_rgb, self.bright)])


PALETTES = {
    "dark": Palette(
        "#16181d", "#dcdfe4",
        ("#16181d", "#e8707a", "#8fc379", "#dcb872", "#6ea8ee", "#c583dc", "#5cb9c4", "#dcdfe4"),
        ("#7f8694", "#f2868f", "#a5d68f", "#ecd08f", "#8ac0ff", "#d9a0ee", "#7cd3dc", "#ffffff"), 4.5,
    ),
    "light": Palette(
        "#fafafa", "#24272e",
        ("#24272e", "#b3202c", "#2f7a1e", "#8a5a00", "#1a5fc4", "#8b2fa8", "#0a7180", "#fafafa"),
        ("#6b7079", "#c22734", "#2f7a1e", "#8a5a00", "#1a5fc4", "#8b2fa8", "#0a7180", "#ffffff"), 4.5,
    ),
    "high-contrast": Palette(
        "#000000", "#ffffff",
        ("#000000", "#ff9090", "#80ff80", "#ffff60", "#9cc8ff", "#ffa8ff", "#70ffff", "#ffffff"),
        ("#c8c8c8", "#ff9090", "#80ff80", "#ffff60", "#9cc8ff", "#ffa8ff", "#70ffff", "#ffffff"), 7.0,
    ),
}  # fmt: skip


def filters(theme: str) -> list[LineFilter]:
    """What lines go through in this theme."""
    if theme == "no-colour":
        return [NoColor()]
    return [Painted(theme)] if theme in PALETTES else []


class Painted(LineFilter):
    """The sixteen colours as a palette has them, dim as a colour; and nothing below the palette's contrast."""

    def __init__(self, theme: str) -> None:
        super().__init__()
        self._theme = theme

    def apply(self, segments: Sequence[Segment], background: Color) -> list[Segment]:
        return [Segment(text, _painted(style or Style.null(), self._theme), control) for text, style, control in segments]


@cache
def _painted(style: Style, theme: str) -> Style:
    palette = PALETTES[theme]
    default, colours = RichColor.default(), palette.colours
    back = (style.bgcolor or default).get_truecolor(colours, foreground=False)
    text = (style.color or default).get_truecolor(colours, foreground=True)
    if style.reverse:  # before dim, which is of the text as it is seen
        back, text = text, back
    if style.dim:
        text = _between(back, text, _DIM)
    text = readable(text, back, palette.least)
    back = readable(back, text, palette.least)  # on a middling one, nothing has it
    return style + Style(color=RichColor.from_triplet(text), bgcolor=RichColor.from_triplet(back), dim=False, reverse=False)


def readable(text: ColorTriplet, back: ColorTriplet, least: float) -> ColorTriplet:
    """`text`, taken towards black or white until its contrast to `back` is at least so much."""
    black, white = ColorTriplet(0, 0, 0), ColorTriplet(255, 255, 255)
    end = max(black, white, key=lambda colour: contrast(colour, back))
    steps = (_between(text, end, step / 20) for step in range(21))
    return next((colour for colour in steps if contrast(colour, back) >= least), end)


def contrast(one: ColorTriplet, other: ColorTriplet) -> float:
    """1 to 21. Source: contrast ratio, WCAG 2.2."""
    dark, light = sorted(map(_luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: ColorTriplet) -> float:
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour.normalized)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _between(one: ColorTriplet, other: ColorTriplet, part: float) -> ColorTriplet:
    return ColorTriplet(*(round(a + (b - a) * part) for a, b in zip(one, other, strict=True)))


def _rgb(colour: str) -> tuple[int, int, int]:
    return (int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16))
