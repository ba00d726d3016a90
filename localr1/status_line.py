"""A line on stderr that says how far long work is, where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Tell = Callable[[str], None]


@contextmanager
def status_line(line: str) -> Iterator[Tell]:
    """Shows `line`, then what it is told; gone at the end."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console
    from rich.status import Status
    from rich.text import Text

    with Status(Text(line), console=Console(stderr=True)) as status:
        yield lambda text: status.update(Text(text))
