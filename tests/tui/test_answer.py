"""What an answer looks like: formulas become readable once they are whole, what is boxed stands out, code has few colours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from rich.segment import Segment
from textual.app import App, ComposeResult
from textual.containers import VerticalScroll
from tui.driving import THINK, ask, chat, press, screen, send, settle, shows, until
from tui.test_conversations import app_over, keep

from localr1.tui.answer import Answer

FORMULAS = "So $x^2$, not `$x^2$`:\n\\[\n\\frac{a}{b}\n\\]\n- \\(\\sqrt2\\), **\\boxed{5}**\n\n$$\\foo \\\\\n1$$\n"
SHOWN = ["So x², not $x^2$:", "", " a", "───", " b", "• √2, [ 5 ]", "", "$$\\foo \\\\", "1$$"]


class _Host(App[None]):
    def __init__(self) -> None:
        super().__init__(ansi_color=True)

    def compose(self) -> ComposeResult:
        yield VerticalScroll()

    def lines(self) -> list[str]:
        return "\n".join(strip.text.rstrip() for strip in self.screen._compositor.render_strips()).strip("\n").split("\n")

    def segments(self) -> list[Segment]:
        return [segment for strip in self.screen._compositor.render_strips() for segment in strip]

    async def show(self, *pieces: str, finish: bool = True) -> Answer:
        """An answer that comes in these pieces, in place of the one before."""
        await self.query(Answer).remove()
        answer = Answer()
        answer.styles.padding = 0
        await self.query_one(VerticalScroll).mount(answer)
        for piece in pieces:
            await answer.add(piece)
        if finish:
            await answer.finish()
        return answer


@asynccontextmanager
async def host(width: int = 60) -> AsyncIterator[tuple[_Host, object]]:
    app = _Host()
    async with app.run_test(size=(width, 30)) as pilot:
        yield app, pilot


async def test_formulas_are_readable_code_is_code_and_what_cannot_be_read_is_as_it_was():
    async with host() as (app, pilot):
        await app.show(FORMULAS)
        await settle(pilot)
        assert app.lines() == SHOWN


async def test_wherever_a_stream_is_cut_the_end_is_the_same():
    async with host() as (app, pilot):
        for cut in range(5, len(FORMULAS), 9):
            await app.show(FORMULAS[:cut], FORMULAS[cut:])
            await settle(pilot)
            assert app.lines() == SHOWN, FORMULAS[:cut]


async def test_a_formula_is_raw_until_it_is_whole():
    async with host() as (app, pilot):
        answer = await app.show("Now\n", finish=False)
        for piece, shown in [
            ("\\[\n", ["\\["]),
            ("\\frac{1}\n", ["\\[", "\\frac{1}"]),
            ("{2}\n", ["\\[", "\\frac{1}", "{2}"]),
            ("\\]\n", [" 1", "───", " 2"]),
            ("and $x_", [" 1", "───", " 2", "and $x_"]),
            ("1$", [" 1", "───", " 2", "and x₁"]),
            (" or \\(\\{a", [" 1", "───", " 2", "and x₁ or \\(\\{a"]),
            ("\\}\\).", [" 1", "───", " 2", "and x₁ or {a}."]),
        ]:
            await answer.add(piece)
            await settle(pilot)
            assert [line for line in app.lines() if line] == ["Now", *shown]


async def test_a_formula_that_is_too_wide_stands_on_lines_that_wrap():
    async with host(20) as (app, pilot):
        await app.show("\\[ x = \\frac{alpha + beta + gamma}{2} \\]")
        await settle(pilot)
        assert " ".join(line.strip() for line in app.lines()) == "x = (alpha + beta + gamma)/2"
        await pilot.resize_terminal(40, 30)
        await until(lambda: "x = ────────────────────" in "\n".join(app.lines()))


async def test_what_is_boxed_stands_out_with_and_without_colours():
    async with host() as (app, pilot):
        await app.show("It is $x = \\boxed{5}$ and **bold** `code`.\n\n| a |\n|---|\n| \\boxed{7} |\n\n\\[ \\boxed{9} \\]")
        await settle(pilot)
        reverse = [segment.text for segment in app.segments() if segment.style is not None and segment.style.reverse]
        assert reverse == ["[ 5 ]", "[ 7 ]"]
        assert "│ 9 │" in "\n".join(app.lines())
        assert any(segment.text == "bold" and segment.style is not None and segment.style.bold for segment in app.segments())


async def test_formulas_can_be_left_raw_by_a_setting():
    app, _ = chat([*THINK, "A \\(\\{x\\}\\) and $a_1$ and \\boxed{5}\n\\[\nx\n\\]"])
    app.layers.set("look.latex", False)
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot)
        for text in ("A \\(\\{x\\}\\) and $a_1$ and \\boxed{5}", "\\[\n", "x\n", "\\]\n"):
            await shows(app, text)


async def test_code_is_highlighted_in_the_terminals_own_colours():
    async with host() as (app, pilot):
        await app.show("```python\nif x: return 'a'  # b\n```\n\n```\nif x\n```")
        await settle(pilot)
        styles = {segment.text.strip(): segment.style for segment in app.segments() if segment.text.strip() and segment.style is not None}
        assert styles["if"].bold and styles["return"].bold and styles["# b"].dim
        assert {style.color.number for style in (styles["if"], styles["'a'"]) if style.color is not None} <= set(range(16))
        assert "if x" in styles  # in one piece: of no language


@pytest.mark.parametrize("language", ["{.python}", "Python3 title=x", "sql"])
async def test_languages_are_known_by_the_names_that_models_give_them(language: str):
    async with host() as (app, pilot):
        await app.show(f"```{language}\nselect = not 1\n```")
        await settle(pilot)
        assert any(segment.text == "not" for segment in app.segments())


async def test_a_formula_streams_in_the_chat():
    app, _ = chat([*THINK, "It is $", "\\frac{1}", "{2}", "$", "."], pause_s=0.05)
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "Half?")
        await shows(app, "It is 1/2.")
        await until(lambda: app.turn is None)


async def test_nasty_formulas_do_no_harm():
    nasty = "\\[ \x1b[31m x \\]\n\n$\u202ex$ \\(\x00\\) $\\text{\x9b2J}$ \\boxed{\x1b]0;t\x07}"
    app, _ = chat([*THINK, nasty])
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot)
        await shows(app, "␛[31mx")
        await shows(app, "␀")


async def test_answers_are_shown_as_the_model_wrote_them_and_back():
    app, _ = chat([*THINK, "One **$x^2$** \x1b[31m"], [*THINK, "Two $y_1$", ", $z^3$"], pause_s=0.02)
    async with app.run_test(size=(80, 40)) as pilot:
        await ask(app, pilot)
        await shows(app, "One x² ␛[31m")
        await press(pilot, "ctrl+r")
        await shows(app, "One **$x^2$** ␛[31m")
        assert "x²" not in screen(app)
        await send(app, pilot, "And?")
        await shows(app, "Two $y_1$, $z^3$")  # those to come, too
        await until(lambda: app.turn is None)
        assert "y₁" not in screen(app)
        await send(app, pilot, "/raw")
        await shows(app, "Two y₁, z³")
        await shows(app, "One x² ␛[31m")
        assert "**" not in screen(app)


async def test_the_setting_for_formulas_holds_at_once():
    app, _ = chat([*THINK, "So $x^2$"])
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot)
        await shows(app, "So x²")
        await send(app, pilot, "/set look.latex false")
        await shows(app, "So $x^2$")


async def test_a_key_copies_the_answer_and_a_command_whatever_is_named(monkeypatch: pytest.MonkeyPatch):
    app, _ = chat([*THINK, "So $x^2$\n```\na\n```"], [*["w "] * 200], pause_s=0.01)
    copied: list[str] = []
    monkeypatch.setattr(app, "copy_to_clipboard", copied.append)
    async with app.run_test(size=(100, 24)) as pilot:
        await press(pilot, "ctrl+s")
        await shows(app, "There is no answer to copy yet")
        await ask(app, pilot)
        await press(pilot, "ctrl+s")
        await shows(app, "Copied the answer, 18 characters")
        for command, said in [
            ("/copy code", "Copied the code, 2 characters"),
            ("/copy thought", "Copied the thought, 13 characters"),
            ("/copy all", "Copied thought and answer, 50 characters"),
            ("/copy code 3", "The answer has 1 code block: there is no number 3"),
        ]:
            await send(app, pilot, command)
            await shows(app, said)
        await send(app, pilot, "Go on")
        await shows(app, "w w w")
        await send(app, pilot, "/copy thought")  # as far as it has come
        await shows(app, "Copied the thought")
        assert app.turn is not None
        await press(pilot, "escape")
    answer = "So $x^2$\n```\na\n```"
    assert copied[:4] == [answer, "a\n", "Let me count.", f"<think>\nLet me count.\n</think>\n\n{answer}"]
    assert copied[4].startswith("w w")


async def test_nothing_of_an_answer_is_left_out_unseen():
    """What Markdown would take for the definition of a link, lists in lists in lists, and signs that are written by their numbers."""
    deep = "".join(f"{'  ' * level}- level{level}\n" for level in range(12))
    async with host() as (app, pilot):
        await app.show(f"The result:\n\n[Answer]: 42\n\n{deep}\nThe end. &#x202e;abc &lt;b&gt;")
        await settle(pilot)
        text = "\n".join(app.lines())
        assert "[Answer]: 42" in text and "level11" in text and "The end. \ufffdabc <b>" in text


async def test_numbers_and_products_are_the_models_own():
    async with host() as (app, pilot):
        await app.show("1. x = 2\n3. x = 4\n\n2\\*3: 2*3*4 and x*y*z, *this* and **that**s\n\n> 1. a\n> 1. b\n")
        await settle(pilot)
        text = "\n".join(app.lines())
        assert " 1. x = 2\n 3. x = 4\n" in text and "2*3: 2*3*4 and x*y*z, this and thats" in text and " 1. a\n▌  2. b" in text


@pytest.mark.parametrize("row", ["| 1 | $|x|$ | 3 |", "| 2 | `a || b` | true |"])
async def test_a_table_with_more_cells_than_its_head_is_shown_as_written(row: str):
    async with host() as (app, pilot):
        await app.show(f"So:\n| n | e | v |\n|---|---|---|\n{row}\n\nThe end.\n\n| a |\n|---|\n| x \\| y |\n")
        await settle(pilot)
        text = "\n".join(app.lines())
        assert row in text and "The end." in text and "│ x | y" in text


async def test_the_mouse_over_a_table_obeys_nothing():
    app, _ = chat([*THINK, "| a | b |\n|---|---|\n| [/b] | x[i] |\n"])
    as_it_is_run = app._disable_tooltips
    async with app.run_test(size=(80, 30), tooltips=True) as pilot:
        app._disable_tooltips = as_it_is_run
        await ask(app, pilot)
        await pilot.hover(".cell")
        await pilot.pause(0.6)
        assert app.is_running and "[/b]" in screen(app)


async def test_a_table_in_a_narrow_terminal_keeps_its_text():
    row = "| Description | Quantity | Price | Comments | Total |"
    app, _ = chat([*THINK, f"{row}\n|---|---|---|---|---|\n| Something | 12 | 12.50 | none | 100 |\n"])
    async with app.run_test(size=(40, 40)) as pilot:
        await ask(app, pilot)
        text = "".join(screen(app).split())
        assert "…" not in text.partition("Asksomething")[0] and all(part in text for part in ("12.5", "100"))


async def test_a_list_of_hundreds_is_shown_as_it_was_written(monkeypatch: pytest.MonkeyPatch):
    """Textual would build it anew from its beginning with each piece, for seconds."""
    monkeypatch.setattr("localr1.tui.answer.MOST_ITEMS", 20)
    items = [f"{i}. item **{i}**\n" for i in range(1, 31)]
    app, _ = chat([*THINK, *items])
    async with app.run_test(size=(80, 30)) as pilot:
        await ask(app, pilot)
        assert "30. item **30**" in screen(app)
        await press(pilot, "ctrl+r")
        await press(pilot, "ctrl+r")
        assert "30. item **30**" in screen(app)


async def test_an_answer_that_is_slow_to_show_leaves_time_for_the_keys(monkeypatch: pytest.MonkeyPatch):
    spent, real = [], Answer.add

    async def slow(self: Answer, text: str) -> None:
        spent.append(text)
        await asyncio.sleep(0.2)
        await real(self, text)

    monkeypatch.setattr(Answer, "add", slow)
    words = [f"word{i} " for i in range(40)]
    app, _ = chat([*THINK, *words], pause_s=0.02)
    async with app.run_test(size=(80, 30)) as pilot:
        await ask(app, pilot)
        assert len(spent) <= 3 and "word0" in screen(app) and "word39" in screen(app)


async def test_long_lines_of_code_wrap():
    """What is beyond the edge would be left out unseen."""
    app, _ = chat([*THINK, f"```\n{'word ' * 30}END\n```"])
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot)
        await shows(app, "END")


async def test_answers_of_a_conversation_that_was_kept_are_shown_and_copied_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    keep(tmp_path / "history.db", [("Square?", "Hm.", "So $x^2$")])
    app, _ = app_over(tmp_path / "history.db")
    copied: list[str] = []
    monkeypatch.setattr(app, "copy_to_clipboard", copied.append)
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "ctrl+r")
        await send(app, pilot, "/resume square")
        await shows(app, "So $x^2$")
        await press(pilot, "ctrl+r")
        await shows(app, "So x²")
        await send(app, pilot, "/copy all")
        await until(lambda: copied == ["<think>\nHm.\n</think>\n\nSo $x^2$"])
