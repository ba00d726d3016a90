"""The model behind the screen: loading, failing, cancelling, going on, closing."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

from tui.driving import THINK, ask, chat, press, screen, send, shows, until

from backends.base import Backend, Cancel, End, EngineError, Sampling, Token
from localr1.tui.app import ChatApp
from localr1.tui.turn import Turn
from scripted import ScriptedBackend


async def test_first_paint_and_typing_do_not_wait_for_the_model():
    loading, go = threading.Event(), threading.Event()
    backend = ScriptedBackend([*THINK, "It is 3."])

    def open_backend(say: Callable[[str], None]) -> Backend:
        say("Converting tensor 1 of 2")
        loading.set()
        go.wait(10)
        say("Converting tensor 2 of 2")
        return backend

    app = ChatApp(open_backend)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(loading.is_set)
        await shows(app, "Converting tensor 1 of 2")
        assert "localr1" in screen(app)
        await press(pilot, *"How_many?", "enter")
        await shows(app, "Waiting for the model")
        assert backend.seen == []
        go.set()
        await until(lambda: app.query_one(Turn).over)
        await shows(app, "It is 3.")


async def test_backend_is_opened_on_the_worker_after_the_first_paint():
    seen: list[tuple[threading.Thread, str]] = []

    def open_backend(say: Callable[[str], None]) -> Backend:
        seen.append((threading.current_thread(), screen(app)))
        return ScriptedBackend()

    app = ChatApp(open_backend)
    async with app.run_test(size=(80, 24)):
        await until(lambda: seen)
    thread, painted = seen[0]
    assert thread is not threading.main_thread()
    assert "How many r's are in strawberry?" in painted


def test_importing_the_app_imports_nothing_heavy():
    code = "import sys, localr1.tui.app; print([m for m in ('llama_cpp', 'numpy', 'jinja2', 'mlx') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


async def test_question_sent_while_loading_can_be_taken_back():
    go = threading.Event()
    backend = ScriptedBackend([*THINK, "ok"])
    app = ChatApp(lambda say: (go.wait(10), backend)[1])
    async with app.run_test() as pilot:
        await send(app, pilot, "too early")
        await until(lambda: app.turn)
        await press(pilot, "escape")
        assert app.input.text == "too early"
        assert len(app.query(Turn)) == 0
        go.set()
        await ask(app, pilot, " after all")
        assert len(backend.seen) == 1


async def test_failed_load_is_shown_with_its_remedy_and_the_question_comes_back():
    go = threading.Event()

    def open_backend(say: Callable[[str], None]) -> Backend:
        go.wait(10)
        raise EngineError("model.gguf is\ndamaged; [b]pull it again[/b]")

    app = ChatApp(open_backend)
    async with app.run_test(size=(100, 24)) as pilot:
        await send(app, pilot, "my question")
        await until(lambda: app.turn)
        go.set()
        await shows(app, "The model could not be loaded: model.gguf is damaged; [b]pull it again[/b]")
        await until(lambda: app.input.text == "my question")
        await press(pilot, "enter")
        await shows(app, "no model to ask")
        await until(lambda: app.input.text == "my question")
        await press(pilot, "ctrl+c")
        await send(app, pilot, "/help")
        await shows(app, "close the thought and answer now")
        await press(pilot, "escape")
        await send(app, pilot, "/quit")
    assert app.return_code == 1


async def test_cancel_keeps_the_partial_text_on_the_screen_and_in_the_history():
    app, backend = chat([*THINK, *["partial "] * 500], [*THINK, "ok"], pause_s=0.01)
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "Go")
        await shows(app, "partial partial")
        await press(pilot, "escape")
        await until(lambda: app.turn is None)
        await shows(app, "Cancelled")
        assert "partial partial" in screen(app)
        backend.pause_s = 0
        await ask(app, pilot, "And now?")
        assert "partial partial" in backend.decode(backend.seen[1])


async def test_cancel_before_the_first_token_is_not_lost():
    class Slow(ScriptedBackend):
        def stream(self, ids: Sequence[int], sampling: Sampling, cancel: Cancel) -> Iterator[Token | End]:
            while not cancel.is_set():
                pass_on.wait(0.01)
            yield End("cancelled", len(ids), 0, 0, 0.1, 0.0)

    pass_on = threading.Event()
    app = ChatApp(lambda say: Slow())
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "Go")
        await shows(app, "Reading…")
        await press(pilot, "escape")
        await until(lambda: app.turn is None)
        await shows(app, "Cancelled")


async def test_follow_up_carries_the_history_without_the_old_thought():
    app, backend = chat([*THINK, "Adam"], [*THINK, "Eve"])
    async with app.run_test(size=(80, 24)) as pilot:
        await ask(app, pilot, "Who was first?")
        await ask(app, pilot, "And then?")
        prompt = backend.decode(backend.seen[1])
        assert "Who was first?" in prompt
        assert "Adam" in prompt
        assert "Let me count" not in prompt


async def test_prompt_that_does_not_fit_is_one_line_and_the_question_comes_back():
    app, _ = chat([*THINK, "ok"], context=60)
    async with app.run_test(size=(120, 24)) as pilot:
        await send(app, pilot, "x" * 100)
        await shows(app, "tokens and the context holds 60")
        await until(lambda: app.turn is None)
        assert app.input.text == "x" * 100
        await press(pilot, "ctrl+c")
        await ask(app, pilot, "Hi")
        await shows(app, "ok")


async def test_after_a_question_that_failed_the_last_reply_can_be_steered_and_copied():
    app, _ = chat([*THINK, "Adam"], [*THINK, "Eve"], context=120)
    async with app.run_test(size=(100, 30)) as pilot:
        await ask(app, pilot, "Who?")
        await send(app, pilot, "long " * 60)
        await until(lambda: app.turn is None and app.input.text)
        app.input.clear()
        await send(app, pilot, "/copy")
        await shows(app, "Copied")
        await send(app, pilot, "/reroll")
        await shows(app, "Eve")


async def test_template_that_fails_is_one_line_and_the_question_comes_back():
    app, _ = chat([*THINK, "ok"], template="{{ raise_exception('no such role') }}")
    async with app.run_test(size=(120, 24)) as pilot:
        await send(app, pilot, "Hi")
        await shows(app, "chat template failed: no such role")
        await until(lambda: app.input.text == "Hi")


async def test_engine_that_breaks_off_keeps_what_came_and_the_app_goes_on():
    class Breaking(ScriptedBackend):
        def stream(self, ids: Sequence[int], sampling: Sampling, cancel: Cancel) -> Iterator[Token | End]:
            for item in super().stream(ids, sampling, cancel):
                if isinstance(item, End) and len(self.seen) == 1:
                    raise EngineError("the engine ran out of memory; lower --context")
                yield item

    app = ChatApp(lambda say: Breaking([*THINK, "Half an answer"], [*THINK, "Whole"]))
    async with app.run_test(size=(80, 30)) as pilot:
        await send(app, pilot, "Go")
        await shows(app, "the engine ran out of memory; lower --context")
        await shows(app, "Half an answer")
        await until(lambda: app.input.text == "Go")
        await press(pilot, "enter")
        await shows(app, "Whole")


async def test_quitting_while_the_model_writes_cancels_joins_and_closes():
    app, backend = chat([*["word "] * 2_000], pause_s=0.01)
    async with app.run_test(size=(80, 24)) as pilot:
        await send(app, pilot, "Go")
        await shows(app, "word word")
        await send(app, pilot, "/quit")
    assert backend.closed
    assert not app.engine._thread.is_alive()
    assert app.return_code == 0


async def test_quitting_stops_a_conversion_at_its_next_line():
    """`say` raises, so that the converter's own clean-up runs."""
    tidied, loading = threading.Event(), threading.Event()

    def open_backend(say: Callable[[str], None]) -> Backend:
        try:
            while True:
                say("Converting")
                loading.set()
                threading.Event().wait(0.01)
        finally:
            tidied.set()

    app = ChatApp(open_backend)
    async with app.run_test():
        await until(loading.is_set)
    assert tidied.is_set()
