"""The tokens of a reply <-> chunks: columns of numbers, compressed.

A chunk is two blobs. `text` has what the thought and the answer are made of: places in the reply's vocabulary, the (id, text) pairs
in the order in which they first appear, those that are new in the chunk beside it. So a text is kept once, by its tokens, and is
read without the numbers. `numbers` has log-probabilities, times and alternatives.

    text      zlib: a JSON line {ids, texts: the new pairs; odd: [thought, answer] where a token's text is not simply that of its part},
              int32 places, uint8 flags
    numbers   zlib: int32 log-probabilities, milliseconds since the token before, counts of alternatives; int32 places of these,
              int32 log-probabilities of these

int32 columns are kept as four planes of bytes, the low ones first: the high ones are nearly all zero.
"""

from __future__ import annotations

import json
import math
import re
import sys
import zlib
from array import array
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import accumulate, pairwise

from backends.base import Token
from localr1.turn import Written

_ANSWER, _GIVEN, _SILENT, _ODD = 1, 2, 4, 8  # flags; silent: a tag, or held back; neither: the text is that of its part
_RUN = re.compile(rb"(.)\1*", re.DOTALL)
_LONGEST_MS = 2**30
_NAN, _NEVER = -1, -2  # levels of no logprob, and of minus infinity


class Vocabulary:
    """The different tokens of one reply."""

    def __init__(self) -> None:
        self.pairs: list[tuple[int, str]] = []
        self._places: dict[tuple[int, str], int] = {}

    def __len__(self) -> int:
        return len(self.pairs)

    def place(self, token: int, text: str) -> int:
        pair = (token, text)
        found = self._places.get(pair)
        if found is None:
            found = self._places[pair] = len(self.pairs)
            self.pairs.append(pair)
        return found

    def forget(self, size: int) -> None:
        """All but the first `size`."""
        for pair in self.pairs[size:]:
            del self._places[pair]
        del self.pairs[size:]


# ------------------------------------------------------------------------------------------------------------- text


def pack_text(text: str) -> bytes:
    """Any text, lone surrogates too."""
    return zlib.compress(text.encode("utf-8", "surrogatepass"))


def unpack_text(blob: bytes) -> str:
    return zlib.decompress(blob).decode("utf-8", "surrogatepass")


def first_line(blob: bytes, longest: int = 200) -> str:
    """Of a packed text, without unpacking all of it: the first line that has something, cut to `longest` characters."""
    text = zlib.decompressobj().decompress(blob, 16 * longest).decode("utf-8", "replace")
    return text.strip().partition("\n")[0].strip()[:longest]


def pack_reply(thought: str, answer: str) -> bytes:
    """A reply of which only the text is known."""
    return pack_text(_json([thought, answer]))


def unpack_reply(blob: bytes) -> tuple[str, str]:
    thought, answer = json.loads(unpack_text(blob))
    return thought, answer


# ------------------------------------------------------------------------------------------------------------- tokens


def pack(tokens: Sequence[Written], vocabulary: Vocabulary) -> tuple[bytes, bytes]:
    """The chunk (text, numbers); the vocabulary takes up what is new."""
    known = len(vocabulary)
    places = [vocabulary.place(w.token.id, w.token.text) for w in tokens]
    others = [other for w in tokens for other in w.token.alternatives]
    other_places = [vocabulary.place(token, text) for token, text, _ in others]
    flags = bytes(map(_flags, tokens))
    odd = [(w.thought, w.answer) for w, flag in zip(tokens, flags, strict=True) if flag & _ODD]
    new = vocabulary.pairs[known:]
    head = _json({"ids": [i for i, _ in new], "texts": [text for _, text in new], "odd": odd}) + "\n"
    times = [_milliseconds(w.at_s) for w in tokens]
    columns = (
        [_level(w.token.logprob) for w in tokens],
        [now - before for before, now in pairwise([0, *times])],
        [len(w.token.alternatives) for w in tokens],
        other_places,
        [_level(logprob) for _, _, logprob in others],
    )
    text = zlib.compress(head.encode("utf-8", "surrogatepass") + _planes(places) + flags, 9)
    return text, zlib.compress(b"".join(map(_planes, columns)), 9)


def unpack(chunks: Iterable[tuple[bytes, bytes]]) -> list[Written]:
    """The tokens of all chunks of a reply, in their order."""
    ids: list[int] = []
    texts: list[str] = []
    tokens: list[Written] = []
    for text, numbers in chunks:
        new_ids, new_texts, odd, places, flags = _text_columns(text)
        ids += new_ids
        texts += new_texts
        n, data = len(flags), zlib.decompress(numbers)
        levels, times, counts = (_values(data[4 * n * k : 4 * n * (k + 1)]) for k in range(3))
        middle = (12 * n + len(data)) // 2
        other_places, other_levels = _values(data[12 * n : middle]), map(_logprob, _values(data[middle:]))
        others = [(ids[p], texts[p], logprob) for p, logprob in zip(other_places, other_levels, strict=True)]
        ends, odds = accumulate(counts), iter(odd)
        for place, flag, level, at_ms, count, end in zip(places, flags, levels, accumulate(times), counts, ends, strict=True):
            word = texts[place]
            if flag & _ODD:
                thought, answer = next(odds)
            elif flag & _SILENT:
                thought = answer = ""
            else:
                thought, answer = ("", word) if flag & _ANSWER else (word, "")
            token = Token(ids[place], word, _logprob(level), tuple(others[end - count : end]) if count else ())
            tokens.append(Written(token, "answer" if flag & _ANSWER else "thought", thought, answer, bool(flag & _GIVEN), at_ms / 1000))
    return tokens


def unpack_texts(chunks: Iterable[bytes]) -> tuple[str, str]:
    """Thought and answer, from the text blobs of all chunks of a reply."""
    texts: list[str] = []
    thought: list[str] = []
    answer: list[str] = []
    for chunk in chunks:
        _, new_texts, odd, places, flags = _text_columns(chunk)
        texts += new_texts
        odds = iter(odd)
        for run in _RUN.finditer(flags):
            flag = run[1][0]
            if flag & _ODD:
                for _ in run[0]:
                    of_thought, of_answer = next(odds)
                    thought.append(of_thought)
                    answer.append(of_answer)
            elif not flag & _SILENT:
                (answer if flag & _ANSWER else thought).extend(map(texts.__getitem__, places[run.start() : run.end()]))
    return "".join(thought), "".join(answer)


def _text_columns(chunk: bytes) -> tuple[list[int], list[str], list[tuple[str, str]], array[int], bytes]:
    """New ids, new texts, odd ones; places and flags of each token."""
    head, _, columns = zlib.decompress(chunk).partition(b"\n")
    found = json.loads(head.decode("utf-8", "surrogatepass"))
    n = len(columns) // 5
    return found["ids"], found["texts"], found["odd"], _values(columns[: 4 * n]), columns[4 * n :]


def _flags(w: Written) -> int:
    own, other = (w.answer, w.thought) if w.part == "answer" else (w.thought, w.answer)
    how = _ODD if other else 0 if own == w.token.text else _ODD if own else _SILENT
    return how | (_ANSWER if w.part == "answer" else 0) | (_GIVEN if w.given else 0)


def _json(value: object) -> str:
    """On one line. Surrogates stay as they are: escaped, two of them would be read back as one character."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# ------------------------------------------------------------------------------------------------------------- numbers


def _level(logprob: float) -> int:
    """Logarithmic steps: a logprob comes back within 1/255 of (itself + 1/64 nat)."""
    if math.isnan(logprob):
        return _NAN
    if logprob == -math.inf:
        return _NEVER
    return round(128 * math.log1p(64 * max(0.0, min(1e30, -logprob))))


@cache
def _logprob(level: int) -> float:
    if level < 0:
        return math.nan if level == _NAN else -math.inf
    return 0.0 - math.expm1(level / 128) / 64


def _milliseconds(seconds: float) -> int:
    return max(-_LONGEST_MS, min(_LONGEST_MS, round(1000 * seconds))) if math.isfinite(seconds) else 0


def _planes(values: Sequence[int]) -> bytes:
    data = array("i", values)
    if sys.byteorder == "big":
        data.byteswap()
    raw = data.tobytes()
    return b"".join(raw[k::4] for k in range(4))


def _values(planes: bytes) -> array[int]:
    raw, n = bytearray(len(planes)), len(planes) // 4
    for k in range(4):
        raw[k::4] = planes[k * n : (k + 1) * n]
    values = array("i")
    values.frombytes(raw)
    if sys.byteorder == "big":
        values.byteswap()
    return values
