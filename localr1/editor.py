"""A person's own editor ($VISUAL, $EDITOR) for a piece of text."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path


class EditorError(Exception):
    """There is no editor, or it failed; the message says what to set."""


def edit(text: str, name: str = "thought.md", command: str = "") -> str:
    """`text` as the person left it, in a file of this name; blocks until the editor ends. The terminal must be free. `command`: the editor's,
    before $VISUAL and $EDITOR. Raises EditorError."""
    named = command or os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
    try:
        words = shlex.split(named) or _usual()
    except ValueError:
        raise EditorError(f"the editor's command {named!r} has a quote that is not closed") from None
    with tempfile.TemporaryDirectory(prefix="localr1-") as folder:
        file = Path(folder) / name
        file.write_text(text, encoding="utf-8", errors="replace")
        try:
            done = subprocess.run([*words, str(file)], check=False)
        except OSError as error:
            raise EditorError(f"{words[0]}: cannot be started ({error.strerror}); set EDITOR to your editor") from None
        if done.returncode != 0:
            raise EditorError(f"{words[0]} ended with code {done.returncode}; the text is as it was")
        try:
            edited = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise EditorError(f"{words[0]} left no UTF-8 text; the text is as it was") from None
    return edited if text.endswith("\n") else edited.removesuffix("\n")  # which editors write behind the last line


def _usual() -> list[str]:
    for name in ("nano", "vim", "vi"):
        if found := shutil.which(name):
            return [found]
    raise EditorError("no editor was found; set EDITOR to yours")
