"""`localr1 settings`: its command line, and what it prints. What settings are is in settings.py."""

from __future__ import annotations

import argparse
from pathlib import Path

from localr1.flags import add_screen_flags, add_turn_flags, given

_DESCRIPTION = """The settings that hold and where each comes from: defaults < the file < its [models.NAME] < flags, which may be given here as
they are to chat."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    settings = commands.add_parser("settings", help="the settings, where each comes from; change them", description=_DESCRIPTION)
    settings.add_argument("-m", "--model", metavar="MODEL", help="those of this model (default: the one that chat would open)")
    settings.add_argument("--json", action="store_true", help="print one JSON object")
    what = settings.add_mutually_exclusive_group()
    what.add_argument("--path", action="store_true", help="print where the settings file is, or would be")
    what.add_argument("--init", action="store_true", help="write a settings file that explains every setting, if there is none")
    add_turn_flags(settings)
    add_screen_flags(settings)
    settings.set_defaults(run=run_settings)
    inner = settings.add_subparsers(metavar="COMMAND")
    change = inner.add_parser(
        "set", help="set KEY VALUE: write one value into the file", description="Write one value into the settings file."
    )
    change.add_argument("key", metavar="KEY", help="sampling.temperature, or temperature alone")
    change.add_argument("value", metavar="VALUE", help="none: as if it had never been set")
    change.add_argument("-m", "--model", default=argparse.SUPPRESS, metavar="MODEL", help="for this model alone")
    change.set_defaults(run=run_set)


def run_settings(args: argparse.Namespace) -> int:
    from localr1.output import put
    from localr1.settings_file import create, settings_path

    if args.path:
        put(str(settings_path()))
    elif args.init:
        put(f"Written: {create()}")
    else:
        _show(args)
    return 0


def run_set(args: argparse.Namespace) -> int:
    from localr1.output import put
    from localr1.set_command import find_key, read_value, shown
    from localr1.settings import SettingError, rows
    from localr1.settings_file import write

    key = find_key(args.key)
    row = rows().get(key)
    is_none = args.value.strip().lower() == "none"
    value = None if is_none else read_value(key, args.value)
    if args.model and not (row is not None and row.per_model):
        raise SettingError(f"{key} cannot be set for one model; leave -m away")
    path = write(key, value, _meant(args.model)[0] if args.model else "")
    put(f"{key} is no longer set in {path}" if value is None else f"{key} is {shown(value, key)} in {path}")
    return 0


def _meant(name: str) -> tuple[str, Path]:
    """What the chat calls this model, and where it is; one that is not here keeps the name that was typed."""
    from backends.base import BackendError
    from localr1.models import resolve

    try:
        spec = resolve(name)
    except BackendError:
        return name, Path(name)
    return spec.name, spec.path


def _show(args: argparse.Namespace) -> None:
    from localr1.models import resolve
    from localr1.output import put, put_json, put_table
    from localr1.set_command import shown
    from localr1.settings_file import read
    from localr1.settings_layers import Layers

    layers = Layers(read(), given(args))
    if name := layers.settings.model.name:
        layers.open(*_meant(name))
    else:
        spec = resolve(None, layers.settings.model.backend)
        layers.open(spec.name, spec.path)
    file = layers.file.path
    if args.json:
        table = {key: {"value": value, "origin": origin} for key, value, origin in layers.table()}
        put_json({"file": str(file), "exists": file.exists(), "model": layers.model, "settings": table})
        return
    put(f"For {layers.model}; the file is {file}" + ("" if file.exists() else ", which is not there yet: --init writes one"))
    put_table(("setting", "value", "from"), [(key, shown(value, key), origin) for key, value, origin in layers.table()])
