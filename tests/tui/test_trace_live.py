"""The view of a trace while its reply streams."""

from __future__ import annotations

from tui.driving import press, screen, settle
from tui.viewing import Host, deltas, line, trace


async def test_live_it_follows_the_end_until_the_person_moves():
    app = Host()
    t = trace()
    async with app.run_test(size=(60, 10)) as pilot:
        app.view.begin("How many tiles?")
        await settle(pilot)
        assert "Waiting for the first words on: How many tiles?" in screen(app)
        events = deltas(t)
        for at in range(len(events) // 2):
            app.view.feed(events[at : at + 1])
            await settle(pilot)
            entries = len(app.view.outline)
            assert app.view.current == max(0, entries - 1)
            assert app.view.top == app.view.last_top
        assert "thinking" in screen(app)
        assert line(app, "▾")  # the step that is being thought is open
        assert "a answer now" in screen(app)
        await press(pilot, "k", "k", "enter")
        current, seen = app.view.current, app.view.outline.top(app.view.current) - app.view.top
        app.view.feed(events[len(events) // 2 :])
        await settle(pilot)
        assert app.view.current == current
        assert app.view.outline.top(current) - app.view.top == seen
        await press(pilot, "G")
        app.view.feed(deltas(t, slice(0), slice(None)))
        await settle(pilot)
        assert app.view.current == 6
        assert "answering" in screen(app)
        app.view.finish(t)
        await settle(pilot)
        assert "finished" in screen(app)
        assert [app.view.outline.is_open(entry) for entry in range(7)].index(True) == current  # the one the person opened
        assert screen(app).count("▾") <= 1


async def test_finish_keeps_what_the_person_looks_at():
    app = Host()
    t = trace()
    async with app.run_test(size=(60, 12)) as pilot:
        app.view.begin("How many tiles?")
        app.view.feed(deltas(t, answer=slice(3)))
        await settle(pilot)
        await press(pilot, "g", "j", "enter", "/", *"unit", "enter")
        before = screen(app).splitlines()[2:-1]
        app.view.finish(t)
        await settle(pilot)
        assert app.view.current == 1
        assert [row for row in screen(app).splitlines()[2:-1] if "There" not in row] == [row for row in before if "There" not in row]
        assert "1 of 1" in screen(app)
