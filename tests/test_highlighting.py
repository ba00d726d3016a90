"""What stands out in code, and that no code takes long."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localr1.highlighting import highlights


@pytest.mark.parametrize(
    ("language", "code", "found"),
    [
        ("python", "def f(x): # 'c'", [("def", "keyword"), ("# 'c'", "comment")]),
        ("py", "x = '''a\n# b''' + \"c\\\"d\" + 'e\nf'", [("'''a\n# b'''", "string"), ('"c\\"d"', "string"), ("'e", "string"), ("'", "string")]),
        ("python", "x1 = 0x1F + 2.5e-3 + a.b1", [("0x1F", "number"), ("2.5e-3", "number")]),
        ("c++", "int x; /* a\nb */ // c\nreturn", [("int", "keyword"), ("/* a\nb */", "comment"), ("// c", "comment"), ("return", "keyword")]),
        ("js", "const a = `b\n${c}`", [("const", "keyword"), ("`b\n${c}`", "string")]),
        ("rust", "fn f<'a>(x: &'a str) -> 'b'", [("fn", "keyword"), ("'b'", "string")]),
        ("bash", "echo a#b # c", [("# c", "comment")]),
        ("SQL", "SELECT 1 -- one", [("SELECT", "keyword"), ("1", "number"), ("-- one", "comment")]),
        ("html", "<!-- a --><p class=\"b\">", [("<!-- a -->", "comment"), ('"b"', "string")]),
        ("lua", "for i = 1, #t do -- all", [("for", "keyword"), ("1", "number"), ("do", "keyword"), ("-- all", "comment")]),
        ("matlab", "f('%d\\n', x'); % y", [("'%d\\n'", "string"), ("% y", "comment")]),
        ("css", "a { b: url(http://x.y) } /* c */\n// d", [("/* c */", "comment"), ("// d", "comment")]),
        ("", "if x", []),
        ("klingon", "if 'x'", []),
    ],
)  # fmt: skip
def test_comments_strings_numbers_and_keywords_stand_out(language: str, code: str, found: list[tuple[str, str]]):
    assert [(code[start:end], kind) for start, end, kind in highlights(code, language)] == found


@settings(max_examples=150, deadline=None)
@given(
    st.text(alphabet="\"'`\\/*#-{}a1 \n", max_size=80),
    st.sampled_from(["python", "js", "rust", "sql", "lua", "haskell", "html", "tex", "matlab", "css"]),
)
def test_what_stands_out_is_in_order_and_within_the_code(code: str, language: str):
    at = 0
    for start, end, _ in highlights(code, language):
        assert at <= start < end <= len(code)
        at = end


@pytest.mark.parametrize("piece", ['"', '\\"', "'''", "/*", "{-", "`", "a", "0_", "<!--", "'\\"])
def test_long_code_takes_no_longer_than_it_is_long(piece: str):
    """What is not bounded would take minutes here."""
    for language in ("python", "js", "rust", "sql", "bash", "lua", "haskell", "html", "tex", "matlab", "css"):
        list(highlights(piece * (50_000 // len(piece)), language))
