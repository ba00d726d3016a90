"""Frame: what the chat's screen stands in, whatever is on it: keys, help, palette, theme, and telling a person who looks elsewhere."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from typing import ClassVar

from textual.binding import Binding, BindingType

from localr1.commands import Typed
from localr1.keys import ACTIONS, ANYWHERE, CHAT
from localr1.settings import SettingError, Settings
from localr1.settings_layers import Layers
from localr1.tui.help import HelpScreen
from localr1.tui.notify import Notifier
from localr1.tui.themed import Themed

_IN_CHAT = {action.does.partition("(")[0] or action.name for action in ACTIONS.values() if action.where == CHAT}


_LOOKS_FOR_TERMINAL_S = 1.0
_END_S = 6.0  # what ending may take where nobody sees it


class Frame(Themed, inherit_bindings=False):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(action.keys, action.does or action.name, id=action.name, priority=True)
        for action in ACTIONS.values()
        if action.where in (ANYWHERE, CHAT)
    ]

    def __init__(self, layers: Layers) -> None:
        super().__init__(layers.settings)
        self.layers = layers
        self.raw_answers = False  # shown as the model wrote them
        self.notifier = Notifier(self._tell, lambda: self.app_focus)

    @property
    def settings(self) -> Settings:
        """Those that hold now."""
        return self.layers.settings

    def on_mount(self) -> None:
        self.set_keymap(self.keymap.own)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._end, number)
        if not self.is_headless:
            loop.add_signal_handler(signal.SIGTSTP, self.action_suspend_process)
            signal.signal(signal.SIGCONT, signal.SIG_DFL)  # Textual's would begin to read twice where nothing was suspended
            self.set_interval(_LOOKS_FOR_TERMINAL_S, self._look_for_terminal)

    @contextmanager
    def suspend(self) -> Iterator[None]:
        """Whatever has the terminal meanwhile can be stopped with Ctrl+Z, and stops us with it."""
        with super().suspend():
            handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
            try:
                yield
            finally:
                signal.signal(signal.SIGTSTP, handler)

    def action_suspend_process(self) -> None:
        """As a terminal's own Ctrl+Z does it: for whatever has started us, too, and for nothing where no shell would come back."""
        if self.is_headless:
            return
        with self.suspend():
            os.kill(0, signal.SIGTSTP)
            while os.tcgetpgrp(0) not in (os.getpgrp(), 0):  # put into the background: no terminal there
                os.kill(os.getpid(), signal.SIGSTOP)

    def _end(self, number: int) -> None:
        """Leave as if one had quit. A terminal that is gone may hold up whoever writes to it: then without that."""
        ended = Timer(_END_S, os._exit, (128 + number,))
        ended.daemon = True
        ended.start()
        self.exit(return_code=128 + number)

    def _look_for_terminal(self) -> None:
        """It may go without a word, and reading from nothing would keep a processor busy."""
        try:
            termios.tcgetattr(sys.__stdin__ or 0)
        except termios.error:
            self._end(signal.SIGHUP)

    def _tell(self, sequence: str) -> None:
        if self._driver is not None:
            self._driver.write(sequence)

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
            from localr1.tui.palette import Palette

            self.push_screen(Palette())

    # colours

    def set_theme(self, command: Typed) -> str:
        """What /theme does; what there is to tell of it."""
        if command.value:
            self.layers.set("look.theme", command.value)
            self.setting_changed("look.theme")
        return f"Theme: {self.settings.look.theme}"
