"""Formulas as rules of Markdown: found in lines and blocks, whole or still being written, whatever a model writes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from latex.test_render_text import TEXTS
from markdown_it import MarkdownIt

from localr1.latex.markdown import add_formulas

WITH, RAW = (add_formulas(MarkdownIt("gfm-like", {"html": False, "linkify": False}), render=render) for render in (True, False))


def read(markdown: str, parser: MarkdownIt = WITH) -> list[str]:
    """The blocks: what is in a formula, its source if there is nothing to render, and the text of others."""
    blocks = []
    for token in parser.parse(markdown):
        if token.type == "formula":
            blocks.append(f"F {token.meta['formula'] or token.content}")
        elif token.type == "inline":
            blocks.append("".join(child.content or "\n" * (child.type == "softbreak") for child in token.children or ()))
        elif token.content:
            blocks.append(token.content)
    return blocks


@pytest.mark.parametrize(
    ("markdown", "blocks"),
    [
        ("a\n\\[\nx\n\\]\nb", ["a", "F x", "b"]),
        ("$$x$$", ["F x"]),
        ("Use $HOME/bin:$PATH here, $a=$b too", ["Use $HOME/bin:$PATH here, $a=$b too"]),
        ("${USER}:${HOME} and $x_1$", ["${USER}:${HOME} and x₁"]),
        ("the $n$th", ["the nth"]),
        ("\\[ x \\].", ["F x."]),
        ("1. a\n   \\[\n   x\n   y\n   \\]\n2. b", ["a", "F x\ny", "b"]),
        ("> \\[\n> x\n> \\]", ["F x"]),
        ("\\begin{align*}\nx\n\\end{align*}", ["F \\begin{align*}\nx\n\\end{align*}"]),
        ("\\[ x^2 \\] and more", ["x² and more"]),
        ("    \\[ x \\]", ["\\[ x \\]"]),  # code
        ("a\n\\[\nx", ["a", "F \\[\nx"]),  # still being written
        ("\\[\nx\n\nb \\(\\{x", ["\\[\nx", "b \\(\\{x"]),
        ("$$$ a\n$$ b $$ c", ["$$$ a\nb c"]),
        ("| a |\n|---|\n| $x^2$ |", ["a", "x²"]),
        ("[$x^2$](http://a) **\\(y^2\\)**", ["x² y²"]),
        ("$a_1$ and $b_1$ are not _slanted_", ["a₁ and b₁ are not slanted"]),
    ],
)
def test_formulas_are_found(markdown: str, blocks: list[str]):
    assert [block.strip() for block in read(markdown)] == blocks


def test_unrendered_they_keep_what_markdown_would_take_away():
    assert read("\\(\\{a_1\\}\\) $\\{*b*\\}$ \\boxed{\\_}\n\\[\n\\{x\\}\n\\]", RAW) == [
        "\\(\\{a_1\\}\\) $\\{*b*\\}$ \\boxed{\\_}",
        "F \\[\n\\{x\\}\n\\]",
    ]


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_nothing_raises(text: str):
    for parser in (WITH, RAW):
        read(text, parser)


@pytest.mark.parametrize(
    "piece", ["\\[\n", "$$\n", "\\(", "$", "$x$ ", "\\begin{align}\n", "- \\[\n", "> \\[\n", "\\boxed{", "\\[ x \\] y\n"]
)
def test_long_text_takes_no_longer_than_it_is_long(piece: str):
    """What is not bounded would take minutes here."""
    read(piece * (30_000 // len(piece)))
