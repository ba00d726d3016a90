"""Formulas in Markdown: what is one, what is money or code, and that nothing a model writes is lost, obeyed or slow."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localr1.latex import render_text
from localr1.latex.parse import parse
from localr1.latex.tree import Unreadable


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        (r"so $x^2$ and \(a_1\) and $$b_2$$", "so x² and a₁ and b₂"),
        ("so\n\\[\nx = \\frac{1}{2}\n\\]\nas said", "so\nx = 1/2\nas said"),
        (r"the $n$th of **\boxed{42}**", "the nth of **[ 42 ]**"),
        ("\\begin{align*}\nx &= 1 \\\\\ny &= 2\n\\end{align*}", "x = 1; y = 2"),
        (r"$ \frac{1}{2} $ is $ x^2 $", "1/2 is x²"),
        ("花了$5和$x$元，$10到$20", "花了$5和x元，$10到$20"),
        ("设$x$为苹果，$f(x)$是函数，$g(x)$是导数。点$(1,2)$和点$(3,4)$", "设x为苹果，f(x)是函数，g(x)是导数。点(1, 2)和点(3, 4)"),
        ("\"$x$\" ($y$) '$z$' $f'$ $[0,1)$", "\"x\" (y) 'z' f′ [0, 1)"),
        # money
        ("价格是$5，另一个是$10。", None),
        ("Tickets cost $5 each ($x$ adults)", "Tickets cost $5 each (x adults)"),
        ("**$5**–**$x**, $x+$y", None),
        ("Use \"$HOME\" and \"$PATH\", '$A' and '$B', ($HOME) or ($PATH)", None),
        ("$ x = 5 $, it costs $ 5_000 and $ 6", None),
        ("it costs $5 and $10", None),
        ("from $5-$10, or $5/$6", None),
        ("I have $20 and you have 30$.", None),
        ("US$x$ and 5$x$", None),
        ("$ x$ and $x $ and $$$", None),
        (r"\$x^2\$", None),
        ("$5, or $6, maybe $x^2$", "$5, or $6, maybe x²"),
        # code
        ("`$x^2$` and ``a ` $x^2$``", None),
        ("```latex\n$x^2$\n\\[ x^2 \\]\n```\nand $x^2$", "```latex\n$x^2$\n\\[ x^2 \\]\n```\nand x²"),
        ("~~~\n$x^2$ has no end", None),
        ("1. ```sh\n   cd $A/$B\n   ```\n2. then $x^2$", "1. ```sh\n   cd $A/$B\n   ```\n2. then x²"),
        ("$5 `x` and `$y`", None),
        # what cannot be read, or has no end
        (r"\(\foo{x}\) and \[\foo\] and $\foo$", None),
        (r"\(x^2 and $x^2$ and \boxed{5", None),
        ("\\(x\n\ny\\) and $x\n\ny$", None),
        ("\\(x^2\n\nand $x^2$", "\\(x^2\n\nand x²"),
    ],
)
def test_formulas_are_found_where_they_are(markdown: str, text: str | None):
    assert render_text(markdown) == (markdown if text is None else text)


_PIECES = r"""
    \frac \sqrt \sum \left \right \begin{matrix} \end{matrix} \begin{cases} \end{cases} \begin{align} \end{align} \text{ \boxed{ \hat \\ & ^ _ ' { } [ ] ( )
    | $ $$ \( \) \[ x 12 + = , ` ``` \alpha \infty \not \overset \mathbb{R} \operatorname{ \, \quad \pmod \foo \ % # ~ é 中
""".split()
TEXTS = st.lists(st.sampled_from([*_PIECES, " ", "\n", "\n\n", "\x1b", "\u202e"]), max_size=40).map("".join) | st.text(max_size=60)


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_nothing_a_model_writes_raises_and_nothing_is_put_in_the_terminals_way(text: str):
    shown = render_text(text)
    assert set(re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", shown)) <= set(text)
    assert len(shown) <= 4 * len(text) + 10


@settings(max_examples=150, deadline=None)
@given(TEXTS.filter(lambda text: "\\]" not in text and not re.search(r"\n\s*\n", text)))
def test_what_cannot_be_read_stays_exactly_as_it_is(text: str):
    try:
        parse(text)
    except Unreadable:
        assert render_text(f"\\[{text}\\]") == f"\\[{text}\\]"


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet=st.characters(exclude_characters="\\$`{}"), max_size=80))
def test_text_without_formulas_stays_as_it_is(text: str):
    assert render_text(text) == text


@pytest.mark.parametrize(
    "piece", ["\\(", "$", "$x", "$a$ ", "\\boxed{", "\\[", "\\begin{align}", "```\n", "`a``b```c", "\\frac{", "\\hat{", "{"]
)
def test_long_text_takes_no_longer_than_it_is_long(piece: str):
    """What is not bounded would take minutes here."""
    text = piece * (100_000 // len(piece))
    assert render_text(f"{text}\n\n\\[{text[:3900]}\\]")
