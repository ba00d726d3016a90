"""The help: keys, and the commands by their groups."""

from __future__ import annotations

from textual.content import Content

from localr1.commands import help_rows

_KEYS = (
    ("Enter", "send; Shift+Enter, Alt+Enter, Ctrl+J: new line"),
    ("Esc", "stop the reply; what has come stays"),
    ("Ctrl+O", "fold or unfold the last thought; Tab: others"),
    ("Ctrl+T", "show, enter, hide the trace; ? lists its keys"),
    ("Ctrl+N", "answer now: close the thought being written"),
    ("PageUp, PageDown", "scroll"),
    ("Ctrl+C", "copy, clear the input, stop, quit: what it can"),
)
_COLUMN = 26


def help_content() -> Content:
    parts = [_group("Keys", list(_KEYS))]
    parts += [_group(title, rows) for title, rows in help_rows()]
    return Content("\n\n").join(parts)


def _group(title: str, rows: list[tuple[str, str]]) -> Content:
    lines = [Content.styled(title, "bold")]
    lines += [Content.assemble("  ", (f"{name:{_COLUMN}}", "dim"), " ", text) for name, text in rows]
    return Content("\n").join(lines)
