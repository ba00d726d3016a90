"""The rows of the view: wrapped a slice at a time, built when seen, kept in view as the terminal is resized."""

from __future__ import annotations

import re
import time

import pytest
from tui.driving import press, screen, settle, until
from tui.viewing import THOUGHT, Host, deltas, shown, tokens, trace

from backends.base import Token
from localr1.tui import trace_rows
from localr1.tui.trace_outline import SLICE, Wrap, next_row
from localr1.turn import ThoughtDelta


async def test_ten_megabytes_in_one_step_are_wrapped_a_slice_at_a_time():
    app = Host()
    text = "a long line of words that goes on and on and on " * 220_000
    async with app.run_test(size=(80, 24)) as pilot:
        app.view.begin("Go")
        began = time.thread_time()
        for at in range(0, len(text), 100_000):
            app.view.feed([ThoughtDelta(text[at : at + 100_000], Token(1, "", -0.1), False, 1.0)])
        fed_s = time.thread_time() - began
        await settle(pilot)
        began = time.thread_time()
        await press(pilot, "enter", "enter")  # folds, unfolds
        unfolded_s = time.thread_time() - began
        await until(lambda: not app.view.outline.unwrapped, "all is wrapped", 60)
        assert app.view.outline.height > len(text) // 80
        await press(pilot, "G")
        assert "on and on" in screen(app)
        assert fed_s < 10
        assert unfolded_s < 2


async def test_only_rows_that_can_be_seen_are_built(monkeypatch: pytest.MonkeyPatch):
    built: list[int] = []
    build = trace_rows.entry_row
    monkeypatch.setattr(trace_rows, "entry_row", lambda outline, entry, width: (built.append(entry), build(outline, entry, width))[1])
    app = Host()
    t = trace(tokens(THOUGHT * 300))
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(app, pilot, t)
        assert len(app.view.outline) > 1_500
        assert len(set(built)) == app.view.rows
        assert not app.view.children
        app.view.begin("Again?")
        app.view.feed(deltas(t, slice(20_000)))
        await settle(pilot)
        built.clear()
        app.view.feed(deltas(t, slice(20_000, None)))
        await settle(pilot)
        assert len(set(built)) <= app.view.rows


async def test_resizing_wraps_again_and_keeps_the_step_in_view():
    app = Host()
    async with app.run_test(size=(100, 24)) as pilot:
        await shown(app, pilot, trace(THOUGHT * 10))
        await press(pilot, "x", "G", "N", "N")
        current = app.view.current
        for size in ((40, 9), (160, 50), (20, 5), (60, 12), (1, 1), (100, 24)):
            await pilot.resize_terminal(*size)
            await settle(pilot)
            assert app.view.current == current
            assert 0 <= app.view.outline.top(current) - app.view.top < app.view.rows
        assert "Wait, that is not right, because the tiles have gaps between them." in screen(app)


async def test_resizing_keeps_the_line_that_is_read_in_a_long_step():
    app = Host()
    text = " ".join(f"word{i}" for i in range(2_000))
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(app, pilot, trace(text))
        await press(pilot, "enter", *["pagedown"] * 4)
        first = re.findall(r"word\d+", screen(app))[0]
        for width in (40, 110, 80):
            await pilot.resize_terminal(width, 24)
            await settle(pilot)
            assert first in re.findall(r"word\d+", screen(app))[:20]


@pytest.mark.parametrize("width", [1, 7, 40])
@pytest.mark.parametrize("text", [THOUGHT, "数一数 these 瓷砖 and " * 9, "a\t\tb " * 30, "x" * 100, "\n\n a \n" * 9])
def test_wrapping_piece_by_piece_is_wrapping_at_once(text: str, width: int):
    whole, grown = Wrap(0, width), Wrap(0, width)
    whole.extend(text, len(text), len(text))
    for end in range(1, len(text) + 1):
        grown.extend(text[:end], end, 3)
    while grown.end < len(text):
        grown.extend(text, len(text), 3)
    assert grown.rows == whole.rows
    assert "".join(text[slice(*whole.row(i))] for i in range(len(whole.rows))) == text
    for i in range(len(whole.rows)):
        first, last = whole.row(i)
        assert next_row(text, first, len(text), width) == last


def test_wrapping_shrinks_when_a_step_turns_out_to_end_before():
    wrap = Wrap(0, 20)
    wrap.extend(THOUGHT, 200)
    again = Wrap(0, 20)
    again.extend(THOUGHT, 100)
    wrap.extend(THOUGHT, 100)
    assert (wrap.rows, wrap.end) == (again.rows, again.end)
    assert SLICE > 1_000
