"""What every task family shares: the Problem, how people word things, and the manner of a thought.

A family is a function `rng -> Problem`: a question in some wording, a worked thought in R1's manner, an answer with its
result in bold. A problem is held out of training when its key hashes into the held-out twentieth, so evaluation never
meets a training problem in any wording. (Small talk's key is its question as typed, which other case and politeness make
another one; so do swapped terms of a sum.)

Marks. Text between SLIP and END is a deliberate mistake that the next words mend; it is not trained on (loss weight 0),
so the model learns to notice a slip without learning to make one. Text between CHANCE and END could as well be another (a
first guess): no training lowers its loss, whose gradient would drown the rest's, so it counts for little.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass

SLIP, CHANCE, END = "\x01", "\x02", "\x03"
WEIGHTS = {SLIP: 0.0, CHANCE: 0.05, END: 1.0}  # of what comes after the mark


@dataclass(frozen=True, slots=True)
class Problem:
    """One question with its worked solution; `result` is what the answer puts in bold ('' for talk)."""

    family: str
    key: str
    question: str
    thought: str
    answer: str
    result: str

    @property
    def held_out(self) -> bool:
        return zlib.crc32(f"{self.family}:{self.key}".encode()) % 20 == 0


_OPENERS = ["", "", "", "", "", "", "", "", "please ", "hey, ", "hi! ", "ok, ", "quick question: ", "tell me, ", "so, "]
_CLOSERS = ["", "", "", "", "", "", "", "", "", " please", ", please", " thanks", " exactly", " step by step"]


def phrase(rng: random.Random, wordings: list[str], **slots: str) -> str:
    """Fill one of `wordings`, then vary case, punctuation and politeness the way people type."""
    wording = rng.choice(wordings)
    text = wording.format(**slots)
    asks = text.endswith("?")
    text = text.rstrip("?")
    opener, closer = rng.choice(_OPENERS), rng.choice(_CLOSERS)
    if wording.rstrip("?").endswith("{ws}"):  # at the end of a list, "please" would be one of its words
        closer = ""
    if opener:
        text = opener + (text if text[:1] == "I" or text[:1].isdigit() else text[:1].lower() + text[1:])
    text += closer
    end = rng.random()
    if asks:
        text += "?" if end < 0.6 else "" if end < 0.9 else "??" if end < 0.93 else " ?"
    else:
        text += "" if end < 0.5 else "." if end < 0.8 else "?" if end < 0.9 else "!"
    case = rng.random()
    if case < 0.45:
        return text[:1].upper() + text[1:]
    if case < 0.62:
        return text
    if case < 0.85:
        return text.lower()
    return text.upper()


def by_chance(text: str) -> str:
    return f"{CHANCE}{text}{END}"


def opening(rng: random.Random, task: str, guess: str | None = None) -> tuple[str, str]:
    """First line of a thought that does `task` ("I ..."), and the guess in it, if any."""
    text = rng.choice(["Okay, ", "Alright, ", "Let me see. ", "Hmm, ", "So, ", ""]) + task  # whole: which family it is shows here first
    if guess is None:
        return f"{text}\n", ""
    if rng.random() > 0.25:
        return text + by_chance("\n"), ""
    return text + by_chance(f" My first guess is {guess}, but let me work it out.\n"), guess


def verdict(guess: str, result: str) -> str:
    if not guess:
        return ""
    if guess == result:
        return f"\nThat matches my first guess, {guess}."
    return f"\nWait, my first guess was {guess}. The steps say {result}, so I was wrong at first."


def slip(rng: random.Random, right: str, wrong: str, rate: float = 0.02) -> str:
    """`right`, or now and then a masked wrong value and its correction."""
    if rng.random() > rate or wrong == right:
        return right
    return f"{SLIP}{wrong}{END}. Wait, that is not right: it is {right}"
