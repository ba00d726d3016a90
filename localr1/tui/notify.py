"""Telling a person who looks elsewhere that a long thought is done: by the terminal's bell, or by a notification of the desktop."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING

from localr1.settings import NotifySettings
from localr1.text import printable

if TYPE_CHECKING:
    from localr1.tui.turn import Turn

_BELL = "\a"
_OSC_9 = ("ITERM_SESSION_ID", "WEZTERM_PANE", "KITTY_WINDOW_ID", "GHOSTTY_RESOURCES_DIR")  # terminals that take the shorter form


class Notifier:
    """`look` is called as a turn goes on; it writes at most once a turn, as the thought ends or else as the reply does. `is_in_front`: the
    window has the focus, as far as the terminal tells."""

    def __init__(self, write: Callable[[str], None], is_in_front: Callable[[], bool]) -> None:
        self._write, self._is_in_front = write, is_in_front
        self._turn: Turn | None = None
        self._stage = ""
        self._told = False

    def look(self, turn: Turn, settings: NotifySettings) -> None:
        if turn is not self._turn:
            self._turn, self._stage, self._told = turn, "", False
        stage = "The answer is there" if turn.over else "The thought is done" if turn.answer is not None else ""
        if stage == self._stage:
            return
        self._stage = stage
        began = turn.exchange.started_at
        long = began is not None and monotonic() - began >= settings.after_s
        if settings.when == "off" or self._told or not long or self._is_in_front():
            return
        self._told = True
        self._write(_BELL if settings.when == "bell" else notification(stage, os.environ))


def notification(text: str, environment: Mapping[str, str]) -> str:
    """The escape sequence that asks a terminal for one."""
    text = printable(text).replace(";", ",")
    short = any(name in environment for name in _OSC_9)
    sequence = f"\x1b]9;localr1: {text}\a" if short else f"\x1b]777;notify;localr1;{text}\a"
    if "TMUX" in environment:  # through to the terminal around it, where allow-passthrough is on
        sequence = "\x1bPtmux;" + sequence.replace("\x1b", "\x1b\x1b") + "\x1b\\"
    return sequence
