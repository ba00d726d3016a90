"""Files with a question: attached by command and paste, counted, shown, refused, given back."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from textual.events import Paste
from tui.driving import THINK, ask, chat, press, screen, send, settle, shows, until

from localr1.attachments import Attachment
from localr1.store import Store
from localr1.tui.app import ChatApp
from localr1.tui.tray import Chip, fit
from localr1.tui.turn import Turn
from scripted import ScriptedBackend


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("Two lines\nof text\n")
    Path("My Notes.txt").write_text("mine")
    Path("src").mkdir()
    Path("src/a.py").write_text("a = 1\n")
    Path("src/b.py").write_text("b = 2\n")
    return tmp_path


async def paste(app, pilot, text: str) -> None:
    app._driver.send_message(Paste(text))
    await settle(pilot)


async def test_a_file_goes_before_the_question_and_is_a_chip_in_the_transcript():
    app, backend = chat([*THINK, "Fine"], [*THINK, "More"])
    async with app.run_test(size=(80, 24)) as pilot:
        await until(lambda: app.engine.session)
        await send(app, pilot, "/file notes.txt")
        await shows(app, "notes.txt 18 B · 82 tokens ×")  # a character a token, template and all
        await ask(app, pilot, "What does it say?")
        sent = backend.decode(backend.seen[0])
        assert "[file name]: notes.txt\n[file content begin]\nTwo lines\nof text\n\n[file content end]\nWhat does it say?<" in sent
        assert "[notes.txt 18 B]" in screen(app)
        assert "of text" not in screen(app) and "×" not in screen(app)
        await ask(app, pilot, "And now?")
        assert backend.decode(backend.seen[1]).count("[file name]") == 1


async def test_counts_are_estimates_until_the_model_is_there():
    go = threading.Event()

    def open_backend(say):
        go.wait(10)
        return ScriptedBackend()

    app = ChatApp(open_backend)
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "/file notes.txt")
        await shows(app, "notes.txt 18 B · ~20 tokens ×")
        go.set()
        await shows(app, "notes.txt 18 B · 82 tokens ×")


async def test_what_does_not_fit_the_context_is_said_before_sending():
    app, _ = chat(context=200)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(lambda: app.engine.session)
        Path("long.txt").write_text("word " * 100)
        await send(app, pilot, "/file long.txt")
        await shows(app, "Too much: ~563 tokens, and the context holds 200")


async def test_chips_go_by_backspace_and_by_command_and_by_their_cross():
    app, _ = chat()
    async with app.run_test(size=(100, 24)) as pilot:
        await send(app, pilot, "/file notes.txt")
        await send(app, pilot, "/file src/a.py")
        await shows(app, "a.py 6 B")
        await press(pilot, "x", "backspace")
        await shows(app, "a.py 6 B")
        await press(pilot, "backspace")
        await shows(app, "a.py is no longer attached")
        await send(app, pilot, "/file src/a.py")
        await send(app, pilot, "/file")
        await shows(app, "Attached: notes.txt, a.py")
        tray = app.attaching.tray
        await until(lambda: tray._crosses and len(tray._chips) == 2 and not any(chip.is_estimate for chip in tray._chips), "all is counted")
        await pilot.click(tray, offset=(3 + next(iter(tray._crosses)), 0))
        await shows(app, "notes.txt is no longer attached")
        await until(lambda: [c.attachment.name for c in tray._chips] == ["a.py"])
        await send(app, pilot, "/file off")
        await until(lambda: not app.attaching.tray.display)
        await send(app, pilot, "/file")
        await shows(app, "Nothing is attached")


async def test_what_cannot_be_attached_is_told():
    Path("picture.png").write_bytes(b"\x89PNG\0")
    app, _ = chat()
    async with app.run_test(size=(100, 24)) as pilot:
        await send(app, pilot, "/file picture.png ")
        await shows(app, "Not attached: picture.png is a picture, not text; convert it to text first")
        app.input.text = "/file missing.txt"
        await press(pilot, "escape", "enter")
        await shows(app, "Not attached: missing.txt: there is no such file")
        app.input.text = "/file " + "x" * 300
        await press(pilot, "escape", "enter")
        await shows(app, "cannot be read: File name too long")
        assert not app.attaching


async def test_a_folder_asks_first():
    app, backend = chat([*THINK, "ok"])
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "/file src")
        await shows(app, "src: 2 text files, 12 B")
        await shows(app, "Attach them? y, n")
        await press(pilot, "n")
        assert not app.attaching.asking.display and not app.attaching and app.input.has_focus
        await send(app, pilot, "/file src")
        await shows(app, "Attach them?")
        await press(pilot, "escape")
        assert not app.attaching.asking.display and not app.attaching and app.input.has_focus
        await send(app, pilot, "/file src")
        await shows(app, "Attach them?")
        await press(pilot, "y")
        await shows(app, "src/a.py 6 B")
        await ask(app, pilot, "?")
        assert "[file name]: src/b.py\n" in backend.decode(backend.seen[0])


async def test_several_folders_ask_once():
    Path("docs").mkdir()
    Path("docs/c.md").write_text("c")
    app, _ = chat([*THINK, "Fine"])
    async with app.run_test(size=(80, 24)) as pilot:
        await until(lambda: app.engine.session)
        await send(app, pilot, "/file src docs")
        await shows(app, "docs: 1 text file")
        assert "src: 2 text files" in screen(app)
        await press(pilot, "y")
        await until(lambda: app.attaching)
        assert [a.name for a in app.attaching._attachments] == ["src/a.py", "src/b.py", "docs/c.md"]


async def test_what_a_revised_question_brought_goes_with_it():
    app, backend = chat([*THINK, "Fine"], [*THINK, "More"], [*THINK, "Last"])
    async with app.run_test(size=(80, 24)) as pilot:
        await until(lambda: app.engine.session)
        await send(app, pilot, "/file notes.txt")
        await until(lambda: app.attaching)
        await ask(app, pilot, "What does it say?")
        for leave in ("escape", "clear"):
            await send(app, pilot, "/revise")
            await until(lambda: app.conversations.revising and app.attaching)
            if leave == "escape":
                await press(pilot, "escape")
            else:
                app.attaching.clear()
                app.input.clear()
            await until(lambda: app.conversations.revising is None)
            assert not app.attaching
        await ask(app, pilot, "And now?")
        assert backend.decode(backend.seen[1]).count("[file name]") == 1 and app.engine.session.turns == 2


@pytest.mark.parametrize("text", ['"""/new ' + "w" * 100 + '"""', "/think off /new " + "w" * 100, "/budget 20 " + "w" * 100])
async def test_a_question_comes_back_as_it_was_typed(text: str):
    app, backend = chat([*THINK, "Fine"], context=60)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(lambda: app.engine.session)
        app.input.text = text
        await press(pilot, "enter")
        await until(lambda: app.turn is None and app.input.text)
        assert app.input.text == text and not backend.seen


async def test_whoever_goes_on_typing_has_said_no():
    app, _ = chat()
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "/file src")
        await shows(app, "Attach them?")
        await press(pilot, *"hi")
        await until(lambda: not app.attaching.asking.display)
        assert app.input.text == "hi" and not app.attaching


async def test_pasted_paths_are_attached_and_text_at_the_second_time(folder: Path):
    app, _ = chat()
    async with app.run_test(size=(100, 24)) as pilot:
        text = f"{folder}/notes.txt '{folder}/My Notes.txt'"
        await paste(app, pilot, text)
        await shows(app, "My Notes.txt 4 B")
        await shows(app, "paste again to have the path as text")
        assert app.input.text == ""
        await paste(app, pilot, text)
        assert app.input.text == text and not app.attaching
        app.input.clear()
        await press(pilot, *"/file", "space")
        await paste(app, pilot, f"{folder}/notes.txt")
        assert app.input.text == f"/file {folder}/notes.txt" and not app.attaching
        app.input.clear()
        await paste(app, pilot, f"{folder}/src")
        await shows(app, "Attach them?")
        await press(pilot, "n")
        assert app.input.text == f"{folder}/src"


async def test_a_paste_that_no_context_holds_is_refused():
    app, _ = chat([*THINK, "ok"])
    async with app.run_test(size=(80, 24)) as pilot:
        await paste(app, pilot, "word " * 200_001)
        await shows(app, "Not attached: what was pasted is 1.0 MB")
        assert not app.attaching and not app.input.text


async def test_a_long_paste_is_attached_and_text_at_the_second_time():
    app, backend = chat([*THINK, "ok"])
    async with app.run_test(size=(80, 24)) as pilot:
        text = "word " * 401
        await paste(app, pilot, text)
        await shows(app, "pasted-1.txt 2.0 kB")
        await shows(app, "paste again to have it as text")
        await paste(app, pilot, text)
        assert app.input.text == text and not app.attaching
        app.input.clear()
        await send(app, pilot, "/set chat.attach_pasted 0")
        await until(lambda: app.input.attach_pasted == 0)
        await paste(app, pilot, text * 2)
        assert app.input.text == text * 2
        app.input.clear()
        app.input.attach_pasted = 10
        await paste(app, pilot, "a\x1b[31mred\r\nand more")
        await press(pilot, "enter")  # a file alone may be sent
        await until(lambda: backend.seen)
        assert "[file content begin]\na␛[31mred\nand more\n[file content end]\n<" in backend.decode(backend.seen[0])
        await until(lambda: app.turn is None)


async def test_a_question_that_cannot_be_asked_comes_back_with_its_files():
    app, _ = chat(context=60)
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "/file notes.txt")
        await send(app, pilot, "What?")
        await until(lambda: app.query(Turn) and app.turn is None)
        await until(lambda: app.input.text == "What?")
        await shows(app, "notes.txt 18 B")


async def test_a_conversation_that_is_resumed_shows_and_gives_back_the_same(tmp_path: Path):
    history = tmp_path / "history.db"
    app = ChatApp(lambda say: ScriptedBackend([*THINK, "Fine"]), history=history)
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "/file notes.txt")
        await ask(app, pilot, "What does it say?")
    with Store(history) as store:
        assert [each.title for each in store.conversations()] == ["[notes.txt] What does it say?"]
    app = ChatApp(lambda say: ScriptedBackend(), history=history)
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "/resume say")
        await shows(app, "[notes.txt 18 B]")
        await shows(app, "What does it say?")
        assert "of text" not in screen(app)
        await send(app, pilot, "/revise")
        await until(lambda: app.input.text == "What does it say?")
        await shows(app, "notes.txt 18 B · 82 tokens ×")


def test_chips_that_do_not_fit_are_counted():
    chips = [Chip(Attachment(f"file-{i}.txt", "x" * 100), 50, is_estimate=i == 2) for i in range(3)]
    line, crosses = fit(chips, 200)
    assert (
        line == "file-0.txt 100 B · 50 tokens ×   file-1.txt 100 B · 50 tokens ×   file-2.txt 100 B · ~50 tokens ×   ~150 tokens in 3 files"
    )
    assert [line[column] for column in crosses] == ["×"] * 3 and list(crosses.values()) == [0, 1, 2]
    assert fit(chips, 70)[0] == "file-0.txt 100 B · 50 tokens ×   +2 more   ~150 tokens in 3 files"
    assert fit(chips, 10)[0] == "+3 more   " and fit(chips, 10)[1] == {}
    long = Chip(Attachment("wide" * 40, "x"), 1, is_estimate=False)
    assert str(long) == "wide" * 7 + "wid… 1 B · 1 token ×"
