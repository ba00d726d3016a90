"""The list of conversations: found by words, gone on with, renamed, copied, exported, deleted."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.pilot import Pilot
from tui.driving import THINK, ask, press, screen, settle, shows, until
from tui.test_conversations import app_over, keep

from localr1.store import Store
from localr1.tui.app import ChatApp
from localr1.tui.conversations_screen import ConversationsScreen
from localr1.tui.options import Options

FLOOR = [("Tiles of a floor?", "The floor is 3 m wide.", "There are **600** tiles."), ("And a roof?", "Roofs are \x1b[2J steep.", "900")]
BERRY = [("Strawberry?", "Let me count the letters.", "3 r's")]


async def listed(app: ChatApp, pilot: Pilot[None]) -> ConversationsScreen:
    await press(pilot, "ctrl+l")
    await until(lambda: isinstance(app.screen, ConversationsScreen) and app.screen.query_one(Options).option_count, "the list is there")
    await settle(pilot)
    assert isinstance(app.screen, ConversationsScreen)
    return app.screen


async def typed(app: ChatApp, pilot: Pilot[None], text: str, shown: str) -> None:
    for character in text:
        await press(pilot, "space" if character == " " else character)
    await shows(app, shown)
    await settle(pilot)


@pytest.mark.parametrize("size", [(80, 24), (160, 50), (40, 12)])
async def test_the_latest_first_and_words_find_what_was_said(tmp_path: Path, size: tuple[int, int]):
    keep(tmp_path / "h.db", BERRY, FLOOR)
    app, _ = app_over(tmp_path / "h.db")
    async with app.run_test(size=size) as pilot:
        await listed(app, pilot)
        text = screen(app)
        assert text.index("Tiles of a floor?") < text.index("Strawberry?") and "2 turns" in text and "1 turn ·" in text
        await typed(app, pilot, "roofs", "thought: Roofs are ␛[2J steep.")  # found for its first letters, too, with more
        await until(lambda: "Strawberry" not in screen(app), "only what has the whole word is left")
        assert all(len(line) <= size[0] for line in screen(app).splitlines())
        await press(pilot, "enter")
        await shows(app, "And a roof?")
        assert app.input.has_focus and app.conversations.here == 2


async def test_the_chosen_line_is_seen_without_colours(tmp_path: Path):
    keep(tmp_path / "h.db", BERRY, FLOOR)
    app, _ = app_over(tmp_path / "h.db")
    async with app.run_test(size=(80, 24)) as pilot:
        await listed(app, pilot)

        def reversed_lines() -> list[str]:
            lines = app.screen._compositor.render_strips()
            found = [s for line in lines for s in line if s.style is not None and s.style.reverse and len(s.text.strip()) > 1]  # no cursor
            assert not any(s.style is not None and s.style.dim for s in found)  # which would be another background
            return [s.text.strip() for s in found]

        assert any("Tiles of a floor?" in line for line in reversed_lines())
        await press(pilot, "down", "down")
        assert any("Strawberry?" in line for line in reversed_lines()) and any("1 turn" in line for line in reversed_lines())


async def test_titles_are_found_and_nothing_is_told(tmp_path: Path):
    keep(tmp_path / "h.db", BERRY, FLOOR)
    app, _ = app_over(tmp_path / "h.db")
    async with app.run_test(size=(80, 24)) as pilot:
        await listed(app, pilot)
        await typed(app, pilot, "nowhere", "Nothing was found")
        await press(pilot, "enter")  # there is nothing to go on with
        assert isinstance(app.screen, ConversationsScreen)
        await press(pilot, "escape")
        assert app.input.has_focus and app.input.text == ""


async def test_renamed_copied_exported_and_deleted_from_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    keep(tmp_path / "h.db", BERRY)
    monkeypatch.chdir(tmp_path)
    app, _ = app_over(tmp_path / "h.db")
    async with app.run_test(size=(80, 24)) as pilot:
        shown = await listed(app, pilot)
        await press(pilot, "down", "r")
        await typed(app, pilot, "!", "Its new title")
        await press(pilot, "enter")
        await shows(app, "Strawberry?!")
        await press(pilot, "D")
        await shows(app, "Strawberry?! (copy)")
        await press(pilot, "e")
        await shows(app, "Enter writes")
        await press(pilot, "enter")
        await shows(app, "Written to strawberry-copy.md")
        assert "3 r's" in (tmp_path / "strawberry-copy.md").read_text(encoding="utf-8")
        await press(pilot, "e", "enter")
        await shows(app, "exists already")
        await press(pilot, "d")
        await typed(app, pilot, "n", "Delete “Strawberry?! (copy)”, 1 turn?")
        await press(pilot, "enter")
        await settle(pilot)
        assert shown.query_one(Options).option_count == 2
        await press(pilot, "d", "y", "enter")
        await until(lambda: shown.query_one(Options).option_count == 1)
        await press(pilot, "d", "escape")  # back into the list
        assert isinstance(app.screen, ConversationsScreen)
        await press(pilot, "escape")
        await until(lambda: not isinstance(app.screen, ConversationsScreen))
    with Store(tmp_path / "h.db") as store:
        assert [each.title for each in store.conversations()] == ["Strawberry?!"]


async def test_the_one_on_the_screen_is_deleted(tmp_path: Path):
    app, _ = app_over(tmp_path / "h.db", [*THINK, "3"])
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot, "One?")
        await listed(app, pilot)
        await press(pilot, "down", "d", "y", "enter")
        await shows(app, "Nothing is kept yet")
        await press(pilot, "escape")
        await shows(app, "A reasoning model on this machine")


async def test_a_reply_goes_on_behind_the_list_and_the_window_may_change(tmp_path: Path):
    app, _ = app_over(tmp_path / "h.db", ["more "] * 60 + ["</think>", "done"], pause_s=0.01)
    async with app.run_test(size=(80, 24)) as pilot:
        app.input.insert("One?")
        await press(pilot, "enter")
        await shows(app, "more more")
        await listed(app, pilot)
        await pilot.resize_terminal(140, 30)
        await until(lambda: app.turn is None, "it ends")
        await press(pilot, "escape")
        await shows(app, "done")


async def test_a_history_that_cannot_be_read_is_told_in_the_list(tmp_path: Path):
    (tmp_path / "h.db").write_text("this is no database, but a text that is long enough to be looked at" * 100)
    app, _ = app_over(tmp_path / "h.db")
    async with app.run_test(size=(160, 24)) as pilot:
        await press(pilot, "ctrl+l")
        await shows(app, "is no SQLite database")


async def test_titles_are_no_markup_and_the_question_is_about_the_one_it_names(tmp_path):
    app, _ = app_over(tmp_path / "h.db", *([*THINK, "x"] for _ in range(2)))
    async with app.run_test(size=(100, 30)) as pilot:
        await ask(app, pilot, "What does [/b] do, a[i] = 1?")
        await press(pilot, "ctrl+l", "down", "d")
        await shows(app, "Delete “What does [/b] do, a[i] = 1?”")
