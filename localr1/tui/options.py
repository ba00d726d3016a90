"""A list to choose from, whose chosen line is seen without colours."""

from __future__ import annotations

from textual.style import Style
from textual.widgets import OptionList


class Options(OptionList):
    def get_visual_style(self, *component_classes: str, partial: bool = False) -> Style:
        return seen(super().get_visual_style(*component_classes, partial=partial), component_classes)


def seen(style: Style, component_classes: tuple[str, ...]) -> Style:
    """Textual leaves reverse out of the styles of lines."""
    return style + Style(reverse=True) if "option-list--option-highlighted" in component_classes else style
