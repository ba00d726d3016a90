"""Telling a person who looks elsewhere: when, how, and not more than once."""

import pytest
from textual import events
from tui.driving import THINK, chat, send, settle, until

from localr1.settings_layers import Layers
from localr1.tui.app import ChatApp
from localr1.tui.notify import notification
from scripted import ScriptedBackend

ESC = "\x1b"


async def told(when: str, after_s: int, in_front: bool) -> list[str]:
    """What is written to the terminal by the way, in a turn."""
    layers = Layers(flags={"notify.when": when, "notify.after_s": after_s})
    app, written = ChatApp(lambda say: ScriptedBackend([*THINK, "6", "0", "0"], pause_s=0.03), layers=layers), list[str]()
    app.notifier._write = written.append
    async with app.run_test() as pilot:
        await send(app, pilot, "How many?")
        app.post_message(events.AppFocus() if in_front else events.AppBlur())
        await settle(pilot)
        await until(lambda: app.last and app.last.over and app.turn is None)
    return written


@pytest.mark.parametrize(
    ("when", "after_s", "in_front", "expected"),
    [
        ("bell", 0, False, ["\a"]), ("bell", 0, True, []), ("bell", 60, False, []), ("off", 0, False, []),
        ("desktop", 0, False, [f"{ESC}]777;notify;localr1;The thought is done\a"]),
    ],
)  # fmt: skip
async def test_once_and_only_where_it_is_wanted(when, after_s, in_front, expected, monkeypatch):
    for name in ("TMUX", "ITERM_SESSION_ID", "WEZTERM_PANE", "KITTY_WINDOW_ID", "GHOSTTY_RESOURCES_DIR"):
        monkeypatch.delenv(name, raising=False)
    assert await told(when, after_s, in_front) == expected


def test_it_is_off_by_default():
    app, _ = chat()
    assert app.settings.notify.when == "off"


def test_forms_of_notifications():
    assert notification("done", {"KITTY_WINDOW_ID": "1"}) == f"{ESC}]9;localr1: done\a"
    assert notification("a;b\x1b\a", {}) == f"{ESC}]777;notify;localr1;a,b␛␇\a"
    assert notification("done", {"TMUX": "x"}) == f"{ESC}Ptmux;{ESC}{ESC}]777;notify;localr1;done\a{ESC}\\"
