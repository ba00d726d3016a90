"""History: what is said is kept while it is said. A store that fails is given up with one message, and the chat goes on without."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from localr1 import paths
from localr1.chat import ChatSession
from localr1.trace.record import Made, Trace
from localr1.turn import Event, TurnEnd

if TYPE_CHECKING:
    from localr1.store.store import Store

SAVE_EVERY_S = 0.9  # what a killed process loses, at most, beside the time that saving takes


def history_file() -> Path:
    return paths.data() / "history.db"


def made_by(session: ChatSession) -> Made:
    """What makes the session's replies, as it is set now."""
    info, rules = session.backend.info, session.rules
    return Made(info.name, session.backend.name, info.base, info.format, rules.sampling, rules.think_budget)


def now() -> str:
    """ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class History:
    """One conversation as it goes on. `problem`: why it is not kept; empty while it is. `trace`: of the reply that ended last.

    Without a file nothing is kept, and that is no problem. The file is opened with the first reply.
    """

    def __init__(self, file: Path | None) -> None:
        self.problem = ""
        self.trace: Trace | None = None
        self._file = file
        self._store: Store | None = None
        self._conversation: int | None = None
        self._turn: int | None = None  # the last one
        self._parent: int | None = None  # of the last one

    def keep(self, session: ChatSession, events: Iterator[Event], instead: bool = False) -> Iterator[Event]:
        """The same events, kept on their way. `instead`: of a reply that takes the last one's place, which stays as a branch."""
        trace: Trace | None = None
        began, saved = now(), monotonic()
        try:
            for event in events:
                assert session.reply is not None
                if trace is None:
                    trace = Trace.of(session.reply, made_by(session), began)
                    self._begin(trace, instead)
                elif isinstance(event, TurnEnd):
                    self.trace = trace = Trace.of(session.reply, trace.made, began, event)
                    self._save(trace)
                elif monotonic() - saved > SAVE_EVERY_S:
                    self._save(Trace.of(session.reply, trace.made, began))
                    saved = monotonic()
                yield event
        finally:
            if trace is not None and not trace.ended.reason and session.reply is not None:  # it broke off
                self._save(Trace.of(session.reply, trace.made, began))

    def new_conversation(self) -> None:
        """What comes next does not belong to what has come."""
        self._conversation = self._turn = self._parent = None

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def _begin(self, trace: Trace, instead: bool) -> None:
        from localr1.store.schema import StoreError

        if self._file is None or self.problem:
            return
        try:
            if self._store is None:
                from localr1.store.store import Store

                self._store = Store(self._file)
            if self._conversation is None:
                self._conversation = self._store.new(model=trace.made.model)
            parent = self._parent if instead else self._turn
            self._turn = self._store.add_turn(self._conversation, parent, trace.question, trace.made)
            self._parent = parent
        except StoreError as error:
            self.problem = str(error)

    def _save(self, trace: Trace) -> None:
        from localr1.store.schema import StoreError

        if self._store is None or self._turn is None or self.problem:
            return
        try:
            self._store.save(self._turn, trace)
        except StoreError as error:
            self.problem = str(error)
