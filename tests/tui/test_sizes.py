"""Odd sizes, one after the other, while everything is open."""

import pytest
from tui.driving import THINK, ask, chat, press, screen, send, settle, shows

STORM = [(20, 5), (300, 80), (1, 1), (80, 24), (7, 40), (400, 3), (120, 30), (119, 30), (30, 10), (80, 24)]
SHORT_STORM = [(20, 5), (300, 20), (1, 1), (80, 24)]
CODE = "# Head\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```py\nx = 1\n```\n"


async def test_a_storm_of_sizes():
    app, _ = chat([*THINK, CODE], [*["word "] * 300], pause_s=0.002)
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot)
        await press(pilot, "ctrl+o", "ctrl+t")
        await send(app, pilot, "More?")
        for width, height in STORM:
            await pilot.resize_terminal(width, height)
            await settle(pilot)
        await shows(app, "❯")


@pytest.mark.parametrize("opened", ["f1", "ctrl+p", "f2", "ctrl+l", "/"])
async def test_dialogs_in_a_storm(opened):
    app, _ = chat([*THINK, "ok"])
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, opened)
        for width, height in SHORT_STORM:
            await pilot.resize_terminal(width, height)
            await settle(pilot)
        await press(pilot, "escape")
        assert len(app.screen_stack) == 1
        assert "❯" in screen(app)
