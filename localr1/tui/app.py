"""ChatApp: the chat in the terminal. It wires input, transcript, status bar and the engine's worker together."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import TYPE_CHECKING

from textual import events
from textual.app import ComposeResult
from textual.containers import Container, Horizontal
from textual.widget import MountError
from textual.widgets import Static

from localr1.commands import Typed, parse
from localr1.context import used
from localr1.editor import EditorError
from localr1.history import MEMORY, History
from localr1.savings import Savings
from localr1.set_command import rule_changes
from localr1.settings_layers import Layers
from localr1.tui.answers import Answers
from localr1.tui.attaching import Attaching
from localr1.tui.choice import Choice
from localr1.tui.contexts import Contexts
from localr1.tui.conversations_commands import Conversations
from localr1.tui.editing import in_editor
from localr1.tui.engine import Engine, OpenBackend
from localr1.tui.frame import Frame
from localr1.tui.help import HelpScreen
from localr1.tui.models import Models
from localr1.tui.pastes import tame_pastes
from localr1.tui.prompt_input import PromptInput, learn_alt_enter
from localr1.tui.setting import Setting
from localr1.tui.status import HINT_S, Field, StatusBar, model_fields
from localr1.tui.steering import Steering
from localr1.tui.thought import Thought
from localr1.tui.trace_beside import TraceBeside
from localr1.tui.trace_view import TraceView
from localr1.tui.transcript import Transcript
from localr1.tui.tray import Tray
from localr1.tui.turn import Turn
from localr1.turn import Rules

if TYPE_CHECKING:
    from textual.widgets import Markdown

Handler = Callable[[Typed], Awaitable[None]]  # carries out a command

FRAMES_PER_S = 30
_WIDE = 120  # columns: from here on the trace stands beside the chat


class ChatApp(Frame):
    """The model is opened by `open_backend` on the worker thread after the first paint. `history`: the file that conversations are kept
    in; None: in memory. `layers`: the settings; `rules` in their place, for a turn. `resume`: the conversation to
    go on with.

    `return_code` is 1 if it could not be opened.
    """

    CSS_PATH = "app.tcss"
    AUTO_FOCUS = "PromptInput, ModalScreen *"  # the first key may come before the first paint

    def __init__(
        self,
        open_backend: OpenBackend,
        rules: Rules | None = None,
        history: Path | None = None,
        layers: Layers | None = None,
        resume: int | None = None,
    ) -> None:
        super().__init__(Layers() if layers is None else layers)
        tame_pastes()
        self._resume = resume
        self.engine = Engine(open_backend, rules or self.settings.rules(), History(history or MEMORY))
        self.savings = Savings(self.engine.history, self.layers)
        self.turn: Turn | None = None  # the one that is waiting or being written
        self.last: Turn | None = None  # the last of the conversation
        self._tokens_per_s: float | None = None
        self._problem_shown = ""
        self._pump_due = False
        self._quit_asked_at = float("-inf")
        self.transcript = Transcript(self.keymap)
        self.trace = TraceView(f"{self.keymap.first('trace')} hides", self.keymap, id="trace")
        self.input = PromptInput(self.engine.history.questions, self.settings.chat.attach_pasted, self.keymap)
        self.status = StatusBar()
        self.beside = TraceBeside(self)
        self.steering = Steering(self)
        self.models = Models(self)
        self.contexts = Contexts(self)
        self.attaching = Attaching(self)
        self.setting = Setting(self)
        self.conversations = Conversations(self)
        self.answers = Answers(self)
        self._handlers: dict[str, Handler] = self._commands()
        for controller in (
            self.setting,
            self.beside,
            self.steering,
            self.models,
            self.contexts,
            self.attaching,
            self.conversations,
            self.answers,
        ):
            self._handlers |= controller.commands()

    def compose(self) -> ComposeResult:
        with Container(id="body"):
            yield self.transcript
            yield self.trace
        yield self.input.choices
        yield self.attaching.asking
        yield self.attaching.tray
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
        self.call_after_refresh(self._begin)
        if self._resume is not None:
            self.call_after_refresh(self.conversations.go_on, self._resume)

    def _begin(self) -> None:
        """What the first paint need not wait for."""
        gc.enable()
        self.engine.start()
        Thread(target=import_module, args=("localr1.tui.answer",), daemon=True).start()  # the first answer would wait for it

    def on_resize(self, event: events.Resize) -> None:
        self.screen_stack[0].query_one("#body").set_class(event.size.width >= _WIDE, "wide")

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
        self._pump_due = self.input.is_early = False
        await self.models.pump()
        self.setting.warn()
        await self.contexts.pump()
        if self.turn is not None:
            await self._pump_turn(self.turn)
        self.attaching.draw()
        self._draw_status()

    async def _pump_turn(self, turn: Turn) -> None:
        try:
            await turn.pump()
        except MountError:
            if turn.is_attached:
                raise
            return  # the chat is ending, and its widgets are gone
        self.notifier.look(turn, self.settings.notify)
        self._tokens_per_s = turn.tokens_per_s or self._tokens_per_s
        self.beside.pump(turn)
        if turn.loop is not None and self.engine.rules.on_loop == "warn":
            keys = f"{self.keymap.first('answer_now')} answers now, {self.keymap.first('stop')} stops"
            self.status.hint(f"The model repeats itself, every {turn.loop.period} tokens: {keys}")
            turn.loop = None
        if not turn.over:
            return
        self.turn = None
        replaced = await self.steering.over(turn)
        if not await self.contexts.over(turn) and not replaced and turn.failure:
            self.attaching.give_back(turn.exchange.question, turn.exchange.changes)
        if self.engine.history.problem != self._problem_shown:
            self._problem_shown = self.engine.history.problem
            if self._problem_shown:
                await self.transcript.notice(f"This conversation is not kept: {self._problem_shown}", "error")
        if turn.failure and self.last is turn:  # what can be steered and copied is the reply before it
            self.last = self.transcript.last
            self.steering.forget()
            self.beside.open()
        await self.steering.go_on()

    def _draw_status(self) -> None:
        session = self.engine.session
        if session is not None:
            savings = Field(self.savings.line(), 6)
            self.status.show(
                [
                    *model_fields(session.backend, used(session), self._tokens_per_s),
                    *self.models.progress(),
                    *([savings] if savings.text else []),
                ]
            )
        else:
            self.status.show(self.models.fields())
        self.input.placeholder = f"{self.keymap.first('stop')} stops the reply" if self.turn is not None else "Ask something"

    # what the person does

    async def on_prompt_input_sent(self, event: PromptInput.Sent) -> None:
        command = None if event.is_question else parse(event.text)
        if command is not None and not command.question:
            await self._command(command)
        elif not event.text and not self.attaching:
            return
        elif self.engine.failure:
            self._refuse(event, "There is no model to ask: see above. /quit leaves")
        elif self.turn is not None:
            self._refuse(event, f"One question at a time: {self.keymap.first('stop')} stops the reply")
        elif command is None:
            await self.begin(Turn(self.engine.ask(self.attaching.take(event.text), self.conversations.after())))
        else:
            await self.begin(Turn(self.engine.ask(self.attaching.take(command.question), self.conversations.after(), **command.changes())))

    def _refuse(self, event: PromptInput.Sent, why: str) -> None:
        self.input.give_back(event.typed)
        self.status.hint(why)

    async def on_prompt_input_pasted(self, event: PromptInput.Pasted) -> None:
        await self.attaching.pasted(event.text, event.paths)

    def on_prompt_input_rubbed(self) -> None:
        self.attaching.remove()

    def on_tray_removed(self, event: Tray.Removed) -> None:
        self.attaching.remove(event.index)

    def action_edit_question(self) -> None:
        """In the person's own editor."""
        try:
            self.input.rewrite(in_editor(self, self.input.text, "question.md"))
        except EditorError as error:
            self.status.hint(str(error))

    async def begin(self, turn: Turn) -> None:
        await self.contexts.close()
        if turn.exchange.after is not None:
            await self.transcript.set_aside(turn.exchange.after)
        self.turn = self.last = turn
        await self.transcript.add(turn)
        self.beside.open()

    async def carry_out(self, text: str) -> None:
        """A command, as it could be typed."""
        command = parse(text)
        if command is not None:
            await self._command(command)

    async def _command(self, command: Typed) -> None:
        if command.problem:
            self.status.hint(f"{command.problem} (Up brings it back)")
            return
        await self._handlers[command.name](command)

    def _commands(self) -> dict[str, Handler]:
        async def help_(_: Typed) -> None:
            self.push_screen(HelpScreen(self.keymap, commands_first=True))

        async def new(_: Typed) -> None:
            await self.new_chat()

        async def quit_(_: Typed) -> None:
            await self.action_quit()

        async def theme(command: Typed) -> None:
            self.status.hint(self.set_theme(command))

        return {"help": help_, "theme": theme, "new": new, "quit": quit_}

    def setting_changed(self, key: str) -> None:
        super().setting_changed(key)
        self.engine.set_rules(**rule_changes(self.layers, key))
        self.input.attach_pasted = self.settings.chat.attach_pasted
        if key == "look.latex":
            self.call_later(self.answers.redraw)

    def on_text_area_changed(self) -> None:
        self.contexts.typed(self.input.text)
        if not (self.input.text or self.attaching):  # nothing is left of the question that was being revised
            self.conversations.escape()

    async def on_choice_chosen(self, event: Choice.Chosen) -> None:
        await self.contexts.chosen(event)

    async def on_trace_view_steer(self, event: TraceView.Steer) -> None:
        await self.steering.from_trace(event)

    def action_trace(self) -> None:
        self.beside.toggle()

    def action_models(self) -> None:
        self.models.choose()

    async def action_answer_now(self) -> None:
        await self.steering.steer("answer")

    async def new_chat(self) -> None:
        await self.leave()
        self.engine.new_chat()
        self.beside.hide()
        await self.transcript.clear()

    async def leave(self) -> None:
        """Another conversation takes the place of this one."""
        if self.turn is not None:
            self.engine.cancel(self.turn.exchange)
            self.turn = None
        self.last = None
        self.steering.forget()
        await self.contexts.forget()
        self.conversations.leave()
        self._tokens_per_s = None

    async def action_chats(self) -> None:
        await self.conversations.open_screen()

    async def on_turn_switch(self, event: Turn.Switch) -> None:
        await self.conversations.step(event.turn, event.step)

    async def action_cancel(self) -> None:
        """Stop the reply and keep what has come; a question that is still waiting goes back into the input."""
        if self.input.close_choices():
            return
        if self.attaching.asking.has_focus:
            await self.attaching.asking.answer(False)
            return
        if self.trace.has_focus:
            if not self.trace.escape():
                self.input.focus()
            return
        if self.turn is None:
            if not self.conversations.escape() and not self.contexts.escape() and not self.models.cancel():
                self.screen.clear_selection()
        else:
            await self._stop()

    async def _stop(self) -> None:
        if self.turn is None:
            return
        self.engine.cancel(self.turn.exchange)  # before looking whether it has begun: the worker looks the other way round
        if self.turn.exchange.started_at is None:
            await self.take_back(self.turn)

    async def take_back(self, turn: Turn) -> None:
        self.turn = None
        turn.failure = "Stopped before it began"
        if await self.steering.over(turn):
            return
        await turn.remove()
        self.last = self.transcript.last
        self.attaching.give_back(turn.exchange.question, turn.exchange.changes)

    async def action_interrupt(self) -> None:
        """Stop the reply, else leave a dialog, else copy what is selected, else clear the input, else quit at the second time."""
        if self.turn is not None:
            await self._stop()
        elif self.is_under_dialog:
            self.pop_screen()
        else:
            self.input.call_later(self._interrupt_writing)  # behind what was typed before

    async def _interrupt_writing(self) -> None:
        selected = self.screen.get_selected_text() or self.input.selected_text
        if selected:
            self.copy_to_clipboard(selected)
            self.screen.clear_selection()
            self.status.hint("Copied")
        elif self.input.text:
            self.input.drop()
            self.conversations.escape()
        elif self.attaching:
            self.attaching.clear()
        elif monotonic() - self._quit_asked_at < HINT_S:
            await self.action_quit()
        else:
            self._quit_asked_at = monotonic()
            self.status.hint(f"Press {self.keymap.first('interrupt')} again to quit")

    async def action_quit(self) -> None:
        self.exit(return_code=1 if self.engine.failure else 0)

    def action_fold(self) -> None:
        thoughts = self.query(Thought)
        if thoughts:
            thoughts.last().toggle()

    def action_raw(self) -> None:
        self.answers.toggle_raw()

    def action_copy_answer(self) -> None:
        self.answers.copy("")

    def action_page(self, direction: int) -> None:
        (self.trace if self.trace.has_focus else self.transcript).page(direction)

    async def action_to_end(self) -> None:
        await self.transcript.follow()

    def on_key(self, event: events.Key) -> None:
        """Typing goes into the input, wherever the focus is. (What the input gets itself does not come here.)"""
        if event.is_printable and event.character and not self.trace.has_focus and not self.is_under_dialog:
            if event.key == "question_mark" and not self.input.text:
                self.action_help()
                return
            self.input.focus()
            self.input.insert(event.character)

    def on_paste(self, event: events.Paste) -> None:
        """As typing."""
        if not self.trace.has_focus and not self.is_under_dialog:
            self.input.focus()
            self.input.post_message(events.Paste(event.text))

    def on_markdown_link_clicked(self, event: Markdown.LinkClicked) -> None:
        """A model wrote it: show where it leads, open nothing."""
        self.status.hint(f"Not opened: {event.href}")
