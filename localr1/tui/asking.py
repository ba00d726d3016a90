"""A question of the program's own, over the input: y or n."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from textual import events
from textual.content import Content
from textual.widgets import Static

Then = Callable[[bool], Awaitable[None]]


class Asking(Static, can_focus=True):
    """Has the focus while it asks; whoever goes on with something else has said no."""

    def __init__(self) -> None:
        super().__init__()
        self.display = False
        self._then: Then | None = None

    async def ask(self, question: str, then: Then) -> None:
        await self.answer(False)  # to the question before
        self._then = then
        self.update(Content(question))
        self.display = True
        self.focus()

    async def answer(self, yes: bool) -> None:
        then, self._then = self._then, None
        if then is not None:
            self.display = False
            await then(yes)

    async def on_key(self, event: events.Key) -> None:
        if event.key.lower() in ("y", "n"):
            event.stop()  # else it would be typed
            await self.answer(event.key.lower() == "y")

    async def on_blur(self) -> None:
        await self.answer(False)
