"""ChatApp: the chat in the terminal. It wires input, transcript, status bar and the engine's worker together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import ClassVar

from textual import events
from textual.app import App, ComposeResult, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal
from textual.widgets import Markdown, Static

from localr1 import editor, steering
from localr1.history import History
from localr1.tui.commands import Typed, parse
from localr1.tui.engine import Engine, OpenBackend
from localr1.tui.prompt_input import PromptInput, learn_alt_enter
from localr1.tui.status import HINT_S, Field, StatusBar, model_fields
from localr1.tui.theme import THEME
from localr1.tui.thought import Thought
from localr1.tui.trace_view import TraceView
from localr1.tui.transcript import HELP, Transcript
from localr1.tui.turn import Turn
from localr1.turn import Rules

FRAMES_PER_S = 30
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_WIDE = 120  # columns: from here on the trace stands beside the chat


class ChatApp(App[None]):
    """The model is opened by `open_backend` on the worker thread after the first paint. `history`: the file that conversations are kept
    in; None keeps none.

    `return_code` is 1 if it could not be opened.
    """

    CSS_PATH = "app.tcss"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", priority=True),
        Binding("ctrl+c", "interrupt", priority=True),
        Binding("ctrl+o", "fold", priority=True),
        Binding("ctrl+t", "trace", priority=True),
        Binding("ctrl+n", "answer_now", priority=True),
        Binding("pageup", "page(-1)", priority=True),
        Binding("pagedown", "page(1)", priority=True),
    ]

    def __init__(self, open_backend: OpenBackend, rules: Rules | None = None, history: Path | None = None) -> None:
        super().__init__(ansi_color=True)
        self.register_theme(THEME)
        self.theme = THEME.name
        self.engine = Engine(open_backend, rules or Rules(), History(history))
        self.turn: Turn | None = None  # the one that is waiting or being written
        self.last: Turn | None = None  # the last of the conversation
        self._replaced: Turn | None = None  # hidden while another is tried in its place
        self._tokens_per_s: float | None = None
        self._failure_shown = False
        self._problem_shown = ""
        self._pump_due = False
        self._quit_asked_at = float("-inf")
        self._traced = 0  # deltas of the turn that the trace has
        self._after: Callable[[], Awaitable[None]] | None = None  # what waits for the turn to end
        self.transcript = Transcript()
        self.trace = TraceView(hint="Ctrl+T hides", id="trace")
        self.input = PromptInput()
        self.status = StatusBar()

    def compose(self) -> ComposeResult:
        with Container(id="body"):
            yield self.transcript
            yield self.trace
        with Horizontal(id="ask"):
            yield Static("❯", id="mark")
            yield self.input
        yield self.status

    def on_mount(self) -> None:
        learn_alt_enter()
        self.trace.display = False
        self.input.focus()
        self.set_interval(1 / FRAMES_PER_S, self._tick)
        self._draw_status()
        self.call_after_refresh(self.engine.start)

    def on_resize(self, event: events.Resize) -> None:
        self.query_one("#body").set_class(event.size.width >= _WIDE, "wide")

    async def on_unmount(self) -> None:
        await asyncio.to_thread(self.engine.close)

    # what the engine brings

    def _tick(self) -> None:
        """Ask for a pump, in line with the keys: a timer's own callback would run in the midst of their handlers."""
        if not self._pump_due and self.is_running:
            self._pump_due = True
            self.call_later(self._pump)

    async def _pump(self) -> None:
        """Bring the screen up to date with the worker, some thirty times a second and never once a token."""
        self._pump_due = False
        if self.engine.failure and not self._failure_shown:
            await self._show_load_failure()
        if self.turn is not None:
            await self._pump_turn(self.turn)
        self._draw_status()

    async def _pump_turn(self, turn: Turn) -> None:
        await turn.pump()
        self._tokens_per_s = turn.tokens_per_s or self._tokens_per_s
        self._pump_trace(turn)
        if turn.loop is not None and self.engine.rules.on_loop == "warn":
            self.status.hint(f"The model repeats itself, every {turn.loop.period} tokens: Ctrl+N answers now, Esc stops")
            turn.loop = None
        if not turn.over:
            return
        self.turn = None
        if turn.failure and self._replaced is not None:
            await self._restore(turn, self._replaced)
        elif turn.failure:
            self.input.give_back(turn.exchange.question)
        elif self._replaced is not None:
            await self._replaced.remove()
        self._replaced = None
        if self.engine.history.problem != self._problem_shown:
            self._problem_shown = self.engine.history.problem
            await self.transcript.notice(f"This conversation is not kept: {self._problem_shown}", "error")
        after, self._after = self._after, None
        if after is not None:
            await after()

    def _pump_trace(self, turn: Turn) -> None:
        """Show in the trace what has come, if it is open."""
        if not self.trace.display:
            return
        if self._traced < len(turn.deltas):
            self.trace.feed(turn.deltas[self._traced :])
            self._traced = len(turn.deltas)
        if turn.over and turn.exchange.trace is not None:
            self.trace.finish(turn.exchange.trace)

    async def _restore(self, failed: Turn, old: Turn) -> None:
        """What was to take the turn's place could not be had."""
        await failed.remove()
        old.display = True
        self.last = old
        self._open_trace()
        self.status.hint(failed.failure)

    async def _show_load_failure(self) -> None:
        self._failure_shown = True
        await self.transcript.notice(f"The model could not be loaded: {self.engine.failure}", "error")
        if self.turn is not None:
            await self._take_back(self.turn)

    def _draw_status(self) -> None:
        session = self.engine.session
        if session is not None:
            self.status.show(model_fields(session.backend, session.context_tokens, self._tokens_per_s))
        elif self.engine.failure:
            self.status.show([Field("No model · /quit leaves", 0)])
        else:
            spin = _SPINNER[int(monotonic() * 10) % len(_SPINNER)]
            self.status.show([Field(f"{spin} {self.engine.progress}", 0)])
        self.input.placeholder = "Esc stops the reply" if self.turn is not None else "Ask something"

    # what the person does

    async def on_prompt_input_sent(self, event: PromptInput.Sent) -> None:
        text = event.text.strip()
        if not text:
            return
        command = parse(text)
        if command is not None and not command.question:
            await self._command(command)
        elif self.engine.failure:
            self.status.hint("There is no model to ask: see above. /quit leaves")
        elif self.turn is not None:
            self.status.hint("One question at a time: Esc stops the reply")
        elif command is not None and command.problem:
            self.status.hint(command.problem)
        else:
            self.input.clear()
            await self._begin(Turn(self.engine.ask(text) if command is None else self.engine.ask(command.question, **command.changes())))

    async def _begin(self, turn: Turn) -> None:
        self.turn = self.last = turn
        await self.transcript.add(turn)
        self._open_trace()

    async def _command(self, command: Typed) -> None:
        if command.problem:
            self.status.hint(command.problem)
            return
        self.input.clear()
        match command.name:
            case "help":
                await self.transcript.notice(HELP)
            case "new":
                await self._new_chat()
            case "quit":
                await self.action_quit()
            case "trace":
                self.action_trace()
            case "think":
                self.engine.set_rules(**command.changes())
                self.status.hint(
                    {"auto": "Thinks as the model likes", "off": "Answers without thinking", "force": "Always thinks"}[command.value]
                )
            case "budget":
                self.engine.set_rules(**command.changes())
                budget = self.engine.rules.think_budget
                self.status.hint("No budget for thoughts" if budget is None else f"Thoughts are closed after {budget:,} tokens")
            case "loops":
                self.engine.set_rules(**command.changes())
                self.status.hint(f"Loops: {command.value}")
            case name:
                await self._steer(name)

    # steering

    async def on_trace_view_steer(self, event: TraceView.Steer) -> None:
        names = {"answer_now": "answer", "reroll_answer": "again"}
        await self._steer(names.get(event.action, event.action), event.token, event.choice)

    async def action_answer_now(self) -> None:
        await self._steer("answer")

    async def _steer(self, what: str, token: int | None = None, choice: int | None = None) -> None:
        """Have the last reply go on in another way. One that is being written is stopped first, but to answer now."""
        if self.last is None or (self.last.failure and self.turn is None):
            self.status.hint("There is no reply to steer yet")
        elif self.turn is None:
            await self._go_on(what, token, choice)
        elif self.turn.exchange.started_at is None:
            self.status.hint("The model is not there yet")
        elif what == "answer":
            self.engine.answer_now()
        else:
            self._after = lambda: self._go_on(what, token, choice)
            self.engine.cancel(self.turn.exchange)

    async def _go_on(self, what: str, token: int | None, choice: int | None) -> None:
        old, session = self.last, self.engine.session
        if old is None or session is None or session.reply is None:
            return
        begin = self._edited() if what == "edit" else steering.beginning(what, token, choice)
        if begin is None:
            return
        old.display = False
        self._replaced = old
        await self._begin(Turn(self.engine.steer(old.exchange.question, begin)))

    def _edited(self) -> steering.Begin | None:
        """What the person made of the thought; None if it is as it was."""
        assert self.engine.session is not None and self.engine.session.reply is not None
        thought = self.engine.session.reply.thought
        text, problem = thought, ""
        try:
            with self.suspend():  # an exception that left it would leave the terminal as it is in there
                try:
                    text = editor.edit(thought)
                except editor.EditorError as error:
                    problem = str(error)
        except SuspendNotSupported:
            problem = "This terminal cannot be given to an editor"
        if problem:
            self.status.hint(problem)
            return None
        text = text.removesuffix("\n") if not thought.endswith("\n") else text
        if text == thought:
            self.status.hint("The thought is as it was")
            return None
        return lambda reply, backend: steering.edited(reply, text, backend)

    async def _new_chat(self) -> None:
        if self.turn is not None:
            self.engine.cancel(self.turn.exchange)
            self.turn = None
        self.last = self._replaced = self._after = None
        self.engine.new_chat()
        self._tokens_per_s = None
        self.trace.display = False
        await self.transcript.clear()

    def action_trace(self) -> None:
        """Show the trace, go into it, and hide it."""
        if not self.trace.display:
            self.trace.display = True
            self._open_trace()
        elif self.trace.has_focus:
            self.trace.display = False
            self.input.focus()
        else:
            self.trace.focus()

    def _open_trace(self) -> None:
        """Let it have the last reply."""
        turn, self._traced = self.last, 0
        if not self.trace.display:
            return
        self.trace.can_steer = True
        if turn is None:
            self.trace.begin("")
        elif turn.over and turn.exchange.trace is not None:
            self.trace.show(turn.exchange.trace)
        else:
            self.trace.begin(turn.exchange.question)
            self._pump_trace(turn)

    async def action_cancel(self) -> None:
        """Stop the reply and keep what has come; a question that is still waiting goes back into the input."""
        if self.trace.has_focus:
            if not self.trace.escape():
                self.input.focus()
            return
        if self.turn is None:
            self.screen.clear_selection()
            return
        self.engine.cancel(self.turn.exchange)  # before looking whether it has begun: the worker looks the other way round
        if self.turn.exchange.started_at is None:
            await self._take_back(self.turn)

    async def _take_back(self, turn: Turn) -> None:
        self.turn = None
        if self._replaced is not None:
            turn.failure = "Stopped before it began"
            await self._restore(turn, self._replaced)
            self._replaced = None
            return
        self.last = None
        await turn.remove()
        self.input.give_back(turn.exchange.question)

    async def action_interrupt(self) -> None:
        """Ctrl+C: copy what is selected, else clear the input, else stop the reply, else quit at the second time."""
        selected = self.screen.get_selected_text() or self.input.selected_text
        if selected:
            self.copy_to_clipboard(selected)
            self.screen.clear_selection()
            self.status.hint("Copied")
        elif self.input.text:
            self.input.clear()
        elif self.turn is not None:
            await self.action_cancel()
        elif monotonic() - self._quit_asked_at < HINT_S:
            await self.action_quit()
        else:
            self._quit_asked_at = monotonic()
            self.status.hint("Press Ctrl+C again to quit")

    async def action_quit(self) -> None:
        self.exit(return_code=1 if self.engine.failure else 0)

    def action_fold(self) -> None:
        thoughts = self.query(Thought)
        if thoughts:
            thoughts.last().toggle()

    def action_page(self, direction: int) -> None:
        (self.trace if self.trace.has_focus else self.transcript).page(direction)

    def on_key(self, event: events.Key) -> None:
        """Typing goes into the input, wherever the focus is."""
        if event.is_printable and event.character and not self.input.has_focus and not self.trace.has_focus:
            self.input.focus()
            self.input.insert(event.character)

    def on_markdown_link_clicked(self, event: Markdown.LinkClicked) -> None:
        """A model wrote it: show where it leads, open nothing."""
        self.status.hint(f"Not opened: {event.href}")
