"""Flags of `chat`, `ask`, `trace compare` and `bench`: one for each setting, and what was given of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from localr1.settings import Row, SettingError, Value, key_problem, rows


def number(kind: Callable[[str], float], low: float, high: float = float("inf")) -> Callable[[str], float]:
    """An argparse type: a number from `low` to `high`."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no {'whole ' if kind is int else ''}number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is out of range: {low:g} " + ("or more" if high == float("inf") else f"to {high:g}"))
        return value

    return parse


def turn_flags() -> argparse.ArgumentParser:
    """A parent with the flags of a turn."""
    shared = argparse.ArgumentParser(add_help=False)
    add_turn_flags(shared).add_argument("--force", action="store_true", help="open a model that does not fit memory, too")
    return shared


def add_turn_flags(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    turn = parser.add_argument_group("the turn")
    for row in rows().values():
        if row.flag and not row.screen:
            _add(turn, row)
    return turn


def add_flags(parser: argparse.ArgumentParser, *keys: str) -> None:
    """Those of some settings."""
    for key in keys:
        _add(parser, rows()[key])


def add_screen_flags(parser: argparse.ArgumentParser) -> None:
    """Those of the chat alone."""
    screen = parser.add_argument_group("the chat")
    for row in rows().values():
        if row.flag and row.screen:
            _add(screen, row)
    screen.add_argument(
        "--key", action="append", type=_key, default=[], metavar="ACTION=KEYS", help="keys of an action, several with commas: quit=ctrl+q"
    )


def given(args: argparse.Namespace) -> dict[str, Value | None]:
    """The settings that the command line names."""
    values = {key: value for key, value in vars(args).items() if key in rows()}
    if isinstance(getattr(args, "model", None), str):
        values["model.name"] = args.model
    return values | dict(getattr(args, "key", []))


def _add(group: argparse._ActionsContainer, row: Row) -> None:
    """What is not given leaves nothing in the namespace: the file may say it then."""
    default = row.unset if row.default is None else "on" if row.default is True else "off" if row.default is False else str(row.default)
    options: dict[str, Any] = dict(dest=row.key, default=argparse.SUPPRESS)
    options["help"] = (row.help + (f" (default: {default})" if default else "")).replace("%", "%%")
    if row.kind is bool:
        group.add_argument(row.flag, action=argparse.BooleanOptionalAction, **options)
    else:
        metavar = f"{{{','.join(row.choices)}}}" if row.choices else {int: "N", float: "X"}.get(row.kind, "TEXT")
        group.add_argument(row.flag, type=_of(row), metavar=metavar, **options)


def _of(row: Row) -> Callable[[str], Value | None]:
    """An argparse type."""

    def parse(text: str) -> Value | None:
        try:
            return row.parse(text)
        except SettingError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def _key(text: str) -> tuple[str, str]:
    """An argparse type."""
    action, equals, keys = text.partition("=")
    if not equals or not action:
        raise argparse.ArgumentTypeError(f"{text!r} is no ACTION=KEYS, for example quit=ctrl+q")
    if problem := key_problem(action, keys):
        raise argparse.ArgumentTypeError(problem)
    return f"keys.{action}", keys
