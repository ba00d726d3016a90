"""Blocks of an answer that Textual has no widgets for, or plainer ones: code, formulas, and what is boxed within a line."""

from __future__ import annotations

from functools import lru_cache

from markdown_it.token import Token
from rich.cells import cell_len
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content, Span
from textual.widgets import Markdown
from textual.widgets._markdown import MarkdownBlock, MarkdownBullet, MarkdownFence, MarkdownListItem, MarkdownOrderedList

from localr1.highlighting import highlights
from localr1.latex import in_lines, in_pieces
from localr1.latex.markdown import BOXED

MOST_HIGHLIGHTED = 20_000  # characters: more would be felt

# The terminal's own colours, and few: none is hard to see on white or on black. Keywords and comments differ without any, too.
_STYLES = {"comment": "dim italic", "string": "ansi_green", "number": "ansi_magenta", "keyword": "bold ansi_bright_blue"}
_BOX = "bold reverse"


class Fence(MarkdownFence):
    @classmethod
    def highlight(cls, code: str, language: str, ansi: bool = False, dark: bool = False) -> Content:
        return _highlighted(code.rstrip("\n"), language)


class OrderedList(MarkdownOrderedList):
    """With the model's own numbers: `3. x = 4` behind `1. x = 2` is not the second of anything. All the same ones are counted."""

    def compose(self) -> ComposeResult:
        items = [block for block in self._blocks if isinstance(block, MarkdownListItem)]
        numbers = [item.bullet for item in items]
        if len(set(numbers)) == 1 and numbers[0].isdecimal():
            numbers = [str(number) for number in range(int(numbers[0]), int(numbers[0]) + len(items))]
        for number, item in zip(numbers, items, strict=True):
            bullet = MarkdownBullet()
            bullet.symbol = f" {number.rjust(max(map(len, numbers)))}. "
            yield Horizontal(bullet, Vertical(*item._blocks))
        self._blocks.clear()


@lru_cache(maxsize=8)  # the last block is built again for each piece that is appended to it
def _highlighted(code: str, language: str) -> Content:
    spans = [Span(start, end, _STYLES[kind]) for start, end, kind in highlights(code[:MOST_HIGHLIGHTED], language)]
    return Content(code, spans=spans)


class Formula(MarkdownBlock):
    """A formula in lines of its own: laid out if there is room, else on one line that wraps; raw if it cannot be read."""

    def __init__(self, markdown: Markdown, token: Token) -> None:
        super().__init__(markdown, token)
        self._source: str = token.content
        self._formula: str | None = token.meta["formula"]
        self._width = 0
        self._draw(markdown.content_size.width)

    async def _update_from_block(self, block: MarkdownBlock) -> None:
        if isinstance(block, Formula):
            self._copy_context(block)
            self._source, self._formula = block._source, block._formula
            self._draw(self._width)
        else:
            await super()._update_from_block(block)

    def on_resize(self) -> None:
        self._draw(self.content_size.width)

    def _draw(self, width: int) -> None:
        self._width = width
        content = self._laid_out(width)
        if content != self._content:
            self.set_content(content)

    def _laid_out(self, width: int) -> Content:
        pieces = in_pieces(self._formula) if self._formula is not None else None
        if pieces is None or self._formula is None:
            return Content(self._source)
        lines = in_lines(self._formula)
        if lines is not None and (not width or max(map(cell_len, lines)) <= width):
            return Content.styled("\n".join(lines), "bold" if "\\boxed" in self._formula else "")
        return Content.assemble(*((text, _BOX if boxed else "") for text, boxed in pieces))


def with_boxes(block: type[MarkdownBlock]) -> type[MarkdownBlock]:
    """`block`, with what is boxed in its text standing out."""

    def content_of(self: MarkdownBlock, token: Token) -> Content:
        content = block._token_to_content(self, token)
        closing = [child for child in token.children or () if child.type in ("code_inline", "image") or child.type.endswith("_close")]
        if not any(BOXED in child.meta for child in closing) or len(closing) != len(content.spans):
            return content
        spans = [Span(*span[:2], _BOX) if BOXED in child.meta else span for span, child in zip(content.spans, closing, strict=True)]
        return Content(content.plain, spans=spans)

    return type(block.__name__, (block,), {"_token_to_content": content_of})
