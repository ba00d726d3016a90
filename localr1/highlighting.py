r"""Comments, strings, numbers and keywords of the languages that answers are written in.

Not Pygments: its lexers look ahead without bound, and code comes from a model: fifty lines of \"\"\" as JavaScript hold a terminal up for
longer than anybody waits. Here every character is read once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Literal, NamedTuple, cast

Kind = Literal["comment", "string", "number", "keyword"]


class _Language(NamedTuple):
    comment: str  # a regular expression
    keywords: frozenset[str]
    strings: str
    any_case: bool = False


_LINE = r"(?:[^{q}\\\n]|\\.)*+{q}?"  # one that is not closed ends with its line
_QUOTED = "|".join(q + _LINE.format(q=q) for q in "\"'")
_BACKQUOTED = _QUOTED + r"|`(?:[^`\\]|\\[\s\S])*+`?"
_TRIPLE = r"\"\"\"(?:[\s\S]*?\"\"\"|[\s\S]*)|'''(?:[\s\S]*?'''|[\s\S]*)|" + _QUOTED
_LIFETIMES = r"\"(?:[^\"\\]|\\[\s\S])*+\"?|'(?:[^'\\\n]|\\[^\n]{1,8})'"  # in Rust, ' begins other things than characters, too

_HASH, _SLASHES, _DASHES = r"\#[^\n]*", r"//[^\n]*|/\*(?:[\s\S]*?\*/|[\s\S]*)", r"--[^\n]*"
_MARKUP = r"<!--(?:[\s\S]*?-->|[\s\S]*)"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_C = "break case const continue default do else enum for goto if return static struct switch typedef union void while int char float double bool long short unsigned signed sizeof true false "
_OBJECTS = (
    _C
    + "class new this super public private protected interface extends implements import package throw try catch finally abstract final null "
)
_LANGUAGES = {
    "python py python3 py3 pycon sage": _Language(_HASH, _words(
        "False None True and as assert async await break case class continue def del elif else except finally for from global if import in is "
        "lambda match nonlocal not or pass raise return try while with yield"), _TRIPLE),
    "c h cpp c++ cc hpp cuda objective-c": _Language(_SLASHES, _words(
        _C + "auto class template typename namespace using public private protected virtual override new delete nullptr this constexpr inline "
        "extern volatile operator try catch throw include define ifdef ifndef endif"), _QUOTED),
    "java c# csharp cs kotlin kt scala dart swift php": _Language(_SLASHES, _words(
        _OBJECTS + "var val let fun func def object override string String namespace using foreach in is as when guard self nil echo function "
        "async await yield lazy sealed record trait extension protocol"), _TRIPLE),
    "javascript js jsx typescript ts tsx mjs": _Language(_SLASHES, _words(
        "break case catch class const continue default delete do else export extends finally for from function if import in instanceof let new "
        "of return static super switch this throw try typeof var void while yield async await true false null undefined interface type enum "
        "implements readonly namespace declare as"), _BACKQUOTED),
    "rust rs": _Language(_SLASHES, _words(
        "as async await break const continue crate dyn else enum extern false fn for if impl in let loop match mod move mut pub ref return self "
        "Self static struct super trait true type unsafe use where while"), _LIFETIMES),
    "go golang zig": _Language(_SLASHES, _words(
        "break case chan const continue default defer else fallthrough false fn for func go goto if import interface map nil package pub range "
        "return select struct switch true try type var while"), _BACKQUOTED),
    "bash sh shell zsh fish console": _Language(r"(?<![^\s;])\#[^\n]*", _words(
        "if then else elif fi for in do done while until case esac function return export local set source exit"), _QUOTED),
    "sql sqlite mysql postgresql postgres": _Language(_DASHES + r"|/\*(?:[\s\S]*?\*/|[\s\S]*)", _words(
        "select from where and or not null is in like between join left right inner outer full on group by order having limit offset insert into "
        "values update set delete create table index view drop alter add primary key foreign references union all distinct as case when then "
        "else end with exists asc desc default unique"), _QUOTED, any_case=True),
    "lua": _Language(_DASHES, _words(
        "and break do else elseif end false for function goto if in local nil not or repeat return then true until while"), _QUOTED),
    "ruby rb julia jl elixir ex": _Language(_HASH, _words(
        "and begin break case class def do else elseif elsif end ensure false fn for function if import in local let module mutable next nil not "
        "or repeat require rescue return self struct super then true unless until using when while yield"), _TRIPLE),
    "haskell hs elm": _Language(_DASHES + r"|\{-(?:[\s\S]*?-\}|[\s\S]*)", _words(
        "case class data deriving do else if import in instance let module newtype of then type where"), r"\"" + _LINE.format(q='"')),
    "r perl pl make makefile dockerfile docker": _Language(_HASH, _words(
        "if else elsif for foreach while repeat function return next break TRUE FALSE NULL NA my our sub use package FROM RUN COPY CMD WORKDIR "
        "ENV EXPOSE ENTRYPOINT ARG ifeq endif include"), _QUOTED),
    "matlab octave": _Language(r"%[^\n]*", _words(
        "break case catch continue else elseif end for function global if otherwise return switch try while"),
        r"\"" + _LINE.format(q='"') + r"|(?<![\w)\]}'.])'[^'\n]*'?"),  # behind a name, ' transposes
    "tex latex": _Language(r"(?<!\\)%[^\n]*", frozenset(), r"(?!)"),
    "json yaml yml toml ini": _Language(r"(?<![^\s])\#[^\n]*", _words("true false null yes no on off"), _QUOTED),
    "html xml svg": _Language(_MARKUP, frozenset(), _QUOTED),
    "css scss less": _Language(r"/\*(?:[\s\S]*?\*/|[\s\S]*)|(?<![^\s;{}])//[^\n]*", frozenset(), _QUOTED),
}  # fmt: skip
_BY_NAME = {name: language for names, language in _LANGUAGES.items() for name in names.split()}


@cache
def _reader(language: _Language) -> re.Pattern[str]:
    number = r"(?<![\w.])(?:0[xXbBoO][0-9a-fA-F_]+|[0-9][0-9_]*(?:\.[0-9_]+)?(?:[eE][+-]?[0-9]+)?)"
    return re.compile(f"(?P<comment>{language.comment})|(?P<string>{language.strings})|(?P<number>{number})|(?P<word>[^\\W\\d]\\w*)")


def highlights(code: str, language: str) -> Iterator[tuple[int, int, Kind]]:
    """What stands out: from, to, as what. `language`: the words behind the opening of a code block."""
    found = _BY_NAME.get(re.split(r"[\s,{}:.]", language.strip().lower().lstrip("{."), maxsplit=1)[0])
    if found is None:
        return
    for token in _reader(found).finditer(code):
        kind = token.lastgroup
        if kind != "word":
            yield token.start(), token.end(), cast(Kind, kind)
        elif (token[0].lower() if found.any_case else token[0]) in found.keywords:
            yield token.start(), token.end(), "keyword"
