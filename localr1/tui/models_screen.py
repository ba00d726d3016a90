"""The models to choose from: what is here, what can be pulled; what the one under the cursor is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from localr1.picking import Pick, here, to_pull
from localr1.text import printable
from localr1.tui.engine import one_line
from localr1.tui.options import Options

_NAME, _SIZE, _FORM = 34, 14, 18  # columns


class ModelsScreen(ModalScreen[Pick | None]):
    """`opened`: the model that is there; `wanted`: the name of the one that the cursor stands on at first."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "dismiss")]

    def __init__(self, opened: Path | None = None, wanted: str = "") -> None:
        super().__init__()
        self._opened, self._wanted = opened, wanted
        self._picks: dict[str, Pick] = {}
        self._list = Options(compact=True)
        self._about = Static(classes="about")

    def compose(self) -> ComposeResult:
        with Vertical():
            yield self._list
            yield self._about

    def on_mount(self) -> None:
        self._about.update("Looking for models…")
        self.run_worker(self._look())

    async def _look(self) -> None:
        """What is found is shown at once; how fast models would be takes half a second to measure."""
        from localr1.fitting import bandwidth

        try:
            found, others = await asyncio.to_thread(here), await asyncio.to_thread(to_pull)
        except Exception as error:  # a cache in whatever state
            self._about.update(Content(one_line(error)))
            return
        self._show(found, others)
        speed = await asyncio.to_thread(bandwidth)
        self._picks |= {pick.name: pick for pick in await asyncio.to_thread(to_pull, speed.bytes_per_s)}
        self._tell()

    def _show(self, found: list[Pick], others: list[Pick]) -> None:
        self._picks = {pick.name: pick for pick in [*found, *others]}
        self._list.add_option(Option(Content.styled("Here", "bold"), disabled=True))
        self._list.add_options(self._option(pick) for pick in found)
        if others:
            self._list.add_option(Option(Content.styled("Can be pulled", "bold"), disabled=True))
            self._list.add_options(self._option(pick) for pick in others)
        opened = next((pick.name for pick in found if pick.path == self._opened), next(iter(self._picks)))
        first = self._wanted if self._wanted in self._picks else opened
        self._list.highlighted = self._list.get_option_index(first)
        self._list.focus()

    def _option(self, pick: Pick) -> Option:
        mark = "●" if pick.path is not None and pick.path == self._opened else " "
        name = printable(pick.name)
        name = name if len(name) < _NAME else f"…{name[-_NAME + 2 :]}"
        line = f"{mark} {name:<{_NAME}}{pick.size:>{_SIZE}}  {printable(pick.form):<{_FORM}}{'fits' if pick.fits else 'no'}"
        return Option(Content.styled(line, "" if pick.fits else "dim"), pick.name)

    def on_option_list_option_highlighted(self) -> None:
        self._tell()

    def _tell(self) -> None:
        """What the model under the cursor is, and what Enter does."""
        option = self._list.highlighted_option
        pick = None if option is None or option.id is None else self._picks[option.id]
        if pick is None:
            return
        enter = "Enter goes on with it" if pick.path is not None else "Enter downloads it, then goes on with it"
        self._about.update(Content(printable(f"{pick.what}\n{pick.memory}\n{enter} · Esc leaves all as it is")))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        pick = self._picks[event.option.id or ""]
        if pick.path is None and not pick.fits:
            self._about.update(Content(f"{pick.memory}\nlocalr1 pull {pick.name} --force downloads it all the same"))
        else:
            self.dismiss(pick)
