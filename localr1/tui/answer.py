"""The answer, in Markdown. It comes from a model: nothing in it is obeyed, opened or left out unseen."""

from __future__ import annotations

import re

from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from textual.content import Content
from textual.widgets import Markdown, Static
from textual.widgets._markdown import MarkdownBlock

from localr1.latex.markdown import FORMULA, add_formulas
from localr1.markdown_rules import keep_text
from localr1.text import printable
from localr1.tui.answer_blocks import Fence, Formula, OrderedList, with_boxes
from localr1.tui.frame import Frame

# What answers a question is shorter; laying out megabytes would hold up the keys for minutes.
MOST_CHARACTERS = 100_000
MOST_LEVELS = 100  # of lists in lists; behind what is deeper, all is left out
MOST_ITEMS = 150  # of lists and tables, which Textual builds anew from their beginning: with more, the answer is shown as it was written
_ITEM = re.compile(r"^ *(?:[-*+]|\d+[.)]|\|)", re.MULTILINE)
_MORE = "\n\n… the rest is in the trace: /trace"

_BLOCKS = {
    name: with_boxes(block) for name, block in Markdown.BLOCKS.items() if name in ("paragraph_open", "th_open", "td_open") or name[0] == "h"
}
_BLOCKS |= {"fence": Fence, "code_block": Fence, "ordered_list_open": OrderedList}


class Answer(Markdown):
    """Grows while the answer streams. Links never open: the app shows where a clicked one leads."""

    def __init__(self) -> None:
        super().__init__(parser_factory=self._parser, open_links=False)
        self.text = ""
        self._raw: Static | None = None
        self._stays_raw = False

    def on_mount(self) -> None:
        self.show_raw(isinstance(self.app, Frame) and self.app.raw_answers)

    def get_block_class(self, block_name: str) -> type[MarkdownBlock]:
        return _BLOCKS.get(block_name) or super().get_block_class(block_name)

    def unhandled_token(self, token: Token) -> MarkdownBlock | None:
        return Formula(self, token) if token.type == FORMULA else None

    async def add(self, text: str) -> None:
        """Costs what the last block costs. The caller waits, and brings what has come meanwhile in one piece."""
        text = self.take(text)
        self._draw_raw()
        if not self._stays_raw:
            await self.append(text)

    async def show(self, text: str) -> None:
        """All of it at once."""
        self.take(text)
        await self.finish()

    def take(self, text: str) -> str:
        """What is shown of it, behind what is there; once the answer is finished, at the latest."""
        if len(self.text) > MOST_CHARACTERS:
            return ""
        text = printable(text)
        if len(self.text) + len(text) > MOST_CHARACTERS:
            text = text[: MOST_CHARACTERS - len(self.text)] + _MORE
        self.text += text
        if "\n" in text and not self._stays_raw and len(_ITEM.findall(self.text)) > MOST_ITEMS:
            self.show_raw(True)
            self._stays_raw = True
        return text

    def reads_on(self, text: str) -> bool:
        """Whether the answer is another text than what has come; it is that from now on."""
        text = printable(text)
        if len(text) > MOST_CHARACTERS or text == self.text:
            return False
        self.text = text
        return True

    async def finish(self) -> None:
        """Parse the whole once more: appending parses from the last block on, which is not always the same."""
        self._draw_raw()
        if not self._stays_raw:
            await self.update(self.text)

    def show_raw(self, raw: bool) -> None:
        """Show the text as the model wrote it, or as it is meant."""
        if raw == (self._raw is not None) or self._stays_raw:
            return
        self.set_class(raw, "-raw")  # hides the blocks
        if self._raw is None:
            self._raw = Static(Content(self.text), classes="raw")
            self.mount(self._raw)
        else:
            self._raw.remove()
            self._raw = None

    def _draw_raw(self) -> None:
        if self._raw is not None:
            self._raw.update(Content(self.text))

    def _parser(self) -> MarkdownIt:
        """Without HTML, which Textual would leave out of the text; without bare addresses made into links."""
        readable = self.app.settings.look.latex if isinstance(self.app, Frame) else True
        parser = MarkdownIt("gfm-like", {"html": False, "linkify": False, "maxNesting": MOST_LEVELS})
        parser.disable("reference")  # [Answer]: 42 would define a link, and show nothing
        keep_text(parser)
        parser.core.ruler.push("printable", _printable)
        return add_formulas(parser, render=readable)


def _printable(state: StateCore) -> None:
    """Once more, of characters that were written as &#x202e;."""
    for token in state.tokens:
        for child in token.children or ():
            child.content = printable(child.content)
