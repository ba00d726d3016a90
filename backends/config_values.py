"""Values of a config.json, checked: each function raises ModelFileError naming the key and what is needed."""

from __future__ import annotations

from typing import Any

from backends.base import ModelFileError
from backends.checkpoint import short


def count(raw: dict[str, Any], key: str, default: int | None = None, least: int = 1) -> int:
    value = default if raw.get(key) is None else raw[key]
    if type(value) is not int or not least <= value < 1 << 31:
        raise ModelFileError(f"config.json: {key} is {short(raw.get(key))}, a whole number of {least} or more is needed")
    return value


def number(raw: dict[str, Any], key: str, default: float | None = None) -> float:
    value = default if raw.get(key) is None else raw[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e38:
        raise ModelFileError(f"config.json: {key} is {short(raw.get(key))}, a number is needed")
    return float(value)


def positive(raw: dict[str, Any], key: str, default: float | None = None) -> float:
    value = number(raw, key, default)
    if value <= 0:
        raise ModelFileError(f"config.json: {key} is {value:g}, a number above 0 is needed")
    return value


def flag(raw: dict[str, Any], key: str, default: bool) -> bool:
    value = default if raw.get(key) is None else raw[key]
    if not isinstance(value, bool):
        raise ModelFileError(f"config.json: {key} is {short(value)}, true or false is needed")
    return value
