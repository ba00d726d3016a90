"""Values of a model's JSON files, checked. Each function takes a default for a value that is missing or null, or none: then it must be
there; and raises `error`, naming file, key and what is needed."""

from __future__ import annotations

from typing import Any

from backends.base import ModelFileError
from backends.checkpoint import short

Error = type[Exception]


def count(
    raw: dict[str, Any], key: str, default: int | None = None, least: int = 1, most: int = (1 << 31) - 1, *, error: Error = ModelFileError
) -> int:
    """A whole number from `least` to `most`."""
    value = default if raw.get(key) is None else raw[key]
    if type(value) is not int or not least <= value <= most:
        needed = "a positive whole number" if least == 1 else f"a whole number from {least} to {most}"
        raise error(f"config.json: {key} is {short(value)}, {needed} is needed")
    return value


def number(
    raw: dict[str, Any], key: str, default: float | None = None, *, file: str = "config.json", error: Error = ModelFileError
) -> float:
    """A finite number that float32 can hold."""
    value = default if raw.get(key) is None else raw[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e38:
        raise error(f"{file}: {key} is {short(value)}, a number is needed")
    return value


def positive(raw: dict[str, Any], key: str, default: float | None = None, *, error: Error = ModelFileError) -> float:
    """A number above 0: with less, engines end the whole program or compute nonsense."""
    value = number(raw, key, default, error=error)
    if value <= 0:
        raise error(f"config.json: {key} is {value!r}, a number above 0 is needed")
    return value


def flag(raw: dict[str, Any], key: str, default: bool | None = None, *, error: Error = ModelFileError) -> bool:
    """True or false."""
    value = default if raw.get(key) is None else raw[key]
    if not isinstance(value, bool):
        raise error(f"config.json: {key} is {short(value)}, true or false is needed")
    return value
