"""Text files that appear whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def write_whole(file: Path, text: str, replace: bool = True) -> None:
    """Under its name only when it is whole; a file that it replaces keeps its permissions. Raises FileExistsError: it is there and may
    not be replaced; OSError. A link stays one."""
    file = Path(os.path.realpath(file)) if replace else file
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8", newline="")
        if replace:
            with suppress(FileNotFoundError):
                part.chmod(file.stat().st_mode)
            part.replace(file)
        else:
            _link(part, file)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _link(part: Path, file: Path) -> None:
    """Raises FileExistsError if there is a file meanwhile."""
    try:
        file.hardlink_to(part)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        part.replace(file)
