"""History: what is said is kept while it is said. A store that fails is given up with one message, and the chat goes on without."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING

from localr1 import paths
from localr1.chat import ChatSession
from localr1.trace.record import Made, Trace
from localr1.turn import Event, Reply, TurnEnd

if TYPE_CHECKING:
    from localr1.store.store import Store

MEMORY = Path(":memory:")  # for a history that ends with the program
SAVE_EVERY_S = 0.9  # what a killed process loses, at most, beside the time that saving takes


def history_file() -> Path:
    return paths.data() / "history.db"


def made_by(session: ChatSession) -> Made:
    """What makes the session's reply."""
    info, rules = session.backend.info, session.rules_in_force
    return Made(info.name, session.backend.name, info.base, info.format, rules.sampling, rules.think_budget)


def now() -> str:
    """ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True, slots=True)
class Place:
    """A turn among those that follow the same one, itself included, the oldest first. All are turns of the store."""

    turn: int
    branches: tuple[int, ...]


class History:
    """One conversation as it goes on. `problem`: why it is not kept; empty while it is. `trace`: of the reply that ended last.
    `conversation`: of the store, None before its first turn; `path`: its turns, of the branch that goes on; `place`: of the last one.

    Without a file nothing is kept, and that is no problem. The file is opened with the first reply, or the first look into it.
    """

    def __init__(self, file: Path | None) -> None:
        self.problem = ""
        self.trace: Trace | None = None
        self.new_tokens = 0  # sampled in this session
        self.conversation: int | None = None
        self.path: tuple[int, ...] = ()
        self.place: Place | None = None
        self._file = file
        self._store: Store | None = None
        self._opening = Lock()

    def store(self) -> Store:
        """What is kept. For any thread. Raises StoreError."""
        from localr1.store.schema import StoreError
        from localr1.store.store import Store

        if self._file is None:
            raise StoreError("no history is kept here")
        with self._opening:
            if self._store is None:
                self._store = Store(self._file)
            return self._store

    def keep(self, session: ChatSession, events: Iterator[Event], after: int | None = None) -> Iterator[Event]:
        """The same events, kept on their way. `after`: of a reply that follows so many turns (-1: all but the last), in place of those
        behind them, which stay as a branch. What goes on is what went on before where the engine fails: its fragment is a branch."""
        trace: Trace | None = None
        reply: Reply | None = None  # the session forgets one that breaks off
        began, saved, before, failed = now(), monotonic(), self.path, False
        try:
            for event in events:
                reply = session.reply
                assert reply is not None
                if trace is None:
                    trace = Trace.of(reply, made_by(session), began)
                    self._begin(trace, after)
                if isinstance(event, TurnEnd):  # the first event, too, of a reply without a token
                    self.new_tokens += event.end.new_tokens
                    self.trace = trace = Trace.of(reply, trace.made, began, event)
                    self._save(trace)
                elif monotonic() - saved > SAVE_EVERY_S:
                    self._save(Trace.of(reply, trace.made, began))
                    saved = monotonic()
                yield event
        except Exception:
            failed = True
            raise
        finally:
            if trace is not None and not trace.ended.reason and reply is not None:  # it broke off
                self._save(Trace.of(reply, trace.made, began))
                if failed:
                    self._go_back(before)

    def questions(self, limit: int = 200) -> list[str]:
        """Those of all conversations that are kept, the latest first; from any thread."""
        from localr1.store.schema import StoreError
        from localr1.store.store import Store

        try:
            if self._file is None or not self._file.exists():
                return []
            with Store(self._file) as store:
                return store.questions(limit)
        except (StoreError, OSError):  # told where it matters: when a reply is kept
            return []

    def new_conversation(self) -> None:
        """What comes next does not belong to what has come."""
        self.conversation, self.path, self.place, self.problem = None, (), None, ""

    def go_on(self, conversation: int, path: tuple[int, ...]) -> None:
        """What comes next belongs there."""
        self.conversation, self.path, self.place, self.problem = conversation, path, None, ""

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def _begin(self, trace: Trace, after: int | None) -> None:
        from localr1.store.schema import StoreError

        self.place = None
        if self._file is None or self.problem:
            return
        try:
            store, before = self.store(), self.path[:after]
            if self.conversation is None:
                self.conversation = store.new(model=trace.made.model)
            turn = store.add_turn(self.conversation, before[-1] if before else None, trace.question, trace.made)
            self.path, self.place = (*before, turn), Place(turn, tuple(store.branches(turn)))
        except StoreError as error:
            self.problem = str(error)

    def _go_back(self, path: tuple[int, ...]) -> None:
        """To the turns that went on before a reply that failed."""
        from localr1.store.schema import StoreError

        self.path, self.place = path, None
        if self._store is None or self.conversation is None or self.problem:
            return
        try:
            self._store.set_head(self.conversation, path[-1] if path else None)
        except StoreError as error:
            self.problem = str(error)

    def _save(self, trace: Trace) -> None:
        from localr1.store.schema import StoreError

        if self._store is None or not self.path or self.problem:
            return
        try:
            self._store.save(self.path[-1], trace)
        except StoreError as error:
            self.problem = str(error)
