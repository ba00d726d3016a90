"""Formulas in text that comes in parts: the same wherever it is cut, and nothing is held back that need not be."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from latex.test_render_text import TEXTS

from localr1.latex import render_text
from localr1.latex.stream import FormulaStream

ANSWER = r"""So $x^2 = 4$, and it costs $5.

    indented \(a_1\)
1. ```sh
   cd $A/$B
   ```
2. ~~~
   $A$
   ~~~
- a list with \[
\frac{1}{2}
\]

```python
a = "$x^2$"

b = "\\(x\\)"
```
and `$y^2$` after it is \boxed{42}
  ~~~
$z^2$
  ~~~
The end: \(x^2"""


def fed(*parts: str) -> str:
    stream = FormulaStream()
    return "".join([*map(stream.feed, parts), stream.end()])


def test_an_answer_is_the_same_wherever_it_is_cut():
    whole = render_text(ANSWER)
    assert "x² = 4" in whole and 'a = "$x^2$"' in whole and "[ 42 ]" in whole
    assert fed(ANSWER) == fed(*ANSWER) == whole
    for cut in range(len(ANSWER)):
        assert fed(ANSWER[:cut], ANSWER[cut:]) == whole, cut


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_any_text_is_the_same_whole_and_by_characters(text: str):
    assert fed(text) == fed(*text)


@pytest.mark.parametrize(
    ("text", "at_once"),
    [
        ("There are three ", "There are three "),
        ("a line\nThe word", "a line\nThe "),
        ("a line\nso $x", "a line\n"),
        ("it costs $5 and more\n\nNext ", "it costs $5 and more\n\nNext "),
        ("```\nx = 1\ny", "```\nx = 1\n"),
    ],
)
def test_only_what_may_be_a_formula_waits(text: str, at_once: str):
    assert FormulaStream().feed(text) == at_once
