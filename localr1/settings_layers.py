"""The settings that hold, and where each comes from: defaults < file < the file's [models.NAME] < flags < what was set in the chat."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from localr1.settings import Settings, Value, Values, rows
from localr1.settings_file import SettingsFile, read, write

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

    def save(self, key: str, value: Value | None) -> str:
        """For good, into the file: for the model that is open where a model may have it for itself, else for all. Returns that model's
        name, or "". Raises SettingError."""
        row = rows().get(key)
        model = (self._section() or self.model) if row is not None and row.per_model else ""
        self.file = read(write(key, value, model, self.file.path))
        self._here.pop(key, None)
        self._combine()
        if self.settings[key] != (row.default if row is not None and value is None else value):  # a flag has another
            self.set(key, value)
        return model

    def _section(self) -> str | None:
        """The NAME of [models.NAME] that means the model that is open."""
        names = (self.model, *(() if self._path is None else (self._path.name if self._path.is_dir() else self._path.stem,)))
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


def own_settings() -> Settings:
    """As the person's file has them for every model. Raises SettingError."""
    return Layers(read()).settings


def layers_for(flags: Values) -> tuple[Layers, ModelSpec]:
    """The person's file, these flags, and the model that they name. Raises SettingError, ModelFileError."""
    from localr1.models import resolve

    layers = Layers(read(), flags)
    spec = resolve(layers.settings.model.name or None, layers.settings.model.backend)
    layers.open(spec.name, spec.path)
    return layers, spec
