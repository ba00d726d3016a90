"""Settings from the screen: /set and the commands that set one thing, what they change, and the warning at the start."""

from __future__ import annotations

from typing import TYPE_CHECKING

from localr1.commands import Typed, rule_line
from localr1.set_command import RULES, change, listing, warning
from localr1.settings import SettingError

if TYPE_CHECKING:
    from localr1.tui.app import ChatApp, Handler


class Setting:
    def __init__(self, app: ChatApp) -> None:
        self._app = app
        self._warned = ""  # of this model

    def commands(self) -> dict[str, Handler]:
        return {"set": self._set, **dict.fromkeys(RULES, self._set_rule)}

    async def _set(self, typed: Typed) -> None:
        """Whatever a turn goes by holds from the next one on."""
        app = self._app
        if not typed.value:
            await app.transcript.notice(listing(app.layers))
            return
        try:
            key, line = change(app.layers, typed.value, self._model())
            if key:
                app.setting_changed(key)
            if key.startswith("model."):
                app.models.reopen()
        except SettingError as error:
            line = str(error)
        app.status.hint(line)

    async def _set_rule(self, typed: Typed) -> None:
        for value in typed.changes().values():
            self._app.layers.set(RULES[typed.name], value)
            self._app.setting_changed(RULES[typed.name])
        self._app.status.hint(rule_line(typed.name, self._app.engine.rules))

    def warn(self) -> None:
        """Once a model is there, of settings that are not for it."""
        model = self._model()
        if model and model != self._warned:
            self._warned = model
            if line := warning(self._app.layers, model):
                self._app.status.hint(line)

    def _model(self) -> str:
        session = self._app.engine.session
        return "" if session is None else session.backend.info.name
