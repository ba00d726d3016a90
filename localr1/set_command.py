"""`/set`: changing a setting from the chat, for the session or for good, and what it changes of the turns to come."""

from __future__ import annotations

import re
from typing import Any

from localr1.settings import SettingError, Value, advice, key_problem, rows
from localr1.settings_file import unknown
from localr1.settings_layers import DEFAULT, Layers
from localr1.text import printable

RULES = {
    "think": "thinking.mode",
    "budget": "thinking.budget",
    "loops": "thinking.on_loop",
    "system": "chat.system",
}  # commands that set one setting


def find_key(typed: str) -> str:
    """The key that is meant: whole, the part behind the dot where that is one setting's alone, or its flag's name. Raises SettingError."""
    typed = typed.lower().replace("-", "_").lstrip("_")
    if typed in rows():
        return typed
    if typed.startswith("keys."):
        return typed
    found = [key for key, row in rows().items() if typed in (key.partition(".")[2], row.flag.removeprefix("--").replace("-", "_"))]
    if len(found) == 1:
        return found[0]
    found = found or [key for key in rows() if key.startswith(f"{typed}.")]
    raise SettingError(unknown(typed) if not found else f"{typed} may be {' or '.join(found)}")


def read_value(key: str, text: str) -> Value | None:
    """What was typed for a setting. Raises SettingError."""
    row = rows().get(key)
    if row is not None:
        return row.parse(text)
    action = key.partition(".")[2]
    if text.strip().lower() == "none":
        return None
    if problem := key_problem(action, text):
        raise SettingError(problem)
    return text.strip()


def shown(value: Value | None, key: str = "") -> str:
    """A value as a person reads it; of an unset one, what it means."""
    if value is None:
        row = rows().get(key)
        return "none" if row is None else f"none ({row.unset})"
    return str(value).lower() if isinstance(value, bool) else f"{value:.15g}" if isinstance(value, float) else printable(str(value)) or '""'


def change(layers: Layers, typed: str, model: str = "") -> tuple[str, str]:
    """`/set KEY VALUE [save]` (behind a text: --save): the key that was changed and a line about it, a warning where one is due for this model. Raises
    SettingError.

    Without a VALUE nothing is changed, and the line tells what holds; the key is "" then.
    """
    name, _, text = typed.strip().partition(" ")
    key, text = find_key(name), text.strip()
    if not text:
        return "", f"{key} is {shown(layers.settings[key], key)} ({layers.origins.get(key, DEFAULT)})"
    row = rows().get(key)
    is_text = row is not None and row.kind is str and not row.choices
    words = text.rsplit(maxsplit=1)
    saved = len(words) == 2 and words[1].lower() in ("--save", "" if is_text else "save")
    text = words[0] if saved else text
    value: Value | None
    if is_text and text.lower() == "none":  # as it is by default
        value = None if saved else ""
    else:
        value = read_value(key, "" if is_text and text in ('""', "''") else text)
    at_start, keeps = row is not None and row.at_start, "--save" if is_text else "save"
    if at_start and not saved:
        raise SettingError(f"{key} is looked at when the chat begins: add {keeps} to keep it for the next one")
    if saved:
        of_model = layers.save(key, value)
        whom = printable(of_model) or ("the next chat" if at_start else "")
        where = f"kept in {layers.file.path.name}" + (f" for {whom}" if whom else "")
        if value is None and of_model and key in layers.file.general.values:
            where = f"for this session; {layers.file.path.name}:{layers.file.general.lines[key]} sets it for all models"
    else:
        layers.set(key, value)
        where = f"for this session; add {keeps} to keep it"
    return key, (warning(layers, model) if key == "sampling.temperature" else "") or f"{key} is now {shown(value, key)}, {where}"


def warning(layers: Layers, model: str) -> str:
    """What DeepSeek advises otherwise, for a model that is one of theirs by its name; else ""."""
    return advice(layers.settings.sampling) if re.search(r"(?<![a-z0-9])r1(?![a-z0-9])", model.lower()) else ""


def listing(layers: Layers) -> str:
    """`/set` alone: every setting, what it is, and where that comes from."""
    table = [(key, shown(value, key), "" if origin == DEFAULT else f"({origin})") for key, value, origin in layers.table()]
    width = max(len(key) for key, _, _ in table)
    lines = [f"{key:<{width}}  {value}  {origin}".rstrip() for key, value, origin in table]
    return "\n".join(
        ["/set KEY VALUE changes a setting for this session, /set KEY VALUE save for good; behind a text, --save.", "", *lines]
    )


def rule_changes(layers: Layers, key: str) -> dict[str, Any]:
    """What a changed setting changes of the rules of a turn; nothing where it is none of theirs."""
    rules = layers.settings.rules()
    names = {
        "sampling": "sampling", "thinking.mode": "thinking", "thinking.budget": "think_budget", "thinking.on_loop": "on_loop",
        "chat.system": "system", "chat.system_in_question": "system_in_question",
        "chat.when_full": "when_full",
    }  # fmt: skip
    field = names.get(key.partition(".")[0]) or names.get(key)
    return {} if field is None else {field: getattr(rules, field)}
