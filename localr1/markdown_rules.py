"""Rules of markdown-it for text that a model wrote, in which Markdown would leave signs or cells out."""

from __future__ import annotations

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_block.table import escapedSplit, table
from markdown_it.rules_inline import StateInline


def keep_text(parser: MarkdownIt) -> None:
    """Tables keep all cells, and products their signs. `parser` knows tables."""
    parser.block.ruler.at("table", _whole_table, {"alt": ["paragraph", "reference"]})
    parser.inline.ruler.before("emphasis", "product", _product)


def _whole_table(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    """A table; its text, where a row has more cells than the head, say for a | in a formula: those would be left out."""

    def line(number: int) -> str:
        return state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]].strip()

    end = first + 2
    while end < last and line(end) and state.sCount[end] >= state.blkIndent:
        end += 1
    if not table(state, first, last, True) or max(map(_cells, map(line, range(first, end)))) == _cells(line(first)):
        return table(state, first, last, silent)
    if not silent:
        token = state.push("fence", "code", 0)
        token.content, token.map = state.getLines(first, end, state.blkIndent, True), [first, end]
        state.line = end
    return True


def _cells(line: str) -> int:
    return len(escapedSplit(line.removeprefix("|").removesuffix("|")))


def _product(state: StateInline, silent: bool) -> bool:
    """2*3*4 and x*y*z are no emphasis."""
    sign = state.src[state.pos - 1 : state.pos + 2] if state.pos else ""
    if len(sign) < 3 or sign[1] != "*" or not sign.isascii() or not (sign[0].isalnum() and sign[2].isalnum()):
        return False
    if not silent:
        state.pending += "*"
    state.pos += 1
    return True
