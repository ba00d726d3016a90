"""Pasted text stays text: Textual takes an escape character in it, and what follows, for keys that are pressed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from textual._xterm_parser import XTermParser
from textual.message import Message

from localr1.text import printable

_START, _END = "\x1b[200~", "\x1b[201~"
_MAY_END = re.compile(r"\x1b(\[(2(0(1)?)?)?)?\Z")


class Pastes:
    """What a terminal sends, piece by piece, with the escape characters of pasted text shown."""

    def __init__(self) -> None:
        self._is_paste = False
        self._tail = ""  # outside: what came last, and may be half of the beginning
        self._held = ""  # inside: what may be half of the end

    def tamed(self, data: str) -> str:
        done: list[str] = []
        while data:
            data = (self._inside if self._is_paste else self._outside)(data, done)
        return "".join(done)

    def _outside(self, data: str, done: list[str]) -> str:
        """What is left to look at."""
        seen = self._tail + data
        at = seen.find(_START)
        end = len(data) if at < 0 else at + len(_START) - len(self._tail)
        done.append(data[:end])
        self._is_paste, self._tail = at >= 0, seen[-len(_START) + 1 :] if at < 0 else ""
        return data[end:]

    def _inside(self, data: str, done: list[str]) -> str:
        body, end, rest = (self._held + data).partition(_END)
        half = None if end else _MAY_END.search(body)
        self._held = half[0] if half else ""
        done.append(body.removesuffix(self._held).replace("\x1b", printable("\x1b")) + end)
        self._is_paste = not end
        return rest


class PasteParser(XTermParser):
    def __init__(self, debug: bool = False) -> None:
        self._pastes = Pastes()
        super().__init__(debug)

    def feed(self, data: str) -> Iterable[Message]:
        tamed = self._pastes.tamed(data)
        return super().feed(tamed) if tamed or not data else ()


def tame_pastes() -> None:
    """In the programs that begin now."""
    from textual.drivers import linux_driver

    driver: Any = linux_driver
    driver.XTermParser = PasteParser
