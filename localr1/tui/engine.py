"""The worker behind the chat: one thread that opens the model and plays turns, and leaves events for the screen to take."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from queue import SimpleQueue
from threading import Thread
from typing import Any

from backends.base import Backend, Cancel, PromptTooLong
from localr1.chat import ChatSession
from localr1.context import ContextFull
from localr1.history import History, Place
from localr1.opening import Opener
from localr1.steering import Begin
from localr1.text import printable
from localr1.trace.record import Trace
from localr1.turn import Event, Rules, TurnEnd

OpenBackend = Callable[[Callable[[str], None]], Backend]

CLOSE_S = 2.0  # how long quitting waits for the worker; a turn ends within 250 ms of a cancel, a load may take minutes


@dataclass(frozen=True, slots=True)
class Failed:
    """The turn could not be played, or broke off; the history is as it was before."""

    message: str


@dataclass(frozen=True, slots=True)
class Full:
    """The context was full: how many oldest turns could be dropped, 0: none that would help; what opens the model with a larger one."""

    turns: int
    larger: Opener | None

    def ways(self) -> dict[str, str]:
        """What can be done, as `when_full` calls it, in words."""
        ways = {}
        if self.turns:
            ways["drop"] = f"Drop the oldest {'turn' if self.turns == 1 else f'{self.turns} turns'} from what the model gets"
        if self.larger is not None:
            ways["raise"] = f"Raise the context to {self.larger.wanted.context:,} tokens"
        return ways | {"stop": "Stop here"}


class Exchange:
    """One question and the events of its reply, which the worker appends and the screen takes. `after`: it follows so many turns (-1: all
    but the last; None: all), in place of those behind them. `trace`: what is kept of it, once it is over, and `place`: where.
    `full`: what could be done, where the context ended it. `changes`: to the rules, for it alone."""

    def __init__(self, question: str, after: int | None = None, changes: Mapping[str, Any] | None = None) -> None:
        self.question, self.after = question, after
        self.changes = {} if changes is None else changes
        self.started_at: float | None = None  # time.monotonic() when the model got it
        self.cancelled = False
        self.trace: Trace | None = None
        self.place: Place | None = None
        self.full: Full | None = None
        self._events: deque[Event | Failed] = deque()

    def put(self, event: Event | Failed) -> None:
        self._events.append(event)

    def take(self, most: int) -> list[Event | Failed]:
        """What has come since the last call, a part of it where that is more."""
        return [self._events.popleft() for _ in range(min(most, len(self._events)))]


class Opening:
    """A model being opened. `over`: it is, or is not, and then `problem` says why. `rules`: that hold with it; None: those that held before."""

    def __init__(self, open_backend: OpenBackend, rules: Rules | None = None) -> None:
        self.open_backend, self.rules = open_backend, rules
        self.cancelled = self.over = False
        self.problem = ""


class Engine:
    """Owns the worker thread, and with it the backend and the conversation.

    `session` is None while no model is there: it is being opened, and `progress` says how far that is, or could not be, and `failure` says
    why. `opening`: the one that is being opened, or was last. All are written by the worker and only read by others.
    """

    def __init__(self, open_backend: OpenBackend, rules: Rules, history: History) -> None:
        self.progress = "Loading the model"
        self.failure = ""
        self.session: ChatSession | None = None
        self.rules = rules
        self.history = history
        self.opening = Opening(open_backend)
        self._opened: Opening | None = None
        self._coming: list[Opening] = []  # switches that are asked for and not over
        self._before: ChatSession | None = None  # whose conversation the next session takes over
        self._taking: Callable[[ChatSession], None] | None = None  # and what it does then
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._idle = Cancel()  # ends what is done only while nothing else is
        self._closing = False
        # A daemon: an engine that hangs in native code must not keep the terminal.
        self._thread = Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def switch(self, open_backend: OpenBackend, rules: Rules | None = None) -> Opening:
        """Go on with another model, once what was asked for before is done. The old one is closed first, and opened again if that fails."""
        opening = Opening(open_backend, rules)
        self._coming.append(opening)
        self._put(lambda: self._switch(opening))
        return opening

    @property
    def opener(self) -> Opener | None:
        """What opened the model that is there, or was last; None: something else did."""
        return None if self._opened is None else _opener(self._opened)

    @property
    def awaited(self) -> Opener | None:
        """What opens the model that will be there once all is done; that is being opened, or could not be, where none ever was."""
        if self._coming:
            return _opener(self._coming[-1])
        return _opener(self.opening) if self._opened is None else self.opener

    def ask(self, question: str, after: int | None = None, **changes: Any) -> Exchange:
        """Play a turn as soon as the model is there and idle. `after`: as in Exchange. `changes`: to the rules, for this turn."""
        exchange = Exchange(question, after, changes)
        self._put(lambda: self._play(exchange, lambda session: session.send(question, after, **changes)))
        return exchange

    def steer(self, question: str, begin: Begin) -> Exchange:
        """Play the last turn again from another beginning."""
        exchange = Exchange(question, after=-1)
        self._put(lambda: self._play(exchange, lambda session: session.steer(begin(session.last_reply(), session.backend))))
        return exchange

    def go_on(self, question: str, **changes: Any) -> Exchange:
        """Write the last reply on, which the context ended."""
        exchange = Exchange(question, after=-1)
        self._put(lambda: self._play(exchange, lambda session: session.go_on(**changes)))
        return exchange

    def answer_now(self) -> None:
        """Close the thought that is being written."""
        if self.session is not None:
            self.session.answer_now()

    def set_rules(self, **changes: Any) -> None:
        """From the next turn on; with the models, too, that are still to be opened."""
        self.rules = replace(self.rules, **changes)
        for opening in tuple(self._coming):
            if opening.rules is not None:
                opening.rules = replace(opening.rules, **changes)
        if self.session is not None:
            self.session.rules = self.rules

    def prepare(self) -> None:
        """Compute what the next prompt begins with, until something else is to be done."""
        self._jobs.put(self._prepare)

    def cancel(self, exchange: Exchange) -> None:
        """End the reply within a token, or never begin it."""
        exchange.cancelled = True
        if self.session is not None:
            self.session.cancel()

    def new_chat(self) -> None:
        """Forget the conversation once the turns asked for before are over."""
        self._put(self._reset)

    def do(self, job: Callable[[ChatSession], None]) -> None:
        """Anything else that needs the model; nothing where there is none."""
        self._put(lambda: None if self.session is None else job(self.session))

    def take_over(self, job: Callable[[ChatSession], None]) -> None:
        """Have the session take a conversation over; the next one, where there is none."""
        self._put(lambda: self._take_over(job))

    def close(self) -> None:
        """End the running turn, close the backend, end the thread. Blocks for CLOSE_S at most."""
        self._closing = True
        self._put(None)
        deadline = time.monotonic() + CLOSE_S
        while self._thread.is_alive() and time.monotonic() < deadline:
            if self.session is not None:
                self.session.cancel()  # again and again: a turn may be beginning just now
            self._thread.join(0.05)

    # ---------------------------------------------------------------------------------------------- on the worker

    def _put(self, job: Callable[[], None] | None) -> None:
        self._jobs.put(job)
        self._idle.set()

    def _run(self) -> None:
        self._switch(self.opening)
        while not self._closing and (job := self._jobs.get()) is not None:
            job()
        self._close_backend()
        self.history.close()

    def _switch(self, opening: Opening) -> None:
        before = self._opened
        self._close_backend()
        if not self._open(opening) and before is not None and not self._closing:
            again = Opening(before.open_backend, self.rules)
            again.over = True  # it is not to be stopped, too
            self._open(again)
            self.opening = opening  # its problem is what is to be told
        if opening in self._coming:
            self._coming.remove(opening)
        opening.over = True

    def _open(self, opening: Opening) -> bool:
        self.opening, self.progress, self.failure = opening, "Loading the model", ""
        try:
            backend = opening.open_backend(self._say)
            if opening.cancelled:  # while the engine loaded a file, which tells nothing
                backend.close()
                raise InterruptedError
        except Exception as error:  # whatever went wrong, the person gets to read it and the app stays
            self.failure = opening.problem = "it was stopped" if opening.cancelled else one_line(error)
            return False
        self.rules = opening.rules or self.rules
        self._opened = opening
        if (opener := _opener(opening)) is not None:
            opener.remember()
        self.session = ChatSession(backend, self.rules, self._before)
        if self._taking is not None:
            self._take_over(self._taking)
        return True

    def _close_backend(self) -> None:
        if self.session is not None:
            before, self.session = self.session, None
            self._before = before
            before.backend.close()

    def _say(self, line: str) -> None:
        if self._closing or self.opening.cancelled:
            raise InterruptedError("the chat was closed")  # so that a long conversion stops and tidies up
        self.progress = " ".join(printable(line).split())

    def _prepare(self) -> None:
        self._idle = cancel = Cancel()  # before looking whether something waits: `_put` does it the other way round
        if self.session is None or not self._jobs.empty():
            return
        try:
            self.session.prepare(cancel)
        except Exception:  # the question will have it, too, and tell
            return

    def _take_over(self, job: Callable[[ChatSession], None]) -> None:
        self._before, self._taking = None, None if self.session is not None else job
        if self.session is not None:
            job(self.session)

    def _reset(self) -> None:
        self._before = self._taking = None
        if self.session is not None:
            self.session.reset()
        self.history.new_conversation()

    def _play(self, exchange: Exchange, begin: Callable[[ChatSession], Iterator[Event]]) -> None:
        exchange.started_at = time.monotonic()
        session = self.session
        if exchange.cancelled or session is None:
            exchange.put(Failed("Cancelled before it began" if session is not None else "There is no model to ask: /model opens one"))
            return
        try:
            events = begin(session)
            if exchange.cancelled:  # asked for just before the turn was there to be cancelled
                session.cancel()
            for event in self.history.keep(session, events, exchange.after):
                if isinstance(event, TurnEnd):
                    exchange.trace, exchange.place = self.history.trace, self.history.place
                    if event.end.reason == "context":
                        exchange.full = self._full(session, session.droppable)
                exchange.put(event)
        except PromptTooLong as error:
            turns = error.turns if isinstance(error, ContextFull) else 0
            exchange.full = self._full(session, lambda: turns)
            exchange.put(Failed(one_line(error)))
        except Exception as error:
            exchange.put(Failed(one_line(error)))

    def _full(self, session: ChatSession, droppable: Callable[[], int]) -> Full:
        try:
            return Full(droppable(), None if self.opener is None else self.opener.larger(session.backend.info.context_length))
        except Exception:  # a model file that is gone, a template that fails: then nothing can be done, and that is no news
            return Full(0, None)


def _opener(opening: Opening) -> Opener | None:
    return opening.open_backend if isinstance(opening.open_backend, Opener) else None


def one_line(error: Exception) -> str:
    """What an error says, for a person: our own errors speak for themselves, Python's need their name."""
    text = " ".join(printable(str(error)).split())
    if type(error).__module__ == "builtins" or not text:
        return f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text
