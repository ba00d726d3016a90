"""Formulas as rules of markdown-it, so that what is in code stays code. Tokens: `text` and `strong` in a line, `formula` for a block."""

from __future__ import annotations

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline

from localr1.latex import in_pieces
from localr1.latex.delimiters import MOST_CHARACTERS, closing_of, formula_at, opens

FORMULA = "formula"  # a token of this type: `content` is the source, meta["formula"] what is between the delimiters
BOXED = "boxed"  # in the meta of a `strong` token
_PUNCTUATION = ".,;:"


def add_formulas(parser: MarkdownIt, render: bool = True) -> MarkdownIt:
    """`render` False: formulas are found, so that Markdown leaves them alone, and stay raw."""

    def inline(state: StateInline, silent: bool) -> bool:
        at, text = state.pos, state.src[: state.posMax]
        if text[at] not in "$\\":
            return False
        found = formula_at(text, at)
        if found is None and not opens(text, at):
            return False
        end = found.end if found is not None else len(text)  # one that is still being written stays raw up to where it has come
        pieces = in_pieces(found.formula) if found is not None and render else None
        if not silent:
            for piece, boxed in pieces or ((text[at:end], False),):
                _push(state, piece, boxed)
        state.pos = end
        return True

    def block(state: StateBlock, first: int, last: int, silent: bool) -> bool:
        if state.is_code_block(first):
            return False
        start = state.bMarks[first] + state.tShift[first]
        closing = closing_of(state.src[start : state.eMarks[first]])
        if not closing:
            return False
        hopeless: dict[str, int] = state.env.setdefault("localr1.unclosed", {})  # closing -> line up to which there is none
        if first < hopeless.get(closing, 0):
            return False
        line, length, closed = first, 0, False
        while line < last and not closed:
            text = state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]]
            length += len(text)
            if not text.strip() or (line > first and state.sCount[line] < state.blkIndent) or length > MOST_CHARACTERS:
                hopeless[closing] = line
                return False
            at = text.find(closing, 2 if line == first else 0)
            if at >= 0 and text[at + len(closing) :].strip(" \t" + _PUNCTUATION):
                return False  # the text goes on behind it: it stands in a paragraph
            closed = at >= 0
            line += 1
        if not silent:
            indent = state.sCount[first]
            source = state.getLines(first, line, indent, False).rstrip()
            token = state.push(FORMULA, "", 0)
            token.content, token.map = source, [first, line]
            token.meta["formula"] = _inside(source, closing) if closed and render else None
            state.line = line
        return True

    parser.inline.ruler.before("escape", FORMULA, inline)
    parser.block.ruler.before("fence", FORMULA, block, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    return parser


def _push(state: StateInline, text: str, boxed: bool) -> None:
    if boxed:
        state.push("strong_open", "strong", 1).meta[BOXED] = True
    state.push("text", "", 0).content = text
    if boxed:
        state.push("strong_close", "strong", -1).meta[BOXED] = True


def _inside(source: str, closing: str) -> str:
    """Without its delimiters, which are a part of an environment; punctuation behind them belongs to it."""
    formula, _, behind = source.rpartition(closing)
    return source if closing.startswith("\\end") else formula[2:].strip() + behind.strip()
