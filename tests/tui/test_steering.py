"""Steering from the chat: keys, commands, the trace beside it; what is kept."""

from __future__ import annotations

import contextlib

import pytest
from tui.driving import THINK, ask, chat, press, screen, send, settle, shows, until

from backends.base import Sampling
from localr1 import editor
from localr1.models import open_model, resolve
from localr1.store.store import Store
from localr1.trace.record import Trace
from localr1.tui.app import ChatApp
from localr1.tui.turn import Turn
from localr1.turn import Rules
from scripted import ScriptedBackend

LONG = [*["more "] * 400, "</think>", "done"]


def continued(backend: ScriptedBackend) -> str:
    """What the last stream began with, behind the first one's prompt."""
    return backend.decode(backend.seen[-1][len(backend.seen[0]) :])


# ------------------------------------------------------------------------------------------------------------- keys


async def test_answer_now_while_it_thinks():
    app, backend = chat(LONG, ["Right", " away"], pause_s=0.01)
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "How many?")
        await shows(app, "more more")
        await press(pilot, "ctrl+n")
        await shows(app, "Right away")
        await until(lambda: app.turn is None)
        await shows(app, "then asked to answer")
        await shows(app, "tokens read again")
        assert backend.decode(backend.seen[1]).endswith("more </think>\n\n")


@pytest.mark.parametrize(
    ("command", "began", "thought"),
    [
        ("/longer", "Let me count.\nWait,", "Let me count.\nWait,x"),
        ("/answer", "Let me count.</think>\n\n", "Let me count."),
        ("/again", "Let me count.</think>\n\n", "Let me count."),
        ("/reroll", "", "x"),
    ],
)
async def test_commands_steer_the_last_reply(command, began, thought):
    app, backend = chat([*THINK, "3"], ["x", "</think>", "\n\n", "four"] if command in ("/longer", "/reroll") else ["four"])
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot)
        assert "3" in screen(app)
        await send(app, pilot, command)
        await shows(app, "four")
        await until(lambda: app.turn is None)
        await settle(pilot)
        assert continued(backend) == began
        await until(lambda: len(app.query(Turn)) == 1)
        await shows(app, "Hello?")
        assert app.input.text == ""
        assert app.engine.session.history[-1].thought == thought


async def test_a_reply_that_is_being_written_is_stopped_and_steered():
    app, backend = chat(LONG, ["so", "</think>", "four"], pause_s=0.01)
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "How many?")
        await shows(app, "more more")
        await send(app, pilot, "/longer")
        await shows(app, "four")
        await until(lambda: app.turn is None)
        assert continued(backend).endswith("more \nWait,")
        await until(lambda: len(app.query(Turn)) == 1)


async def test_without_a_reply_there_is_nothing_to_steer():
    app, backend = chat([*THINK, "3"])
    async with app.run_test(size=(80, 24)) as pilot:
        await until(lambda: app.engine.session)
        for command in ("/longer", "/edit"):
            await send(app, pilot, command)
            await shows(app, "There is no reply to steer yet")
        await press(pilot, "ctrl+n")
        assert backend.seen == []


async def test_what_cannot_be_steered_stays_as_it_was():
    app, backend = chat([*THINK, "3"])
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot)
        backend.info = type(backend.info)(**{f: getattr(backend.info, f) for f in backend.info.__slots__} | {"context_length": 5})
        await send(app, pilot, "/longer")
        await shows(app, "the context holds 5")
        await until(lambda: app.turn is None)
        await settle(pilot)
        assert [turn.display for turn in app.query(Turn)] == [True] and "3" in screen(app)
        assert app.last is app.query_one(Turn)


async def test_settings_hold_from_the_next_turn_on():
    app, backend = chat(["4"], ["a", "b", "c"], ["5"], [*THINK, "6"])
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "/think off")
        await shows(app, "Answers without thinking")
        await ask(app, pilot)
        assert backend.decode(backend.seen[0]).endswith("<think>\n</think>\n\n")
        await send(app, pilot, "/think auto")
        await shows(app, "as the model likes")
        await send(app, pilot, "/budget 2")
        await shows(app, "closed after 2 tokens")
        await ask(app, pilot)
        assert backend.decode(backend.seen[2]).endswith("ab</think>\n\n")
        await send(app, pilot, "/budget off")
        await shows(app, "No budget")
        await ask(app, pilot)
        assert app.engine.session.history[-1].thought == "Let me count."
        await send(app, pilot, "/loops warn")
        await until(lambda: app.engine.session.rules.on_loop == "warn")
        await send(app, pilot, "/think perhaps")
        await shows(app, "/think takes auto or off or force")


async def test_settings_for_one_question():
    app, backend = chat(["4"], ["a", "b", "c"], ["5"], [*THINK, "6"])
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot, "/think off What is 2 + 2?")
        assert backend.decode(backend.seen[0]).endswith("What is 2 + 2?<｜Assistant｜><think>\n</think>\n\n")
        assert "What is 2 + 2?" in screen(app) and "/think" not in screen(app)
        await ask(app, pilot, "/budget 2 And 2 + 3?")
        assert backend.decode(backend.seen[2]).endswith("ab</think>\n\n")
        await ask(app, pilot, "And 3 + 3?")
        assert app.engine.session.history[-1].thought == "Let me count." and app.engine.rules == Rules()


async def test_loops_are_told():
    line = ["Wait", ",", " let", " me", " see", ":", " is", " it", " two", "?", "\n"]
    app, _ = chat([*line * 60, "</think>", "Two"], [*line * 60], ["Two"])
    app.engine.set_rules(on_loop="warn")
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "How many?")
        await shows(app, "The model repeats itself, every 11 tokens")
        await until(lambda: app.turn is None)
        await send(app, pilot, "/loops answer")
        await shows(app, "Loops: answer")
        await ask(app, pilot)
        await shows(app, "then went in circles")


async def test_an_edited_thought_goes_on(monkeypatch):
    app, backend = chat([*THINK, "3"], [" four", "</think>", "4"])
    seen = []

    def edit(text: str, name: str, command: str) -> str:
        seen.append(text)
        return "Let me guess:"

    monkeypatch.setattr(editor, "edit", edit)
    async with app.run_test(size=(80, 24)) as pilot:
        monkeypatch.setattr(app, "suspend", lambda: contextlib.nullcontext())
        await ask(app, pilot)
        await send(app, pilot, "/edit")
        await shows(app, "4")
        await until(lambda: app.turn is None)
        assert seen == ["Let me count."] and continued(backend) == "Let me guess:"
        monkeypatch.setattr(editor, "edit", lambda text, *_: text)
        await send(app, pilot, "/edit")
        await shows(app, "The thought is as it was")
        monkeypatch.undo()
        await send(app, pilot, "/edit")  # a test's terminal cannot be given away
        await shows(app, "cannot be given to an editor")


async def test_an_editor_that_fails_gives_the_terminal_back(monkeypatch):
    app, backend = chat([*THINK, "3"])
    left = []

    @contextlib.contextmanager
    def suspend():
        yield  # as Textual's: an exception does not come back from here
        left.append(True)

    def fail(text: str, name: str, command: str) -> str:
        raise editor.EditorError("vi: cannot be started")

    monkeypatch.setattr(editor, "edit", fail)
    async with app.run_test(size=(80, 24)) as pilot:
        monkeypatch.setattr(app, "suspend", suspend)
        await ask(app, pilot)
        await send(app, pilot, "/edit")
        await shows(app, "vi: cannot be started")
        assert left == [True] and len(backend.seen) == 1 and app.turn is None


async def test_what_turned_out_to_be_thought_is_no_answer():
    app, _ = chat(["Hmm", ", two", " r"], ["So", " three", ".", "</think>", "\n\n", "Three"])
    app.engine.set_rules(think_budget=2)
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot)
        await until(lambda: "So three" not in screen(app) and "Three" in screen(app))
        await press(pilot, "ctrl+o")
        await shows(app, "So three.")


def test_the_editor(monkeypatch, tmp_path):
    script = tmp_path / "my editor.sh"
    script.write_text('#!/bin/sh\necho " and more" >> "$1"\n')
    script.chmod(0o755)
    monkeypatch.setenv("VISUAL", f"'{script}'")
    assert editor.edit("text") == "text and more"
    assert editor.edit("text", command="sed -i s/text/more/") == "more"
    monkeypatch.setenv("VISUAL", "false")
    with pytest.raises(editor.EditorError, match="false ended with code 1; the text is as it was"):
        editor.edit("text")
    monkeypatch.setenv("VISUAL", "/no/such/editor")
    with pytest.raises(editor.EditorError, match=r"cannot be started .*; set EDITOR"):
        editor.edit("text")
    monkeypatch.delenv("VISUAL")
    monkeypatch.delenv("EDITOR", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(editor.EditorError, match="no editor was found"):
        editor.edit("text")


# ------------------------------------------------------------------------------------------------------------- the trace


@pytest.mark.parametrize(("size", "beside"), [((80, 24), False), ((160, 50), True)])
async def test_the_trace_is_shown_beside_or_below(size, beside):
    app, _ = chat([*THINK, "3"])
    async with app.run_test(size=size) as pilot:
        await ask(app, pilot)
        assert not app.trace.display
        await press(pilot, "ctrl+t")
        await shows(app, "Let me count.")
        body, trace = app.transcript.region, app.trace.region
        assert (trace.x > body.x, trace.y > body.y) == (beside, not beside)
        assert app.input.has_focus
        await press(pilot, "ctrl+t")
        assert app.trace.has_focus
        await press(pilot, "escape")
        assert app.input.has_focus and app.trace.display
        await press(pilot, "ctrl+t", "ctrl+t")
        assert not app.trace.display and app.input.has_focus


async def test_the_trace_follows_a_reply_and_takes_the_next():
    app, _ = chat(LONG, [*THINK, "3"], pause_s=0.01)
    async with app.run_test(size=(160, 50)) as pilot:
        await send(app, pilot, "How many?")
        await shows(app, "more more")
        await press(pilot, "ctrl+t")  # opened in mid-thought
        await until(lambda: len(app.trace.tape.thought.tokens) > 20)
        await press(pilot, "escape")
        await until(lambda: app.turn is None)
        await ask(app, pilot)
        assert app.trace.tape.thought.text == "Let me count."


async def test_steering_from_the_trace():
    app, backend = chat([*THINK, "3"], [" so", "</think>", "4"], ["five", "</think>", "5"])
    async with app.run_test(size=(160, 50)) as pilot:
        await ask(app, pilot)
        await press(pilot, "ctrl+t", "ctrl+t", "w")
        await until(lambda: len(backend.seen) == 2 and app.turn is None)
        assert continued(backend) == "Let me count.\nWait,"
        await press(pilot, "g", "r")
        await until(lambda: len(backend.seen) == 3 and app.turn is None)
        assert continued(backend) == "" and app.trace.has_focus


# ------------------------------------------------------------------------------------------------------------- kept


async def test_a_chat_is_kept_with_its_branches(tmp_path):
    backend = ScriptedBackend([*THINK, "3"], ["x", "</think>", "4"], [*THINK, "5"], [*THINK, "6"])
    app = ChatApp(lambda say: backend, history=tmp_path / "h.db")
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot, "One?")
        await send(app, pilot, "/longer")
        await until(lambda: len(backend.seen) == 2 and app.turn is None and len(app.query(Turn)) == 1)
        await ask(app, pilot, "Two?")
        await send(app, pilot, "/new")
        await until(lambda: not app.query(Turn))
        await ask(app, pilot, "Three?")
    with Store(tmp_path / "h.db") as store:
        second, first = store.conversations()
        assert (first.title, first.turns, second.title, second.turns) == ("One?", 3, "Three?", 1)
        found = store.conversation(first.id)
        path = store.path(found.head)
        assert [turn.trace.answer for turn in path] == ["4", "5"] and len(store.branches(path[0].id)) == 2
        assert all(turn.trace.ended.reason == "stop" for turn in found.turns)


async def test_no_history_keeps_nothing_and_a_broken_one_is_told_of_once(tmp_path):
    (tmp_path / "h.db").write_text("this is no database, but a text that is long enough to be looked at" * 100)
    backend = ScriptedBackend([*THINK, "3"], [*THINK, "4"])
    app = ChatApp(lambda say: backend, history=tmp_path / "h.db")
    async with app.run_test(size=(100, 30)) as pilot:
        await ask(app, pilot)
        await shows(app, "This conversation is not kept:")
        await ask(app, pilot)
        assert "4" in screen(app) and len(app.query(".notice")) == 1
    assert not list(tmp_path.glob("*-wal"))


async def test_the_bundled_model_is_steered(tmp_path):
    """Answer now, a budget and another reply, for real."""
    app = ChatApp(lambda say: open_model(resolve(None), say=say), Rules(Sampling(temperature=0)), tmp_path / "h.db")
    async with app.run_test(size=(100, 40)) as pilot:
        await until(lambda: app.engine.session, limit_s=60)
        await send(app, pilot, "/budget 12")
        await until(lambda: app.engine.rules.think_budget == 12)
        await ask(app, pilot, "How many r's are in strawberry?")
        assert app.last.end.thought_end == "budget" and app.last.end.thought_tokens >= 12  # it may think on
        await send(app, pilot, "/budget off")
        await until(lambda: app.engine.rules.think_budget is None)
        await send(app, pilot, "/longer")
        await until(lambda: app.last.over and app.turn is None)
        assert app.last.end.given_tokens > 12 and "Wait," in app.last.exchange.trace.thought
        await send(app, pilot, "/reroll")
        await until(lambda: app.last.over and app.turn is None and app.last.end.given_tokens == 0)
        assert "**3**" in app.last.exchange.trace.answer
        await send(app, pilot, "/answer")
        await until(lambda: app.last.over and app.turn is None and app.last.end.given_tokens > 0)
        assert app.last.end.thought_end == "user"
        assert app.last.end.end.reused_tokens > app.last.end.end.prompt_tokens - 4
    with Store(tmp_path / "h.db") as store:
        assert len(store.traces()) == 4
    assert isinstance(app.last.exchange.trace, Trace)
