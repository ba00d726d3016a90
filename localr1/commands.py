"""Slash commands: one table of what there is, shared by the screen and the plain chat; what was typed, read by it.

A new command is a row here, and a handler in each of the two.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from localr1.text import printable
from localr1.turn import Rules

NUMBER, TEXT, PATH, MAYBE = "N", "TEXT", "PATH", ""  # in `takes`: a whole number; anything, in its own case; a file's place; nothing at all


@dataclass(frozen=True, slots=True)
class Command:
    """`takes`: what may follow, one of these words, a NUMBER, any TEXT or PATH; MAYBE among them: or nothing. None: nothing may. `shown`: how the help
    writes what follows. `asks`: with a question behind it, it holds for that question alone. `group`: of the help."""

    name: str
    group: str
    help: str
    takes: tuple[str, ...] = (MAYBE,)
    shown: str = ""
    asks: bool = False
    aliases: tuple[str, ...] = ()

    @property
    def usage(self) -> str:
        """As the help writes it."""
        return f"/{self.name} {self.shown or '|'.join(filter(None, self.takes))}".rstrip()


_TABLE = (
    Command("file", "The question", "attach a text file, or those of a folder; off: attach nothing", (PATH, "off", MAYBE)),
    Command("answer", "The reply", "close the thought and answer now"),
    Command("longer", "The reply", "think longer"),
    Command("edit", "The reply", "edit the thought, and go on from there"),
    Command("reroll", "The reply", "another reply, to question N", (NUMBER, MAYBE), "[N]", aliases=("regen",)),
    Command("again", "The reply", "another answer to the same thought"),
    Command("copy", "The reply", "copy the answer; or code [N], thought, all", ("answer", "code", "thought", "all", TEXT, MAYBE), "WHAT"),
    Command("raw", "The reply", "show answers as the model wrote them, and back"),
    Command("trace", "The reply", "show, enter, hide the trace"),
    Command("revise", "The conversation", "edit question N, by default the last one; what follows becomes a branch", (NUMBER, MAYBE), "[N]"),
    Command("branch", "The conversation", "another branch, where the conversation has several", (NUMBER, "next", "prev", MAYBE)),
    Command("rename", "The conversation", "give it another title", (TEXT,)),
    Command("duplicate", "The conversation", "go on with a copy"),
    Command("delete", "The conversation", "delete it; asks"),
    Command("save", "The conversation", "write it to a file: .md as it is shown, .json with all branches", (TEXT,), "FILE [--force]"),
    Command("load", "The conversation", "read it from such a file, and go on with it", (PATH,)),
    Command("chats", "The conversation", "all that are kept", aliases=("conversations",)),
    Command("search", "The conversation", "find words in all questions, thoughts and answers", (TEXT,)),
    Command("resume", "The conversation", "go on with another: its number, or words of it", (NUMBER, TEXT, MAYBE)),
    Command("think", "Settings", "think as the model likes, not, always; before a question: for it alone", ("auto", "off", "force", MAYBE), asks=True),
    Command("budget", "Settings", "close thoughts after N tokens; before a question: for it alone", (NUMBER, "off", MAYBE), asks=True),
    Command("loops", "Settings", "what to do when the model repeats itself", ("answer", "warn", "ignore", MAYBE)),
    Command("system", "Settings", "text before the conversation; alone: which it is", (TEXT, MAYBE), shown="TEXT|off"),
    Command("set", "Settings", "list the settings, tell or change one", (TEXT, MAYBE), "[KEY [VALUE [save]]]"),
    Command("theme", "Settings", "the screen's colours: terminal, dark, light, high-contrast or no-colour", ("terminal", "dark", "light", "high-contrast", "no-colour", MAYBE), "NAME"),
    Command("model", "The program", "which models there are; with a name: go on with that one", (TEXT, MAYBE), shown="NAME"),
    Command("context", "The program", "what fills the context"),
    Command("new", "The program", "a new chat", aliases=("clear",)),
    Command("help", "The program", "this"),
    Command("quit", "The program", "leave", aliases=("exit", "bye")),
)  # fmt: skip

COMMANDS = {command.name: command for command in _TABLE}
_NAMES = COMMANDS | {alias: command for command in _TABLE for alias in command.aliases}
_RULES = {"think": "thinking", "loops": "on_loop"}  # command -> field of turn.Rules


@dataclass(frozen=True, slots=True)
class Typed:
    """A command as it was typed. `question`: what it is meant for alone; `problem`: why it cannot be carried out."""

    name: str
    value: str = ""
    problem: str = ""
    question: str = ""

    def changes(self) -> dict[str, Any]:
        """What /think, /budget, /loops and /system change of the rules; alone they ask how it is."""
        if not self.value:
            return {}
        if self.name == "system":
            return {"system": "" if self.value.lower() == "off" else self.value}
        if self.name == "budget":
            return {"think_budget": None if self.value == "off" else int(self.value)}
        return {_RULES[self.name]: self.value}


def parse(text: str) -> Typed | None:
    """None: this is no command, but a question, as "/usr/bin" or "/sing a song" are."""
    found = re.fullmatch(r"/([a-z]*)(?:\s+(.*))?", text.strip(), re.IGNORECASE | re.DOTALL)
    if found is None:
        return None
    name, rest = found[1].lower(), found[2] or ""
    command = _NAMES.get(name)
    if command is None:
        is_question = len(rest.split()) > 1
        near = "" if is_question else _near(name)
        return None if is_question else Typed(name, problem=f"There is no command {text.split()[0]}{near or ': /help lists them'}")
    value = _value(command, rest)
    if value is not None:
        return Typed(command.name, value)
    first, *question = rest.split(maxsplit=1) or [""]
    value = _value(command, first) if command.asks and question else None
    if value is not None:
        return Typed(command.name, value, question=question[0].strip())
    return Typed(command.name, problem=_wants(command))


def typed_for(question: str, changes: Mapping[str, Any]) -> str:
    """A question behind the command that holds for it alone, as `parse` reads it; without one if `changes` are none of a command's."""
    if "thinking" in changes:
        return f"/think {changes['thinking']} {question}"
    if "think_budget" in changes:
        return f"/budget {'off' if changes['think_budget'] is None else changes['think_budget']} {question}"
    return question


def _near(name: str) -> str:
    from difflib import get_close_matches

    return "".join(f"; did you mean /{near}?" for near in get_close_matches(name, _NAMES, 1))


def _value(command: Command, rest: str) -> str | None:
    """What follows the command as it takes it; None: it does not."""
    rest, word = rest.strip(), rest.strip().lower()
    if rest and (TEXT in command.takes or PATH in command.takes):
        return rest
    if NUMBER in command.takes and word.isascii() and word.isdigit() and len(word) < 16:
        return word
    return word if word in command.takes else None


def _wants(command: Command) -> str:
    words = [word for word in command.takes if word]
    return f"/{command.name} takes {' or '.join(words)}" if words else f"/{command.name} takes nothing behind it"


def completions(text: str) -> list[Command]:
    """The commands that what is typed so far may become; none where it is not the beginning of one."""
    name = re.fullmatch(r"/([a-z]*)", text, re.IGNORECASE)
    if name is None:
        return []
    return [c for c in _TABLE if any(word.startswith(name[1].lower()) for word in (c.name, *c.aliases))]


def help_rows() -> list[tuple[str, list[tuple[str, str]]]]:
    """The groups, and in each how a command is written and what it does."""
    groups = groupby(COMMANDS.values(), key=lambda command: command.group)
    return [(group, [(command.usage, command.help) for command in commands]) for group, commands in groups]


def rule_line(name: str, rules: Rules) -> str:
    """What /think, /budget, /loops and /system have set, in words."""
    if name == "think":
        return {"auto": "Thinks as the model likes", "off": "Answers without thinking", "force": "Always thinks"}[rules.thinking]
    if name == "budget":
        return "No budget for thoughts" if rules.think_budget is None else f"Thoughts are closed after {rules.think_budget:,} tokens"
    if name == "system":
        where = "in the first question" if rules.system_in_question else "as a system message"
        return f"System text, {where}: {printable(rules.system)}" if rules.system else "No system text"
    return f"Loops: {rules.on_loop}"
