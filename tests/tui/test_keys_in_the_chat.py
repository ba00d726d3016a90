"""Keys on the screen: the help lists those that hold, a person's own work, dialogs keep to themselves."""

import re

from tui.driving import THINK, ask, chat, press, screen, send, shows, until

from localr1.settings_layers import Layers
from localr1.tui.app import ChatApp
from localr1.tui.help import HelpScreen
from scripted import ScriptedBackend


async def test_f1_lists_the_keys_that_hold_and_escape_leaves():
    app = ChatApp(lambda say: ScriptedBackend(), layers=Layers(flags={"keys.fold": "f2, ctrl+f"}))
    async with app.run_test(size=(80, 150)) as pilot:
        await press(pilot, "f1")
        for line in ("Anywhere", "F2, Ctrl+F", "The trace", "/budget N|off"):
            await shows(app, line)
        await press(pilot, "ctrl+t", "escape")
        assert not isinstance(app.screen, HelpScreen) and not app.trace.display
        await press(pilot, "f1", "f1")
        assert not isinstance(app.screen, HelpScreen)


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


async def test_enter_can_be_a_new_line():
    app = ChatApp(lambda say: ScriptedBackend([*THINK, "ok"]), layers=Layers(flags={"keys.send": "ctrl+s", "keys.new_line": "enter"}))
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, "a", "enter", "b", "ctrl+underscore")
        assert app.input.text.startswith("a\n") and app.turn is None
        await press(pilot, "ctrl+s")
        await until(lambda: app.last and app.last.over)
