"""How the tests drive the chat: a scripted backend behind it, waiting without guessing how long, the screen as text."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from textual import events
from textual.pilot import Pilot

from localr1.keys import named
from localr1.tui.app import ChatApp
from scripted import ScriptedBackend

THINK = ["Let", " me", " count", ".", "</think>", "\n\n"]


def chat(*replies: list[str], **options: object) -> tuple[ChatApp, ScriptedBackend]:
    """A chat over a backend that gives these replies."""
    backend = ScriptedBackend(*replies, **options)  # type: ignore[arg-type]
    return ChatApp(lambda say: backend), backend


async def until(condition: Callable[[], object], what: str = "", limit_s: float = 8.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what or condition.__doc__ or condition}"
        await asyncio.sleep(0.01)


def screen(app: ChatApp) -> str:
    """What the terminal shows."""
    return "\n".join(strip.text.rstrip() for strip in app.screen._compositor.render_strips())


async def shows(app: ChatApp, text: str) -> None:
    await until(lambda: text in screen(app), f"{text!r} on the screen")


async def press(pilot: Pilot[None], *keys: str) -> None:
    """Press keys and let the app work them off. (Pilot.press waits until the process is idle: never, while a model writes.)"""
    for key in keys:
        character = "\n" if key == "enter" else " " if key == "space" else key if len(key) == 1 else None
        assert pilot.app._driver is not None
        pilot.app._driver.send_message(events.Key(named(key), character))
        await settle(pilot)


async def settle(pilot: Pilot[None]) -> None:
    """Let every widget handle what is in its queue, and what that puts into others."""
    for _ in range(3):
        await pilot.pause(0)


async def send(app: ChatApp, pilot: Pilot[None], text: str) -> None:
    app.input.insert(text)
    await press(pilot, "enter")


async def ask(app: ChatApp, pilot: Pilot[None], text: str = "Hello?") -> None:
    """Send a question and wait for the end of its turn."""
    turns = len(app.query("Turn"))
    await send(app, pilot, text)
    await until(lambda: len(app.query("Turn")) > turns and app.turn is None, f"the turn on {text!r} is over")
    await settle(pilot)
