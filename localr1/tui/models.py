"""The model behind the chat, from the screen: what is being opened is shown in place, can be stopped, and tells what went wrong."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

from backends.base import BackendError
from localr1.aliases import ALIASES
from localr1.commands import Typed
from localr1.opening import Opener, go_back, wanted
from localr1.tui.engine import OpenBackend, Opening, one_line
from localr1.tui.pull import Pull
from localr1.tui.status import Field
from localr1.turn import Rules

if TYPE_CHECKING:
    from localr1.picking import Pick
    from localr1.tui.app import ChatApp, Handler

_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class Models:
    def __init__(self, app: ChatApp) -> None:
        self._app = app
        self._awaited: Opening | None = app.engine.opening  # its end is still to be told
        self._pull: Pull | None = None

    def commands(self) -> dict[str, Handler]:
        return {"model": self._model}

    async def _model(self, typed: Typed) -> None:
        from localr1.library import find

        if typed.value and (typed.value.lower() not in ALIASES or await asyncio.to_thread(find, typed.value) is not None):
            await self.open(typed.value)
        else:
            self.choose(typed.value.lower())

    def choose(self, name: str = "") -> None:
        """Show what there is, the cursor on the model of this name."""
        from localr1.tui.models_screen import ModelsScreen

        opener = self._app.engine.opener
        self._app.push_screen(ModelsScreen(None if opener is None else opener.spec.path, name), self._chosen)

    async def _chosen(self, pick: Pick | None) -> None:
        if pick is None:
            return
        if pick.path is not None:
            await self.open(pick.name)
        elif self._pull is None:
            self._pull = Pull(pick.name)
        else:
            self._app.status.hint(f"{self._pull.ref} is being pulled: {self._stops}")

    async def open(self, name: str) -> None:
        """Go on with the model of this name, and what is set for it."""
        from localr1.models import resolve

        app = self._app
        try:
            spec = await asyncio.to_thread(resolve, name, app.settings.model.backend)
        except BackendError as error:
            await app.transcript.notice(one_line(error), "error")
            return
        app.layers.open(spec.name, spec.path)
        self.switch(Opener(spec, wanted(app.settings), chosen=True), app.settings.rules())

    def reopen(self) -> None:
        """Go on with the same one, opened as it is set now: the one that is being opened, or could not be, where there is none yet."""
        if (opener := self._app.engine.awaited) is not None:
            self.switch(replace(opener, wanted=wanted(self._app.settings, opener.wanted.force)))

    def switch(self, open_backend: OpenBackend, rules: Rules | None = None) -> None:
        """Go on with another model."""
        self._awaited = self._app.engine.switch(open_backend, rules)

    def cancel(self) -> bool:
        """Give up what is being opened or pulled; False: nothing is."""
        opening = self._app.engine.opening
        if not opening.over:
            opening.cancelled = True
        elif self._pull is not None:
            self._pull.cancelled = True
        else:
            return False
        return True

    async def pump(self) -> None:
        """Tell what has become of the model that is pulled, or awaited."""
        if self._pull is not None and self._pull.over:
            pull, self._pull = self._pull, None
            if pull.problem:
                await self._app.transcript.notice(f"{pull.ref} could not be pulled: {pull.problem}", "error")
            else:
                await self.open(pull.ref)
        awaited = self._awaited
        if awaited is None or not awaited.over:
            return
        self._awaited = None
        opener = self._app.engine.opener
        if awaited.problem and opener is not None:
            go_back(self._app.layers, opener)
        if awaited.problem:
            await self._app.transcript.notice(f"The model could not be loaded: {awaited.problem}", "error")
        if self._app.engine.failure and self._app.turn is not None:
            await self._app.take_back(self._app.turn)

    def progress(self) -> list[Field]:
        """The status bar's, while a model is pulled beside the chat."""
        pull = self._pull
        return [] if pull is None else [Field("Stopping the download" if pull.cancelled else f"{pull.progress} · {self._stops}", 1)]

    def fields(self) -> list[Field]:
        """The status bar's, while no model is there."""
        engine = self._app.engine
        if engine.failure and engine.opening.over:
            return [Field("No model · /model opens one, /quit leaves", 0), *self.progress()]
        line = f"{engine.progress}: stopping" if engine.opening.cancelled else engine.progress
        fields = [Field(f"{_SPINNER[int(monotonic() * 10) % len(_SPINNER)]} {line}", 0)]
        return fields if engine.opening.over or engine.opening.cancelled else [*fields, Field(self._stops, 1)]

    @property
    def _stops(self) -> str:
        return f"{self._app.keymap.first('stop')} stops it"
