"""The view of a trace: every key, live and saved, narrow and wide; and nothing a model writes is obeyed or breaks it."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence

import pytest
from textual import events
from textual.app import App, ComposeResult
from textual.pilot import Pilot
from tui.driving import press, screen, settle, shows, until

from backends.base import Token
from localr1.trace.record import Ended, Made, Trace, stats
from localr1.tui import trace_rows
from localr1.tui.trace_app import TraceApp
from localr1.tui.trace_outline import SLICE, Wrap, next_row
from localr1.tui.trace_panels import Unsure
from localr1.tui.trace_tape import Tape
from localr1.tui.trace_view import TraceView
from localr1.turn import AnswerDelta, ThoughtDelta, Written

STEPS = (
    "Okay, so I need to count the tiles of a floor that is 3 m wide.\n\n",
    "First, I should get everything into the same unit.\n\n",
    "3 m is 300 cm, and 300 divided by 15 is 20 tiles in a row.\n\n",
    "Wait, that is not right, because the tiles have gaps between them.\n\n",
    "Let me check that again with the areas of the tiles.\n\n",
    "So the answer is 600 tiles.",
)
KINDS = ["restate", "plan", "work", "backtrack", "check", "conclude"]
THOUGHT = "".join(STEPS)
ANSWER = "There are **600** tiles."
NASTY = "[red]a[/red] [/ \x1b[31mb\x1b]0;title\x07 \x9b2J \u202ec \ud800"
HARMLESS = "[red]a[/red] [/ ␛[31mb␛]0;title␇ �2J �c �"

# how likely some tokens were; all others: surely
LIKELY = {" gaps": 0.03, " right": 0.4, " same": 0.7}
OTHERS = ((901, " edges", math.log(0.5)), (902, "\x1b[2J", math.log(0.25)))


def tokens(text: str) -> list[str]:
    return re.findall(r" ?\w+|\n\n|.", text, re.DOTALL)


def written(thought: Sequence[str], answer: Sequence[str] = (), closed: bool = True) -> tuple[Written, ...]:
    found: list[Written] = []

    def add(text: str, part: str, shown: str) -> None:
        p = LIKELY.get(text, 0.999)
        token = Token(len(found), text, math.log(p), OTHERS if p < 0.9 else ())
        found.append(Written(token, part, shown if part == "thought" else "", shown if part == "answer" else "", False, 0.1 * len(found)))  # type: ignore[arg-type]

    for text in thought:
        add(text, "thought", text)
    if closed:
        add("</think>", "thought", "")
    for text in answer:
        add(text, "answer", text)
    return tuple(found)


def trace(
    thought: str | Sequence[str] = THOUGHT, answer: str = ANSWER, reason: str = "stop", end: str = "model", plain: bool = False
) -> Trace:
    """`plain`: text alone, as it is imported."""
    pieces = tokens(thought) if isinstance(thought, str) else thought
    made = () if plain else written(pieces, tokens(answer), end != "unclosed")
    ended = Ended(reason, end, 9, 0, len(made), 0.1, 0.1 * len(made))  # type: ignore[arg-type]
    return Trace("How many tiles?", "".join(pieces), answer, Made("tiny", "test"), ended, "2026-01-01T00:00:00Z", True, made)


def deltas(t: Trace, thought: slice = slice(None), answer: slice = slice(0)) -> list[ThoughtDelta | AnswerDelta]:
    found: list[ThoughtDelta | AnswerDelta] = [ThoughtDelta(w.thought, w.token, w.given, w.at_s) for w in t.thought_tokens[thought]]
    return found + [AnswerDelta(w.answer, w.token, w.given, w.at_s) for w in t.answer_tokens[answer]]


class Host(App[None]):
    def __init__(self, can_steer: bool = True) -> None:
        super().__init__(ansi_color=True)
        self.view = TraceView()
        self.view.can_steer = can_steer
        self.steered: list[tuple[str, int | None, int | None]] = []
        self.missed: list[str] = []

    def compose(self) -> ComposeResult:
        yield self.view

    def on_mount(self) -> None:
        self.view.focus()

    def on_trace_view_steer(self, event: TraceView.Steer) -> None:
        assert event.control is self.view
        self.steered.append((event.action, event.token, event.choice))

    def on_key(self, event: events.Key) -> None:
        self.missed.append(event.key)


async def shown(app: Host, pilot: Pilot[None], t: Trace | None = None) -> None:
    app.view.show(trace() if t is None else t)
    await settle(pilot)


def line(app: App[None], text: str) -> str:
    """The first line of the screen that has the text."""
    return next(line for line in screen(app).splitlines() if text in line)


def styles(app: App[None], text: str) -> str:
    """What the first piece of the screen with exactly this text looks like, colours left out."""
    for strip in app.screen._compositor.render_strips():
        for segment in strip:
            if segment.text == text and segment.style is not None:
                style = segment.style
                return " ".join(name for name in ("dim", "bold", "underline", "reverse") if getattr(style, name))
    raise AssertionError(f"no piece {text!r} in\n{screen(app)}")


# ------------------------------------------------------------------------------------------------------------ contents


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


async def test_copy_gives_the_raw_text(monkeypatch: pytest.MonkeyPatch):
    app, copied = Host(), []
    monkeypatch.setattr(app, "copy_to_clipboard", copied.append)
    async with app.run_test(size=(80, 24)) as pilot:
        await shown(app, pilot, trace(NASTY + "\n\nWait, no, that is not what was asked for.", "*An* \x1b[1manswer"))
        await press(pilot, "y")
        assert "Copied the step" in screen(app)
        await press(pilot, "G", "y", "Y")
        assert copied == [
            NASTY + "\n\n", "*An* \x1b[1manswer", NASTY + "\n\nWait, no, that is not what was asked for.\n\n*An* \x1b[1manswer",
        ]  # fmt: skip


async def test_all_keys_are_listed_and_any_key_closes_the_list():
    app = Host()
    async with app.run_test(size=(100, 24)) as pilot:
        await shown(app, pilot)
        await press(pilot, "?")
        for text in ("PgUp PgDn", "least certain tokens", "re-roll", "< backtrack", "A answer", "underlined"):
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


# ------------------------------------------------------------------------------------------------------------ steering


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


# ---------------------------------------------------------------------------------------------------------------- live


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


# -------------------------------------------------------------------------------------------------- less than a thought


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


# ----------------------------------------------------------------------------------------------------------- untrusted


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


# -------------------------------------------------------------------------------------------------------------- layout


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


# ----------------------------------------------------------------------------------------------------- the whole screen


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
