"""The worker behind the chat: one thread that opens the model and plays turns, and leaves events for the screen to take."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from queue import SimpleQueue
from threading import Thread
from typing import Any

from backends.base import Backend
from localr1.chat import ChatSession
from localr1.history import History
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


class Exchange:
    """One question and the events of its reply, which the worker appends and the screen takes. `steered`: the reply takes another's
    place. `trace`: what is kept of it, once it is over."""

    def __init__(self, question: str, steered: bool = False) -> None:
        self.question, self.steered = question, steered
        self.started_at: float | None = None  # time.monotonic() when the model got it
        self.cancelled = False
        self.trace: Trace | None = None
        self._events: deque[Event | Failed] = deque()

    def put(self, event: Event | Failed) -> None:
        self._events.append(event)

    def take(self, most: int) -> list[Event | Failed]:
        """What has come since the last call, a part of it where that is more."""
        return [self._events.popleft() for _ in range(min(most, len(self._events)))]


class Engine:
    """Owns the worker thread, and with it the backend and the conversation.

    `progress`, `failure` and `session` are written by the worker and only read by others.
    """

    def __init__(self, open_backend: OpenBackend, rules: Rules, history: History) -> None:
        self.progress = "Loading the model"
        self.failure = ""
        self.session: ChatSession | None = None
        self.rules = rules
        self.history = history
        self._open_backend = open_backend
        self._jobs: SimpleQueue[Callable[[ChatSession], None] | None] = SimpleQueue()
        self._closing = False
        # A daemon: an engine that hangs in native code must not keep the terminal.
        self._thread = Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def ask(self, question: str, **changes: Any) -> Exchange:
        """Play a turn as soon as the model is there and idle. `changes`: to the rules, for this turn."""
        exchange = Exchange(question)
        self._jobs.put(lambda session: self._play(session, exchange, lambda: session.send(question, **changes)))
        return exchange

    def steer(self, question: str, begin: Begin) -> Exchange:
        """Play the last turn again from another beginning."""
        exchange = Exchange(question, steered=True)
        self._jobs.put(lambda session: self._play(session, exchange, lambda: session.steer(begin(session.last_reply(), session.backend))))
        return exchange

    def answer_now(self) -> None:
        """Close the thought that is being written."""
        if self.session is not None:
            self.session.answer_now()

    def set_rules(self, **changes: Any) -> None:
        """From the next turn on."""
        self.rules = replace(self.rules, **changes)
        if self.session is not None:
            self.session.rules = self.rules

    def cancel(self, exchange: Exchange) -> None:
        """End the reply within a token, or never begin it."""
        exchange.cancelled = True
        if self.session is not None:
            self.session.cancel()

    def new_chat(self) -> None:
        """Forget the conversation once the turns asked for before are over."""
        self._jobs.put(self._reset)

    def close(self) -> None:
        """End the running turn, close the backend, end the thread. Blocks for CLOSE_S at most."""
        self._closing = True
        self._jobs.put(None)
        deadline = time.monotonic() + CLOSE_S
        while self._thread.is_alive() and time.monotonic() < deadline:
            if self.session is not None:
                self.session.cancel()  # again and again: a turn may be beginning just now
            self._thread.join(0.05)

    def _run(self) -> None:
        try:
            backend = self._open_backend(self._say)
        except Exception as error:  # whatever went wrong, the person gets to read it and the app stays
            self.failure = one_line(error)
            return
        with backend:
            self.session = ChatSession(backend, self.rules)
            while (job := self._jobs.get()) is not None and not self._closing:
                job(self.session)
        self.history.close()

    def _say(self, line: str) -> None:
        if self._closing:
            raise InterruptedError("the chat was closed")  # so that a long conversion stops and tidies up
        self.progress = " ".join(printable(line).split())

    def _reset(self, session: ChatSession) -> None:
        session.reset()
        self.history.new_conversation()

    def _play(self, session: ChatSession, exchange: Exchange, begin: Callable[[], Iterator[Event]]) -> None:
        exchange.started_at = time.monotonic()
        if exchange.cancelled:
            exchange.put(Failed("Cancelled before it began"))
            return
        try:
            events = begin()
            if exchange.cancelled:  # asked for just before the turn was there to be cancelled
                session.cancel()
            for event in self.history.keep(session, events, instead=exchange.steered):
                if isinstance(event, TurnEnd):
                    exchange.trace = self.history.trace
                exchange.put(event)
        except Exception as error:
            exchange.put(Failed(one_line(error)))


def one_line(error: Exception) -> str:
    """What an error says, for a person: our own errors speak for themselves, Python's need their name."""
    text = " ".join(printable(str(error)).split())
    if type(error).__module__ == "builtins" or not text:
        return f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text
