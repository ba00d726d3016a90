"""A trace on the whole screen, with and without colour."""

from __future__ import annotations

import pytest
from tui.driving import press, screen, settle, until
from tui.viewing import styles, trace

from localr1.settings import Settings
from localr1.tui.compare_app import CompareApp
from localr1.tui.theme import PALETTES
from localr1.tui.trace_app import TraceApp
from localr1.tui.trace_panels import Unsure
from localr1.tui.trace_view import TraceView


@pytest.mark.parametrize("key", ["q", "escape"])
async def test_the_app_shows_a_trace_and_ends(key: str):
    app = TraceApp(trace(), "tiny · \x1b[31mtoday")
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert screen(app).splitlines()[0].strip() == "tiny · ␛[31mtoday"
        assert "q leave" in screen(app)
        await press(pilot, "u", "escape", "/", "q", "escape")
        assert app.is_running
        await press(pilot, key)
        await until(lambda: not app.is_running, "it ends")


async def test_it_has_the_theme_and_the_keys_of_the_settings():
    settings = Settings().changed({"look.theme": "light", "keys.trace_unsure": "z"})
    for app in (TraceApp(trace(), settings=settings), CompareApp(trace(), trace(), settings)):
        async with app.run_test(size=(80, 24)) as pilot:
            await settle(pilot)
            backs = {s.style.bgcolor for strip in app.screen._compositor.render_strips() for s in strip if s.style and s.style.bgcolor}
            assert PALETTES["light"].colours.background_color in {back.triplet for back in backs}
            view = app.query(TraceView).first()
            await press(pilot, "u")
            assert view.panel is None
            await press(pilot, "z")
            assert isinstance(view.panel, Unsure)


async def test_without_colour_the_screen_says_the_same(monkeypatch: pytest.MonkeyPatch):
    texts = []
    for no_colour in (False, True):
        if no_colour:
            monkeypatch.setenv("NO_COLOR", "1")
        app = TraceApp(trace())
        async with app.run_test(size=(80, 24)) as pilot:
            await press(pilot, "n", "enter", "c")
            texts.append(screen(app))
            assert styles(app, "gaps") == "reverse"
            assert "▾ < backtrack" in screen(app)
    assert texts[0] == texts[1]
