"""What the tests of refused conversions share."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.base import ModelFileError
from quantize.convert import convert
from quantize.errors import QuantizeError

REFUSED = (QuantizeError, ModelFileError)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def refused(source: Path, target: Path, to: str = "Q8_0", **options: bool) -> str:
    """The one line that says why; nothing is left."""
    beside = set(target.parent.iterdir())
    with pytest.raises(REFUSED) as raised:
        convert(source, target, to, **options)
    message = str(raised.value)
    assert message.isprintable() and len(message) < 1000
    assert set(target.parent.iterdir()) == beside
    return message


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.suffix in (".gguf", ".part")]
