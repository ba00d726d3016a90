"""The conversations that are kept: typing finds words in all that was said; the list goes on with, renames, copies, deletes, exports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from localr1 import conversations
from localr1.store import Hit, Store, Summary
from localr1.text import printable
from localr1.trace.words import count, on_one_line
from localr1.tracing import when
from localr1.tui.options import Options

if TYPE_CHECKING:
    from localr1.tui.conversations_commands import Conversations

_MOST = 1000  # conversations that are listed; searching finds the others
_KEYS_LIST = "Enter go on · r rename · D copy · e export · d delete · / find · Esc leave"
_KEYS_FIND = "Enter go on · ↓ into the list · Esc leave"

Where = tuple[int, int | None]  # a conversation, and the turn at which


class ConversationsScreen(ModalScreen[Where | None]):
    """Ends with the conversation to go on with; None: with this one."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", priority=True)]

    def __init__(self, owner: Conversations, words: str = "") -> None:
        super().__init__()
        self._owner = owner
        self._rows: list[Where] = []
        self._kept: dict[int, Summary] = {}
        self._job = ""  # what the line at the bottom asks for
        self._find = Input(words, placeholder="Find words in titles, questions, thoughts and answers", id="find")
        self._list = Options(markup=False)
        self._line = Input(id="asked", select_on_focus=False)
        self._keys = Static(_KEYS_FIND, id="keys")
        self._searches = 0

    def compose(self) -> ComposeResult:
        yield self._find
        yield self._list
        yield self._line
        yield self._keys

    async def on_mount(self) -> None:
        self._find.focus()
        await self.refresh_rows()

    # what is listed

    async def refresh_rows(self, at: int = 0) -> None:
        """As it is kept now, for the words that are typed now."""
        self._searches += 1
        search, words = self._searches, self._find.value
        found = await self._owner.reading(lambda store: _look(store, words), self._tell)
        if search != self._searches or found is None:  # more has been typed meanwhile
            return
        kept, hits = found
        self._kept = {each.id: each for each in kept}
        titled = _titled(kept, words)
        self._rows = [(each.id, None) for each in titled] + [(hit.conversation, hit.turn) for hit in hits]
        width = max(20, self.size.width - 6)
        prompts = [_summary(each, width) for each in titled] + [_hit(hit, self._kept.get(hit.conversation), width) for hit in hits]
        self._list.clear_options()
        self._list.add_options(Option(prompt) for prompt in prompts)
        if self._rows:
            self._list.highlighted = min(at, len(self._rows) - 1)
        else:
            self._list.add_option(Option("Nothing was found" if words.strip() else "Nothing is kept yet", disabled=True))

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input is self._find:
            self.run_worker(self.refresh_rows(), exclusive=True)

    async def on_resize(self) -> None:
        await self.refresh_rows(self._list.highlighted or 0)

    @property
    def chosen(self) -> Where | None:
        at = self._list.highlighted
        return self._rows[at] if at is not None and at < len(self._rows) else None

    # keys

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if event.input is self._find:
            self._go_on()
        else:
            self.run_worker(self._asked(event.value.strip()))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self._go_on()

    def _go_on(self) -> None:
        if self.chosen is not None:
            self.dismiss(self.chosen)

    async def on_key(self, event: events.Key) -> None:
        if self._find.has_focus and event.key in ("down", "tab") and self._rows:
            event.stop()
            event.prevent_default()
            self._go_to(self._list)
        elif self._list.has_focus:
            if event.key in ("slash", "tab", "shift+tab") or (event.key == "up" and not self._list.highlighted):
                event.stop()
                event.prevent_default()
                self._go_to(self._find)
            elif event.character and event.character in "rDed" and self.chosen is not None:
                event.stop()
                await self._begin(event.character, self._kept[self.chosen[0]])

    def _go_to(self, widget: Widget) -> None:
        widget.focus()
        self._keys.update(_KEYS_LIST if widget is self._list else _KEYS_FIND)

    async def action_leave(self) -> None:
        if self._line.display:
            self._close_line()
        else:
            self.dismiss(None)

    # what is done with one

    async def _begin(self, key: str, about: Summary) -> None:
        self._about = about.id
        match key:
            case "D":
                await self._owner.reading(lambda store: store.duplicate(about.id), self._tell)
                await self.refresh_rows()
            case "r":
                self._ask("r", "Its new title; Enter renames, Esc leaves it", about.title)
            case "e":
                self._ask(
                    "e", "File: .md as it is shown, .json with all branches; Enter writes, Esc leaves it", f"{_file_name(about.title)}.md"
                )
            case "d":
                self._ask(
                    "d", f"Delete “{on_one_line(about.title)}”, {count(about.turns, 'turn')}? y and Enter delete it, Esc leaves it", ""
                )

    def _ask(self, job: str, keys: str, value: str) -> None:
        self._job, self._line.value, self._line.display = job, printable(value), True
        self._keys.update(Content(keys))
        self._line.focus()

    def _tell(self, line: str) -> None:
        self._keys.update(Content(line))

    def _close_line(self) -> None:
        self._line.display = False
        self._go_to(self._list)

    async def _asked(self, value: str) -> None:
        conversation, at = self._about, self._list.highlighted or 0  # the one that was named, even where the list has changed since
        self._close_line()
        if not value:
            return
        if self._job == "r":
            await self._owner.doing(lambda store: store.rename(conversation, on_one_line(value)), self._tell)
        elif self._job == "e":
            file = await self._owner.reading(lambda store: conversations.save(store, conversation, value), self._tell)
            if file is not None:
                self._tell(f"Written to {on_one_line(str(file))}")
            return
        elif value.lower() in ("y", "yes"):
            await self._owner.delete(conversation, self._tell)
        await self.refresh_rows(at)


def _look(store: Store, words: str) -> tuple[list[Summary], list[Hit]]:
    return store.conversations(), store.search(words) if words.strip() else []


def _titled(kept: Sequence[Summary], words: str) -> list[Summary]:
    wanted = words.casefold().split()
    return [each for each in kept if all(word in each.title.casefold() for word in wanted)][:_MOST]


def _summary(about: Summary, width: int) -> Content:
    return Content.assemble(_cut(about.title or "Untitled", width), "\n", (_facts(about, width), "dim"))


def _facts(about: Summary, width: int) -> str:
    return _cut(f"{about.id} · {when(about.updated_at)} · {count(about.turns, 'turn')} · {about.model}", width)


def _hit(hit: Hit, about: Summary | None, width: int) -> Content:
    """Title and time of the conversation; the place in it, with the words that were looked for."""
    shown = f"{hit.part}: "
    snippet = Content(printable(hit.snippet))
    for a, b in hit.at:
        snippet = snippet.stylize("bold underline", a, b)
    first = hit.at[0][0] if hit.at else 0
    room = width - len(shown)
    start = max(0, first - room // 3) if len(snippet.plain) > room else 0
    title = _cut((about.title if about else hit.title) or "Untitled", width)
    facts = _facts(about, width) if about else when(hit.started_at)
    return Content("\n").join(
        [Content.assemble((shown, "dim"), snippet[start : start + room]), Content.assemble((_cut(f"{title} · {facts}", width), "dim"))]
    )


def _cut(text: str, width: int) -> str:
    from rich.cells import cell_len, set_cell_size

    line = on_one_line(text)
    return line if cell_len(line) <= width else set_cell_size(line, width - 1).rstrip() + "…"


def _file_name(title: str) -> str:
    """What every file system takes."""
    return "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())[:40] or "conversation"
