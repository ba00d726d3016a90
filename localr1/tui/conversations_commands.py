"""Conversations from the screen: gone on with, named, copied, deleted, branched, written to files and read from them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from localr1 import conversations
from localr1.chat import ChatSession
from localr1.commands import Typed
from localr1.conversations import Opened
from localr1.history import Place
from localr1.store import StoreError
from localr1.trace.words import count, on_one_line
from localr1.tui.turn import Kept, Turn

if TYPE_CHECKING:
    from localr1.store import Store
    from localr1.tui.app import ChatApp, Handler

_T = TypeVar("_T")


class Conversations:
    """`revising`: the number of the question that is being edited; it will begin a branch."""

    def __init__(self, app: ChatApp) -> None:
        self._app = app
        self.revising: int | None = None
        self._revised = ""  # its question, as it was sent
        self._shown: Opened | None = None  # until the worker goes on with it, too
        self._left: int | None = None  # the worker may be in it for a while

    def commands(self) -> dict[str, Handler]:
        return {
            "chats": self._chats, "search": self._chats, "resume": self._resume, "rename": self._rename, "delete": self._delete,
            "duplicate": self._duplicate, "save": self._save, "load": self._load, "branch": self._branch, "revise": self._revise,
        }  # fmt: skip

    async def reading(self, job: Callable[[Store], _T], tell: Callable[[str], object] | None = None) -> _T | None:
        """What a look into the store brings, beside the screen; None: it failed, and why was told."""
        try:
            return await asyncio.to_thread(lambda: job(self._app.engine.history.store()))
        except StoreError as error:
            (tell or self._app.status.hint)(_sentence(error))
            return None

    async def doing(self, job: Callable[[Store], None], tell: Callable[[str], object] | None = None) -> bool:
        """It was done."""

        def done(store: Store) -> bool:
            job(store)
            return True

        return bool(await self.reading(done, tell))

    # going on

    async def go_on(self, conversation: int, turn: int | None = None) -> None:
        """At its end; or on the latest branch through `turn`, which is shown."""
        found = await self.reading(lambda store: conversations.opened(store, conversation, turn))
        if found is not None:
            await self._show(found, turn)

    async def _show(self, found: Opened, turn: int | None = None) -> None:
        app = self._app
        await app.leave()
        self._shown = found
        kept = [Kept(i, t.trace, t.thought_tokens, place) for i, (t, place) in enumerate(zip(found.turns, found.places, strict=True), 1)]
        number = next((each.number for each in kept if each.place.turn == turn), None)
        await app.transcript.show(kept, number)
        app.last = app.transcript.last
        app.engine.take_over(partial(self._take_over, found))
        app.beside.open()

    def _take_over(self, found: Opened, session: ChatSession) -> None:
        """On the worker."""
        conversations.go_on(session, self._app.engine.history, found)
        if self._shown is found:
            self._shown = self._left = None
        name = session.backend.info.name
        if found.model and found.model != name:
            self._app.call_later(self._app.status.hint, f"This was with {on_one_line(found.model)}; {on_one_line(name)} goes on")

    async def _resume(self, typed: Typed) -> None:
        if not typed.value:
            await self.open_screen()
            return
        found = await self.reading(lambda store: conversations.find(store, typed.value))
        if found is not None:
            await self.go_on(found)

    # the list

    async def open_screen(self, words: str = "") -> None:
        from localr1.tui.conversations_screen import ConversationsScreen

        def chosen(where: tuple[int, int | None] | None) -> None:
            if where is not None:
                self._app.call_later(self.go_on, *where)

        await self._app.push_screen(ConversationsScreen(self, words), chosen)

    async def _chats(self, typed: Typed) -> None:
        await self.open_screen(typed.value)

    # this one

    @property
    def here(self) -> int | None:
        """The conversation on the screen."""
        if self._shown is not None:
            return self._shown.id
        going_on = self._app.engine.history.conversation
        return None if going_on == self._left else going_on

    def leave(self) -> None:
        self._left = self.here or self._left
        self._shown = self.revising = None

    async def _here(self, job: Callable[[Store, int], _T]) -> _T | None:
        """Something with the conversation on the screen."""
        history, here = self._app.engine.history, self.here
        if here is None or history.problem:
            self._app.status.hint(f"This conversation is not kept: {history.problem}" if history.problem else "Nothing has been said yet")
            return None
        return await self.reading(lambda store: job(store, here))

    async def _rename(self, typed: Typed) -> None:
        title = on_one_line(typed.value)

        def rename(store: Store, here: int) -> bool:
            store.rename(here, title)
            return True

        if await self._here(rename):
            self._app.status.hint(f"It is called {title} now")

    async def _delete(self, _: Typed) -> None:
        about = None if self._busy() else await self._here(lambda store, here: store.summary(here))
        if about is not None:
            await self._ask(f"Delete “{on_one_line(about.title)}”, {count(about.turns, 'turn')}? y, n", partial(self.delete, about.id))

    async def delete(self, conversation: int, tell: Callable[[str], object] | None = None) -> None:
        if conversation == self.here:
            if self._busy(tell):
                return
            await self._app.new_chat()
        if await self.doing(lambda store: store.delete(conversation), tell):
            (tell or self._app.status.hint)("Deleted")

    async def _ask(self, question: str, then: Callable[[], Awaitable[Any]]) -> None:
        async def answered(yes: bool) -> None:
            if yes:
                await then()
            self._app.input.focus()

        await self._app.attaching.asking.ask(question, answered)

    async def _duplicate(self, _: Typed) -> None:
        copy = await self._here(lambda store, here: store.duplicate(here))
        if copy is not None:
            await self.go_on(copy)
            self._app.status.hint("This is the copy now")

    async def _save(self, typed: Typed) -> None:
        file = await self._here(lambda store, here: conversations.save(store, here, typed.value))
        if file is not None:
            self._app.status.hint(f"Written to {on_one_line(str(file))}")

    async def _load(self, typed: Typed) -> None:
        loaded = await self.reading(lambda store: conversations.load(store, typed.value))
        if loaded is not None:
            await self.go_on(loaded)
            self._app.status.hint("This is what the file has, as a conversation of its own")

    # branches

    async def _branch(self, typed: Typed) -> None:
        """Of the last turn that has several."""
        path = self._app.engine.history.path if self._shown is None else tuple(turn.id for turn in self._shown.turns)
        place = await self._here(lambda store, here: conversations.forked(store, here, path))
        if place is not None:
            await self.switch(place, typed.value or "next")

    async def step(self, turn: Turn, step: int) -> None:
        if turn.exchange.place is not None:
            await self.switch(turn.exchange.place, "prev" if step < 0 else "next")

    async def switch(self, place: Place, which: str) -> None:
        if self._busy():
            return
        try:
            turn = conversations.beside(place, which)
        except StoreError as error:
            self._app.status.hint(_sentence(error))
            return
        found = await self._here(lambda store, here: conversations.opened(store, here, turn))
        if found is not None:
            await self._show(found, turn)

    async def _revise(self, typed: Typed) -> None:
        question = self._question(typed.value)
        if question is not None:
            self.revising, self._revised = question
            self._app.attaching.give_back(self._revised)
            self._app.status.hint(f"Question {self.revising}, edited, becomes a branch: Enter sends, Esc leaves it")

    async def reroll(self, number: str) -> None:
        """Another reply to an earlier question, as a branch."""
        question = self._question(number)
        if question is not None:
            await self._app.begin(Turn(self._app.engine.ask(question[1], after=question[0] - 1)))

    def _question(self, number: str) -> tuple[int, str] | None:
        """That of the turn `number`, the last one by default."""
        session = self._app.engine.session
        if self._busy():
            return None
        if session is None or not session.turns:
            self._app.status.hint("Nothing has been asked yet" if session is not None else "The model is not there yet")
            return None
        wanted = int(number or session.turns)
        if not 1 <= wanted <= session.turns:
            self._app.status.hint(f"There are {count(session.turns, 'question')} here")
            return None
        return wanted, session.history[2 * wanted - 2].content

    def _busy(self, tell: Callable[[str], object] | None = None) -> bool:
        if self._app.turn is not None:
            (tell or self._app.status.hint)("Not while the model writes: Esc stops the reply")
        return self._app.turn is not None

    def escape(self) -> bool:
        """The question stays as it was; False: none was being edited."""
        was, self.revising = self.revising, None
        if was is not None:
            self._app.input.clear()
            self._app.attaching.take_back(self._revised)
            self._app.status.hint(f"Question {was} stays as it was")
        return was is not None

    def go_on_revising(self, after: int | None) -> None:
        """A question that was sent to follow so many turns has come back."""
        self.revising = None if after is None else after + 1

    def after(self) -> int | None:
        """Where the question belongs that is sent now."""
        number, self.revising = self.revising, None
        return None if number is None else number - 1


def _sentence(error: StoreError) -> str:
    text = on_one_line(str(error))
    return text[:1].upper() + text[1:] if text.partition(" ")[0].isalpha() else text  # a file's name stays as it is
