"""Files with a question in the plain chat: told and asked about line by line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

from localr1.attachments import AttachError, Attachment, Listing, added, compose, look_through, paths_in, read, size_text, split
from localr1.commands import Typed
from localr1.counting import counted, estimated, tokens_text
from localr1.tui.engine import Engine


class Files:
    """Those of the next question. `say` writes a line, `agrees` asks for a y."""

    def __init__(self, engine: Engine, say: Callable[[str], None], agrees: Callable[[str], bool]) -> None:
        self._engine, self._say, self._agrees = engine, say, agrees
        self._attachments: tuple[Attachment, ...] = ()

    def file(self, typed: Typed) -> None:
        """What /file does; what is attached then."""
        if typed.value == "off":
            self._attachments = ()
        elif typed.value:
            try:
                for path in paths_in(typed.value) or [Path(typed.value)]:
                    for attachment in self._of(path):
                        self._attachments = added(self._attachments, attachment)
            except AttachError as error:
                self._say(f"Not attached: {error}")
        self._tell()

    def take(self, question: str) -> str:
        """What is sent for `question`; nothing is attached any more."""
        sent = compose(question, self._attachments)
        self._attachments = ()
        return sent

    def give_back(self, sent: str) -> None:
        """Have what could not be asked attached to the next question."""
        self._attachments = split(sent)[1]
        if self._attachments:
            self._tell()

    def _of(self, path: Path) -> tuple[Attachment, ...]:
        if not os.path.isdir(path):  # noqa: PTH112 - Path's fails on what may not be looked at
            return (read(path),)
        listing: Listing = look_through(path)
        return listing.attachments if self._agrees(f"{listing}. Attach them? (y/n) ") else ()

    def _tell(self) -> None:
        for attachment in self._attachments:
            tokens = self._count(attachment)
            cost = tokens_text(estimated(attachment) if tokens is None else tokens, tokens is None)
            self._say(f"Attached: {attachment.name}, {size_text(attachment.nbytes)}, {cost}")
        if not self._attachments:
            self._say("Nothing is attached.")

    def _count(self, attachment: Attachment) -> int | None:
        """The model is there and idle while a line is read."""
        if self._engine.session is None:
            return None
        told: SimpleQueue[int | None] = SimpleQueue()
        self._engine.do(lambda session: told.put(counted(attachment, session.backend)))
        return told.get()
