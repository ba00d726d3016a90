"""A list to choose from, whose chosen line is seen without colours."""

from __future__ import annotations

from rich.segment import Segment
from rich.style import Style as RichStyle
from textual.strip import Strip
from textual.style import Style
from textual.widgets import OptionList


class Options(OptionList):
    def render_line(self, y: int) -> Strip:
        """Nothing is dim in the chosen line: a terminal would give that part another background."""
        strip = super().render_line(y)
        if not any(segment.style is not None and segment.style.reverse and segment.style.dim for segment in strip):
            return strip
        return Strip(Segment.apply_style(strip, post_style=RichStyle(dim=False)), strip.cell_length)

    def get_visual_style(self, *component_classes: str, partial: bool = False) -> Style:
        return seen(super().get_visual_style(*component_classes, partial=partial), component_classes)


def seen(style: Style, component_classes: tuple[str, ...]) -> Style:
    """Textual leaves reverse out of the styles of lines."""
    return style + Style(reverse=True) if "option-list--option-highlighted" in component_classes else style
