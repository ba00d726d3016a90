"""What a turn looks like: the thought streams and folds, the answer is Markdown, and nothing a model writes is obeyed."""

from __future__ import annotations

import re

import pytest
from textual.widgets import Static
from tui.driving import THINK, ask, chat, press, screen, send, shows, until

from localr1.tui.answer import Answer
from localr1.tui.thought import TAIL_LINES, Thought, _Tail
from localr1.tui.turn import Turn

NASTY = "[red]a[/red] [/ \x1b[31mb\x1b]0;title\x07 \x9b2J \u202ec"
HARMLESS = "[red]a[/red] [/ ␛[31mb␛]0;title␇ �2J �c"


async def test_thought_streams_then_folds_to_one_line_above_the_answer():
    app, _ = chat([*THINK, "It", " is", " **", "3", "**."], pause_s=0.05)
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "How many?")
        await shows(app, "Let me")
        assert re.search(r"▾ Thinking… \d tokens?, \d\.\d s", screen(app))
        await until(lambda: app.turn is None)
        await shows(app, "It is 3.")  # Markdown: no asterisks
        assert re.search(r"▸ Thought for 0\.\d s, 5 tokens", screen(app))
        assert "Let me count" not in screen(app)
        await until(lambda: re.search(r"\d+ tokens · \d+\.\d tokens/s", screen(app)), "the line on how it ended")


async def test_a_very_long_thought_unfolds_to_its_end():
    app, _ = chat([*(f"line {i}\n" for i in range(9000)), "</think>", "ok"])
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot)
        await press(pilot, "ctrl+o")
        await until(lambda: app.query(".thought-text"))
        text = str(app.query_one(".thought-text", Static).content)
        assert text.startswith("… what comes before is in the trace: /trace") and text.endswith("line 8999") and len(text) < 21_000


async def test_a_head_that_has_become_long_is_shown_whole():
    app, _ = chat(["more "] * 3, ["done"])
    app.engine.set_rules(think_budget=3)
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot)
        thought = app.query_one(Thought)
        thought.tokens = 1_234_567
        thought.finish("user")
        await shows(app, "s, 1,234,567 tokens, then asked to answer")


async def test_folded_thought_mounts_its_text_only_when_unfolded():
    app, _ = chat([*THINK, "3"])
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot)
        thought = app.query_one(Thought)
        assert len(thought.query(".thought-text")) == 0
        await press(pilot, "ctrl+o")
        await shows(app, "Let me count.")
        await press(pilot, "ctrl+o")
        await until(lambda: "Let me count." not in screen(app))
        for key in ("enter", "space"):
            await press(pilot, "tab")
            assert app.focused is thought.query_one(".thought-head")
            await press(pilot, key)
            assert not thought.folded
            await press(pilot, key)
            assert thought.folded
            app.input.focus()
        assert app.input.text == ""  # the keys went to the thought alone
        await pilot.click(".thought-head")
        assert not thought.folded
        assert app.input.has_focus


async def test_ctrl_o_takes_the_last_thought_and_hides_a_live_one():
    app, _ = chat([*THINK, "one"], [*["more "] * 200, "</think>", "two"], pause_s=0.01)
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot)
        await send(app, pilot, "Again?")
        await shows(app, "more more")
        await press(pilot, "ctrl+o")
        await until(lambda: "more more" not in screen(app))
        assert "▸ Thinking" in screen(app)
        assert app.query(Thought).first().folded


@pytest.mark.parametrize("part", ["thought", "answer", "question"])
async def test_text_is_shown_and_never_obeyed(part: str):
    reply = [NASTY, "</think>", "fine"] if part == "thought" else [*THINK, NASTY]
    app, _ = chat(reply if part != "question" else [*THINK, "fine"])
    async with app.run_test(size=(100, 24)) as pilot:
        await ask(app, pilot, NASTY if part == "question" else "Go")
        if part == "thought":
            await press(pilot, "ctrl+o")
        await shows(app, HARMLESS)


@pytest.mark.parametrize("opening", [[], THINK])
async def test_text_is_shown_and_never_obeyed_while_it_streams_too(opening: list[str]):
    app, _ = chat([*opening, NASTY, *[" more"] * 100], pause_s=0.02)
    async with app.run_test(size=(100, 24)) as pilot:
        await send(app, pilot, "Go")
        await shows(app, HARMLESS)
        assert app.turn is not None


async def test_html_and_code_in_an_answer_are_shown_as_they_are():
    app, _ = chat([*THINK, "<b>bold</b>\n\n<div>block</div>\n\n```\nx = '[b]'\n```"])
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot)
        for text in ("<b>bold</b>", "<div>block</div>", "x = '[b]'"):
            await shows(app, text)
        segments = [segment.text for strip in app.screen._compositor.render_strips() for segment in strip]
        assert any("x = '[b]'" in text for text in segments)  # in one piece: of no language


async def test_a_clicked_link_is_shown_and_never_opened(monkeypatch: pytest.MonkeyPatch):
    app, _ = chat([*THINK, "[click](https://evil.example/x)"])
    opened: list[str] = []
    monkeypatch.setattr(app, "open_url", lambda url, **_: opened.append(url))
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot)
        await shows(app, "click")
        await pilot.click(Answer, offset=(2, 0))
        await shows(app, "Not opened: https://evil.example/x")
        assert opened == []


async def test_what_defines_a_link_is_text_and_stays():
    """[Answer]: 42 would define one, too, and not be seen."""
    app, _ = chat([*THINK, "See [the book][1].\n", "\n- a\n", "- b\n\n", "[1]: https://example.com\n"], pause_s=0.05)
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot)
        await shows(app, "See [the book][1].")
        await shows(app, "[1]: https://example.com")
        assert "• b" in screen(app)


@pytest.mark.parametrize(
    ("reply", "reason", "note", "head"),
    [
        (["Hm", "m"], "stop", "Stopped mid-thought · 2 tokens", "▾ Stopped mid-thought after"),
        (["Hm", "m"], "length", "Token limit reached · stopped mid-thought", "▾ Stopped mid-thought after"),
        (["Hm", "m"], "context", "Context is full, /new starts a new chat · stopped mid-thought", "▾ Stopped mid-thought after"),
        ([*THINK, "Yes"], "length", "Token limit reached · 7 tokens", "▸ Thought for"),
        (["</think>", "\n\n", "Yes"], "stop", "Answered without a thought · 3 tokens", "Yes"),
    ],
)
async def test_the_last_line_says_why_a_turn_ended(reply: list[str], reason: str, note: str, head: str):
    app, _ = chat(reply, end_reason=reason)
    async with app.run_test(size=(100, 24)) as pilot:
        await ask(app, pilot)
        await shows(app, note)
        await shows(app, head)
        assert ("Hmm" in screen(app)) == (reply[0] == "Hm")  # a thought that was cut short stays readable


async def test_long_stream_is_batched_bounded_and_leaves_the_screen_responsive(monkeypatch: pytest.MonkeyPatch):
    added: list[str] = []
    add = Thought.add
    monkeypatch.setattr(Thought, "add", lambda self, text, tokens: (added.append(text), add(self, text, tokens))[1])
    words = [f"{i} " + ("\n" if i % 9 == 0 else "") for i in range(5_000)]
    app, _ = chat([*words, "</think>", "Done."], context=100_000, pause_s=0.0002)
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "Count.")
        await shows(app, "Thinking…")
        await press(pilot, *"typed_meanwhile")
        assert app.turn is not None, "the keys were only handled after the stream"
        assert app.input.text == "typed_meanwhile"
        await until(lambda: len(app.query(_Tail)) and app.query_one(_Tail).size.height == TAIL_LINES)
        await until(lambda: app.turn is None, limit_s=20)
        assert len(added) < 1_000  # batches, not tokens
        thought = app.query_one(Thought)
        assert thought.tokens == 5_001
        assert thought.text == "".join(words).rstrip()
        assert len(app.query(_Tail)) == 0


async def test_live_tail_never_grows_beyond_its_lines():
    app, _ = chat(["a long line that wraps " * 20 + "\n" * 3 for _ in range(60)], pause_s=0.01)
    async with app.run_test(size=(80, 40)) as pilot:
        await send(app, pilot, "Go")
        tallest = 0
        while not app.query_one(Turn).over:
            await pilot.pause(0.02)
            for tail in app.query(_Tail):
                tallest = max(tallest, tail.size.height)
        assert tallest == TAIL_LINES
