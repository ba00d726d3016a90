"""The answer, in Markdown. It comes from a model: nothing in it is obeyed, opened or left out unseen."""

from __future__ import annotations

from markdown_it import MarkdownIt
from textual.content import Content
from textual.widgets import Markdown
from textual.widgets._markdown import MarkdownBlock, MarkdownFence

from localr1.text import printable

# What answers a question is shorter; laying out megabytes would hold up the keys for minutes.
MOST_CHARACTERS = 100_000
_MORE = "\n\n… the rest is in the trace: Ctrl+T"


class _Fence(MarkdownFence):
    """Code in the terminal's own colours: highlighting that reads well on dark and light is not to be had in ANSI."""

    @classmethod
    def highlight(cls, code: str, language: str, ansi: bool = False, dark: bool = False) -> Content:
        return Content(code.rstrip("\n"))


class Answer(Markdown):
    """Grows while the answer streams. Links never open: the app shows where a clicked one leads."""

    def __init__(self) -> None:
        super().__init__(parser_factory=_parser, open_links=False)
        self.text = ""

    def get_block_class(self, block_name: str) -> type[MarkdownBlock]:
        return _Fence if block_name in ("fence", "code_block") else super().get_block_class(block_name)

    async def add(self, text: str) -> None:
        """Costs what the last block costs. The caller waits, and brings what has come meanwhile in one piece."""
        if len(self.text) > MOST_CHARACTERS:
            return
        text = printable(text)
        if len(self.text) + len(text) > MOST_CHARACTERS:
            text = text[: MOST_CHARACTERS - len(self.text)] + _MORE
        self.text += text
        await self.append(text)

    def reads_on(self, text: str) -> bool:
        """Whether the answer is another text than what has come; it is that from now on."""
        text = printable(text)
        if len(text) > MOST_CHARACTERS or text == self.text:
            return False
        self.text = text
        return True

    async def finish(self) -> None:
        """Parse the whole once more: appending parses from the last block on, which is not always the same."""
        await self.update(self.text)


def _parser() -> MarkdownIt:
    """Without HTML, which Textual would leave out of the text; without bare addresses made into links."""
    return MarkdownIt("gfm-like", {"html": False, "linkify": False})
