"""Where the keys of a TOML text stand, and changing one of its values so that comments and order stay. tomllib reads the text; this only
finds places in a text that tomllib has read, and has tomllib check what it made."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Key = tuple[str, ...]

_SPACE = re.compile(r"(?:\s|#[^\n]*)*")
_BLANK = re.compile(r"[ \t]*")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}' r"|'''.*?'{3,5}" r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'", re.DOTALL
)  # fmt: skip
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BARE_VALUE = re.compile(r"[^,\]}#\r\n]+")


class CannotEdit(Exception):
    """The text has a shape that a value cannot be put into."""


@dataclass(frozen=True, slots=True)
class Place:
    """Of a key with a value: where the key begins, and its value's text from `start` to `end`."""

    at: int
    start: int
    end: int


@dataclass(slots=True)
class Table:
    """A [header], or the root: where its lines end, without the comments and empty lines below the last value."""

    key: Key
    at: int
    end: int
    stop: int = 0  # where the next one begins


@dataclass(slots=True)
class Places:
    """`tables`: the root first, in the order of the text."""

    text: str
    values: dict[Key, Place] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)

    def line(self, key: Key) -> int:
        """The first line that names this key, or something in it, from 1."""
        found = [place.at for other, place in self.values.items() if other[: len(key)] == key]
        found += [table.at for table in self.tables[1:] if table.key[: len(key)] == key]
        return 1 + self.text.count("\n", 0, min(found))


def places(text: str) -> Places:
    """Of all keys of a text that tomllib has read."""
    found = Places(text, tables=[Table((), 0, 0)])
    at = _skip(text, 0)
    while at < len(text):
        if text[at] == "[":
            begin, double = at, text.startswith("[[", at)
            key, at = _key(text, at + 1 + double)
            at = text.index("]", at) + 1 + double
            found.tables[-1].stop = begin
            found.tables.append(Table(key, begin, at))
        else:
            at = _pair(found, at, found.tables[-1].key)
            found.tables[-1].end = at
        at = _skip(text, at)
    found.tables[-1].stop = len(text)
    return found


def _skip(text: str, at: int) -> int:
    """Past white space, line ends and comments."""
    space = _SPACE.match(text, at)
    return at if space is None else space.end()


def _blank(text: str, at: int) -> int:
    blank = _BLANK.match(text, at)
    return at if blank is None else blank.end()


def _key(text: str, at: int) -> tuple[Key, int]:
    parts: list[str] = []
    while True:
        at = _blank(text, at)
        quoted = text[at] in "\"'"
        part = (_STRING if quoted else _BARE_KEY).match(text, at)
        assert part is not None
        parts.append(tomllib.loads(f"k={part[0]}")["k"] if quoted else part[0])
        at = _blank(text, part.end())
        if text[at] != ".":
            return tuple(parts), at
        at += 1


def _pair(found: Places, at: int, table: Key) -> int:
    key, equals = _key(found.text, at)
    start = _blank(found.text, equals + 1)
    end = _value(found, start, table + key)
    found.values[table + key] = Place(at, start, end)
    return end


def _value(found: Places, at: int, key: Key) -> int:
    text = found.text
    if text[at] not in "[{":
        value = (_STRING if text[at] in "\"'" else _BARE_VALUE).match(text, at)
        assert value is not None
        return at + len(value[0].rstrip())
    opened, close = text[at], "]" if text[at] == "[" else "}"
    at = _skip(text, at + 1)
    while text[at] != close:
        if text[at] == ",":
            at += 1
        elif opened == "{":
            at = _pair(found, at, key)
        else:
            at = _value(Places(text), at, ())  # what is in an array has no key
        at = _skip(text, at)
    return at + 1


def literal(value: bool | int | float | str) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f") if isinstance(value, str) else repr(value)


def dotted(key: Key) -> str:
    """A key as TOML writes it."""
    return ".".join(part if _BARE_KEY.fullmatch(part) else literal(part) for part in key)


def edited(text: str, key: Key, value: bool | int | float | str | None, heads: int = 1) -> str:
    """`text` with this value, or without it. A new table is given the first `heads` parts of the key.

    Raises CannotEdit.
    """
    wanted = tomllib.loads(text)
    _put(wanted, key, value)
    for made in _ways(places(text), key, value, heads):
        try:
            if _without_empty(tomllib.loads(made)) == _without_empty(wanted):
                return made
        except tomllib.TOMLDecodeError:
            continue
    raise CannotEdit(f"{dotted(key)} cannot be changed from here")


def _put(tree: Any, key: Key, value: object) -> None:
    for part in key[:-1]:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise CannotEdit(f"{part} is no table")
    if value is None:
        tree.pop(key[-1], None)
    else:
        tree[key[-1]] = value


def _without_empty(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    kept = {name: _without_empty(value) for name, value in tree.items()}
    return {name: value for name, value in kept.items() if value != {}}


def _ways(found: Places, key: Key, value: bool | int | float | str | None, heads: int) -> Iterator[str]:
    """Texts that may be what is wanted, the best first."""
    text = found.text
    place = found.values.get(key)
    if value is None:
        if place is None:
            yield text
        else:
            begin, end = text.rfind("\n", 0, place.at) + 1, text.find("\n", place.end)
            yield text[:begin] + (text[end + 1 :] if end >= 0 else "")  # its whole line
        return
    if place is not None:
        yield text[: place.start] + literal(value) + text[place.end :]
        return
    for n in range(len(key) - 1, 0, -1):
        inline = found.values.get(key[:n])
        if inline is not None and text[inline.start] == "{":
            more = "" if _skip(text, inline.start + 1) == inline.end - 1 else ","
            yield f"{text[: inline.start + 1]} {dotted(key[n:])} = {literal(value)}{more}{text[inline.start + 1 :]}"
    newline = "\r\n" if "\r\n" in text else "\n"
    for n in range(len(key) - 1, -1, -1):
        for table in found.tables:
            if table.key == key[:n] and (n or any(other[0] == key[0] for other in found.values)):
                line = f"{dotted(key[n:])} = {literal(value)}"
                default = re.compile(rf"^[ \t]*#[ \t]*{re.escape(dotted(key[n:]))}[ \t]*=[^\n]*", re.MULTILINE)
                if shown := default.search(text, table.at, table.stop):  # beside the default that stands there as a comment
                    yield _inserted(text, shown.end(), line, newline)
                yield _inserted(text, table.end, line, newline)
    gap = "" if not text.strip() else newline if text.endswith("\n") else 2 * newline
    yield f"{text}{gap}[{dotted(key[:heads])}]{newline}{dotted(key[heads:])} = {literal(value)}{newline}"


def _inserted(text: str, at: int, line: str, newline: str) -> str:
    """With a line of its own below the one that `at` is on."""
    end = text.find("\n", at)
    return f"{text}{newline}{line}{newline}" if end < 0 else f"{text[: end + 1]}{line}{newline}{text[end + 1 :]}"
