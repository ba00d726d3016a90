"""Themes: what is on the screen has the colours of the theme, and the contrast that it promises."""

import itertools

import pytest
from rich.color import Color
from rich.color_triplet import ColorTriplet
from rich.segment import Segment
from rich.style import Style
from textual.color import Color as TextualColor
from tui.driving import THINK, ask, chat, press, send, settle, until

from localr1.settings import rows
from localr1.settings_layers import Layers
from localr1.tui.app import ChatApp
from localr1.tui.theme import PALETTES, Painted, contrast, readable
from scripted import ScriptedBackend

LEAST = {"dark": 4.5, "light": 4.5, "high-contrast": 7.0}


def shown(app: ChatApp) -> list[Style]:
    """The styles of all text on the screen."""
    return [s.style for strip in app.screen._compositor.render_strips() for s in strip if s.text.strip() and s.style is not None]


def seen(style: Style) -> float:
    assert style.color is not None and style.bgcolor is not None and not style.dim
    assert style.color.triplet is not None and style.bgcolor.triplet is not None
    return contrast(style.color.triplet, style.bgcolor.triplet)


def test_contrast_is_counted_as_wcag_does():
    white, black, grey = ColorTriplet(255, 255, 255), ColorTriplet(0, 0, 0), ColorTriplet(0x77, 0x77, 0x77)
    assert contrast(white, black) == contrast(black, white) == pytest.approx(21)
    assert contrast(grey, white) == pytest.approx(4.48, abs=0.01)  # the well-known grey that just fails AA
    assert contrast(readable(grey, white, 4.5), white) >= 4.5 and readable(grey, white, 4) == grey


@pytest.mark.parametrize("theme", PALETTES)
def test_every_colour_can_be_read_bright_dim_and_on_any_other(theme):
    colours = [None, *(Color.from_ansi(n) for n in range(16)), Color.from_rgb(120, 130, 110), Color.from_ansi(200)]
    for text, back, dim in itertools.product(colours, colours, (False, True)):
        [segment] = Painted(theme).apply([Segment("x", Style(color=text, bgcolor=back, dim=dim))], TextualColor(0, 0, 0))
        assert seen(segment.style) >= LEAST[theme], (text, back, dim)
    [segment] = Painted(theme).apply([Segment("x", None)], TextualColor(0, 0, 0))
    assert seen(segment.style) >= 7  # plain text


@pytest.mark.parametrize("theme", PALETTES)
def test_a_chosen_line_has_one_background_dim_or_not(theme):
    plain, dim = (
        Painted(theme).apply([Segment("x", Style(reverse=True, dim=dim))], TextualColor(0, 0, 0))[0].style for dim in (False, True)
    )
    assert plain.bgcolor == dim.bgcolor and plain.color != dim.color and not dim.reverse
    assert plain.bgcolor.triplet.hex == PALETTES[theme].text and plain.color.triplet.hex == PALETTES[theme].back


@pytest.mark.parametrize("theme", ["dark", "light", "high-contrast"])
async def test_a_whole_screen_keeps_the_contrast(theme):
    app = ChatApp(
        lambda say: ScriptedBackend([*THINK, "# Head\n\n`code` and\n\n```py\nx = 1\n```\n"]), layers=Layers(flags={"look.theme": theme})
    )
    async with app.run_test(size=(140, 40)) as pilot:
        await ask(app, pilot)
        await press(pilot, "ctrl+o", "ctrl+t")
        await until(lambda: app.trace.display)
        await settle(pilot)
        assert min(map(seen, shown(app))) >= LEAST[theme]
        await press(pilot, "ctrl+p")
        await settle(pilot)
        assert min(map(seen, shown(app))) >= LEAST[theme]


async def test_without_colour_nothing_has_one():
    app, _ = chat([*THINK, "```py\nx = 1\n```\n"])
    async with app.run_test(size=(100, 30)) as pilot:
        await ask(app, pilot)
        assert any(style.color is not None and not style.color.is_default for style in shown(app))
        await send(app, pilot, "/theme no-colour")
        await settle(pilot)
        assert all(style.color is None or style.color.is_default for style in shown(app))
        assert any(style.bold for style in shown(app))


async def test_no_color_is_honoured(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    app = ChatApp(lambda say: ScriptedBackend([*THINK, "ok"]), layers=Layers(flags={"look.theme": "dark"}))
    async with app.run_test(size=(100, 30)) as pilot:
        await ask(app, pilot)
        assert all(style.color is None or style.color.is_default for style in shown(app))


async def test_a_theme_is_changed_while_one_looks():
    app, _ = chat([*THINK, "ok"])
    async with app.run_test(size=(100, 30)) as pilot:
        await ask(app, pilot)
        for theme in rows()["look.theme"].choices:
            await send(app, pilot, f"/theme {theme}")
            await until(
                lambda theme=theme: f"Theme: {theme}" in "".join(s.text for strip in app.screen._compositor.render_strips() for s in strip)
            )
            backs = {style.bgcolor.triplet for style in shown(app) if style.bgcolor is not None}
            assert (PALETTES[theme].colours.background_color in backs) if theme in PALETTES else backs <= {None}
