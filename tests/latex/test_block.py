"""A formula over several lines looks like one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from latex.test_render_text import TEXTS
from rich.cells import cell_len

from localr1.latex import in_lines, on_one_line

TABLE = {
    r"x = \frac{-b \pm \sqrt{b^2-4ac}}{2a}": """
     -b ± √(b² - 4ac)
x = ──────────────────
            2a""",
    r"\frac{a}{\frac{b}{c}}": """
  a
─────
  b
 ───
  c""",
    r"\sum_{i=1}^{n} i = \frac{n(n+1)}{2}": """
 n       n(n + 1)
 ∑  i = ──────────
i=1         2""",
    r"\lim_{x \to 0} f(x)": """
lim f(x)
x→0""",
    r"\int_0^\infty e^{-x^2} \, dx": """
∞  -x²
∫ e    dx
0""",
    r"\begin{pmatrix} a & -b \\ c & d \\ e & f \end{pmatrix} x": """
⎛a  -b⎞
⎜c  d ⎟x
⎝e  f ⎠""",
    r"|x| = \begin{cases} x & \text{if } x \ge 0 \\ -x & \text{if } x < 0 \end{cases}": """
      ⎧x   if x ≥ 0
|x| = ⎩-x  if x < 0""",
    r"\begin{aligned} x &= 1 + 2 \\ &= 3 \end{aligned}": """
x = 1 + 2
  = 3""",
    r"\left(\frac{1}{2}\right)^{n+1}_k + \left\{\frac{1}{2}\right\}": """
⎛ 1 ⎞ⁿ⁺¹   ⎧ 1 ⎫
⎜───⎟    + ⎨───⎬
⎝ 2 ⎠ₖ     ⎩ 2 ⎭""",
    r"\boxed{\frac{3}{4}}": """
┌─────┐
│  3  │
│ ─── │
│  4  │
└─────┘""",
    r"\sqrt[3]{\frac{1}{x}} y": """
 ┌───
 │ 1
3│─── y
╲│ x""",
    r"\frac12 mv^2 + \binom{n}{k}": """
 1        ⎛n⎞
─── mv² + ⎜ ⎟
 2        ⎝k⎠""",
    r"\begin{array}{r|r} 12 & a \\ +34 & b \\ \hline 46 & c \end{array}": """
 12 │ a
+34 │ b
───────
 46 │ c""",
    r"\left[\begin{array}{cc|c} 1 & 2 & 3 \\ 4 & 5 & \frac{1}{2} \end{array}\right]": """
⎡1  2 │  3 ⎤
⎢          ⎥
⎢     │  1 ⎥
⎢4  5 │ ───⎥
⎣     │  2 ⎦""",
    r"\begin{array}{|l|} \hline a \\ bc \\ \hline \end{array}": """
──────
│ a  │
│ bc │
──────""",
    r"e^{i\pi} x_B^2": """
 iπ
e  x²
    B""",
    r"\overset{def}{=} \underbrace{1+1}_{two}": """
def
 = (1 + 1)
     two""",
}


@pytest.mark.parametrize("formula", TABLE)
def test_a_formula_is_laid_out(formula: str):
    assert "\n".join(in_lines(formula) or ()) == TABLE[formula].removeprefix("\n")


def test_a_formula_that_would_be_too_large_is_not_laid_out():
    formula = r"\begin{matrix}" + "x" * 1000 + r"\\ y" * 200 + r"\end{matrix}"
    assert in_lines(formula) is None
    assert on_one_line(formula) is not None


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_no_formula_raises_and_what_is_laid_out_is_bounded(text: str):
    lines = in_lines(text)
    assert (lines is None) == (on_one_line(text) is None)
    assert sum(map(cell_len, lines or ())) <= 20_000
