"""Writing with help: commands are completed, what was sent comes back, blocks of many lines, the editor, undo."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from textual._xterm_parser import XTermParser
from textual.events import Key
from tui.driving import THINK, ask, chat, press, screen, send, shows, until

from localr1 import editor
from localr1.store.store import Store
from localr1.trace.record import Made
from localr1.tui.app import ChatApp
from localr1.tui.prompt_input import PromptInput
from scripted import ScriptedBackend

# ------------------------------------------------------------------------------------------------------------- completion


async def test_commands_are_listed_while_they_are_typed():
    app, _ = chat()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, *"/thin")
        await shows(app, "❯ /think auto|off|force")
        await shows(app, "think as the model likes")
        await press(pilot, "tab")
        assert app.input.text == "/think "
        await shows(app, "❯ auto")
        await press(pilot, "down", "enter")
        assert app.input.text == "/think off"
        assert not app.input.choices.display
        await press(pilot, "enter")
        await until(lambda: app.engine.rules.thinking == "off")
        assert app.input.text == ""


async def test_a_whole_command_is_sent_and_half_of_one_completed():
    app, _ = chat()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, *"/budg", "enter")
        assert app.input.text == "/budget "
        await press(pilot, "enter")
        await shows(app, "No budget for thoughts")
        await press(pilot, *"/think", "enter")
        await shows(app, "Thinks as the model likes")


async def test_escape_closes_the_list_and_tab_opens_it_again():
    app, _ = chat([*["word "] * 300], pause_s=0.01)
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "Go")
        await shows(app, "word")
        await press(pilot, "/")
        await shows(app, "❯ /")
        await press(pilot, "escape")
        assert not app.input.choices.display
        assert app.turn is not None  # Escape has done one thing only
        await press(pilot, "tab")
        assert app.input.choices.display and app.input.has_focus
        await press(pilot, "backspace")
        await until(lambda: not app.input.choices.display)


async def test_a_long_list_is_shown_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for i in range(30):
        Path(f"file-{i:02}.txt").write_text("x")
    app, _ = chat()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, *"/file", "space", "f")
        await shows(app, "1 of 30")
        await press(pilot, "up")
        await shows(app, "❯ file-29.txt")
        assert "file-00.txt" not in screen(app)


async def test_the_input_has_the_focus_before_the_first_paint(monkeypatch):
    """Keys that are typed while the program starts come before `on_mount`."""
    monkeypatch.setattr(PromptInput, "focus", lambda self, *_: self)
    app, _ = chat()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, *"early")
        assert app.input.text == "early"


async def test_enter_sends_before_the_first_paint_too(monkeypatch):
    """The terminal hands it over as a line feed, which is Ctrl+J."""
    app, _ = chat([*THINK, "3"])
    monkeypatch.setattr(app, "_tick", lambda: None)  # the first paint is yet to come
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, *"early", "ctrl+j")
        assert app.input.text == "" and app.turn is not None


# ------------------------------------------------------------------------------------------------------------- what was sent


async def test_up_and_down_go_through_what_was_sent():
    app, _ = chat([*THINK, "1"], [*THINK, "2"])
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot, "first")
        await ask(app, pilot, "second\nwith two lines")
        await press(pilot, *"draft", "up")
        assert app.input.text == "second\nwith two lines"
        await press(pilot, "up")  # within it
        assert app.input.text == "second\nwith two lines"
        await press(pilot, "up")
        assert app.input.text == "first"
        await press(pilot, "up")
        assert app.input.text == "first"
        await press(pilot, "down", "down", "down")
        assert app.input.text == "draft"


async def test_keys_that_come_in_a_burst_keep_their_order():
    app, _ = chat()
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "/think")
        await until(lambda: not app.input.is_early)
        for key in ["a", "ctrl+j", "b", "up", "backspace", "up"]:
            app._driver.send_message(Key(key, key if len(key) == 1 else None))
        await until(lambda: app.input.text == "/think")
        await press(pilot, "down")
        assert app.input.text == "\nb"


async def test_questions_of_earlier_sessions_come_back(tmp_path: Path):
    file = tmp_path / "history.db"
    with Store(file) as store:
        for question in ("older", "old", "older", "[file name]: a\n[file content begin]\nx\n[file content end]\nwith a file"):
            store.add_turn(store.new(), None, question, Made("m", "b", None, "Q8_0"))
        assert [q[:6] for q in store.questions(3)] == ["[file ", "older", "old"]
    app = ChatApp(lambda say: ScriptedBackend(), history=file)
    async with app.run_test(size=(80, 24)) as pilot:
        shown = []
        for _ in range(4):
            await press(pilot, "up")
            shown.append(app.input.text)
        assert shown == ["with a file", "older", "old", "old"]


async def test_without_history_there_is_nothing_to_go_back_to(tmp_path: Path):
    app = ChatApp(lambda say: ScriptedBackend(), history=tmp_path / "none.db")
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, *"ab", "up")
        assert app.input.text == "ab"
    assert not (tmp_path / "none.db").exists()


async def test_what_ctrl_c_has_cleared_comes_back():
    app, _ = chat()
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, *"long draft".replace(" ", "_"), "ctrl+c")
        assert app.input.text == ""
        await press(pilot, "up")
        assert app.input.text == "long_draft"


# ------------------------------------------------------------------------------------------------------------- blocks


async def test_a_block_of_three_quotes_is_sent_once_it_is_closed():
    app, backend = chat([*THINK, "ok"])
    async with app.run_test(size=(80, 24)) as pilot:
        await press(pilot, *'"""/new', "enter", *"is_what?", "enter")
        assert backend.seen == [] and app.input.text == '"""/new\nis_what?\n'
        await press(pilot, *'"""', "enter")
        await until(lambda: backend.seen)
        assert "/new\nis_what?<" in backend.decode(backend.seen[0])  # a question, whatever it begins with; without the quotes
        await until(lambda: app.turn is None)


# ------------------------------------------------------------------------------------------------------------- editor, undo


async def test_the_draft_in_the_persons_own_editor(monkeypatch):
    app, _ = chat()
    monkeypatch.setattr(editor, "edit", lambda text, name, *_: f"{text}\nand {name}")
    async with app.run_test(size=(80, 24)) as pilot:
        monkeypatch.setattr(app, "suspend", lambda: contextlib.nullcontext())
        await press(pilot, *"draft", "ctrl+g")
        assert app.input.text == "draft\nand question.md"
        await press(pilot, "ctrl+underscore")
        assert app.input.text == "draft"

        def fail(*_: object) -> str:
            raise editor.EditorError("vi: cannot be started")

        monkeypatch.setattr(editor, "edit", fail)
        await press(pilot, "ctrl+g")
        await shows(app, "vi: cannot be started")
        assert app.input.text == "draft"


async def test_undo_is_ctrl_underscore_since_ctrl_z_suspends():
    app, _ = chat()
    async with app.run_test(size=(80, 24)) as pilot:
        assert [event.key for event in XTermParser().feed("\x1f") if isinstance(event, Key)] == ["ctrl+underscore"]
        await press(pilot, *"abc")
        app.input.clear()
        await press(pilot, "ctrl+underscore")
        assert app.input.text == "abc"
        await press(pilot, "ctrl+y")
        assert app.input.text == ""
        assert "ctrl+z" not in app.input._bindings.key_to_bindings
