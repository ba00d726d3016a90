"""Traces to export: ordinary, long, unusual and hostile; and what tests of more than one form ask of an export."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import cycle, islice
from xml.etree import ElementTree

from backends.base import Sampling, Token
from localr1.trace.record import Ended, Made, Trace
from localr1.turn import Written
from tests.trace.paragraphs import HELD_OUT, WRITTEN, labelled

THOUGHT = (
    "Okay, so I need to find 6 * 7.\n\nFirst, I will add six sevens.\n\n7 + 7 + 7 = 21, twice that is 43.\n\n"
    "Wait, twice 21 is 42.\n\nLet me check: 42 / 7 = 6.\n\nSo the answer is 42.\n"
)
KINDS = ["restate", "plan", "work", "backtrack", "check", "conclude"]
HOSTILE = (
    "</script><script>alert(1)</script> <img src=x onerror=alert(1)> ]]> --> <!-- \" ' & &lt; &#x202e; \x1b[31m\x00\r \u202e\u2066 \u061c\ud800 \ufffe"
    "\n\n```\n</details>\n````\n\n# x\n![a](http://x.y/z.png) [b](javascript:alert(1)) <http://q.r> ~~~\n| a | b |\n|---|---|\n\n\n    code\n\n***\n===\n[r]: http://s.t\n"
    "</textarea></title></style></pre></svg> $x$ \\(y\\) {{z}} 中文 🙂\n1. one\n- two"
)


def words(text: str) -> list[str]:
    return re.findall(r" ?\w{1,6}|\s+|[^\w\s]", text)


def written(text: str, part: str = "thought", p: float = 0.95, at_s: float = 0.0, given: bool = False) -> Written:
    others = ((7, " <other>", math.log(max(1e-9, 1 - p))),) if p < 0.9 else ()
    token = Token(len(text), text, math.nan if given else math.log(p), others)
    return Written(token, part, text if part == "thought" else "", text if part == "answer" else "", given, at_s)  # type: ignore[arg-type]


def trace(
    thought: Iterable[str] = words(THOUGHT),
    answer: str = "It is **42**.",
    sure: Iterable[float] = (0.95,),
    question: str = "What is 6 * 7?",
) -> Trace:
    tokens = [written(text, p=p) for text, p in zip(thought, cycle(sure), strict=False)]
    tokens.append(Written(Token(2, "</think>", -0.01), "thought", "", "", False, 0.0))
    tokens += [written(text, "answer") for text in words(answer)]
    tokens = [replace(w, at_s=round(0.1 + 0.02 * i, 4)) for i, w in enumerate(tokens)]
    made = Made("R1-Distill", "llama.cpp", "Qwen2.5-7B", "Q4_K_M", Sampling(seed=3), 500)
    ended = Ended("stop", "model", 30, 0, len(tokens), 0.3, 2.0)
    joined = "".join(w.thought for w in tokens)
    return Trace(question, joined, answer, made, ended, "2026-11-22T05:40:00Z", True, tuple(tokens))


def long_trace(count: int = 32_000) -> Trace:
    text = "\n\n".join(labelled(marked)[0] for marked in (WRITTEN | HELD_OUT).values())
    rng = random.Random(1)
    return trace(islice(cycle(words(text)), count), sure=[max(1e-4, rng.betavariate(3, 0.35)) for _ in range(997)])


def imported(thought: str = THOUGHT, answer: str = "42") -> Trace:
    """Only its text is known."""
    return Trace("6 * 7?", thought, answer, Made("", ""), Ended("stop", "model"), "")


UNUSUAL = {
    "imported": imported(),
    "nothing yet": Trace("6 * 7?", "", "", Made("", ""), Ended(), ""),
    "no thought": replace(trace([]), ended=Ended("stop", "bypassed")),
    "blank thought": trace(["\n", "\n"]),
    "in mid-thought": replace(trace(answer=""), ended=Ended("context", "unclosed")),
    "hostile": trace([HOSTILE[i : i + 3] for i in range(0, len(HOSTILE), 3)], HOSTILE, (0.05, 0.99, 0.6), HOSTILE),
    "hostile, imported": imported(HOSTILE, HOSTILE),
    "hostile names": replace(trace(), made=Made(HOSTILE, HOSTILE, HOSTILE, HOSTILE), ended=Ended(HOSTILE, HOSTILE), started_at=HOSTILE),  # type: ignore[arg-type]
}


def harmless(text: str) -> bool:
    return not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff\ufffe]", text)


def every(within: ElementTree.Element, tag: str) -> list[ElementTree.Element]:
    return within.findall(f".//{{*}}{tag}")
