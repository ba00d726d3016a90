"""Another model in mid-conversation: what goes on with it, what is shown meanwhile, what happens when it fails or is stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from tui.driving import THINK, ask, chat, press, screen, send, shows, until

from backends.base import Backend, Cancel, EngineError, Text
from localr1.models import ModelSpec, Wanted
from localr1.opening import Opener
from localr1.tui.app import ChatApp
from localr1.turn import Rules
from scripted import ScriptedBackend


def named(name: str, *replies: list[str], **options: object) -> ScriptedBackend:
    backend = ScriptedBackend(*replies, **options)  # type: ignore[arg-type]
    object.__setattr__(backend.info, "name", name)
    return backend


async def test_the_conversation_goes_on_with_the_other_model_and_its_rules():
    app, old = chat([*THINK, "Adam"])
    new = named("larger", [*THINK, "Eve"], [*THINK, "Cain"])
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot, "Who was first?")
        app.models.switch(lambda say: new, Rules(think_budget=99))
        await shows(app, "larger ·")
        assert old.closed
        await ask(app, pilot, "And then?")
        assert "Who was first?" in new.decode(new.seen[0]) and "Adam" in new.decode(new.seen[0])
        assert app.engine.session is not None and app.engine.session.rules.think_budget == 99
        await send(app, pilot, "/reroll")
        await shows(app, "Cain")
        assert new.decode(new.seen[1]) == new.decode(new.seen[0])


async def test_a_reply_of_another_model_is_steered_by_its_text():
    app, _ = chat([*THINK, "Adam"])
    async with app.run_test(size=(100, 24)) as pilot:
        await ask(app, pilot, "Who was first?")
        new = named("larger", ["Eve"], [*THINK, "Cain"])
        new.encode([Text("other ids")])
        app.models.switch(lambda say: new)
        await shows(app, "larger ·")
        await send(app, pilot, "/again")
        await shows(app, "Eve")
        assert new.decode(new.seen[0]).endswith("Let me count.</think>\n\n")
        await send(app, pilot, "/reroll")
        await shows(app, "Cain")
        await until(lambda: "Eve" not in screen(app))


async def test_a_model_that_cannot_be_opened_leaves_the_old_one():
    opened: list[ScriptedBackend] = []

    def old(say: Callable[[str], None]) -> Backend:
        opened.append(ScriptedBackend([*THINK, "Adam"], [*THINK, "Eve"]))
        return opened[-1]

    def broken(say: Callable[[str], None]) -> Backend:
        assert opened[-1].closed  # two may not fit
        raise EngineError("it is damaged; pull it again")

    app = ChatApp(old)
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot, "Who was first?")
        app.models.switch(broken)
        await shows(app, "The model could not be loaded: it is damaged; pull it again")
        await until(lambda: app.engine.session)
        await ask(app, pilot, "And then?")
        assert "Adam" in opened[1].decode(opened[1].seen[0])
        assert app.engine.failure == ""


async def test_without_any_model_the_chat_says_so_and_another_can_be_opened():
    def broken(say: Callable[[str], None]) -> Backend:
        raise EngineError("it is damaged")

    app = ChatApp(broken)
    async with app.run_test(size=(80, 24)) as pilot:
        await shows(app, "No model")
        app.models.switch(lambda say: named("whole", [*THINK, "Here"]))
        await shows(app, "whole ·")
        await ask(app, pilot)
        await shows(app, "Here")
        await send(app, pilot, "/quit")
    assert app.return_code == 0


async def test_opening_is_shown_in_place_and_escape_stops_it_and_never_the_old_one():
    converting, stopping, reopening, go = (threading.Event() for _ in range(4))

    def slow(say: Callable[[str], None]) -> Backend:
        try:
            while True:
                say("Converting tensor 1 of 2")
                converting.set()
                threading.Event().wait(0.01)
        finally:
            stopping.wait(10)

    def old(say: Callable[[str], None]) -> Backend:
        if converting.is_set():
            reopening.set()
            go.wait(10)
            say("Loading it again")
        return ScriptedBackend([*THINK, "Adam"])

    app = ChatApp(old)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(lambda: app.engine.session)
        app.models.switch(slow)
        await until(converting.is_set)
        await shows(app, "Converting tensor 1 of 2 · Esc stops it")
        await press(pilot, "escape")
        await shows(app, "Converting tensor 1 of 2: stopping")
        stopping.set()
        await until(reopening.is_set)
        await press(pilot, "escape")
        go.set()
        await shows(app, "The model could not be loaded: it was stopped")
        await ask(app, pilot)
        await shows(app, "Adam")


async def test_a_question_sent_meanwhile_waits_for_the_other_model():
    go = threading.Event()
    app, _ = chat()
    async with app.run_test(size=(80, 24)) as pilot:
        await until(lambda: app.engine.session)
        app.models.switch(lambda say: (go.wait(10), named("larger", [*THINK, "Eve"]))[1])
        await until(lambda: app.engine.session is None)
        await send(app, pilot, "Who?")
        await shows(app, "Waiting for the model")
        go.set()
        await shows(app, "Eve")


async def test_preparing_gives_way_at_once():
    preparing = threading.Event()

    class Slow(ScriptedBackend):
        def prefill(self, ids: list[int], cancel: Cancel) -> int:  # type: ignore[override]
            preparing.set()
            while not cancel.is_set():
                threading.Event().wait(0.001)
            return 0

    app = ChatApp(lambda say: Slow([*THINK, "Adam"]))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(lambda: app.engine.session)
        app.engine.prepare()
        await until(preparing.is_set)
        await ask(app, pilot)
        await shows(app, "Adam")


async def test_preparing_that_fails_or_comes_too_late_does_no_harm():
    class Failing(ScriptedBackend):
        def prefill(self, ids: list[int], cancel: Cancel) -> int:  # type: ignore[override]
            raise EngineError("no memory")

    app = ChatApp(lambda say: Failing([*THINK, "Adam"], [*THINK, "Eve"]))
    async with app.run_test(size=(80, 24)) as pilot:
        app.engine.prepare()
        await ask(app, pilot)
        app.engine.prepare()
        await ask(app, pilot)
        await shows(app, "Eve")


@dataclass(frozen=True)
class Stand(Opener):
    """Opens a scripted model of the spec's name; "slow" waits, "big" needs to be told a context."""

    log: list[tuple[str, int | None]] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)
    remembered: list[str] = field(default_factory=list)

    def __call__(self, say: Callable[[str], None]) -> Backend:
        self.log.append((self.spec.name, self.wanted.context))
        if self.spec.name == "slow":
            self.go.wait(10)
        if self.spec.name == "big" and self.wanted.context is None:
            raise EngineError("it does not fit; a context of 2,048 would")
        return named(self.spec.name, [*THINK, "x"])

    def remember(self) -> None:
        self.remembered.append(self.spec.name)

    def of(self, name: str) -> Stand:
        return replace(self, spec=ModelSpec(name, "gguf", Path(name)))


STAND = ModelSpec("old", "gguf", Path("old"))


async def test_what_is_set_while_a_model_is_opened_holds_with_it():
    stand = Stand(STAND, Wanted(), log=[], go=threading.Event())
    app = ChatApp(stand)
    async with app.run_test(size=(100, 24)) as pilot:
        await shows(app, "old ·")
        app.models.switch(stand.of("slow"), Rules())
        await until(lambda: app.engine.session is None)
        await send(app, pilot, "/budget 77")
        await send(app, pilot, "/set context 2048")
        stand.go.set()
        await until(lambda: len(stand.log) == 3 and app.engine.session is not None)
        assert stand.log == [("old", None), ("slow", None), ("slow", 2048)]
        assert app.engine.session is not None and app.engine.session.rules.think_budget == 77


async def test_a_model_that_did_not_fit_is_opened_with_the_context_that_does():
    stand = Stand(STAND, Wanted(), log=[]).of("big")
    app = ChatApp(stand)
    async with app.run_test(size=(100, 24)) as pilot:
        await until(lambda: app.engine.failure)
        await send(app, pilot, "/set context 2048")
        await shows(app, "big ·")
        assert stand.log == [("big", None), ("big", 2048)]


async def test_a_load_that_cannot_be_interrupted_is_undone_when_it_was_stopped():
    stand = Stand(STAND, Wanted(), log=[], go=threading.Event())
    app = ChatApp(stand)
    async with app.run_test(size=(100, 24)) as pilot:
        await shows(app, "old ·")
        app.models.switch(stand.of("slow"))
        await until(lambda: app.engine.session is None)
        await press(pilot, "escape")
        stand.go.set()
        await shows(app, "The model could not be loaded: it was stopped")
        await shows(app, "old ·")
        assert "slow" not in stand.remembered
