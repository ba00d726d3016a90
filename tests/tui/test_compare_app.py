"""Two traces side by side."""

from __future__ import annotations

import pytest
from tui.driving import press, screen, settle

from localr1.chat import ChatSession
from localr1.trace.record import Made, Trace
from localr1.tui.compare_app import CompareApp
from localr1.turn import TurnEnd
from scripted import ScriptedBackend

A = ["Two r's", " in it.", "\n\n", "Wait", ", three.", "\n\n", "So", " the answer is three.", "</think>", "\n\n", "Three"]
B = ["Two r's", " in it.", "\n\n", "So", " the answer is two.", "</think>", "\n\n", "Two"]


def trace(pieces: list[str], name: str) -> Trace:
    session = ChatSession(ScriptedBackend(pieces))
    end = list(session.send("How many?"))[-1]
    assert isinstance(end, TurnEnd) and session.reply is not None
    return Trace.of(session.reply, Made(name, "gguf", "Base", "Q8_0"), "2026-01-01T00:00:00Z", end)


@pytest.mark.parametrize(("size", "beside"), [((80, 24), False), ((160, 50), True)])
async def test_two_traces_stand_beside_each_other(size, beside):
    app = CompareApp(trace(A, "one"), trace(B, "two"))
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        shown = screen(app)
        assert "A one" in shown and "B two" in shown and "First difference: token 4, in the thought" in shown
        assert "The answers differ" in shown and "* 90.5%" in shown
        a, b = (view.region for view in app.views)
        assert (b.x > a.x, b.y > a.y) == (beside, not beside)


async def test_moving_in_one_moves_in_the_other():
    app = CompareApp(trace(A, "one"), trace(B, "two"))
    async with app.run_test(size=(160, 50)) as pilot:
        await settle(pilot)
        a, b = app.views
        assert [s.kind for s in app.traces[0].steps] == ["restate", "backtrack", "conclude"]
        for keys, places in (("j", (1, 0)), ("j", (2, 1)), ("G", (3, 2)), ("g", (0, 0))):
            await press(pilot, keys)
            await settle(pilot)
            assert (a.current, b.current) == places
        await press(pilot, "/", *"Wait", "enter")
        await settle(pilot)
        assert (a.current, b.current) == (1, 0)
        await press(pilot, "escape", "g", "tab", "j")
        await settle(pilot)
        assert b.has_focus and (a.current, b.current) == (2, 1)
        await press(pilot, "?", "escape")
        assert app.is_running
        await press(pilot, "q")
        await settle(pilot)
        assert not app.is_running


async def test_the_same_reply_twice():
    app = CompareApp(trace(A, "one"), trace(A, "one"))
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert "No difference: the replies are the same, token by token" in screen(app) and "The answers are the same" in screen(app)
