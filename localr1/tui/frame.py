"""Frame: what the chat's screen stands in, whatever is on it: keys, help, palette, theme, and telling a person who looks elsewhere."""

from __future__ import annotations

from typing import ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.filter import LineFilter

from localr1.commands import Typed
from localr1.keys import ACTIONS, ANYWHERE, CHAT, Keymap
from localr1.settings import SettingError, Settings
from localr1.settings_layers import Layers
from localr1.tui.help import HelpScreen
from localr1.tui.theme import THEME, filters

_IN_CHAT = {action.does.partition("(")[0] or action.name for action in ACTIONS.values() if action.where == CHAT}


class Frame(App[None], inherit_bindings=False):
    ENABLE_COMMAND_PALETTE = False  # Textual's own, with commands about Textual
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(action.keys, action.does or action.name, id=action.name, priority=True)
        for action in ACTIONS.values()
        if action.where in (ANYWHERE, CHAT)
    ]

    def __init__(self, layers: Layers) -> None:
        super().__init__(ansi_color=True)
        self.register_theme(THEME)
        self.theme = THEME.name
        self.layers = layers
        self.keymap = Keymap(self.settings.keys)
        self._painting: list[LineFilter] = filters(self.settings.look.theme)

    @property
    def settings(self) -> Settings:
        """Those that hold now."""
        return self.layers.settings

    def setting_changed(self, key: str) -> None:
        """A setting has another value now. Raises SettingError: its keys are those of another action; then it has the old ones."""
        if key == "look.theme":
            self.paint(self.settings.look.theme)
        elif key.startswith("keys."):
            try:
                self.keymap.take(self.settings.keys)
            except SettingError:
                self.layers.set(key, self.keymap.own.get(key.removeprefix("keys.")))
                raise
            self.set_keymap(self.keymap.own)

    # keys

    @property
    def is_under_dialog(self) -> bool:
        return len(self.screen_stack) > 1

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Under a dialog, only what holds anywhere does."""
        return not (self.is_under_dialog and action in _IN_CHAT)

    def action_help(self) -> None:
        if isinstance(self.screen, HelpScreen):
            self.pop_screen()
        elif not self.is_under_dialog:
            self.push_screen(HelpScreen(self.keymap))

    def action_palette(self) -> None:
        if not self.is_under_dialog:
            from localr1.tui.palette import palette

            self.push_screen(palette())

    # colours

    def get_line_filters(self) -> list[LineFilter]:
        """NO_COLOR, which Textual's own go by, comes before the theme."""
        return [*super().get_line_filters(), *([] if self.no_color else self._painting)]

    def paint(self, theme: str) -> None:
        """Show everything in the colours of another theme."""
        self._painting = filters(theme)
        for screen in self.screen_stack:
            for widget in (screen, *screen.walk_children()):
                widget.refresh()

    def set_theme(self, command: Typed) -> str:
        """What /theme does; what there is to tell of it."""
        if command.value:
            self.layers.set("look.theme", command.value)
            self.setting_changed("look.theme")
        return f"Theme: {self.settings.look.theme}"
