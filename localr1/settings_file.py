"""The settings file: read, checked, with the line of whatever is wrong; one value written; a first file with everything in it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from localr1 import paths
from localr1.settings import Row, SettingError, Settings, Value, Values, key_problem, rows
from localr1.text import printable


@dataclass(frozen=True, slots=True)
class Layer:
    """Values, and the line that each stands on."""

    values: Values = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """What stands in it; `models`: in [models."NAME"]."""

    path: Path
    general: Layer = Layer()
    models: Mapping[str, Layer] = field(default_factory=dict)


def settings_path() -> Path:
    """LOCALR1_CONFIG, or config.toml in the configuration folder."""
    named = os.environ.get("LOCALR1_CONFIG")
    return Path(named) if named else paths.config() / "config.toml"


def read(path: Path | None = None) -> SettingsFile:
    """The person's own, if no other is named; nothing is set where there is none. Raises SettingError: "FILE:LINE: what is wrong"."""
    path = settings_path() if path is None else path
    text = _text(path)
    return SettingsFile(path) if text is None else parse(text, path)


def _text(path: Path) -> str | None:
    """Raises SettingError."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise SettingError(f"{path} is no UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise SettingError(f"{path} cannot be read: {error.strerror}") from None


def parse(text: str, path: Path) -> SettingsFile:
    """Raises SettingError."""
    from localr1.toml_edit import places

    tree = _tree(text, path)
    where = places(text)
    problems: list[tuple[int, str]] = []

    def layer(tables: Mapping[str, Any], above: tuple[str, ...] = ()) -> Layer:
        values, lines = dict[str, Value | None](), dict[str, int]()
        for place, key, value in _leaves(tables):
            lines[key] = where.line(above + place)
            try:
                values[key] = _checked(key, value, bool(above))
            except SettingError as error:
                problems.append((lines[key], str(error)))
        return Layer(values, lines)

    models = tree.pop("models", {})
    general, own = layer(tree), dict[str, Layer]()
    problems += _clashes(general)
    for name, tables in models.items() if isinstance(models, dict) else [("NAME", None)]:
        if isinstance(tables, dict):
            own[name] = layer(tables, ("models", name))
        else:
            place = ("models", name) if isinstance(models, dict) else ("models",)
            problems.append((where.line(place), f'{".".join(place)} is no table; write [models."{name}"]'))
    if problems:
        line, problem = min(problems)
        raise SettingError(printable(f"{path}:{line}: {problem}"))
    return SettingsFile(path, general, own)


def _clashes(layer: Layer) -> list[tuple[int, str]]:
    """One key for two actions."""
    own = {key.removeprefix("keys."): str(value) for key, value in layer.values.items() if key.startswith("keys.")}
    if not own:
        return []
    from localr1.keys import clash

    found = clash(own)
    return [] if found is None else [(layer.lines[f"keys.{found[0]}"], found[1])]


def _tree(text: str, path: Path) -> dict[str, Any]:
    """Raises SettingError."""
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        said = re.fullmatch(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", str(error), re.DOTALL)
        line = 1 + text.count("\n") if said is None or said[2] is None else int(said[2])
        what = str(error) if said is None else said[1]
        raise SettingError(printable(f"{path}:{line}: this is no TOML: {what[:1].lower()}{what[1:]}")) from None
    except RecursionError:
        raise SettingError(f"{path} is nested too deeply") from None


def _tables() -> list[str]:
    return [each.name for each in fields(Settings)]


def _leaves(tree: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str, object]]:
    """Where each value stands, its key and the value. A table of settings is gone into, whatever else is one value."""
    tables = _tables()
    for table, content in tree.items():
        if table in tables and isinstance(content, dict):
            for name, value in content.items():
                yield (table, name), f"{table}.{name}", value
        else:
            yield (table,), table, content


def _checked(key: str, value: object, per_model: bool) -> Value:
    """Raises SettingError."""
    row = rows().get(key)
    if row is not None and (row.per_model or not per_model):
        return row.check(value)
    if row is not None:
        raise SettingError(f"{key} cannot be set for one model; write it into [{key.partition('.')[0]}]")
    table, _, action = key.partition(".")
    if table == "keys" and action and not per_model:
        if not isinstance(value, str):
            raise SettingError(f'{key} is no text; name keys, for example "ctrl+x"')
        if problem := key_problem(action, value):
            raise SettingError(problem)
        return value
    raise SettingError(unknown(key, isinstance(value, dict)))


def unknown(key: str, is_table: bool = False) -> str:
    """That there is no such setting, and what may have been meant."""
    from difflib import get_close_matches

    tables = [*_tables(), "models"]
    if is_table or key in tables:
        near = get_close_matches(key, tables, 1)
        what = f"{key} is a table; write [{key}]" if key in tables else f"there is no table [{key}]"
        return f"{what}{f'; did you mean [{near[0]}]?' if near and key not in tables else ''}"
    name = key.rpartition(".")[2]
    near = (
        get_close_matches(key, rows(), 1, 0.8)
        or [row for row in rows() if row.rpartition(".")[2] == name]
        or get_close_matches(key, rows(), 1)
        or [row for row in rows() if get_close_matches(name, [row.rpartition(".")[2]])]
    )
    return f"there is no setting {key}" + (f"; did you mean {near[0]}?" if near else "; `localr1 settings` lists them")


def write(key: str, value: Value | None, model: str = "", path: Path | None = None) -> Path:
    """Set one value, or unset it, for one model if it is named; the rest of the file stays as it is, and two programs may do so at the
    same time. Returns the file. Raises SettingError."""
    from filelock import FileLock, Timeout

    from localr1.files import write_whole
    from localr1.toml_edit import CannotEdit, edited

    path = settings_path() if path is None else path
    table, _, name = key.partition(".")
    place = ("models", model, table, name) if model else (table, name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=5):
            text = _text(path) or ""
            parse(text, path)
            text = edited(text, place, value, 2 if model else 1)
            parse(text, path)  # keys may clash
            write_whole(path, text)
    except CannotEdit as error:
        raise SettingError(f"{path}: {error}; please edit the file") from None
    except UnicodeEncodeError:
        raise SettingError(f"{key}: what it should be is no UTF-8 text") from None
    except Timeout:
        raise SettingError(f"{path} is being written by another program; try again") from None
    except OSError as error:
        raise SettingError(f"{path} cannot be written: {error.strerror}") from None
    return path


def template() -> str:
    """A settings file with everything in it, commented out."""
    from localr1.keys import ACTIONS
    from localr1.toml_edit import literal

    def entry(row: Row) -> str:
        name = row.key.partition(".")[2]
        what = f"{row.help}: {row.needed}" if not row.choices else f"{row.help}: {', '.join(row.choices)}"
        if row.kind in (bool, str) and not row.choices:
            what = row.help
        if row.default is None:
            return f"# {what} (unset: {row.unset})\n#{name} ="
        return f"# {what}\n#{name} = {literal(row.default)}"

    parts = [
        "# Settings of localr1. A line that begins with # is not in force; what is shown are the defaults.\n"
        "# `localr1 settings` shows what holds and why."
    ]
    for table in _tables():
        mine = [entry(row) for row in rows().values() if row.key.startswith(f"{table}.")]
        if table == "keys":
            mine = [
                "# Several keys with commas; F1 in the chat shows what each does.",
                *(f"#{a.name} = {literal(a.keys)}" for a in ACTIONS.values()),
            ]
        parts.append(f"[{table}]\n" + "\n".join(mine))
    each = dict.fromkeys(row.key.partition(".")[0] for row in rows().values() if row.per_model)
    parts.append(
        f"# Of one model alone, by its name in `localr1 list`: what {', '.join(each)} have, for example:\n"
        '#[models."r1:7b"]\n#sampling.temperature = 0.7'
    )
    return "\n\n".join(parts) + "\n"


def create(path: Path | None = None) -> Path:
    """Write the template where there is no file yet; returns the file. Raises SettingError."""
    from localr1.files import write_whole

    path = settings_path() if path is None else path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, template(), replace=False)
    except FileExistsError:
        raise SettingError(f"{path} is there already, and stays as it is") from None
    except OSError as error:
        raise SettingError(f"{path} cannot be written: {error.strerror}") from None
    return path
