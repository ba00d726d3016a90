"""What counts as a word in a search, the same for what is kept and for what is typed; and where words are in a text.

Case and accents do not count. Chinese and Japanese have no blanks between words: there every two neighbouring characters are
indexed, and a run of them that is typed is found where it stands as a whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from unicodedata import normalize

_HAN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # kana too
_LETTER = rf"[^\W_{_HAN}]"
_RUN = re.compile(f"[{_HAN}]+|{_LETTER}+")
_IS_HAN = re.compile(f"[{_HAN}]")
_ACCENTS = re.compile("[\u0300-\u036f]+")
_LONGEST = 64  # characters of a word that are indexed
_MOST = 64  # words that are looked for
_SNIPPET, _BEFORE = 160, 40  # characters; of them before the first word found
_LOOKED_AT = 64  # places of each word, in search of the best one


def fold(text: str) -> str:
    """Without case and accents."""
    if text.isascii():
        return text.lower()
    return normalize("NFC", _ACCENTS.sub("", normalize("NFD", text.casefold())))


def indexed(text: str) -> str:
    """What the index is given for this text: its different terms."""
    terms: set[str] = set()
    for run in set(_RUN.findall(fold(text))):
        if _IS_HAN.match(run):
            terms.update(run[i : i + 2] for i in range(len(run)))
        else:
            terms.add(run[:_LONGEST])
    return " ".join(sorted(terms))


@dataclass(frozen=True, slots=True)
class Snippet:
    """A piece of a text, on one line; `at`: where the words are in it."""

    text: str
    at: tuple[tuple[int, int], ...]


class Query:
    """The words that somebody looks for. All must occur (of very many the first ones); the last one may be the beginning of a word."""

    def __init__(self, typed: str) -> None:
        self._runs = list(dict.fromkeys(_RUN.findall(fold(typed))))[:_MOST]
        last = len(self._runs) - 1
        self._patterns = [re.compile(_pattern(run, is_prefix=i == last)) for i, run in enumerate(self._runs)]

    def __bool__(self) -> bool:
        """There is something to look for."""
        return bool(self._runs)

    @property
    def expression(self) -> str:
        """For FTS5: a superset of the texts in which `snippet` finds the words."""
        terms: list[str] = []
        for i, run in enumerate(self._runs):
            if _IS_HAN.match(run):
                terms += [f'"{run[k : k + 2]}"' for k in range(len(run) - 1)] or [f'"{run}"*']
            else:
                terms.append(f'"{run[:_LONGEST]}"' + "*" * (i == len(self._runs) - 1))
        return " AND ".join(terms[:_MOST])

    def snippet(self, text: str) -> Snippet | None:
        """The place where most of the words are; None if one of them does not occur."""
        folded = fold(text)
        found: list[tuple[int, int]] = []  # where, which
        for which, pattern in enumerate(self._patterns):
            places = [(match.start(), which) for match in islice(pattern.finditer(folded), _LOOKED_AT)]
            if not places:
                return None
            found += places
        reach = _SNIPPET - _BEFORE
        best = max(sorted(found), key=lambda place: len({which for at, which in found if 0 <= at - place[0] < reach}))[0]
        start = _word_end(folded, best - _BEFORE, best) if best > _BEFORE else 0
        end = min(len(folded), start + _SNIPPET)
        at = sorted(match.span() for pattern in self._patterns for match in pattern.finditer(folded, start, end))
        return _cut(text, _places(text, folded), start, end, at)


def _pattern(run: str, is_prefix: bool) -> str:
    if _IS_HAN.match(run):
        return run
    return f"(?<!{_LETTER}){run}" + (f"{_LETTER}*" if is_prefix else f"(?!{_LETTER})")


def _word_end(text: str, start: int, end: int) -> int:
    """Just after the first blank between `start` and `end`, else `start`."""
    blank = re.compile(r"\s").search(text, start, end)
    return blank.end() if blank else start


def _places(text: str, folded: str) -> list[int] | None:
    """Of each folded character in the text, and of its end; None: they are the same."""
    if len(text) == len(folded):
        return None
    places = [i for i, character in enumerate(text) for _ in fold(character)]
    return places[: len(folded)] + [len(text)] * (1 + max(0, len(folded) - len(places)))


def _cut(text: str, places: list[int] | None, start: int, end: int, at: list[tuple[int, int]]) -> Snippet:
    if places is not None:
        start, end, at = places[start], places[end], [(places[a], places[b]) for a, b in at]
    before, after = "…" * (start > 0), "…" * (end < len(text))
    shift = len(before) - start
    merged: list[tuple[int, int]] = []
    for a, b in at:
        if merged and a + shift <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], b + shift))
        else:
            merged.append((a + shift, b + shift))
    return Snippet(before + re.sub(r"\s", " ", text[start:end]) + after, tuple(merged))
