"""The status bar, and what the transcript keeps in sight."""

from __future__ import annotations

import re

import pytest
from tui.driving import THINK, ask, chat, press, screen, send, settle, shows, until

from localr1.tui.app import ChatApp
from localr1.tui.status import Field, fit, meter, model_fields
from localr1.tui.thought import Thought
from scripted import ScriptedBackend


async def test_status_tells_model_backend_format_context_and_speed():
    app, _ = chat([*THINK, "It is 3."])
    async with app.run_test(size=(120, 24)) as pilot:
        await shows(app, "scripted · from Scripted-Base · scripted · Q8_0")
        await shows(app, "context 0 / 4,096")
        await ask(app, pilot, "Hi")
        session = app.engine.session
        assert session is not None
        assert session.next_tokens == session.context_tokens - 5 > 7  # the thought, which the next prompt leaves out
        await shows(app, f"▏ context {session.next_tokens} / 4,096 · 100.0 tokens/s")  # the script decodes in 10 ms a token


async def test_speed_of_the_running_turn_is_shown_before_it_ends():
    app, _ = chat([*["word "] * 500], pause_s=0.01)
    async with app.run_test(size=(120, 24)) as pilot:
        await send(app, pilot, "Go")
        await until(lambda: re.search(r"4,096 · \d+\.\d tokens/s", screen(app)))
        assert app.turn is not None


def test_the_less_important_goes_first_and_the_name_stays():
    fields = model_fields(ScriptedBackend(), 1_204, 39.14)
    assert fit(fields, 100).startswith("scripted · from Scripted-Base · scripted · Q8_0  ")
    assert fit(fields, 100).endswith("▕██▍     ▏ context 1,204 / 4,096 · 39.1 tokens/s")
    assert len(fit(fields, 100)) == 100
    assert "from" not in fit(fields, 80)  # the base goes first, then the engine, then the meter
    assert fit(fields, 80).startswith("scripted · scripted · Q8_0 ") and "▕██▍     ▏ context" in fit(fields, 80)
    assert "▕" in fit(fields, 66) and "▕" not in fit(fields, 60)
    assert "Q8_0" in fit(fields, 60)
    assert "Q8_0" not in fit(fields, 50)
    assert "39.1" in fit(fields, 50)
    assert "39.1" not in fit(fields, 40)
    assert "1,204" in fit(fields, 40)
    assert fit(fields, 10) == "scripted"


@pytest.mark.parametrize(
    ("share", "bar"),
    [(-1, "▕        ▏"), (0.0, "▕        ▏"), (1 / 64, "▕▏       ▏"), (0.5, "▕████    ▏"), (0.99, "▕███████▉▏"), (3, "▕████████▏")],
)
def test_the_meter_is_eight_cells_wide_whatever_it_shows(share: float, bar: str):
    assert meter(share) == bar


@pytest.mark.parametrize("width", range(12))
def test_no_line_is_wider_than_the_bar(width: int):
    assert len(fit([Field("a rather long name", 0), Field("x", 1, right=True)], width)) <= width


def test_names_from_model_files_are_made_harmless():
    backend = ScriptedBackend()
    object.__setattr__(backend.info, "name", "evil\x1b[2J\nname")
    assert model_fields(backend, 0, None)[0].text == "evil␛[2J name"


@pytest.mark.parametrize("size", [(80, 24), (160, 50), (40, 12)])
async def test_everything_has_its_place_at_any_size(size: tuple[int, int]):
    app, _ = chat([*THINK, "It is 3."])
    async with app.run_test(size=size) as pilot:
        await until(lambda: app.engine.session)
        assert "/help" in screen(app).splitlines()[-6] or size[1] < 24
        await ask(app, pilot, "Hi")
        await shows(app, "It is 3.")
        lines = screen(app).splitlines()
        assert len(lines) == size[1]
        assert "tokens/s" in lines[-6]  # the conversation ends right above the input
        assert "Ask something" in lines[-3]
        assert "scripted" in lines[-1]


async def test_output_is_followed_until_the_person_scrolls_up():
    lines = ["</think>", *[f"line {i}\n\n" for i in range(30)]]
    app, backend = chat(lines, lines)
    async with app.run_test(size=(80, 16)) as pilot:
        await ask(app, pilot)
        transcript = app.transcript
        assert transcript.max_scroll_y > 30
        assert transcript.scroll_y == transcript.max_scroll_y
        backend.pause_s = 0.02
        await send(app, pilot, "More")
        await press(pilot, "pageup")  # the input has the focus
        position, height = transcript.scroll_y, transcript.max_scroll_y
        assert position < height
        await until(lambda: app.turn is None)
        await settle(pilot)
        assert transcript.max_scroll_y > height
        assert transcript.scroll_y == position
        for _ in range(10):
            await press(pilot, "pagedown")
        assert transcript.scroll_y == transcript.max_scroll_y
        await press(pilot, "pageup", "pageup")
        assert transcript.scroll_y < transcript.max_scroll_y
        await press(pilot, "ctrl+end")
        await until(lambda: transcript.scroll_y == transcript.max_scroll_y)


async def test_unfolding_a_long_thought_keeps_its_head_in_sight():
    app, _ = chat([*[f"step {i}\n" for i in range(80)], "</think>", "Done."])
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot)
        await press(pilot, "ctrl+o")
        await shows(app, "step 0")
        assert "▾ Thought for" in screen(app)
        await press(pilot, "ctrl+o")
        await shows(app, "Done.")


async def test_scrolling_where_nothing_scrolls_does_not_stop_the_following():
    app, _ = chat([*THINK, *["more\n\n"] * 30], pause_s=0.02)
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "Go")
        assert app.transcript.max_scroll_y == 0
        await press(pilot, "pageup")
        await until(lambda: app.turn is None)
        await settle(pilot)
        assert app.transcript.scroll_y == app.transcript.max_scroll_y > 0


async def test_no_color_leaves_text_styles_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")
    app = ChatApp(lambda say: ScriptedBackend([*THINK, "ok"]))
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot)
        await until(lambda: len(app.query(Thought)))
        filters = [type(f).__name__ for f in app._filters if f.enabled]
        assert filters == ["NoColor"]
