"""The context on the screen: a warning, a choice at its end, what is dropped is said; the next prompt is prepared in time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from textual import events
from textual.pilot import Pilot
from tui.driving import THINK, ask, chat, press, screen, send, settle, shows, until

from localr1.models import ModelSpec, Wanted
from localr1.opening import Opener
from localr1.settings import Settings
from localr1.settings_layers import Layers
from localr1.tui.app import ChatApp
from localr1.tui.choice import Choice
from localr1.tui.turn import Turn
from localr1.turn import Rules, WhenFull
from scripted import ScriptedBackend

REPLIES = [[*THINK, f"Answer {i}"] for i in range(9)]


class Growing(Opener):
    """Opens a script in whatever context is wanted, twice as large each time."""

    def __call__(self, say: Callable[[str], None]) -> ScriptedBackend:
        opened.append(ScriptedBackend(*REPLIES[3 * len(opened) :], context=self.wanted.context or 0))
        return opened[-1]

    def larger(self, context_tokens: int) -> Opener | None:
        return replace(self, wanted=replace(self.wanted, context=2 * context_tokens))


opened: list[ScriptedBackend] = []


def growing(context: int, when_full: WhenFull = "ask") -> ChatApp:
    opened.clear()
    return ChatApp(Growing(ModelSpec("scripted", "gguf", Path("s.gguf")), Wanted(context=context)), Rules(when_full=when_full))


async def fill(app: ChatApp, pilot: Pilot[None]) -> None:
    """Three turns, with which the next question leaves too little room."""
    when_full = app.engine.rules.when_full
    app.engine.set_rules(when_full="stop")
    for i in range(3):
        await ask(app, pilot, f"{i}" * 46)
    app.engine.set_rules(when_full=when_full)


async def test_near_the_end_a_warning_once_a_turn():
    app, _ = chat([f"{i} " for i in range(400)], context=100, pause_s=0.01)
    async with app.run_test(size=(100, 24)) as pilot:
        await send(app, pilot, "Go")
        await shows(app, "% full · /context shows what fills it")
        assert app.turn is not None


async def test_full_the_person_chooses_to_drop_the_oldest_turns_and_a_line_shows_where_they_end():
    app, backend = chat(*REPLIES, context=200)
    async with app.run_test(size=(100, 40)) as pilot:
        await fill(app, pilot)
        await send(app, pilot, "what now?")
        await shows(app, "The context is full. What shall be done?")
        await shows(app, "Drop the oldest 2 turns from what the model gets")
        assert "Raise" not in screen(app)
        await press(pilot, "enter")
        await shows(app, "Answer 3")
        assert "000" not in backend.decode(backend.seen[-1]) and "2222" in backend.decode(backend.seen[-1])
        lines = screen(app).splitlines()
        at = next(i for i, line in enumerate(lines) if "the 2 turns above are no longer sent to the model" in line)
        assert any("1111" in line for line in lines[:at]) and any("2222" in line for line in lines[at:])
        assert len(app.query(Turn)) == 4
        await until(lambda: app.input.has_focus)
        await send(app, pilot, "/new")
        await until(lambda: not app.query(Turn))
        assert "no longer sent" not in screen(app)


async def test_full_and_stopped_the_question_comes_back():
    app, backend = chat(*REPLIES, context=200)
    async with app.run_test(size=(100, 40)) as pilot:
        await fill(app, pilot)
        await send(app, pilot, "what now?")
        await shows(app, "Stop here")
        await press(pilot, "escape")
        await until(lambda: app.input.text == "what now?")
        assert len(backend.seen) == 3 and not app.query(Choice)
        await press(pilot, "ctrl+c")
        await send(app, pilot, "/new")
        await ask(app, pilot, "afresh")
        await shows(app, "Answer 3")


async def test_who_is_writing_goes_on_writing_and_the_next_question_settles_it():
    app, backend = chat(REPLIES[0], [*THINK, *"an answer"], context=200)
    async with app.run_test(size=(100, 40)) as pilot:
        await ask(app, pilot, "0" * 60)
        backend.pause_s, backend.end_reason = 0.05, "context"
        await send(app, pilot, "go")
        await press(pilot, *"/new")
        await shows(app, "What shall be done?")
        await press(pilot, "enter")
        await until(lambda: not app.query(Choice) and not app.query(Turn))


async def test_typing_beside_the_choice_goes_into_the_input():
    app, _ = chat(*REPLIES, context=200)
    async with app.run_test(size=(100, 40)) as pilot:
        await fill(app, pilot)
        await send(app, pilot, "what now?")
        await shows(app, "What shall be done?")
        assert app._driver is not None
        for character in "shorter":  # faster than the focus moves
            app._driver.send_message(events.Key(character, character))
        await until(lambda: app.input.text == "shorter")


async def test_full_the_context_is_raised_and_the_question_asked_in_it():
    app = growing(200)
    async with app.run_test(size=(100, 40)) as pilot:
        await fill(app, pilot)
        await send(app, pilot, "what now?")
        await shows(app, "Raise the context to 400 tokens")
        await press(pilot, "down", "enter")
        await shows(app, "Answer 3")
        assert opened[0].closed and "0000" in opened[1].decode(opened[1].seen[0])
        await shows(app, "/ 400")


class Poor(Opener):
    """Its memory is less than was thought."""

    def __call__(self, say: Callable[[str], None]) -> ScriptedBackend:
        opened.append(ScriptedBackend(context=60))
        if self.wanted.context != 60:
            raise MemoryError
        return opened[-1]

    def larger(self, context_tokens: int) -> Opener | None:
        return replace(self, wanted=replace(self.wanted, context=2 * context_tokens))


async def test_a_larger_context_that_cannot_be_had_is_tried_once():
    opened.clear()
    opener = Poor(ModelSpec("poor", "gguf", Path("p.gguf")), Wanted(context=60))
    app = ChatApp(opener, Rules(when_full="raise"))
    async with app.run_test(size=(100, 40)) as pilot:
        await send(app, pilot, "x" * 80)
        await until(lambda: app.turn is None and app.input.text == "x" * 80)
        assert len(opened) == 3  # as it was, larger, as it was


async def test_a_question_that_does_not_fit_alone_can_have_a_larger_context():
    app = growing(60)
    async with app.run_test(size=(100, 40)) as pilot:
        await send(app, pilot, "x" * 80)
        await shows(app, "Raise the context to 120 tokens")
        assert "Drop" not in screen(app)
        await press(pilot, "enter")
        await shows(app, "Answer 3")


@pytest.mark.parametrize("when_full", ["drop", "raise"])
async def test_as_set_nobody_is_asked_but_it_is_said(when_full: WhenFull):
    app = growing(200, when_full)
    async with app.run_test(size=(100, 40)) as pilot:
        await fill(app, pilot)
        await send(app, pilot, "what now?")
        await shows(app, "Answer 3")
        await shows(app, "no longer sent" if when_full == "drop" else "/ 400")


@pytest.mark.parametrize(("keys", "said"), [(("enter",), "no longer sent"), (("down", "enter"), "/ 400"), (("escape",), "Context is full")])
async def test_a_reply_that_the_context_ended_goes_on_if_the_person_wants(keys: tuple[str, ...], said: str):
    app = growing(200)
    async with app.run_test(size=(100, 40)) as pilot:
        await ask(app, pilot, "0" * 60)
        await ask(app, pilot, "1" * 60)
        opened[0].replies, opened[0].end_reason = [["Let", " me"], REPLIES[3]], "context"
        await send(app, pilot, "go")
        await shows(app, "Drop the oldest turn")
        opened[0].end_reason = "stop"
        await press(pilot, *keys)
        await shows(app, said)
        if keys != ("escape",):
            await shows(app, "Answer 3")
            await until(lambda: app.turn is None)
            session = app.engine.session
            assert session is not None and session.history[-1].thought == "Let meLet me count." and len(session.history) == 6
        assert len([t for t in app.query(Turn) if t.display]) == 3


async def test_a_model_file_that_is_gone_does_not_make_a_failure_of_a_reply_that_is_there():
    class Gone(Growing):
        def larger(self, context_tokens: int) -> Opener | None:
            raise FileNotFoundError("m.gguf")

    opened.clear()
    app = ChatApp(Gone(ModelSpec("scripted", "gguf", Path("s.gguf")), Wanted(context=200)))
    async with app.run_test(size=(100, 40)) as pilot:
        await until(lambda: opened)
        opened[0].end_reason = "context"
        await ask(app, pilot, "go")
        await shows(app, "Context is full, /new starts a new chat")
        assert not app.query(Choice)


async def test_context_tells_what_fills_it():
    app, _ = chat([*THINK, "It is 3."])
    async with app.run_test(size=(80, 24)) as pilot:
        await until(lambda: app.engine.session)
        await send(app, pilot, "/context")
        await shows(app, "Context: 4,096 tokens")
        await ask(app, pilot, "How many?")
        await send(app, pilot, "/context")
        await shows(app, "question              9     0 %")
        await shows(app, "thought               5     0 %")


async def test_system_text_is_set_shown_and_taken_away():
    app, backend = chat([*THINK, "ok"], [*THINK, "ok"])
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "/system")
        await shows(app, "No system text")
        await send(app, pilot, "/system Be kind.")
        await shows(app, "System text, in the first question: Be kind.")
        await ask(app, pilot, "Hi")
        assert "<｜User｜>Be kind.\n\nHi" in backend.decode(backend.seen[0])
        await send(app, pilot, "/system off")
        await ask(app, pilot, "Again")
        assert "kind" not in backend.decode(backend.seen[1])


async def test_the_next_prompt_is_prepared_when_its_question_is_begun():
    """Not before: the thought, longer than the answer, would be lost to steering."""
    app, backend = chat([*THINK, "Eve"], [*THINK, "Cain"])
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot, "Who?")
        await press(pilot, *"/he")
        await settle(pilot)
        assert backend.prefilled == []
        await press(pilot, "ctrl+c", *"And")
        await until(lambda: backend.prefilled)
        assert backend.decode(backend.prefilled[0]).endswith("Eve<｜end▁of▁sentence｜><｜User｜>")
        await press(pilot, *" then?", "enter")
        await shows(app, "Cain")
        assert app.last is not None and app.last.end is not None
        assert app.last.end.end.reused_tokens == len(backend.prefilled[0])
        assert len(backend.prefilled) == 1


async def test_a_question_begun_while_the_reply_is_written_is_prepared_for_at_its_end():
    app, backend = chat([*THINK, "Eve"], pause_s=0.03)
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "Who?")
        await press(pilot, *"And")
        await until(lambda: app.last is not None and app.last.end is not None)
        await until(lambda: backend.prefilled)


async def test_where_steering_would_lose_little_it_is_prepared_at_once():
    app, backend = chat(["Hm", "</think>", *"a long answer"])
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot, "Who?")
        await until(lambda: backend.prefilled)


async def test_a_steer_after_preparing_is_still_right():
    app, backend = chat([*THINK, "Eve"], ["Adam"])
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot, "Who?")
        await press(pilot, *"And")
        await until(lambda: backend.prefilled)
        await press(pilot, "ctrl+c")
        await send(app, pilot, "/again")
        await shows(app, "Adam")
        assert backend.decode(backend.seen[1]).endswith("<｜User｜>Who?<｜Assistant｜><think>\nLet me count.</think>\n\n")


async def test_preparing_can_be_switched_off():
    layers = Layers()
    layers.set("chat.prepare", False)
    backend = ScriptedBackend(["Hm", "</think>", *"a long answer"])
    app = ChatApp(lambda say: backend, layers=layers)
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot, "Who?")
        await press(pilot, *"And")
        await settle(pilot)
        assert backend.prefilled == [] and Settings().chat.prepare
