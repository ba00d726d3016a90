"""Conversations on the screen: gone on with, branched, and only what is seen is mounted."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.pilot import Pilot
from tui.driving import THINK, ask, press, screen, send, settle, shows, until

from backends.base import Sampling
from localr1.models import open_model, resolve
from localr1.store import Store
from localr1.store.schema import transaction
from localr1.trace.record import Ended, Made, Trace
from localr1.tui.app import ChatApp
from localr1.tui.conversations_screen import ConversationsScreen
from localr1.tui.turn import Turn
from localr1.turn import Rules
from scripted import ScriptedBackend


def app_over(file: Path | None, *replies: list[str], **options: object) -> tuple[ChatApp, ScriptedBackend]:
    backend = ScriptedBackend(*replies, **options)  # type: ignore[arg-type]
    return ChatApp(lambda say: backend, history=file), backend


def numbered(count: int) -> list[list[str]]:
    return [[*THINK, f"answer{i}"] for i in range(1, count + 1)]


def keep(file: Path, *conversations: list[tuple[str, str, str]]) -> None:
    """Conversations of turns (question, thought, answer)."""
    with Store(file) as store, transaction(store._db):
        for turns in conversations:
            here, last = None, None
            for i, (question, thought, answer) in enumerate(turns):
                trace = Trace(
                    question, thought, answer, Made("scripted", "scripted"), Ended("stop"), f"2026-01-0{1 + i % 9}T00:00:00+00:00"
                )
                if here is None:
                    here = store._db.execute(
                        "INSERT INTO conversation (title, model, created_at, updated_at) VALUES (?, 'scripted', '', ?)",
                        (question, f"2026-02-{len(turns)}"),
                    ).lastrowid
                last = store._replies.insert(here, last, trace)
                store._replies.write(last, trace, is_over=True)
            store._db.execute("UPDATE conversation SET head = ? WHERE id = ?", (last, here))


async def loaded(app: ChatApp) -> None:
    await until(lambda: app.engine.session, "the model is there")


async def taken_over(app: ChatApp, turns: int) -> None:
    await until(lambda: app.engine.session is not None and app.engine.session.turns == turns, f"{turns} turns are taken over")


async def over(app: ChatApp, pilot: Pilot[None], backend: ScriptedBackend, streams: int) -> None:
    await until(lambda: len(backend.seen) == streams and app.turn is None, f"{streams} replies")
    await settle(pilot)


# ------------------------------------------------------------------------------------------------------- going on


async def test_a_conversation_is_resumed_and_goes_on(tmp_path):
    app, _ = app_over(tmp_path / "h.db", *numbered(2))
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot, "First?")
        await ask(app, pilot, "Second?")
    app, backend = app_over(tmp_path / "h.db", [*THINK, "answer3"])
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "/resume first")
        for text in ("First?", "answer1", "Second?", "answer2", "Thought for"):
            await shows(app, text)
        assert "Let me count" not in screen(app)
        await press(pilot, "ctrl+o")
        await shows(app, "Let me count.")
        await taken_over(app, 2)
        await ask(app, pilot, "Third?")
        assert "Second?" in backend.decode(backend.seen[0])
        assert [turn.number for turn in app.query(Turn)] == [1, 2, 3]
    with Store(tmp_path / "h.db") as store:
        assert [(each.title, each.turns) for each in store.conversations()] == [("First?", 3)]


async def test_another_model_goes_on_and_that_is_told(tmp_path):
    keep(tmp_path / "h.db", [("One?", "Hm.", "1")])
    app, backend = app_over(tmp_path / "h.db", ["2"])
    object.__setattr__(backend.info, "name", "larger")
    async with app.run_test(size=(80, 24)) as pilot:
        await loaded(app)
        await send(app, pilot, "/resume 1")
        await shows(app, "This was with scripted; larger goes on")
        await send(app, pilot, "/again")
        await over(app, pilot, backend, 1)
        assert backend.decode(backend.seen[0]).endswith("Hm.</think>\n\n")
        await shows(app, "‹ 2/2 ›")


async def test_what_is_resumed_while_the_model_loads_is_taken_over_once_it_is_there(tmp_path):
    import threading

    keep(tmp_path / "h.db", [("One?", "", "1")])
    backend, go = ScriptedBackend([*THINK, "2"]), threading.Event()

    def slow(say):
        go.wait(20)
        return backend

    app = ChatApp(slow, history=tmp_path / "h.db")
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "/resume")
        await shows(app, "One?")
        await press(pilot, "enter")
        await until(lambda: app.conversations.here == 1)
        await send(app, pilot, "/rename Two!")  # already this one
        await shows(app, "It is called Two! now")
        go.set()
        await taken_over(app, 1)
    with Store(tmp_path / "h.db") as store:
        assert store.conversations()[0].title == "Two!"


async def test_without_history_there_are_branches_and_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app, _ = app_over(None, *numbered(2))
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot, "One?")
        await send(app, pilot, "/reroll")
        await shows(app, "‹ 2/2 ›")
        await send(app, pilot, "/branch prev")
        await shows(app, "answer1")
        await shows(app, "‹ 1/2 ›")
    assert list(tmp_path.iterdir()) == []


async def test_a_history_that_fails_is_told_in_a_line(tmp_path):
    (tmp_path / "h.db").write_text("this is no database, but a text that is long enough to be looked at" * 100)
    app, _ = app_over(tmp_path / "h.db", *numbered(3))
    async with app.run_test(size=(120, 30)) as pilot:
        await send(app, pilot, "/resume x")
        await shows(app, "is no SQLite database")
        await ask(app, pilot, "One?")
        await send(app, pilot, "/rename x")
        await shows(app, "This conversation is not kept:")
        await ask(app, pilot, "Two?")
        await send(app, pilot, "/revise 1")  # works all the same
        await shows(app, "Question 1, edited, becomes a branch")
        app.input.text = "Other?"
        await press(pilot, "enter")
        await until(lambda: app.turn is None and "answer3" in screen(app))
        await settle(pilot)
        assert "Two?" not in screen(app) and app.engine.session.turns == 1


async def test_a_disk_that_is_full_is_told_once_and_the_chat_goes_on(tmp_path):
    app, _ = app_over(tmp_path / "h.db", *numbered(1), [*THINK, *(f"{i * 7919} " for i in range(3000))], *numbered(1), context=10**6)
    async with app.run_test(size=(160, 40)) as pilot:
        await ask(app, pilot, "One?")
        db = app.engine.history.store()._db
        db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
        await ask(app, pilot, "Two?")
        await ask(app, pilot, "Three?")
        await until(lambda: len(app.query(".notice.error")) == 1)
        assert "This conversation is not kept" in str(app.query_one(".notice.error").content) and app.engine.session.turns == 3
    with Store(tmp_path / "h.db") as store:
        assert store.turn(1).trace.answer == "answer1"


# ------------------------------------------------------------------------------------------------------- branches


async def revise_the_first_of_two(app: ChatApp, pilot: Pilot[None]) -> None:
    for question in ("One?", "Two?"):
        await ask(app, pilot, question)
    await send(app, pilot, "/revise 1")
    await until(lambda: app.input.text == "One?")


async def test_an_edited_question_may_have_a_command_before_it(tmp_path):
    app, backend = app_over(tmp_path / "h.db", *numbered(5))
    async with app.run_test(size=(80, 40)) as pilot:
        await revise_the_first_of_two(app, pilot)
        app.input.clear()
        await send(app, pilot, "/budget 9 One, please?")
        await over(app, pilot, backend, 3)
        await ask(app, pilot, "Then?")
        assert app.engine.session is not None
        assert [m.content for m in app.engine.session.history][::2] == ["One, please?", "Then?"]


async def test_an_edited_question_that_does_not_fit_is_still_being_edited(tmp_path):
    app, _ = app_over(tmp_path / "h.db", *numbered(5))
    async with app.run_test(size=(80, 40)) as pilot:
        await revise_the_first_of_two(app, pilot)
        await send(app, pilot, "long " * 1000)
        await until(lambda: app.turn is None and "long long" in app.input.text)
        app.input.clear()
        await send(app, pilot, "Short?")
        session = app.engine.session
        await until(lambda: session is not None and [m.content for m in session.history][::2] == ["Short?"] and app.turn is None)


async def test_an_earlier_question_is_edited_and_the_branches_switched(tmp_path):
    app, backend = app_over(tmp_path / "h.db", *numbered(5))
    async with app.run_test(size=(80, 40)) as pilot:
        for question in ("One?", "Two?", "Three?"):
            await ask(app, pilot, question)
        await send(app, pilot, "/revise 2")
        await until(lambda: app.input.text == "Two?")
        await press(pilot, "escape")
        await shows(app, "Question 2 stays as it was")
        assert app.input.text == ""
        await send(app, pilot, "/revise 2")
        await until(lambda: app.input.text == "Two?")
        await press(pilot, "!", "enter")
        await over(app, pilot, backend, 4)
        text = screen(app)
        assert "Two?!" in text and "answer4" in text and "Three?" not in text and "answer1" in text
        await shows(app, "‹ 2/2 ›")
        await send(app, pilot, "/reroll 1")
        await over(app, pilot, backend, 5)
        assert "answer5" in screen(app) and "Two?" not in screen(app)
        await send(app, pilot, "/branch")
        await shows(app, "There are 2 branches here, and this is number 2")
        await send(app, pilot, "/branch 1")
        await shows(app, "answer4")  # the newest branch below
        await shows(app, "‹ 1/2 ›  1")
        await send(app, pilot, "/branch prev")
        await shows(app, "answer3")
        await shows(app, "‹ 1/2 ›  2")
        await taken_over(app, 3)
        assert app.engine.session.history[-1].content == "answer3"


async def test_the_mark_switches_by_keys_and_clicks(tmp_path):
    app, _ = app_over(tmp_path / "h.db", *numbered(2))
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot, "One?")
        assert not app.query_one(".mark").can_focus
        await send(app, pilot, "/reroll")
        await shows(app, "‹ 2/2 ›")
        await until(lambda: app.query_one(".mark").can_focus)
        app.query_one(".mark").focus()
        await press(pilot, "left")
        await shows(app, "answer1")
        await until(lambda: len(app.query(".mark")) == 1)
        await pilot.click(".mark", offset=(8, 0))
        await shows(app, "answer2")


async def test_a_question_that_cannot_be_asked_again_leaves_everything(tmp_path):
    app, backend = app_over(tmp_path / "h.db", *numbered(3))
    async with app.run_test(size=(80, 40)) as pilot:
        for question in ("One?", "Two?"):
            await ask(app, pilot, question)
        backend.chat_format = type(backend.chat_format)("", "", "", frozenset())
        await send(app, pilot, "/revise 1")
        await until(lambda: app.input.text == "One?")
        await press(pilot, "x", "enter")
        await until(lambda: app.turn is None and app.input.text == "One?x", "the question comes back")
        await settle(pilot)
        text = screen(app)
        assert all(part in text for part in ("answer1", "Two?", "answer2")) and app.engine.session.turns == 2
        assert [turn.number for turn in app.query(Turn)] == [1, 2]


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("/revise", "Nothing has been asked yet"), ("/reroll 2", "Nothing has been asked yet"), ("/branch", "Nothing has been said yet"),
        ("/rename x", "Nothing has been said yet"), ("/delete", "Nothing has been said yet"), ("/save x.md", "Nothing has been said yet"),
        ("/resume 7", "No conversation is kept yet"), ("/load nowhere.json", "nowhere.json: cannot be read"),
    ],
)  # fmt: skip
async def test_there_is_nothing_to_work_on(tmp_path, monkeypatch, command, says):
    monkeypatch.chdir(tmp_path)
    app, _ = app_over(tmp_path / "h.db")
    async with app.run_test(size=(80, 24)) as pilot:
        await loaded(app)
        await send(app, pilot, command)
        await shows(app, says)


async def test_nothing_is_branched_while_the_model_writes(tmp_path):
    app, _ = app_over(tmp_path / "h.db", [*THINK, "1"], ["more "] * 400, pause_s=0.01)
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot, "One?")
        await send(app, pilot, "Two?")
        await shows(app, "more more")
        for command in ("/revise 1", "/reroll 1", "/delete"):
            app.status.hint("")
            await send(app, pilot, command)
            await shows(app, "Not while the model writes")


# ------------------------------------------------------------------------------------------------------- this one


async def test_a_new_chat_is_no_longer_the_old_conversation_while_the_worker_is_busy(tmp_path, monkeypatch):
    app, _ = app_over(tmp_path / "h.db", *numbered(2))
    async with app.run_test(size=(100, 30)) as pilot:
        await ask(app, pilot, "One?")
        with monkeypatch.context() as busy:
            busy.setattr(app.engine, "new_chat", lambda: None)
            await send(app, pilot, "/new")
            await send(app, pilot, "/delete")
            await shows(app, "Nothing has been said yet")
        await send(app, pilot, "/resume 1")
        await until(lambda: app.conversations.here == 1 and app.conversations._shown is None, "the worker goes on with it")


async def test_it_is_renamed_copied_written_read_and_deleted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app, _ = app_over(tmp_path / "h.db", *numbered(2))
    async with app.run_test(size=(100, 30)) as pilot:
        await ask(app, pilot, "One?")
        await send(app, pilot, "/rename Mine")
        await shows(app, "It is called Mine now")
        for name in ("c.md", "c.json"):
            await send(app, pilot, f"/save {tmp_path / name}")
            await until(lambda name=name: (tmp_path / name).exists())
        await send(app, pilot, "/save c.md")
        await shows(app, " c.md: exists already")
        await send(app, pilot, "/duplicate")
        await until(lambda: app.conversations.here == 2)
        await send(app, pilot, f"/load {tmp_path / 'c.md'}")
        await until(lambda: app.conversations.here == 3)
        await shows(app, "answer1")
        await taken_over(app, 1)
        await ask(app, pilot, "Two?")
        await send(app, pilot, "/delete")
        await shows(app, "Delete “Mine”, 2 turns? y, n")
        await press(pilot, "n")
        await send(app, pilot, "/delete")
        await shows(app, "Delete “Mine”")
        await press(pilot, "y")
        await shows(app, "A reasoning model on this machine")
    with Store(tmp_path / "h.db") as store:
        assert [(each.id, each.title, each.turns) for each in store.conversations()] == [(2, "Mine (copy)", 1), (1, "Mine", 1)]


# ------------------------------------------------------------------------------------------------------- long ones


LONG = [(f"question{i}?", f"thought{i}", f"answer{i}\n\n- a\n- b") for i in range(1, 41)]


async def test_only_turns_near_what_is_seen_are_mounted(tmp_path):
    keep(tmp_path / "h.db", LONG)
    app, backend = app_over(tmp_path / "h.db", [*THINK, "more"], [*THINK, "other"])
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "/resume 1")
        await shows(app, "answer40")
        await settle(pilot)
        assert len(app.query(Turn)) < 20 and app.transcript.count == 40
        before = len(app.query(Turn))
        for _ in range(4):
            await press(pilot, "pageup")
        await until(lambda: len(app.query(Turn)) > before, "more are mounted")
        await settle(pilot)
        numbers = [turn.number for turn in app.query(Turn)]
        assert numbers == list(range(numbers[0], 41))
        await taken_over(app, 40)
        await ask(app, pilot, "And?")
        assert app.transcript.last.number == 41 and len(backend.decode(backend.seen[0]).split("question")) == 41
        await send(app, pilot, "/revise 3")
        await until(lambda: app.input.text == "question3?")
        await press(pilot, "enter")
        await over(app, pilot, backend, 2)
        assert [turn.number for turn in app.query(Turn)] == [1, 2, 3]
        await shows(app, "answer2")


async def test_scrolling_up_keeps_what_is_seen(tmp_path):
    keep(tmp_path / "h.db", LONG[:12])
    app, _ = app_over(tmp_path / "h.db")
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "/resume 1")
        await shows(app, "answer12")
        await settle(pilot)
        seen = [screen(app)]
        while app.transcript.scroll_y:
            app.transcript.scroll_relative(y=-15, animate=False)
            await settle(pilot)
            await settle(pilot)
            seen.append(screen(app))
        for i in range(1, 13):  # each of them was passed
            assert any(f"question{i}?" in text for text in seen), i
        assert "question1?" in seen[-1] and "earlier" not in seen[-1]


async def test_a_branch_in_the_middle_is_shown_where_it_is(tmp_path):
    keep(tmp_path / "h.db", LONG)
    app, backend = app_over(tmp_path / "h.db", [*THINK, "end"])
    async with app.run_test(size=(80, 24)) as pilot:
        await loaded(app)
        await app.conversations.go_on(1, 10)
        await shows(app, "question10?")
        assert "question40?" not in screen(app) and app.transcript.last.number == 40
        await settle(pilot)
        for _ in range(4):
            await press(pilot, "pagedown")
        await until(lambda: app.query(Turn).last().number > 13)
        await send(app, pilot, "And?")
        await over(app, pilot, backend, 1)
        await shows(app, "question40?")
        assert [turn.number for turn in app.query(Turn)][-2:] == [40, 41]


async def test_the_bundled_model_chats_follows_up_edits_regenerates_quits_and_resumes(tmp_path):
    """For real, with thoughts kept short."""
    rules = Rules(Sampling(max_tokens=40, seed=1), think_budget=4)

    def app() -> ChatApp:
        return ChatApp(lambda say: open_model(resolve(None), say=say), rules, tmp_path / "h.db")

    first = app()
    async with first.run_test(size=(100, 40)) as pilot:
        await until(lambda: first.engine.session, limit_s=60)

        async def over(turns: int, number: int) -> None:
            await until(lambda: first.turn is None and first.last.over and first.transcript.count == turns, limit_s=30)
            await settle(pilot)
            assert first.last.end is not None and first.last.number == number == first.engine.session.turns

        await send(first, pilot, "What is 907 + 195?")
        await over(1, 1)
        session = first.engine.session
        await until(
            lambda: 20 < len(session.backend._cached) < session.context_tokens - 5, "the next prompt is prepared: without the thought"
        )
        await send(first, pilot, "And 907 + 196?")
        await over(2, 2)
        assert first.last.end.end.reused_tokens > 20  # of the turn before
        await send(first, pilot, "/revise 2")
        await until(lambda: first.input.text == "And 907 + 196?")
        first.input.text = "And 907 + 197?"
        await press(pilot, "enter")
        await until(lambda: first.last.exchange.question == "And 907 + 197?")
        await over(2, 2)
        await send(first, pilot, "/reroll")
        await until(lambda: first.last.exchange.place is not None and len(first.last.exchange.place.branches) == 3, limit_s=30)
        await over(2, 2)
        await shows(first, "‹ 3/3 ›")
        said, ids = first.engine.session.history, first.engine.session.reply.ids
        await send(first, pilot, "/quit")
    second = app()
    async with second.run_test(size=(100, 40)) as pilot:
        await until(lambda: second.engine.session, limit_s=60)
        await send(second, pilot, "/resume")
        await until(lambda: isinstance(second.screen, ConversationsScreen) and second.screen.chosen)
        await press(pilot, "enter")
        await taken_over(second, 2)
        await until(lambda: second.engine.session.reply)  # a moment after its history
        assert second.engine.session.history == said and second.engine.session.reply.ids == ids and not second.engine.session.reply.by_text
        await send(second, pilot, "/again")
        await until(lambda: second.turn is None and second.last.over and second.last.end.given_tokens > 0, limit_s=30)
        await send(second, pilot, "/branch 1")
        await shows(second, "And 907 + 196?")
    with Store(tmp_path / "h.db") as store:
        assert [each.turns for each in store.conversations()] == [5]
