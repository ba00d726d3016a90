"""What was made here, and what it would have cost."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from tui.driving import THINK, ask, screen, send, settle, shows, until

from localr1.plain import PlainChat
from localr1.savings import worth
from localr1.settings import SavingsSettings
from localr1.settings_layers import Layers
from localr1.store import Store
from localr1.tui.app import ChatApp
from scripted import ScriptedBackend


@pytest.mark.parametrize(
    ("tokens", "settings", "line"),
    [
        (0, SavingsSettings(), "0 tokens made here, $0.00 elsewhere"),
        (7, SavingsSettings(), "7 tokens made here, under $0.01 elsewhere"),
        (1_234_567, SavingsSettings(), "1,234,567 tokens made here, $12.35 elsewhere"),
        (500_000_000, SavingsSettings(price=2.19, currency="€ \x1b"), "500,000,000 tokens made here, € ␛1,095.00 elsewhere"),
        (10, SavingsSettings(price=0.0), "10 tokens made here, $0.00 elsewhere"),
    ],
)
def test_tokens_and_their_price(tokens: int, settings: SavingsSettings, line: str) -> None:
    assert worth(tokens, settings) == line


async def test_the_status_bar_counts_what_is_kept_and_what_is_new(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    history = tmp_path / "h.db"
    monkeypatch.setattr(sys, "stdin", io.StringIO("How many?\n"))
    PlainChat(lambda say: ScriptedBackend([*THINK, "600"]), history=history).run()
    app = ChatApp(lambda say: ScriptedBackend([*THINK, "600"]), history=history, layers=Layers(flags={"savings.price": 1e6}))
    async with app.run_test(size=(160, 24)) as pilot:
        await ask(app, pilot)
        await settle(pilot)
        assert "made here" not in screen(app)  # off by itself
        await send(app, pilot, "/set savings.show on")
        await until(lambda: app.savings.line() == "14 tokens made here, $14.00 elsewhere")
        await shows(app, "14 tokens made here")
    with Store(history) as store:
        assert store.tokens() == 14


def test_the_plain_chat_tells_at_the_end(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("How many?\n"))
    assert PlainChat(lambda say: ScriptedBackend([*THINK, "600"]), layers=Layers(flags={"savings.show": True})).run() == 0
    assert capsys.readouterr().out.endswith("7 tokens made here, under $0.01 elsewhere\n")
