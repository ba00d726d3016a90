"""The terminal's own colours, so that every screen looks right on any background."""

from dataclasses import replace

from textual.theme import BUILTIN_THEMES

THEME = replace(BUILTIN_THEMES["ansi-dark"], name="terminal", primary="ansi_bright_blue", accent="ansi_bright_blue")
