"""Attaching from the screen: what goes with the next question, counted while it waits, and put before it when it is sent."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localr1.attachments import (
    MOST_BYTES,
    PASTED,
    AttachError,
    Attachment,
    Listing,
    added,
    compose,
    look_through,
    pasted,
    paths_in,
    read,
    size_text,
    split,
)
from localr1.chat import ChatSession
from localr1.commands import Typed, parse, typed_for
from localr1.counting import CHARACTERS_A_TOKEN, counted, estimated, tokens_text
from localr1.tui.asking import Asking
from localr1.tui.prompt_input import QUOTES
from localr1.tui.tray import Chip, Tray

if TYPE_CHECKING:
    from localr1.tui.app import ChatApp, Handler


class Attaching:
    def __init__(self, app: ChatApp) -> None:
        self._app = app
        self.tray = Tray()
        self.asking = Asking()
        self._attachments: tuple[Attachment, ...] = ()
        self._counted: dict[Attachment, int | None] = {}  # tokens, by the model of `_session`; None: asked for
        self._session: ChatSession | None = None

    def __bool__(self) -> bool:
        return bool(self._attachments)

    def commands(self) -> dict[str, Handler]:
        async def file(typed: Typed) -> None:
            if typed.value == "off":
                self.clear()
            elif typed.value:
                await self.attach(paths_in(typed.value) or [Path(typed.value)])
            elif self._attachments:
                self._app.status.hint("Attached: " + ", ".join(a.name for a in self._attachments))
            else:
                self._app.status.hint("Nothing is attached: /file PATH does, or drop a file here")

        return {"file": file}

    async def attach(self, paths: Sequence[Path], instead: str = "") -> bool:
        """Files at once; folders once their lists were agreed to, else the text `instead` goes into the input. False: one was refused."""
        listings = []
        try:
            for path in paths:
                if os.path.isdir(path):  # noqa: PTH112 - Path's fails on what may not be looked at
                    listings.append(await asyncio.to_thread(look_through, path))
                else:
                    self._add(await asyncio.to_thread(read, path))
        except AttachError as error:
            await self._app.transcript.notice(f"Not attached: {error}", "error")
            return False
        if listings:
            await self.asking.ask(_asks(listings), partial(self._answered, listings, instead))
        return True

    async def pasted(self, text: str, paths: Sequence[Path]) -> None:
        """Attach it; the second time, have it as text after all."""
        origins = {os.path.realpath(path) for path in paths}
        kept = tuple(a for a in self._attachments if a.origin not in origins and (a.origin, a.text) != (PASTED, text))
        if len(kept) < len(self._attachments):
            self._attachments = kept
            self._app.input.insert(text)
        elif not paths:
            await self._text(pasted(text, self._attachments))
        elif not await self.attach(paths, instead=text):
            self._app.input.insert(text)
        elif not self.asking.display:
            self._app.status.hint("Attached; paste again to have the path as text")

    async def _text(self, new: Attachment) -> None:
        if new.nbytes > MOST_BYTES:
            line = f"Not attached: what was pasted is {size_text(new.nbytes)}, and {size_text(MOST_BYTES)} is the most; paste a part of it"
            await self._app.transcript.notice(line, "error")
        else:
            self._add(new)
            self._app.status.hint(f"Attached as {self._attachments[-1].name}; paste again to have it as text")

    async def _answered(self, listings: Sequence[Listing], instead: str, yes: bool) -> None:
        for attachment in _all(listings) if yes else ():
            self._add(attachment)
        if not yes and instead:
            self._app.input.insert(instead)
        self._app.input.focus()

    def _add(self, attachment: Attachment) -> None:
        self._attachments = added(self._attachments, attachment)
        self._count()

    def remove(self, index: int = -1) -> None:
        """The last one, or the one of a chip."""
        if self._attachments:
            gone = self._attachments[index]
            self._attachments = tuple(a for a in self._attachments if a is not gone)
            self._app.status.hint(f"{gone.name} is no longer attached")

    def clear(self) -> None:
        self._attachments = ()

    # to and from the question

    def take(self, question: str) -> str:
        """What is sent for `question`; nothing is attached any more."""
        sent = compose(question, self._attachments)
        self.clear()
        return sent

    def give_back(self, sent: str, changes: Mapping[str, Any] | None = None) -> None:
        """Put back what could not be asked: behind the command that held for it alone (`changes` to the rules), else as a question again
        if it looks like a command."""
        question, attachments = split(sent)
        for attachment in attachments:
            self._add(attachment)
        typed = typed_for(question, changes or {})
        self._app.input.give_back(f"{QUOTES}{question}{QUOTES}" if typed == question and parse(question) else typed)

    def take_back(self, sent: str) -> None:
        """What give_back attached is not asked again."""
        gone = split(sent)[1]
        self._attachments = tuple(a for a in self._attachments if a not in gone)

    # what it costs

    def _count(self) -> None:
        for attachment in self._attachments if self._session is not None else ():
            if attachment not in self._counted:
                self._counted[attachment] = None
                self._app.engine.do(partial(_count, attachment, self._counted))

    def draw(self) -> None:
        """As it is now; asked for some thirty times a second, since counts come from the worker and the model may change."""
        if self._session is not self._app.engine.session:
            self._session, self._counted = self._app.engine.session, {}
            self._count()
        chips = [self._chip(a) for a in self._attachments]
        self.tray.show(chips, self._warning(chips))

    def _chip(self, attachment: Attachment) -> Chip:
        tokens = self._counted.get(attachment)
        return Chip(attachment, estimated(attachment) if tokens is None else tokens, tokens is None)

    def _warning(self, chips: Sequence[Chip]) -> str:
        if self._session is None or not chips:
            return ""
        needed = sum(c.tokens for c in chips) + self._session.next_tokens + len(self._app.input.text) // CHARACTERS_A_TOKEN
        room = self._session.backend.info.context_length
        if needed < room:
            return ""
        conversation = " with the conversation" if self._session.next_tokens else ""
        return f"Too much: {tokens_text(needed, is_estimate=True)}{conversation}, and the context holds {room:,}"


def _all(listings: Sequence[Listing]) -> list[Attachment]:
    return [attachment for listing in listings for attachment in listing.attachments]


def _asks(listings: Sequence[Listing]) -> str:
    tokens = tokens_text(sum(map(estimated, _all(listings))), is_estimate=True)
    return "\n".join([*map(str, listings), f"{tokens}. Attach them? y, n"])


def _count(attachment: Attachment, counts: dict[Attachment, int | None], session: ChatSession) -> None:
    counts[attachment] = counted(attachment, session.backend)
