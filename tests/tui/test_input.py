"""Writing: sending, new lines, commands, and the ladder of Ctrl+C."""

from __future__ import annotations

import pytest
from textual._xterm_parser import XTermParser
from textual.events import Key, Paste
from tui.driving import THINK, ask, chat, press, screen, send, settle, shows, until

from localr1.tui.turn import Turn


@pytest.mark.parametrize("key", ["shift+enter", "alt+enter", "ctrl+j"])
async def test_new_line_keys_do_not_send(key: str):
    app, backend = chat([*THINK, "ok"])
    async with app.run_test(size=(80, 24)) as pilot:
        await until(lambda: not app.input.is_early)
        await press(pilot, "a", key, "b")
        assert app.input.text == "a\nb"
        assert app.input.size.height == 2
        await press(pilot, "enter")
        await until(lambda: backend.seen)
        assert "a\nb" in backend.decode(backend.seen[0])
        assert app.input.text == ""
        await shows(app, "ok")


async def test_alt_enter_as_terminals_send_it_is_a_new_line():
    """Textual's parser drops the Alt of escape + return, and the question would be sent half written."""
    app, _ = chat()
    async with app.run_test():
        keys = [event.key for event in XTermParser().feed("\x1b\r") if isinstance(event, Key)]
    assert keys == ["ctrl+j"]


async def test_control_characters_from_the_editor_or_an_earlier_question_are_shown_never_obeyed():
    app, _ = chat()
    async with app.run_test():
        app.input.rewrite("a\x1b[31mred\a")
        assert app.input.text == "a␛[31mred␇"
        app.input.clear()
        app.input.give_back("b\x1b[2J\nc")
        assert app.input.text == "b␛[2J\nc"


async def test_pasted_control_characters_are_shown_never_obeyed():
    app, _ = chat()
    async with app.run_test() as pilot:
        assert app._driver is not None
        app._driver.send_message(Paste("a\x1b[31mred\r\nb\rc"))
        await settle(pilot)
        assert app.input.text == "a␛[31mred\nb\nc"
        assert "a␛[31mred" in screen(app)


async def test_input_grows_to_a_few_lines_only():
    app, _ = chat()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, *["a", "ctrl+j"] * 20)
        assert app.input.size.height == 8


async def test_blank_input_does_nothing():
    app, backend = chat([*THINK, "ok"])
    async with app.run_test() as pilot:
        await press(pilot, "enter", "space", "ctrl+j", "enter")
        await pilot.pause(0.1)
        assert len(app.query(Turn)) == 0
        assert backend.seen == []


async def test_typing_reaches_the_input_when_a_thought_has_the_focus():
    app, _ = chat([*THINK, "ok"])
    async with app.run_test() as pilot:
        await ask(app, pilot)
        await press(pilot, "tab", "h", "i")
        assert app.input.text == "hi"


async def test_a_paste_reaches_the_input_once_wherever_the_focus_is():
    app, _ = chat([*THINK, "ok"])
    async with app.run_test() as pilot:
        await ask(app, pilot)
        await press(pilot, "tab")
        for expected in ("one", "oneone"):
            app._driver.send_message(Paste("one"))
            await until(lambda: app.input.text)
            await settle(pilot)
            assert app.input.text == expected


async def test_second_question_waits_in_the_input_while_the_model_writes():
    app, backend = chat([*["word "] * 100], [*THINK, "ok"], pause_s=0.02)
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "First")
        await shows(app, "Thinking")
        await send(app, pilot, "Second")
        await shows(app, "Esc stops the reply")
        assert app.input.text == "Second"
        assert len(backend.seen) == 1


async def test_ctrl_c_cancels_then_clears_then_quits_at_the_second_time():
    app, backend = chat([*["word "] * 500], pause_s=0.02)
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "Go")
        await shows(app, "word word")
        await press(pilot, "x")
        app.input.select_all()
        await press(pilot, "ctrl+c")
        await until(lambda: app.turn is None)
        await shows(app, "Cancelled")
        assert (app.input.text, app.clipboard) == ("x", "")
        await press(pilot, "right", "ctrl+c")
        assert app.input.text == ""
        await press(pilot, "ctrl+c")
        await shows(app, "Press Ctrl+C again to quit")
        assert app.is_running
        await press(pilot, "ctrl+c")
    assert backend.closed
    assert app.return_code == 0


async def test_ctrl_c_clears_what_was_typed_just_before():
    app, _ = chat()
    async with app.run_test() as pilot:
        for key in (*"line", "ctrl+c"):
            app._driver.send_message(Key(key, key if len(key) == 1 else None))  # and nothing in between is waited for
        await settle(pilot)
        assert app.input.text == "" and "again to quit" not in screen(app)


async def test_ctrl_c_copies_a_selection_first():
    app, _ = chat()
    async with app.run_test() as pilot:
        await press(pilot, *"abc")
        app.input.select_all()
        await press(pilot, "ctrl+c")
        assert app.clipboard == "abc"
        assert app.input.text == "abc"


async def test_help_shows_keys_and_commands():
    app, backend = chat()
    async with app.run_test(size=(80, 150)) as pilot:
        await send(app, pilot, "/help")
        for text in ("Shift+Enter", "Ctrl+O", "PageUp", "/new", "/quit"):
            await shows(app, text)
        assert app.input.text == ""
        assert backend.seen == []


async def test_unknown_command_gets_a_hint_and_comes_back_with_up():
    app, backend = chat([*THINK, "ok"])
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "/hlep")
        await shows(app, "There is no command /hlep; did you mean /help?")
        assert app.input.text == ""
        await press(pilot, "up")
        assert app.input.text == "/hlep"
        assert backend.seen == []


async def test_a_path_is_a_question():
    app, backend = chat([*THINK, "A folder."])
    async with app.run_test() as pilot:
        await ask(app, pilot, "/usr/bin is what?")
        assert len(backend.seen) == 1


async def test_new_forgets_the_conversation_and_shows_the_welcome():
    app, backend = chat([*THINK, "Adam"], [*THINK, "No"])
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot, "first question")
        await send(app, pilot, "/new")
        await shows(app, "How many r's are in strawberry?")
        assert "first question" not in screen(app)
        await ask(app, pilot, "second question")
        assert "first question" not in backend.decode(backend.seen[1])


async def test_new_while_the_model_writes_drops_that_turn():
    app, backend = chat([*["old "] * 500], [*THINK, "new"], pause_s=0.01)
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "first question")
        await shows(app, "old old")
        await send(app, pilot, "/new")
        await ask(app, pilot, "second question")
        assert "old" not in screen(app)
        assert "first question" not in backend.decode(backend.seen[1])
        assert len(app.query(Turn)) == 1


async def test_quit_closes_the_backend():
    app, backend = chat()
    async with app.run_test() as pilot:
        await until(lambda: app.engine.session)
        await send(app, pilot, "/quit")
    assert backend.closed
    assert app.return_code == 0
