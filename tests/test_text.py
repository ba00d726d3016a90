"""Model text must not be able to drive the terminal."""

import io
import json
import sys
import unicodedata

import pytest

from localr1.output import put_json
from localr1.text import json_text, printable

HOSTILE = "a\x1b[31mred\x1b]0;title\x07\x9b2J\rover\x08\x00\u202eright\u2066to\u200fleft\u2028line\ufeff"


def controls(text: str) -> set[str]:
    return {
        c
        for c in text
        if unicodedata.category(c) in ("Cc", "Zl", "Zp") or c in "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    }


def test_control_characters_are_shown_not_obeyed() -> None:
    assert controls(printable(HOSTILE)) == set()
    assert printable("\x1b[2J") == "␛[2J"
    every = "".join(map(chr, range(0x300)))
    assert controls(printable(every)) == {"\n", "\t"}


def test_ordinary_text_is_left_alone() -> None:
    text = "tab\tnewline\nnaïve 你好 🎉 👩‍👩‍👧 ≠ ½ [red] </think>"
    assert printable(text) == text


def test_json_is_exact_and_harmless() -> None:
    text = json_text({"answer": HOSTILE})
    assert json.loads(text) == {"answer": HOSTILE}
    assert controls(text) == {"\n"}


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_json_is_exact_in_any_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    monkeypatch.setattr(sys, "stdout", stdout)
    value = {"answer": "π ≈ 3, é 😀 \ud800 \x1b"}
    put_json(value)
    assert json.loads(stdout.buffer.getvalue().decode(encoding)) == value  # type: ignore[attr-defined]
