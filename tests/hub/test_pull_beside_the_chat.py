"""A model pulled from the chat: its progress in place, stopped by Esc, gone on with once it is here."""

from __future__ import annotations

import threading

import pytest
from hub.pulls import QWEN, gguf_repo
from hub_server import Hub
from tui.driving import THINK, ask, chat, press, send, shows, until

from localr1 import fitting, library, picking
from localr1.fitting import Bandwidth


@pytest.fixture(autouse=True)
def machine(near: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picking, "machine", fitting.machine)
    monkeypatch.setattr(library, "is_apple_silicon", lambda: False)
    monkeypatch.setattr(fitting, "bandwidth", lambda: Bandwidth(45e9, "said"))


async def test_it_is_pulled_beside_the_chat_and_gone_on_with(near: Hub, weights: bytes):
    near.repos[QWEN] = gguf_repo(weights, "Q4_K_M")
    go = threading.Event()
    near.before_large = lambda: go.wait(20)
    app, backend = chat([*THINK, "meanwhile"])
    async with app.run_test(size=(120, 24)) as pilot:
        await until(lambda: app.engine.session)
        await send(app, pilot, "/model r1:1.5b")
        await shows(app, "Enter downloads it")
        assert not near.requests
        await press(pilot, "enter")
        await shows(app, "1.5b")
        await ask(app, pilot)
        go.set()
        await until(lambda: app.engine.session is not None and app.engine.session.backend.name == "gguf", limit_s=60)
        assert backend.closed and app.layers.model == "r1:1.5b" and app.engine.session is not None
        assert len(app.engine.session.history) == 2


async def test_escape_stops_it_and_what_has_come_is_kept(near: Hub, weights: bytes):
    near.repos[QWEN] = gguf_repo(weights, "Q4_K_M")
    near.cut, near.cut_at = 1, 1_000_000
    go = threading.Event()
    near.before_cut = lambda: go.wait(20)
    app, backend = chat([*THINK, "ok"])
    async with app.run_test(size=(120, 24)) as pilot:
        await until(lambda: app.engine.session)
        await send(app, pilot, "/model r1:1.5b")
        await shows(app, "Enter downloads it")
        await press(pilot, "enter")
        await shows(app, "Pulling r1:1.5b: ")
        await press(pilot, "escape")
        go.set()
        await shows(app, "r1:1.5b could not be pulled: it was stopped; what has come is kept")
        await ask(app, pilot)
        assert not backend.closed


async def test_offline_is_a_line(near: Hub, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    app, _ = chat([*THINK, "ok"])
    async with app.run_test(size=(120, 24)) as pilot:
        await until(lambda: app.engine.session)
        await send(app, pilot, "/model r1:1.5b")
        await shows(app, "Enter downloads it")
        await press(pilot, "enter")
        await shows(app, "r1:1.5b could not be pulled: ")
        await shows(app, "HF_HUB_OFFLINE")
        assert not near.requests
