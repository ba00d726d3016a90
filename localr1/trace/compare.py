"""Two replies to one question: where they part, which of their steps belong together, whether they answer the same.

The place where they part is looked for among token ids where both models have the same vocabulary, else among characters: the same
text cut into other tokens is no difference.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from backends.base import Token, common_prefix
from localr1.latex import render_text
from localr1.reasoning import Part
from localr1.trace.record import Stats, Trace, stats
from localr1.turn import Written

if TYPE_CHECKING:
    import numpy as np

VERSION = 1  # of the JSON object: a key that goes, or means something else, makes it 2
BEFORE = 80  # characters told of what both have written before they part
_ALIKE = 0.3  # share of their words, rare ones counting more, that makes two steps a pair
_KIND = 0.05  # what being of one kind adds to that: enough to pair steps that nothing else claims
_MOST_CELLS = 1_000_000  # pairs looked at together; of longer thoughts each half on its own


@dataclass(frozen=True, slots=True)
class Choice:
    """What one reply has where the two part: its token number `index`. `ended`: it is over there.

    `id` and `logprob` (nats; NaN) as far as they are known; `alternatives`: (id, text, logprob), as in Token.
    """

    index: int
    part: Part
    text: str
    id: int | None
    logprob: float
    alternatives: tuple[tuple[int, str, float], ...] = ()
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Divergence:
    """`at`: so many characters are the same, of which `before` are the last ones."""

    at: int
    before: str
    a: Choice
    b: Choice


@dataclass(frozen=True, slots=True)
class Pair:
    """A step of each thought, or one that has no counterpart. `similarity`: 1 for the same text, 0 without a counterpart."""

    a: int | None
    b: int | None
    similarity: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """`divergence` None: nothing differs. `pairs`: all steps, in the order of both thoughts. `same_answer` None: one has no answer."""

    a: Stats
    b: Stats
    same_question: bool
    same_vocabulary: bool
    divergence: Divergence | None
    pairs: tuple[Pair, ...]
    same_answer: bool | None


def compare(a: Trace, b: Trace) -> Comparison:
    same = same_vocabulary(a, b)
    return Comparison(
        stats(a), stats(b), a.question.strip() == b.question.strip(), same, _divergence(a, b, same), align(a, b), _same_answer(a, b)
    )


# --------------------------------------------------------------------------------------------------- where they part


def _divergence(a: Trace, b: Trace, same_vocabulary: bool) -> Divergence | None:
    visible = not a.tokens or not b.tokens or a.opens_thought != b.opens_thought
    x, y = _tokens(a, visible), _tokens(b, visible)
    ends_x, ends_y = ([*accumulate(len(w.token.text) for w in tokens)] for tokens in (x, y))
    text_x, text_y = ("".join(w.token.text for w in tokens) for tokens in (x, y))
    if same_vocabulary and not visible:
        i = j = common_prefix([w.token.id for w in x], [w.token.id for w in y])
        at = ends_x[i - 1] if i else 0
    else:
        at = next((k for k, (p, q) in enumerate(zip(text_x, text_y, strict=False)) if p != q), min(len(text_x), len(text_y)))
        i, j = bisect_right(ends_x, at), bisect_right(ends_y, at)
    if i == len(x) and j == len(y):
        return None
    return Divergence(at, text_x[max(0, at - BEFORE) : at], _choice(x, i), _choice(y, j))


def _tokens(trace: Trace, visible: bool) -> Sequence[Written]:
    """`visible`: with the text of thought and answer in place of that of the tokens; words, where there are no tokens."""
    if not visible:
        return trace.tokens
    if trace.tokens:
        return [replace(w, token=replace(w.token, text=w.thought + w.answer)) for w in trace.tokens]
    parts: tuple[tuple[Part, str], ...] = (("thought", trace.thought), ("answer", trace.answer))
    return [
        Written(Token(-1, word, math.nan), part, "", "", True, 0.0) for part, text in parts for word in re.findall(r"\s*\S+|\s+\Z", text)
    ]


def _choice(tokens: Sequence[Written], index: int) -> Choice:
    if index == len(tokens):
        return Choice(index, tokens[-1].part if tokens else "thought", "", None, math.nan, ended=True)
    w = tokens[index]
    return Choice(index, w.part, w.token.text, w.token.id if w.token.id >= 0 else None, w.token.logprob, w.token.alternatives)


def same_vocabulary(a: Trace, b: Trace) -> bool:
    """As far as the tokens that both name tell: each id stands for one text in both, and each text has one id."""
    x, y = _vocabulary(a), _vocabulary(b)
    shared = x.keys() & y.keys()
    ids_x, ids_y = ({text: id for id, text in names.items()} for names in (x, y))
    return bool(shared) and all(x[i] == y[i] for i in shared) and all(ids_x[t] == ids_y[t] for t in ids_x.keys() & ids_y.keys())


def _vocabulary(trace: Trace) -> dict[int, str]:
    """Of the tokens whose text is known: parts of a character are told with the token that completes it."""
    names: dict[int, set[str]] = {}
    for w in trace.tokens:
        if not w.given:
            names.setdefault(w.token.id, set()).add(w.token.text)
        for id, text, _ in w.token.alternatives:
            names.setdefault(id, set()).add(text)
    return {id: text for id, texts in names.items() if len(texts) == 1 for text in texts if text and "\ufffd" not in text}


# ------------------------------------------------------------------------------------------------------------- steps


def align(a: Trace, b: Trace) -> tuple[Pair, ...]:
    """Pairs of steps, in the order of both thoughts, that are alike in their words or at least of one kind: those with the largest
    similarity in sum. What begins or ends both in the same words belongs together."""
    x = [(step.kind, a.step_text(step).strip()) for step in a.steps]
    y = [(step.kind, b.step_text(step).strip()) for step in b.steps]
    n, m = len(x), len(y)
    begins = _same(x, y)
    ends = _same(x[begins:][::-1], y[begins:][::-1])
    middle = _aligned(x[begins : n - ends], y[begins : m - ends], begins, begins)
    first = [Pair(i, i, 1.0) for i in range(begins)]
    return (*first, *middle, *(Pair(n - k, m - k, 1.0) for k in range(ends, 0, -1)))


_Named = tuple[str, str]  # kind and text of a step


def _same(x: Sequence[_Named], y: Sequence[_Named]) -> int:
    return next((i for i, (p, q) in enumerate(zip(x, y, strict=False)) if p != q), min(len(x), len(y)))


def _aligned(x: Sequence[_Named], y: Sequence[_Named], i0: int, j0: int) -> list[Pair]:
    """`i0`, `j0`: numbers of the first ones."""
    n, m = len(x), len(y)
    if not n or not m:
        return [*(Pair(i0 + i, None, 0.0) for i in range(n)), *(Pair(None, j0 + j, 0.0) for j in range(m))]
    if n * m > _MOST_CELLS and n > 1 and m > 1:
        return _aligned(x[: n // 2], y[: m // 2], i0, j0) + _aligned(x[n // 2 :], y[m // 2 :], i0 + n // 2, j0 + m // 2)
    import numpy as np

    alike = _likeness(x, y)
    kinds = np.array([kind for kind, _ in x])[:, None] == np.array([kind for kind, _ in y])
    score = np.where(alike >= _ALIKE, alike, 0) + _KIND * kinds
    best = np.zeros((n + 1, m + 1))  # of the first i and the first j
    for i in range(n):
        best[i + 1, 1:] = np.maximum.accumulate(np.maximum(best[i, 1:], best[i, :-1] + score[i]))
    pairs: list[Pair] = []
    i, j = n, m
    while i or j:
        if i and j and score[i - 1, j - 1] > 0 and best[i, j] == best[i - 1, j - 1] + score[i - 1, j - 1]:
            i, j = i - 1, j - 1
            similarity = 1.0 if x[i][1] == y[j][1] else min(0.99, round(float(alike[i, j]), 2))
            pairs.append(Pair(i0 + i, j0 + j, similarity))
        elif j and best[i, j] == best[i, j - 1]:
            j -= 1
            pairs.append(Pair(None, j0 + j, 0.0))
        else:
            i -= 1
            pairs.append(Pair(i0 + i, None, 0.0))
    return pairs[::-1]


_HAN = "\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_HAN}]|[^\W{_HAN}]+|[^\w\s]")


def _likeness(x: Sequence[_Named], y: Sequence[_Named]) -> np.ndarray:
    """[n, m]: Dice's share of the words that two steps have in common, each word by how few steps have it."""
    import numpy as np

    words = [set(_WORD.findall(text.lower())) for _, text in (*x, *y)]
    places = {word: i for i, word in enumerate(dict.fromkeys(word for found in words for word in sorted(found)))}
    has = np.zeros((len(words), max(1, len(places))), np.float32)
    for row, found in zip(has, words, strict=True):
        row[[places[word] for word in found]] = 1
    weighted = has * np.log1p(len(words) / np.maximum(1, has.sum(0)))
    sizes = weighted.sum(1)
    both = weighted[: len(x)] @ has[len(x) :].T
    alike: np.ndarray = 2 * both / np.maximum(1e-9, sizes[: len(x), None] + sizes[None, len(x) :])
    return alike


# ----------------------------------------------------------------------------------------------------------- answers

_BOLD = re.compile(r"\*\*([^*\n]+)\*\*([^\n]*)")
_LABEL = re.compile(r".*(answer|result|solution|答案|结果)\W*", re.IGNORECASE)


def _same_answer(a: Trace, b: Trace) -> bool | None:
    """Of what is boxed or bold, the last; else of the whole text. Case, white space, a full stop and how a formula is written do not count."""
    if not a.answer.strip() or not b.answer.strip():
        return None
    for marks in (_boxed, _bold):
        marked = [marks(trace.answer) for trace in (a, b)]
        if all(marked):
            return _plain(marked[0][-1]) == _plain(marked[1][-1])
    return _plain(a.answer) == _plain(b.answer)


def _boxed(text: str) -> list[str]:
    from localr1.latex.delimiters import formula_at

    places = [match.start() for match in re.finditer(r"\\boxed\{", text)]
    return [found.formula for found in (formula_at(text, at) for at in places) if found is not None]


def _bold(text: str) -> list[str]:
    """Results; of "**Answer:** 72" what stands behind. Other labels and headings are none."""
    found = []
    for bold in _BOLD.finditer(text):
        inside, behind = bold[1].strip(), bold[2].strip()
        if inside[-1:] in (":", "：") or behind[:1] in (":", "："):
            found += [behind.lstrip(":： ")] if _LABEL.fullmatch(inside) and behind.strip(":： ") else []
        elif behind or text[: bold.start()].rpartition("\n")[2].strip(" #>-") or not text[bold.end() :].strip():  # no heading
            found.append(inside)
    return found


def _plain(text: str) -> str:
    return " ".join(render_text(text).casefold().split()).strip(".*$ ")


# ------------------------------------------------------------------------------------------------------------- JSON


def to_json(a: Trace, b: Trace, found: Comparison) -> dict[str, Any]:
    """Keys: version; same_question, same_vocabulary, same_answer (null: one has none); divergence: null, or {at (characters that are the
    same), before (the last of them), a, b: {index (of the token), part, text, id, probability, alternatives: [{id, text, probability}],
    ended}}; steps: [{a, b (numbers of steps, or null), similarity}]; a, b: {question, thought, answer, started_at, made, ended (as in
    the JSON of a trace), stats, steps: [{kind, start, end (characters of the thought), tokens}]}. Probabilities: null if not known."""
    d = found.divergence
    return {
        "version": VERSION,
        "same_question": found.same_question,
        "same_vocabulary": found.same_vocabulary,
        "same_answer": found.same_answer,
        "divergence": d and {"at": d.at, "before": d.before, "a": _choice_json(d.a), "b": _choice_json(d.b)},
        "steps": [asdict(pair) for pair in found.pairs],
        "a": _trace_json(a, found.a),
        "b": _trace_json(b, found.b),
    }


def probability(logprob: float) -> float | None:
    return None if math.isnan(logprob) else math.exp(min(0.0, logprob))


def _choice_json(choice: Choice) -> dict[str, Any]:
    return {
        "index": choice.index, "part": choice.part, "text": choice.text, "id": choice.id, "probability": probability(choice.logprob),
        "alternatives": [{"id": id, "text": text, "probability": probability(p)} for id, text, p in choice.alternatives],
        "ended": choice.ended,
    }  # fmt: skip


def _trace_json(trace: Trace, stats: Stats) -> dict[str, Any]:
    return {
        "question": trace.question, "thought": trace.thought, "answer": trace.answer, "started_at": trace.started_at,
        "made": asdict(trace.made), "ended": asdict(trace.ended), "stats": asdict(stats),
        "steps": [{"kind": s.kind, "start": s.start, "end": s.end, "tokens": s.tokens} for s in trace.steps],
    }  # fmt: skip
