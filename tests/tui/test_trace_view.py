"""The view of a trace: every key, narrow and wide."""

from __future__ import annotations

import re

import pytest
from textual import events
from tui.driving import press, screen, settle
from tui.viewing import KINDS, NASTY, STEPS, Host, deltas, line, shown, styles, trace

from localr1.trace.record import stats
from localr1.tui.trace_panels import Unsure
from localr1.tui.trace_tape import Tape
from localr1.tui.trace_view import TraceView


@pytest.mark.parametrize("size", [(80, 24), (160, 50), (60, 12)])
async def test_everything_is_there_in_plain_text(size: tuple[int, int]):
    app = Host()
    async with app.run_test(size=size) as pilot:
        await shown(app, pilot)
        text = screen(app)
        for mark, words in zip('">-<?=', STEPS, strict=True):
            row = line(app, words[:14])
            assert row.startswith(f"▸ {mark} ")
            assert re.search(r"\d+ tok +\d\.\d s +\d+%", row)
        assert line(app, "There are").startswith("▸ A ")
        assert f"Thought {len(app.view.tape.thought.tokens)} tokens" in text
        assert "1 backtrack" in text
        assert "finished" in text
        assert "? keys" in text.splitlines()[-1]
        assert ("backtrack Wait" in text) == (size[0] > 80)
        if size[1] > 12:
            for figure in ("1 check", "answer 10 tokens", "longest step", "10.0 tokens/s", "6 steps"):
                assert figure in text
        bar = text.splitlines()[app.view.stat_rows]
        assert list(dict.fromkeys(bar)) == list('">-<?=')  # each kind, in order, as wide as its tokens
        assert len(bar) == size[0]


async def test_statistics_are_those_of_the_record_live_and_saved():
    t = trace()
    live = Tape()
    for event in deltas(t, answer=slice(None)):
        live.feed([event])
    live.finish(t)
    for tape in (live, Tape.of(t)):
        ours, theirs = tape.stats(), stats(t)
        assert [step.kind for step in tape.steps] == KINDS
        for name in ("thought_tokens", "answer_tokens", "thought_s", "answer_s", "steps", "backtracks", "checks", "longest_step_tokens"):
            assert getattr(ours, name) == pytest.approx(getattr(theirs, name)), name
        assert [(s.start, s.end, s.tokens, s.first_token) for s in tape.steps] == [
            (s.start, s.end, s.tokens, s.first_token) for s in t.steps
        ]
        assert [tape.thought.places, tape.answer.places] == [
            [i for i, w in enumerate(t.tokens) if w.part == part] for part in ("thought", "answer")
        ]


async def test_steps_fold_and_unfold():
    app = Host()
    async with app.run_test(size=(60, 24)) as pilot:
        await shown(app, pilot)
        await press(pilot, "j", "j", "j", "enter")
        assert "  │ Wait, that is not right, because the tiles have gaps" in screen(app)
        assert line(app, "▾").startswith("▾ < backtrack")
        await press(pilot, "space")
        assert "│" not in screen(app)
        await press(pilot, "x")
        assert screen(app).count("▾") == 7
        assert "│ There are **600** tiles." in screen(app)
        await press(pilot, "x")
        assert "▾" not in screen(app)


async def test_moving_by_step_page_mark_and_to_the_ends():
    app = Host()
    async with app.run_test(size=(60, 8)) as pilot:
        await shown(app, pilot)
        for keys, current in (
            ("j down", 2), ("up k", 0), ("k", 0), ("G", 6), ("j", 6), ("g", 0), ("n", 3), ("n", 4), ("n", 4), ("N", 3), ("N", 3), ("end", 6), ("home", 0),
        ):  # fmt: skip
            await press(pilot, *keys.split())
            assert app.view.current == current, keys
            row = app.view.outline.top(current) - app.view.top
            assert 0 <= row < app.view.rows
        await press(pilot, "G", "n")
        assert "No backtrack or check after this" in screen(app)
        await press(pilot, "g", "x", "pagedown")
        assert app.view.top == app.view.rows - 1
        assert app.view.current > 0
        for _ in range(9):
            await press(pilot, "pagedown")
        assert app.view.current == 6
        for _ in range(9):
            await press(pilot, "pageup")
        assert (app.view.current, app.view.top) == (0, 0)


async def test_confidence_shading_has_four_levels_without_colour():
    app = Host()
    async with app.run_test(size=(100, 24)) as pilot:
        await shown(app, pilot)
        await press(pilot, "x", "c")
        assert "underlined below 90%" in screen(app)
        assert styles(app, "same") == "underline"
        assert styles(app, "right") == "bold underline"
        assert styles(app, "gaps") == "reverse"
        assert styles(app, "Okay, so I need to count the tiles of a floor that is 3 m wide.") == ""
        await press(pilot, "c")
        assert "No shading" in screen(app)
        assert styles(app, "First, I should get everything into the same unit.") == ""


async def test_least_certain_tokens_with_what_else_was_likely():
    app = Host()
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(app, pilot)
        await press(pilot, "u")
        rows = [line for line in screen(app).splitlines() if re.search(r"\[ \w+\]", line)]
        assert [re.findall(r"(\d+%)  .*\[ (\w+)\]", row)[0] for row in rows] == [("3%", "gaps"), ("40%", "right"), ("70%", "same")]
        assert "because the tiles have[ gaps] between them" in rows[0]
        assert 'or " edges" 50%' in rows[1]
        assert re.search(r'1 +50%  " edges"', screen(app))
        assert re.search(r'2 +25%  "␛\[2J"', screen(app))
        await press(pilot, "9")
        assert "No alternative 9" in screen(app)
        await press(pilot, "j", "j", "j", "enter")  # past its alternatives: the second token
        assert app.view.panel is None
        assert app.view.current == 3
        assert styles(app, " right") == "bold reverse"
        await press(pilot, "escape")
        assert app.view.token is None
        await press(pilot, "u", "u")
        assert app.view.panel is None


@pytest.mark.parametrize("keys", ["2", "j j enter"])
async def test_an_alternative_is_taken_by_its_digit_or_with_enter(keys: str):
    app = Host()
    async with app.run_test(size=(80, 24)) as pilot:
        t = trace()
        await shown(app, pilot, t)
        await press(pilot, "u", *keys.split())
        gaps = next(i for i, w in enumerate(t.tokens) if w.token.text == " gaps")
        assert app.steered == [("alternative", gaps, 1)]
        assert app.view.panel is None


async def test_a_sure_model_has_no_uncertain_tokens():
    app = Host()
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(app, pilot, trace("Okay. Done."))
        await press(pilot, "u", "j", "enter", "1")
        assert "Every token was at least 90% likely" in screen(app)
        assert app.steered == []


async def test_search_goes_through_thought_and_answer():
    app = Host()
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(app, pilot)
        await press(pilot, "/", *"TILEx", "backspace", "s")
        assert "/TILEs" in screen(app)
        assert "6 matches" in screen(app)
        await press(pilot, "enter")
        assert "/TILEs  1 of 6" in screen(app)
        assert styles(app, "tiles") == "bold reverse"
        for key, at, current in (("n", 2, 2), ("enter", 3, 3), ("N", 2, 2), ("N", 1, 0), ("N", 6, 6), ("n", 1, 0)):
            await press(pilot, key)
            assert f"{at} of 6" in screen(app)
            assert app.view.current == current
        await press(pilot, "escape")
        assert app.view.search is None
        await press(pilot, "n")
        assert app.view.current == 3  # n is for backtracks and checks again


async def test_search_that_finds_nothing_and_search_given_up():
    app = Host()
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(app, pilot)
        await press(pilot, "/", *"(q[", "enter")
        assert "/(q[  not found" in screen(app)
        await press(pilot, "n", "escape", "/", "a", "escape", "/", "enter")
        assert app.view.search is None
        await press(pilot, "/", "q")
        app.view.post_message(events.Paste("uestion\nof \x1b[1m"))
        await settle(pilot)
        assert "/question of ␛[1m" in screen(app)
        assert app.missed == []


async def test_copy_gives_the_text_without_what_a_terminal_would_obey(monkeypatch: pytest.MonkeyPatch):
    app, copied = Host(), []
    monkeypatch.setattr(app, "copy_to_clipboard", copied.append)
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(app, pilot, trace(NASTY + "\n\nWait, no, that is not what was asked for.", "*An* \x1b[1manswer"))
        await press(pilot, "y")
        assert "Copied the step" in screen(app)
        harmless = "[red]a[/red] [/ ␛[31mb␛]0;title␇ �2J �c �"
        await press(pilot, "G", "y", "Y")
        assert copied == [
            harmless + "\n\n", "*An* ␛[1manswer", harmless + "\n\nWait, no, that is not what was asked for.\n\n*An* ␛[1manswer",
        ]  # fmt: skip


async def test_all_keys_are_listed_and_any_key_closes_the_list():
    app = Host()
    async with app.run_test(size=(100, 24)) as pilot:
        await shown(app, pilot)
        await press(pilot, "?")
        for text in ("Up, k, Down, j", "least certain tokens", "re-roll", "< backtrack", "A answer", "underlined"):
            assert text in screen(app)
        await press(pilot, "j")
        assert app.view.panel is None
        assert app.view.current == 0
        app.view.can_steer = False
        await press(pilot, "?")
        assert "re-roll" not in screen(app)
        await press(pilot, "escape")
        await pilot.resize_terminal(60, 10)
        await press(pilot, "?")
        assert "Any key goes on" in screen(app)
        assert "shading" not in screen(app)
        await press(pilot, "j")
        assert "shading" in screen(app)
        assert "Any key closes" in screen(app)


async def test_steering_keys_only_say_what_is_wanted():
    app = Host()
    async with app.run_test(size=(120, 24)) as pilot:
        t = trace()
        await shown(app, pilot, t)
        step = t.steps[3].first_token
        await press(pilot, "n", *"awerR")
        assert app.steered == [("answer_now", None, None), ("longer", None, None), ("edit", step, None), ("reroll", step, None), ("reroll_answer", None, None)]  # fmt: skip
        assert "w think longer" in screen(app)
        app.steered.clear()
        await press(pilot, "G", "r")  # on the answer
        assert app.steered == [("reroll_answer", None, None)]
        app.view.can_steer = False
        await press(pilot, *"awerR", "u", "1")
        assert app.steered == [("reroll_answer", None, None)]
        assert "This reply cannot be steered" in screen(app)
        assert app.missed == []


async def test_a_chosen_token_is_where_to_re_roll_from():
    app = Host()
    async with app.run_test(size=(80, 24)) as pilot:
        t = trace()
        await shown(app, pilot, t)
        await press(pilot, "u", "enter", "r")
        assert app.steered == [("reroll", next(i for i, w in enumerate(t.tokens) if w.token.text == " gaps"), None)]


async def test_keys_without_a_meaning_go_on_to_the_app():
    app = Host()
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(app, pilot)
        await press(pilot, "h", "escape", "f5")
        assert app.missed == ["h", "escape", "f5"]


async def test_the_timeline_and_rows_can_be_clicked_and_scrolled():
    app = Host()
    async with app.run_test(size=(60, 12)) as pilot:
        await shown(app, pilot)
        bar = screen(app).splitlines()[1]
        await pilot.click(TraceView, offset=(bar.index("<") + 1, 1))
        assert app.view.current == 3
        await pilot.click(TraceView, offset=(10, 2))
        assert app.view.current == 0
        assert app.view.outline.is_open(0)
        await press(pilot, "x", "g")
        app.view.post_message(events.MouseScrollDown(app.view, 5, 5, 0, 0, 0, False, False, False))
        await settle(pilot)
        assert app.view.top == 3
        await pilot.click(TraceView, offset=(59, 9))
        assert app.view.top > 3
        await press(pilot, "u")
        await pilot.click(TraceView, offset=(10, 4))
        assert isinstance(app.view.panel, Unsure)
        assert app.view.panel.selected == 2
