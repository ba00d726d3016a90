"""The settings that hold, and where each comes from: defaults < file < the file's [models.NAME] < flags < what was set in the chat."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from localr1.settings import SettingError, Settings, Value, Values, advice, key_problem, rows
from localr1.settings_file import SettingsFile, read, unknown, write
from localr1.text import printable

if TYPE_CHECKING:
    from localr1.models import ModelSpec

DEFAULT, FLAG, HERE = "default", "flag", "/set"


class Layers:
    """`settings` are those that hold now, for the model of `open`; `origins`: where each of them comes from, in words."""

    def __init__(self, file: SettingsFile | None = None, flags: Values | None = None) -> None:
        self.file = SettingsFile(Path("config.toml")) if file is None else file
        self.model = ""
        self._flags = {} if flags is None else flags
        self._path: Path | None = None
        self._here: dict[str, Value | None] = {}
        self._combine()

    def open(self, model: str, path: Path | None = None) -> None:
        """From now on with what this model has for itself. `path`: its file or folder, which the file may know by another name."""
        self.model, self._path = model, path
        self._combine()

    def set(self, key: str, value: Value | None) -> None:
        """For this session."""
        self._here[key] = value
        self._combine()

    def save(self, key: str, value: Value | None) -> Path:
        """For good, into the file: for the model that is open where a model may have it for itself, else for all. Raises SettingError."""
        row = rows().get(key)
        model = (self._section() or self.model) if row is not None and row.per_model else ""
        path = write(key, value, model, self.file.path)
        self.file = read(path)
        self._here.pop(key, None)
        self._combine()
        if self.settings[key] != (row.default if row is not None and value is None else value):  # a flag has another
            self.set(key, value)
        return path

    def _section(self) -> str | None:
        """The NAME of [models.NAME] that means the model that is open."""
        names = (self.model, *(() if self._path is None else (self._path.stem,)))
        for name in self.file.models:
            if name in names:
                return name
        if self._path is not None:
            from localr1.library import find

            return next((name for name in self.file.models if find(name) == self._path), None)
        return None

    def _combine(self) -> None:
        place, section = self.file.path.name, self._section()
        general = self.file.general
        self.settings = Settings().changed(general.values)
        self.origins: dict[str, str] = {key: f"{place}:{general.lines[key]}" for key in general.values}
        if section is not None:
            own = self.file.models[section]
            self._put(own.values, {key: f"[models.{section}] {place}:{own.lines[key]}" for key in own.values})
        self._put(self._flags, dict.fromkeys(self._flags, FLAG))
        self._put(self._here, dict.fromkeys(self._here, HERE))

    def _put(self, values: Values, origins: Mapping[str, str]) -> None:
        self.settings = self.settings.changed(values)
        self.origins |= origins

    def table(self) -> list[tuple[str, Value | None, str]]:
        """Key, value and origin of every setting that holds."""
        keys = [*rows(), *(f"keys.{action}" for action in self.settings.keys)]
        return [(key, self.settings[key], self.origins.get(key, DEFAULT)) for key in keys]


def effective(file: SettingsFile, flags: Values, model: str = "") -> tuple[Settings, Mapping[str, str]]:
    """The settings that hold for a model, and where those come from that are no defaults."""
    layers = Layers(file, flags)
    layers.open(model)
    return layers.settings, layers.origins


def layers_for(flags: Values) -> tuple[Layers, ModelSpec]:
    """The person's file, these flags, and the model that they name. Raises SettingError, ModelFileError."""
    from localr1.models import resolve

    layers = Layers(read(), flags)
    spec = resolve(layers.settings.model.name or None, layers.settings.model.backend)
    layers.open(spec.name, spec.path)
    return layers, spec


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
    return str(value).lower() if isinstance(value, bool) else f"{value:.15g}" if isinstance(value, float) else printable(str(value))


def change(layers: Layers, typed: str, is_r1: bool = True) -> tuple[str, str]:
    """`/set KEY VALUE [save]` (behind a text: --save): the key that was changed and a line about it, a warning where one is due. Raises SettingError.

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
    value = read_value(key, words[0] if saved else text)
    if saved:
        where = f"kept in {layers.save(key, value)}"
    else:
        layers.set(key, value)
        where = "for this session; add save to keep it"
    warning = advice(layers.settings.sampling) if is_r1 and key == "sampling.temperature" else ""
    return key, warning or f"{key} is now {shown(value, key)}, {where}"


def change_rules(layers: Layers, key: str) -> dict[str, object]:
    """What a changed setting changes of the rules of a turn; nothing where it is none of theirs."""
    rules = layers.settings.rules()
    if key.startswith("sampling."):
        return {"sampling": rules.sampling}
    names = {"thinking.mode": "thinking", "thinking.budget": "think_budget", "thinking.on_loop": "on_loop"}
    return {names[key]: getattr(rules, names[key])} if key in names else {}
