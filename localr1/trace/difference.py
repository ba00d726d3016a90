"""Where two replies part, in words: for the terminal and for the screen."""

from __future__ import annotations

import json
import math

from localr1.trace.compare import BEFORE, Choice, Divergence, probability
from localr1.trace.words import shown


def difference(divergence: Divergence | None) -> tuple[str, list[tuple[str, str, str]]]:
    """Where two replies part, in words; and what was likely there: text, and its share in A and in B (* what was chosen)."""
    if divergence is None:
        return "no difference: the replies are the same, token by token", []
    d = divergence
    place = f"token {d.a.index + 1:,}" + ("" if d.a.index == d.b.index else f" of A, {d.b.index + 1:,} of B")
    where = f"in the {d.a.part}" if d.a.part == d.b.part else f"in the {d.a.part} of A, the {d.b.part} of B"
    rows = [(_quoted(text), _share(d.a, text), _share(d.b, text)) for text in _candidates(d)]
    if d.a.ended or d.b.ended:
        rows.append(("(the end)", "*" * d.a.ended, "*" * d.b.ended))
    return f"first difference: {place}, {where}" + (f", after {_quoted(d.before, cut=d.at > BEFORE)}" if d.before else ""), rows


def _candidates(d: Divergence) -> list[str]:
    """What was chosen or likely on either side, the likeliest on the average first."""
    summed: dict[str, float] = {}
    for choice in (d.a, d.b):
        for text, logprob in _options(choice):
            summed[text] = summed.get(text, 0.0) + (probability(logprob) or 0.0)
    return sorted(summed, key=lambda text: -summed[text])


def _options(choice: Choice) -> list[tuple[str, float]]:
    """(text, logprob): what was chosen, and what else was likely."""
    return [] if choice.ended else [(choice.text, choice.logprob), *((text, p) for _, text, p in choice.alternatives)]


def _share(choice: Choice, text: str) -> str:
    known = next((p for other, p in _options(choice) if other == text), math.nan)
    share = probability(known)
    value = "-" if share is None else f"{share:.1%}"
    return f"* {value}" if not choice.ended and text == choice.text else value


def _quoted(text: str, cut: bool = False) -> str:
    return '"' + "…" * cut + shown(json.dumps(text, ensure_ascii=False)[1:-1]) + '"'
