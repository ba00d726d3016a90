"""Slash commands: their names, and what may follow them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

# `/usr/bin` is the beginning of a question
_COMMAND = re.compile(r"/([a-z]+)?(?:\s+(\S+))?\s*", re.IGNORECASE)

_ASKED = re.compile(r"(/(?:think|budget)\s+\S+)\s+(.+)", re.IGNORECASE | re.DOTALL)  # for one question

# name -> what may follow; "N" is a number
COMMANDS: dict[str, tuple[str, ...]] = {
    "trace": (), "answer": (), "longer": (), "edit": (), "reroll": (), "again": (),
    "think": ("auto", "off", "force"), "budget": ("N", "off"), "loops": ("answer", "warn", "ignore"),
    "new": (), "help": (), "quit": (),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Typed:
    """A command as it was typed. `question`: what it is meant for alone; `problem`: why it cannot be carried out."""

    name: str
    value: str = ""
    problem: str = ""
    question: str = ""

    def changes(self) -> dict[str, Any]:
        """What /think, /budget and /loops change of the rules."""
        if self.name == "budget":
            return {"think_budget": None if self.value == "off" else int(self.value)}
        return {{"think": "thinking", "loops": "on_loop"}[self.name]: self.value}


def parse(text: str) -> Typed | None:
    """None: this is no command."""
    found, question = _COMMAND.fullmatch(text), ""
    if found is None and (asked := _ASKED.fullmatch(text)):
        found, question = _COMMAND.fullmatch(asked[1]), asked[2].strip()
    if found is None:
        word = re.match(r"/([a-z]+)\s", text, re.IGNORECASE)  # with more behind it than any command takes
        return _wrong(word[1].lower()) if word is not None and word[1].lower() in COMMANDS else None
    name, value = (found[1] or "").lower(), (found[2] or "").lower()
    if name not in COMMANDS:
        return Typed(name, problem=f"There is no command {text.split()[0]}: /help lists them")
    values = COMMANDS[name]
    is_number = "N" in values and value.isascii() and value.isdigit()
    if is_number or (value in values and value != "N") or not (value or values):
        return Typed(name, value, question=question)
    return _wrong(name)


def _wrong(name: str) -> Typed:
    values = COMMANDS[name]
    return Typed(name, problem=f"/{name} takes {' or '.join(values)}" if values else f"/{name} takes nothing behind it")
