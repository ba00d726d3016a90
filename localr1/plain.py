"""`localr1 chat --plain`: the chat line by line, for screen readers, pipes and simple terminals. Nothing is drawn twice, nothing moves."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from backends.base import BackendError
from localr1 import editor, steering
from localr1.commands import Typed, help_rows, parse, rule_line
from localr1.context import dropped_line, told
from localr1.copying import CopyError, copy_of, to_clipboard
from localr1.endings import end_line
from localr1.history import MEMORY, History
from localr1.lines import Lines, being_edited
from localr1.opening import Opener, go_back, wanted
from localr1.plain_conversations import PlainConversations
from localr1.plain_files import Files
from localr1.savings import Savings
from localr1.set_command import RULES, change, listing, rule_changes, warning
from localr1.settings import SettingError
from localr1.settings_layers import Layers
from localr1.text import printable
from localr1.tui.engine import Engine, Exchange, Failed, Full, OpenBackend, one_line
from localr1.turn import Event, Rules
from localr1.writing import Writer, interrupt_cancels, write_reply

Handler = Callable[[Typed], None]  # carries out a command

_LOOKS_EVERY_S = 1 / 30  # for what the engine has written
_PROGRESS_AFTER_S, _PROGRESS_EVERY_S = 1.0, 10.0  # lines on what takes long
_EVENTS = 400
_KEYS = (
    ("Ctrl+C", "stops the reply; in a line, clears it; in an empty one, twice: leaves"),
    ("Ctrl+D", "leaves"),
    ("Tab", "completes a command"),
    ("a \\ at the end", "the question goes on in the next line"),
    ('"""', 'begins a question of many lines, which another """ ends'),
)


class ReplyFailed(Exception):
    """The reply could not be written, or broke off; the message says why."""


class PlainChat:
    """As tui.app.ChatApp, without a screen. `history`: the file that conversations are kept in; None: in memory."""

    def __init__(
        self, open_backend: OpenBackend, rules: Rules | None = None, history: Path | None = None, layers: Layers | None = None
    ) -> None:
        self.layers = Layers() if layers is None else layers
        self.engine = Engine(open_backend, rules or self.layers.settings.rules(), History(history or MEMORY))
        self._savings = Savings(self.engine.history, self.layers)
        self.last: Exchange | None = None  # the last reply
        self._lines = Lines()
        self._files = Files(self.engine, say, self.agrees)
        self._over = False
        self._failed = False
        self._problem_told = ""
        self._dropped_told = 0
        self.conversations = PlainConversations(self, say)
        self._handlers: dict[str, Handler] = {
            "model": self._model, "context": self._context, "file": self._files.file, "help": self._help, "trace": self._trace, "new": self.new, "quit": self._quit, "theme": self._theme, "edit": self._edit,
            "copy": self._copy, "raw": self._raw,
            "set": self._set, **dict.fromkeys(RULES, self._set_rule),
            **dict.fromkeys(("answer", "longer", "reroll", "again"), self._steer),
        } | self.conversations.commands()  # fmt: skip

    def run(self, resume: int | None = None) -> int:
        """Chat until the person leaves; the exit code. `resume`: the conversation to go on with."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="replace")  # what the terminal has no character for
        self.engine.start()
        try:
            return self._chat(resume)
        finally:
            self.engine.close()

    def _chat(self, resume: int | None) -> int:
        if not self._is_loaded():
            print(f"localr1: {self.engine.failure}", file=sys.stderr)
            return 1
        if resume is not None:
            self.conversations.go_on(resume)
        leaving = False
        while not self._over:
            try:
                text, is_question = self._lines.read()
            except EOFError:
                break
            except KeyboardInterrupt:
                if leaving and not being_edited():
                    break
                leaving = not being_edited()
                say("\nPress Ctrl+C again to quit." if leaving else "")
                continue
            except UnicodeDecodeError as error:
                if not self._lines.typed:
                    print(f"localr1: standard input is no UTF-8 text (byte {error.start}); convert it first", file=sys.stderr)
                    return 1
                say("That is no UTF-8 text; set the terminal to UTF-8.")
                continue
            leaving = False
            if text := text.strip():
                self._take(text, is_question)
        if self._lines.typed and not self._over:
            say("")
        if line := self._savings.line():
            say(line)
        return 1 if self._failed and not self._lines.typed else 0

    def _is_loaded(self) -> bool:
        """Wait for the model, and tell what takes long."""
        told, due_at = "", time.monotonic() + _PROGRESS_AFTER_S
        while (session := self.engine.session) is None and not self.engine.failure:
            if self.engine.progress != told and time.monotonic() > due_at:
                told, due_at = self.engine.progress, time.monotonic() + _PROGRESS_EVERY_S
                say(told)
            time.sleep(_LOOKS_EVERY_S)
        if session is None:
            return False
        info = session.backend.info
        if self._lines.typed:
            say(printable(f"{info.name}, {info.format}, a context of {info.context_length:,} tokens. /help lists the commands.\n"))
            if line := warning(self.layers, info.name):
                say(f"{line}\n")
        return True

    def _take(self, text: str, is_question: bool) -> None:
        command = None if is_question else parse(text)
        if command is None:
            self.play(self.engine.ask(self._files.take(text)), self.waits(self.engine.rules))
        elif command.problem:
            say(command.problem)
        elif command.question:
            changes = command.changes()
            self.play(self.engine.ask(self._files.take(command.question), **changes), self.waits(replace(self.engine.rules, **changes)))
        else:
            self._handlers[command.name](command)

    # replies

    @staticmethod
    def waits(rules: Rules) -> bool:
        return rules.think_budget is not None or rules.thinking == "off"

    def play(self, exchange: Exchange, waits: bool, known: str = "") -> None:
        """Write a reply as it comes. `known`: the thought that is on paper already."""
        thought = Writer(sys.stdout, "2", "Thinking:")
        answer = Writer(sys.stdout, heading="Answer:", formulas=self._lines.typed and self.layers.settings.look.latex)
        try:
            with interrupt_cancels(lambda: self.engine.cancel(exchange)):
                end, told = write_reply(self._events(exchange), thought, answer, waits, known)
        except ReplyFailed as error:
            changes = None if exchange.after is not None else self._room(exchange.full)
            if changes is not None:
                self.play(self.engine.ask(exchange.question, **{**exchange.changes, **changes}), waits, known)
                return
            self._failed = True
            say(f"{error}\n")
            if exchange.after is None:
                self._files.give_back(exchange.question)
            return
        self.last = exchange
        for note in told:
            say(note.capitalize())
        session = self.engine.session
        if session is not None and session.dropped != self._dropped_told:
            self._dropped_told = session.dropped
            say(dropped_line(session.dropped))
        say(f"[{end_line(end, ', ')}]\n")
        if self.engine.history.problem != self._problem_told:
            self._problem_told = self.engine.history.problem
            if self._problem_told:
                say(f"This conversation is not kept: {self._problem_told}")
        changes = self._room(exchange.full)
        if changes is not None:
            known = "" if session is None or session.reply is None else session.reply.thought
            self.play(self.engine.go_on(exchange.question, **{**exchange.changes, **changes}), waits, known)

    def _room(self, full: Full | None) -> dict[str, Any] | None:
        """Make room in a full context, as the rules say, or the person; changes to the rules to go on with. None: it stays full."""
        ways: dict[str, str] = {} if full is None else full.ways()
        wish = self.engine.rules.when_full
        if full is None or (wish not in ways and len(ways) == 1):
            return None
        way = wish if wish in ways else self._chosen(ways)
        if way == "drop":
            return {"when_full": "drop"}
        if way == "raise" and full.larger is not None:
            say(f"The context is full. It is raised to {full.larger.wanted.context:,} tokens.")
            return {} if self._open(full.larger) else None
        return None

    def _chosen(self, ways: dict[str, str]) -> str:
        """One of these, by a person; where lines come from elsewhere, they are questions."""
        if not self._lines.typed:
            return "stop"
        say("\n".join(["The context is full. What shall be done?", *(f"  {way}: {text}" for way, text in ways.items())]))
        try:
            typed = self._lines.line(", ".join(ways) + "? ").strip().lower()
        except (EOFError, KeyboardInterrupt, UnicodeDecodeError):
            typed = ""
            say("")
        return next((way for way in ways if typed and way.startswith(typed)), "stop")

    def _events(self, exchange: Exchange) -> Iterator[Event]:
        while True:
            for event in exchange.take(_EVENTS):
                if isinstance(event, Failed):
                    raise ReplyFailed(event.message)
                yield event
            time.sleep(_LOOKS_EVERY_S)

    # commands

    def _help(self, _: Typed) -> None:
        groups = [("Lines", list(_KEYS)), *help_rows()]
        width = max(len(name) for _, rows in groups for name, _ in rows)
        for title, rows in groups:
            say("\n".join([title, *(f"  {name:<{width}}  {text}" for name, text in rows), ""]))

    def agrees(self, question: str) -> bool:
        try:
            return self._lines.line(question).strip().lower() in ("y", "yes")
        except (EOFError, KeyboardInterrupt, UnicodeDecodeError):
            return False

    def _set(self, command: Typed) -> None:
        if not command.value:
            say(listing(self.layers) + "\n")
            return
        session = self.engine.session
        try:
            key, line = change(self.layers, command.value, "" if session is None else session.backend.info.name)
        except SettingError as error:
            say(str(error))
            return
        self.engine.set_rules(**rule_changes(self.layers, key))
        say(line)
        if key.startswith("model.") and (opener := self.engine.awaited) is not None:
            self._open(replace(opener, wanted=wanted(self.layers.settings, opener.wanted.force)))

    def _set_rule(self, command: Typed) -> None:
        for value in command.changes().values():
            self.layers.set(RULES[command.name], value)
        self.engine.set_rules(**command.changes())
        say(rule_line(command.name, self.engine.rules))

    def _model(self, command: Typed) -> None:
        from localr1.models import resolve
        from localr1.picking import here

        try:
            if not command.value:
                picks = [f"  {pick.name}, {pick.size} {pick.form}. {pick.memory}" for pick in here()]
                say("\n".join(["/model NAME goes on with another model. Here are:", *picks]) + "\n")
                return
            spec = resolve(command.value, self.layers.settings.model.backend)
        except BackendError as error:
            say(one_line(error))
            return
        self.layers.open(spec.name, spec.path)
        self._open(Opener(spec, wanted(self.layers.settings), chosen=True), self.layers.settings.rules())

    def _open(self, opener: Opener, rules: Rules | None = None) -> bool:
        """Go on with another model, or the same one in another way. False: it stays as it was."""
        opening = self.engine.switch(opener, rules)

        def give_up() -> None:
            opening.cancelled = True

        with interrupt_cancels(give_up):
            while not opening.over:
                time.sleep(_LOOKS_EVERY_S)
        if opening.problem:
            say(f"The model could not be loaded: {opening.problem}")
            if self.engine.opener is not None:
                go_back(self.layers, self.engine.opener)
        self._is_loaded()
        return not opening.problem

    def _context(self, _: Typed) -> None:
        if self.engine.session is not None:
            say(told(self.engine.session))

    def _steer(self, command: Typed) -> None:
        if command.value:
            self.conversations.reroll(command)
            return
        self._go_on(command.name, steering.beginning(command.name))

    def _edit(self, command: Typed) -> None:
        session = self.engine.session
        old = "" if session is None or session.reply is None else session.reply.thought
        if not old:
            say("There is no thought to edit yet")
            return
        try:
            new = editor.edit(old, command=self.layers.settings.chat.editor)
        except editor.EditorError as error:
            say(str(error))
            return
        if new == old:
            say("The thought is as it was")
        else:
            self._go_on(command.name, lambda reply, backend: steering.edited(reply, new, backend))

    def _go_on(self, how: str, begin: steering.Begin) -> None:
        """Have the last reply go on in another way; what it keeps of the thought is not written again."""
        session = self.engine.session
        if self.last is None or session is None or session.reply is None:
            say("There is no reply to steer yet")
            return
        known = "" if how == "reroll" else session.reply.thought
        self.play(self.engine.steer(self.last.question, begin), how in ("answer", "again") or self.waits(self.engine.rules), known)

    def _trace(self, _: Typed) -> None:
        from localr1.tracing import as_text

        if self.last is None or self.last.trace is None:
            say("There is no trace yet")
        else:
            say(as_text(self.last.trace, "trace") + "\n")

    def new(self, _: Typed) -> None:
        self.last = None
        self.engine.new_chat()
        while self.engine.history.conversation is not None:  # else the next command would still be for the old one
            time.sleep(_LOOKS_EVERY_S)
        say("A new chat.\n")

    def _copy(self, command: Typed) -> None:
        trace = None if self.last is None else self.last.trace
        try:
            copy = copy_of(command.value, *(("", "") if trace is None else (trace.thought, trace.answer)))
        except CopyError as error:
            say(str(error))
            return
        if sys.stdout.isatty():
            sys.stdout.write(to_clipboard(copy.text))
            say(f"Copied {copy.what}")
        else:
            say("This is no terminal, whose clipboard could be copied to")

    def _raw(self, _: Typed) -> None:
        say("Answers are written here as the model writes them")

    def _theme(self, _: Typed) -> None:
        say("Themes are of the screen; here, NO_COLOR=1 leaves dim text away")

    def _quit(self, _: Typed) -> None:
        self._over = True


def say(text: str) -> None:
    print(text, flush=True)
