"""Completion of slash commands: their names, the words they take, paths."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from localr1.attachments import paths_in
from localr1.commands import COMMANDS, MAYBE, NUMBER, PATH, TEXT, Command, completions, parse

_MOST_PATHS = 200


@dataclass(frozen=True, slots=True)
class Choice:
    """`text`: the whole line, were it chosen."""

    text: str
    shown: str
    help: str = ""


def choices(text: str) -> list[Choice]:
    """What `text`, as far as it is typed, may become."""
    names = completions(text)
    if names:
        return [Choice(f"/{c.name}{'' if c.takes == (MAYBE,) else ' '}", c.usage, c.help) for c in names]
    typed = re.fullmatch(r"/([a-z]+) +(.*)", text)
    command = COMMANDS.get(typed[1]) if typed else None
    if typed is None or command is None:
        return []
    named = [word for part in command.shown.split("|") if (word := part.partition(" ")[0]).isalpha() and word.islower()]
    words = dict.fromkeys([word for word in command.takes if word not in (NUMBER, TEXT, PATH, MAYBE)] + named)
    found = [Choice(f"/{command.name} {word}", word) for word in words if word.startswith(typed[2]) and word != typed[2]]
    if command.name in _OWN:
        found += [Choice(f"/{command.name} {word}", word, help) for word, help in _OWN[command.name](typed[2]) if word != typed[2]]
    return found + _paths(command, typed[2]) if PATH in command.takes else found


def unfinished(text: str) -> bool:
    """There is more to come: Enter chooses, where it would otherwise send."""
    typed = parse(text)
    if typed is None:
        return False
    takes_path = not typed.problem and PATH in COMMANDS[typed.name].takes
    return bool(typed.problem) or (
        takes_path and bool(typed.value) and typed.value not in COMMANDS[typed.name].takes and not paths_in(typed.value)
    )


def _settings(begun: str) -> Iterator[tuple[str, str]]:
    from localr1.set_command import find_key
    from localr1.settings import SettingError, rows

    key, space, value = begun.partition(" ")
    if not space:
        yield from ((name, row.help) for name, row in rows().items() if name.startswith(key) or name.partition(".")[2].startswith(key))
        return
    with suppress(SettingError):
        row = rows().get(find_key(key))
        words = () if row is None else ("true", "false") if row.kind is bool else row.choices
        yield from ((f"{key} {word}", "") for word in words if word.startswith(value))


def _models(begun: str) -> Iterator[tuple[str, str]]:
    from localr1.hub_errors import HubError
    from localr1.library import models

    with suppress(HubError):
        yield from ((model.name, model.title) for model in models() if model.name.startswith(begun) and model.name.isprintable())


_OWN = {"set": _settings, "model": _models}  # what these take is known here only


def _paths(command: Command, begun: str) -> list[Choice]:
    folder, name = os.path.split(begun)
    try:
        with os.scandir(Path(folder or ".").expanduser()) as entries:
            found = sorted(
                (entry.name, entry.is_dir())
                for entry in entries
                if entry.name.startswith(name) and (name.startswith(".") or not entry.name.startswith(".")) and entry.name.isprintable()
            )
    except (OSError, RuntimeError, ValueError):  # not there, not readable, no such home, no path at all
        return []
    made = [
        Choice(f"/{command.name} {begun.removesuffix(name)}{entry}{'/' if is_dir else ''}", entry + ("/" if is_dir else ""))
        for entry, is_dir in found
    ]
    return [choice for choice in made[:_MOST_PATHS] if choice.text != f"/{command.name} {begun}"]
