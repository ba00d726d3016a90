"""The view of replies of which little is there, and of text that would be obeyed or break it."""

from __future__ import annotations

import re

import pytest
from tui.driving import press, screen, settle, shows
from tui.viewing import ANSWER, HARMLESS, NASTY, STEPS, THOUGHT, Host, deltas, line, shown, trace

from localr1.trace.record import Trace


@pytest.mark.parametrize(
    ("t", "says"),
    [
        (trace("", end="bypassed"), "No thought: the model answered at once"),
        (trace("\n\n", end="user"), "No thought: it was switched off"),
        (trace("Okay, so", "", "cancelled", "unclosed"), "stopped by a person, in mid-thought"),
        (trace("Okay, so", "", "", "unclosed"), "not finished, in mid-thought"),
        (trace(end="budget"), "the thought was closed when its budget was spent"),
    ],
)
async def test_what_there_is_not_and_how_it_ended(t: Trace, says: str):
    app = Host()
    async with app.run_test(size=(120, 24)) as pilot:
        await shown(app, pilot, t)
        assert says in screen(app)
        for key in ("j", "n", "N", "enter", "x", "c", "u", "u", "/", "a", "enter", "escape", "y", "Y", "r", "G", "g", "pageup", "pagedown"):
            await press(pilot, key)
        assert says in screen(app) or "Copied" in screen(app)


async def test_imported_text_has_characters_for_tokens():
    app = Host()
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(app, pilot, trace(plain=True))
        assert f"Thought {len(THOUGHT)} characters · answer {len(ANSWER)} characters" in screen(app)
        assert line(app, "Okay, so").split()[-2:] == [str(len(STEPS[0])), "ch"]
        bar = screen(app).splitlines()[2]
        assert list(dict.fromkeys(bar)) == list('">-<?=')
        await press(pilot, "c", "x", "u")
        assert "How likely its tokens were is not known" in screen(app)
        await press(pilot, "u", "r")
        assert app.steered == [("reroll", None, None)] or "not" in screen(app)


async def test_nothing_at_all():
    app = Host()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, *"jknNxcu", "enter", "escape", *"gGyYr")
        await shows(app, "Nothing yet")


@pytest.mark.parametrize("live", [False, True])
async def test_text_is_shown_and_never_obeyed(live: bool):
    t = trace([NASTY, "", " and", "\n\n", "Wait, ", NASTY], NASTY)
    app = Host()
    async with app.run_test(size=(120, 24)) as pilot:
        if live:
            app.view.begin(NASTY)
            await settle(pilot)
            assert HARMLESS in screen(app)
            app.view.feed(deltas(t, answer=slice(None)))
        else:
            app.view.show(t)
        await settle(pilot)
        assert screen(app).count(HARMLESS) == 3
        await press(pilot, "x", "c")
        assert screen(app).count(HARMLESS) == 3
        await press(pilot, "u")
        assert "\x1b" not in screen(app)


@pytest.mark.parametrize(
    "text",
    [
        "数一数这些瓷砖有多少块，等等，我再检查一遍。" * 40,
        "\u200b\u0301" * 3_000,
        "a\tb\t" * 200,
        "👨‍👩‍👧❤️" * 200,
        "x" * 5_000,
        " " * 3_000 + "end",
        "\n" * 3_000 + "end",
    ],
    ids=["chinese", "no width", "tabs", "emoji", "one word", "blanks", "newlines"],
)
async def test_odd_text_keeps_the_rows_as_wide_as_they_are(text: str):
    app = Host()
    async with app.run_test(size=(60, 20)) as pilot:
        await shown(app, pilot, trace([*text, " end"]))
        await press(pilot, "x", "c", "pagedown", "pagedown")
        for strip in app.screen._compositor.render_strips():
            assert strip.cell_length == 60
            assert not re.search(r"[\t\n]", strip.text)
        await press(pilot, "u", "u", "/", "e", "enter", "G", "y")
