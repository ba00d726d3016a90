"""Conversations in the plain chat: the same commands as on the screen, told in lines."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from typing import TYPE_CHECKING

from localr1 import conversations, editor
from localr1.chat import ChatSession
from localr1.commands import Typed
from localr1.conversations import Opened
from localr1.endings import end_line, ended
from localr1.store import Store, StoreError
from localr1.text import printable
from localr1.trace.words import count, on_one_line
from localr1.tracing import when
from localr1.tui.engine import Exchange

if TYPE_CHECKING:
    from localr1.plain import Handler, PlainChat

_LISTED = 20
_LOOKS_EVERY_S = 0.05
_SHOWN = 2  # turns of a conversation that is gone on with


class PlainConversations:
    def __init__(self, chat: PlainChat, say: Callable[[str], None]) -> None:
        self._chat, self._say = chat, say

    def commands(self) -> dict[str, Handler]:
        handlers: dict[str, Handler] = {
            "chats": self._chats, "search": self._search, "resume": self._resume, "rename": self._rename, "delete": self._delete,
            "duplicate": self._duplicate, "save": self._save, "load": self._load, "branch": self._branch, "revise": self._revise,
        }  # fmt: skip
        return {name: self._told(handler) for name, handler in handlers.items()}

    def reroll(self, typed: Typed) -> None:
        """Another reply to an earlier question, as a branch."""
        self._told(lambda typed: self._ask(*self._question(typed.value)))(typed)

    def _told(self, handler: Handler) -> Handler:
        """What goes wrong, in a line."""

        def handle(typed: Typed) -> None:
            try:
                handler(typed)
            except (StoreError, editor.EditorError) as error:
                self._say(printable(str(error)))

        return handle

    @property
    def _store(self) -> Store:
        return self._chat.engine.history.store()

    def _here(self) -> int:
        history = self._chat.engine.history
        if history.problem:
            raise StoreError(f"this conversation is not kept: {history.problem}")
        if history.conversation is None:
            raise StoreError("nothing has been said yet")
        return history.conversation

    # the list

    def _chats(self, _: Typed) -> None:
        kept = self._store.conversations()
        if not kept:
            raise StoreError("nothing is kept yet")
        for each in kept[:_LISTED]:
            self._say(
                f"{each.id}: {on_one_line(each.title)} ({count(each.turns, 'turn')}, {when(each.updated_at)}, {on_one_line(each.model)})"
            )
        more = f"; {len(kept) - _LISTED} more: /search finds them" if len(kept) > _LISTED else ""
        self._say(f"/resume and the number goes on with one{more}\n")

    def _search(self, typed: Typed) -> None:
        hits = self._store.search(typed.value, _LISTED)
        for hit in hits:
            self._say(f"{hit.conversation}: {on_one_line(hit.title)}, {hit.part}: {printable(hit.snippet)}")
        self._say("/resume and the number goes on with one\n" if hits else "Nothing was found")

    # going on

    def _resume(self, typed: Typed) -> None:
        if typed.value:
            self.go_on(conversations.find(self._store, typed.value))
        else:
            self._chats(typed)

    def go_on(self, conversation: int, turn: int | None = None) -> None:
        """Raises StoreError."""
        found, engine, done = conversations.opened(self._store, conversation, turn), self._chat.engine, Event()

        def take_over(session: ChatSession) -> None:
            conversations.go_on(session, engine.history, found)
            done.set()

        engine.take_over(take_over)
        while engine.session is not None and not done.wait(_LOOKS_EVERY_S):  # without a model it is taken over by the next one
            pass
        self._show(found)

    def _show(self, found: Opened) -> None:
        engine = self._chat.engine
        self._say(f"{on_one_line(found.title)}, {count(len(found.turns), 'turn')}")
        name = "" if engine.session is None else engine.session.backend.info.name
        if found.model not in ("", name):
            self._say(f"This was with {on_one_line(found.model)}; {on_one_line(name)} goes on")
        for turn, place in list(zip(found.turns, found.places, strict=True))[-_SHOWN:]:
            if len(place.branches) > 1:
                self._say(f"[branch {place.branches.index(place.turn) + 1} of {len(place.branches)}]")
            self._say(
                f"You: {printable(turn.trace.question)}\nAnswer:\n{printable(turn.trace.answer)}\n[{end_line(ended(turn.trace), ', ')}]\n"
            )
        self._chat.last = None
        if found.turns:
            last = found.turns[-1].trace
            self._chat.last = Exchange(last.question)
            self._chat.last.trace = last

    # this one

    def _rename(self, typed: Typed) -> None:
        self._store.rename(self._here(), on_one_line(typed.value))
        self._say(f"It is called {on_one_line(typed.value)} now")

    def _delete(self, _: Typed) -> None:
        about = self._store.summary(self._here())
        if self._chat.agrees(f"Delete {on_one_line(about.title)}, {count(about.turns, 'turn')}? (y/n) "):
            self._store.delete(about.id)
            self._chat.new(Typed("new"))

    def _duplicate(self, _: Typed) -> None:
        self.go_on(self._store.duplicate(self._here()))

    def _save(self, typed: Typed) -> None:
        self._say(f"Written to {on_one_line(str(conversations.save(self._store, self._here(), typed.value)))}")

    def _load(self, typed: Typed) -> None:
        self.go_on(conversations.load(self._store, typed.value))

    # branches

    def _branch(self, typed: Typed) -> None:
        history = self._chat.engine.history
        place = conversations.forked(self._store, self._here(), history.path)
        self.go_on(self._here(), conversations.beside(place, typed.value or "next"))

    def _revise(self, typed: Typed) -> None:
        number, question = self._question(typed.value)
        new = editor.edit(question, command=self._chat.layers.settings.chat.editor).strip()
        if not new or new == question:
            self._say("The question is as it was")
        else:
            self._ask(number, new)

    def _ask(self, number: int, question: str) -> None:
        engine = self._chat.engine
        self._chat.play(engine.ask(question, after=number - 1), self._chat.waits(engine.rules))

    def _question(self, number: str) -> tuple[int, str]:
        """That of the turn `number`, the last one by default."""
        session = self._chat.engine.session
        turns = session.turns if session is not None else 0
        wanted = int(number or turns)
        if session is None or not 1 <= wanted <= turns:
            raise StoreError(f"there are {count(turns, 'question')} here" if turns else "nothing has been asked yet")
        return wanted, session.history[2 * wanted - 2].content
