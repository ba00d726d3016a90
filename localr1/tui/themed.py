"""Themed: what every screen of the program is: in the terminal's own colours or a theme's, with the keys as a person has set them."""

from __future__ import annotations

from textual.app import App
from textual.filter import LineFilter

from localr1.keys import Keymap
from localr1.settings import Settings
from localr1.tui.theme import THEME, filters


class Themed(App[None]):
    """Raises SettingError: two of the keys are the same."""

    ENABLE_COMMAND_PALETTE = False  # Textual's own, with commands about Textual

    def __init__(self, settings: Settings) -> None:
        super().__init__(ansi_color=True)
        self.register_theme(THEME)
        self.theme = THEME.name
        self.keymap = Keymap(settings.keys)
        self._disable_tooltips = True  # Textual's tables have some, which it reads as markup, and a model wrote them
        self._painting: list[LineFilter] = filters(settings.look.theme)

    def get_line_filters(self) -> list[LineFilter]:
        """NO_COLOR, which Textual's own go by, comes before the theme."""
        return [*super().get_line_filters(), *([] if self.no_color else self._painting)]

    def paint(self, theme: str) -> None:
        """Show everything in the colours of another theme."""
        self._painting = filters(theme)
        for screen in self.screen_stack:
            for widget in (screen, *screen.walk_children()):
                widget.refresh()
