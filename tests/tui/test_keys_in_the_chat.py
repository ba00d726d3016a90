"""Keys on the screen: the help lists those that hold, a person's own work, dialogs keep to themselves."""

import re

import pytest
from textual.command import CommandList
from tui.driving import THINK, ask, chat, press, screen, send, settle, shows, until

from localr1.keys import ACTIONS
from localr1.settings_layers import Layers
from localr1.tui.app import ChatApp
from localr1.tui.help import HelpScreen
from localr1.tui.palette import OTHERS
from scripted import ScriptedBackend


async def test_f1_lists_the_keys_that_hold_and_escape_leaves():
    app = ChatApp(lambda say: ScriptedBackend(), layers=Layers(flags={"keys.fold": "f9, ctrl+f"}))
    async with app.run_test(size=(80, 150)) as pilot:
        await press(pilot, "f1")
        for line in ("Anywhere", "F9, Ctrl+F", "The trace", "/budget N|off"):
            await shows(app, line)
        await press(pilot, "ctrl+t", "escape")
        assert not isinstance(app.screen, HelpScreen) and not app.trace.display
        await press(pilot, "f1", "f1")
        assert not isinstance(app.screen, HelpScreen)


async def test_the_welcome_names_the_keys_that_hold():
    app = ChatApp(lambda say: ScriptedBackend(), layers=Layers(flags={"keys.fold": "f9", "keys.stop": "f7", "keys.new_line": "f6"}))
    async with app.run_test(size=(80, 24)):
        for line in ("Enter send   F6 new line   F7 stop", "F9 open the thought   Ctrl+T its trace   /help"):
            await shows(app, line)


async def test_a_key_of_ones_own_takes_the_place_of_the_old_one():
    app = ChatApp(lambda say: ScriptedBackend([*THINK, "ok"]), layers=Layers(flags={"keys.trace": "f3", "keys.trace_fold_all": "z"}))
    async with app.run_test(size=(80, 60)) as pilot:
        await ask(app, pilot)
        await press(pilot, "ctrl+t")
        assert not app.trace.display
        await press(pilot, "f3", "f3")
        await shows(app, "F3 hides")
        assert app.trace.has_focus
        await press(pilot, "z")
        await shows(app, "Let me count.")
        await press(pilot, "question_mark")
        await until(lambda: re.search("^ +z +unfold or fold all", screen(app), re.MULTILINE))


async def test_ctrl_c_under_a_dialog_stops_the_reply_and_then_leaves_the_dialog():
    app, _ = chat([*["word "] * 500], pause_s=0.02)
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "Go")
        await shows(app, "word word")
        await press(pilot, "f1", "ctrl+c")
        await until(lambda: app.turn is None)
        assert isinstance(app.screen, HelpScreen)
        await press(pilot, "ctrl+c")
        assert not isinstance(app.screen, HelpScreen) and app.is_running


async def test_a_question_mark_in_the_empty_input_asks_for_the_keys_and_is_a_character_otherwise():
    app, _ = chat([*THINK, "ok"])
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "?")
        assert isinstance(app.screen, HelpScreen)
        await press(pilot, "?", "a", "?")
        assert app.input.text == "a?"


@pytest.mark.parametrize("width", [80, 160])
async def test_what_is_told_in_the_help_begins_in_one_column(width: int):
    app, _ = chat()
    async with app.run_test(size=(width, 120)) as pilot:
        await press(pilot, "f1")
        await settle(pilot)
        lines = screen(app).splitlines()
        told = [
            "attach a text file",
            "copy the answer; or code",
            "edit question N",
            "the screen's colours: terminal",
            "a new chat",
            "find a command by",
        ]
        assert len({next(line.index(text) for line in lines if text in line) for text in told}) == 1
        assert "…" not in screen(app)


async def test_enter_can_be_a_new_line():
    app = ChatApp(lambda say: ScriptedBackend([*THINK, "ok"]), layers=Layers(flags={"keys.send": "f3", "keys.new_line": "enter"}))
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "a", "enter", "b", "ctrl+underscore")
        assert app.input.text.startswith("a\n") and app.turn is None
        await press(pilot, "f3")
        await until(lambda: app.last and app.last.over)


async def test_keys_are_set_while_one_chats_and_a_clash_is_told():
    app, _ = chat()
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "/set keys.trace f3")
        await press(pilot, "f3")
        assert app.trace.display
        await send(app, pilot, "/set keys.trace ctrl+o")
        await shows(app, "keys.trace: Ctrl+O is the key of fold")
        await press(pilot, "ctrl+t")
        assert not app.trace.has_focus
        await press(pilot, "f3")
        assert app.trace.has_focus


async def test_the_palette_finds_commands_and_carries_them_out():
    app, _ = chat([*THINK, "ok"])
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot)
        await press(pilot, "ctrl+p", *"trace")
        await shows(app, "/trace               show, enter, hide the trace")
        strips = app.screen._compositor.render_strips()
        reversed_ = "".join(s.text for strip in strips for s in strip if s.style and s.style.reverse)
        assert "/trace" in reversed_ and "/budget" not in reversed_  # the chosen line is seen without colours
        await press(pilot, "enter")
        await until(lambda: app.trace.display and len(app.screen_stack) == 1)
        await press(pilot, "ctrl+p", *"budget")
        await shows(app, "/budget …")
        await press(pilot, "escape")
        await until(lambda: len(app.screen_stack) == 1)


async def test_the_palette_begins_a_command_that_wants_more():
    app, _ = chat()
    async with app.run_test(size=(80, 24)) as pilot:
        app.input.insert("12")
        await press(pilot, "ctrl+p", *"close thoughts")
        await shows(app, "/budget …")
        while "/budget …" not in str(app.screen.query_one(CommandList).highlighted_option.prompt):
            await press(pilot, "down")
        await press(pilot, "enter")
        await until(lambda: app.input.text == "/budget 12")
        assert app.input.has_focus


def test_what_the_palette_runs_without_a_command_is_there():
    assert all(hasattr(ChatApp, f"action_{ACTIONS[name].does or name}") for name in OTHERS)
