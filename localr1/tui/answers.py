"""Answers on the screen: how they are shown, readable or as the model wrote them, and what is copied of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from localr1.commands import Typed
from localr1.copying import CopyError, copy_of

if TYPE_CHECKING:
    from localr1.tui.answer import Answer
    from localr1.tui.app import ChatApp, Handler


class Answers:
    def __init__(self, app: ChatApp) -> None:
        self._app = app

    def commands(self) -> dict[str, Handler]:
        async def raw(_: Typed) -> None:
            self.toggle_raw()

        async def copy(typed: Typed) -> None:
            self.copy(typed.value)

        return {"raw": raw, "copy": copy}

    def toggle_raw(self) -> None:
        """All of them, those to come too."""
        app = self._app
        app.raw_answers = not app.raw_answers
        for answer in self._shown():
            answer.show_raw(app.raw_answers)
        key = app.keymap.first("raw")
        app.status.hint(f"Answers as the model wrote them · {key} goes back" if app.raw_answers else f"Answers as they read · {key}: raw")

    async def redraw(self) -> None:
        """Formulas are to be shown in another way."""
        for answer in self._shown():
            await answer.finish()

    def _shown(self) -> list[Answer]:
        from localr1.tui.answer import Answer

        return list(self._app.query(Answer))

    def copy(self, wanted: str) -> None:
        """Have the terminal put it on the clipboard (OSC 52), which many do, over SSH too."""
        turn = self._app.last
        try:
            copy = copy_of(wanted, *(("", "") if turn is None else turn.texts))
        except CopyError as error:
            self._app.status.hint(str(error))
            return
        self._app.copy_to_clipboard(copy.text)
        self._app.status.hint(f"Copied {copy.what}")
