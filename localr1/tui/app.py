"""ChatApp: the chat in the terminal. It wires input, transcript, status bar and the engine's worker together."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from time import monotonic
from typing import ClassVar

from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.theme import BUILTIN_THEMES
from textual.widgets import Markdown, Static

from backends.base import Sampling
from localr1.tui.engine import Engine, OpenBackend
from localr1.tui.prompt_input import PromptInput, learn_alt_enter
from localr1.tui.status import HINT_S, Field, StatusBar, model_fields
from localr1.tui.thought import Thought
from localr1.tui.transcript import HELP, Transcript
from localr1.tui.turn import Turn

FRAMES_PER_S = 30
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_COMMAND = re.compile(r"/[a-z]*(\s|$)", re.IGNORECASE)  # `/usr/bin` is the beginning of a question

# The terminal's own colours, so that it looks right on any background.
_THEME = replace(BUILTIN_THEMES["ansi-dark"], name="terminal", primary="ansi_bright_blue", accent="ansi_bright_blue")


class ChatApp(App[None]):
    """The model is opened by `open_backend` on the worker thread after the first paint.

    `return_code` is 1 if it could not be opened.
    """

    CSS_PATH = "app.tcss"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", priority=True),
        Binding("ctrl+c", "interrupt", priority=True),
        Binding("ctrl+o", "fold", priority=True),
        Binding("pageup", "page(-1)", priority=True),
        Binding("pagedown", "page(1)", priority=True),
    ]

    def __init__(self, open_backend: OpenBackend, sampling: Sampling = Sampling(), think_budget: int | None = None) -> None:
        super().__init__(ansi_color=True)
        self.register_theme(_THEME)
        self.theme = _THEME.name
        self.engine = Engine(open_backend, sampling, think_budget)
        self.turn: Turn | None = None  # the one that is waiting or being written
        self._tokens_per_s: float | None = None
        self._failure_shown = False
        self._pump_due = False
        self._quit_asked_at = float("-inf")
        self.transcript = Transcript()
        self.input = PromptInput()
        self.status = StatusBar()

    def compose(self) -> ComposeResult:
        yield self.transcript
        with Horizontal(id="ask"):
            yield Static("❯", id="mark")
            yield self.input
        yield self.status

    def on_mount(self) -> None:
        learn_alt_enter()
        self.input.focus()
        self.set_interval(1 / FRAMES_PER_S, self._tick)
        self._draw_status()
        self.call_after_refresh(self.engine.start)

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
        if turn.over:
            self.turn = None
            if turn.failure:
                self.input.give_back(turn.reply.question)

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
        if _COMMAND.match(text):
            await self._command(text)
        elif self.engine.failure:
            self.status.hint("There is no model to ask: see above. /quit leaves")
        elif self.turn is not None:
            self.status.hint("One question at a time: Esc stops the reply")
        else:
            self.input.clear()
            turn = Turn(self.engine.ask(text))
            await self.transcript.add(turn)
            self.turn = turn

    async def _command(self, text: str) -> None:
        match text.lower():
            case "/help":
                await self.transcript.notice(HELP)
            case "/new":
                await self._new_chat()
            case "/quit":
                await self.action_quit()
            case _:
                self.status.hint(f"There is no command {text}: /help lists them")
                return
        self.input.clear()

    async def _new_chat(self) -> None:
        if self.turn is not None:
            self.engine.cancel(self.turn.reply)
            self.turn = None
        self.engine.new_chat()
        self._tokens_per_s = None
        await self.transcript.clear()

    async def action_cancel(self) -> None:
        """Stop the reply and keep what has come; a question that is still waiting goes back into the input."""
        if self.turn is None:
            self.screen.clear_selection()
            return
        self.engine.cancel(self.turn.reply)  # before looking whether it has begun: the worker looks the other way round
        if self.turn.reply.started_at is None:
            await self._take_back(self.turn)

    async def _take_back(self, turn: Turn) -> None:
        self.turn = None
        await turn.remove()
        self.input.give_back(turn.reply.question)

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
        self.transcript.page(direction)

    def on_key(self, event: events.Key) -> None:
        """Typing goes into the input, wherever the focus is."""
        if event.is_printable and event.character and not self.input.has_focus:
            self.input.focus()
            self.input.insert(event.character)

    def on_markdown_link_clicked(self, event: Markdown.LinkClicked) -> None:
        """A model wrote it: show where it leads, open nothing."""
        self.status.hint(f"Not opened: {event.href}")
