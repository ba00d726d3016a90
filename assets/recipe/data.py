"""Problems -> conversations as tokens with loss weights, from a seed and a step number alone, so that training can resume anywhere."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator

from arithmetic import add, multiply, subtract
from compare import compare
from problem import CHANCE, END, SLIP, WEIGHTS, Problem
from spelling import filter_words, follow_up, letters
from talk import talk
from tokenizer import ASSISTANT, BOS, END_THINK, EOS, THINK, USER, tokenizer_json
from tokenizers import Tokenizer

FAMILIES: dict[str, Callable[[random.Random], Problem]] = {
    "letters": letters, "add": add, "subtract": subtract, "multiply": multiply,
    "compare": compare, "filter": filter_words, "talk": talk,
}  # fmt: skip
# By how hard a family is to learn, and how long its traces are: multiply's are the longest, and soon right.
SHARES = {"letters": 0.18, "add": 0.10, "subtract": 0.09, "multiply": 0.07, "compare": 0.16, "filter": 0.24, "talk": 0.16}
EARLIER = 0.2  # how many conversations have turns before the last

Document = tuple[list[int], list[float]]  # token ids, and the loss weight of each

_TOKENIZER = Tokenizer.from_str(json.dumps(tokenizer_json()))


def encode(text: str) -> list[int]:
    """Token ids; the texts of added tokens become control tokens (the recipe's own texts, never a person's)."""
    return _TOKENIZER.encode(text, add_special_tokens=False).ids


def decode(ids: list[int]) -> str:
    return _TOKENIZER.decode(ids, skip_special_tokens=False)


def draw(rng: random.Random, family: str, held_out: bool = False) -> Problem:
    """A problem of `family` from the wanted side of the split."""
    while True:
        problem = FAMILIES[family](rng)
        if problem.held_out == held_out:
            return problem


def prompt(turns: list[tuple[str, str]], question: str) -> str:
    """What the chat template renders: earlier (question, answer) turns without their thoughts, then the question."""
    history = "".join(f"{USER}{q}{ASSISTANT}{a}{EOS}" for q, a in turns)
    return f"{BOS}{history}{USER}{question}{ASSISTANT}{THINK}\n"


def conversation(rng: random.Random, earlier: float = EARLIER) -> tuple[list[tuple[str, str]], Problem]:
    """A problem of any family, none held out, and the (question, answer) turns before it; `earlier`: how often there are any."""
    families, shares = list(SHARES), list(SHARES.values())
    problem = draw(rng, rng.choices(families, shares)[0])
    turns: list[tuple[str, str]] = []
    if rng.random() < earlier:
        for _ in range(rng.choice([1, 1, 2])):
            before = draw(rng, rng.choices(families, shares)[0])
            turns.append((before.question, before.answer))
        if rng.random() < 0.15:
            before = draw(rng, "letters")
            turns[-1] = (before.question, before.answer)
            problem = follow_up(rng, before)
    return turns, problem


def document(rng: random.Random) -> Document:
    """One conversation as (ids, weights): 1 on the last turn's thought and answer, less on what is marked, 0 on the prompt."""
    return written(*conversation(rng))


def written(turns: list[tuple[str, str]], problem: Problem) -> Document:
    """The conversation that ends with this problem's worked trace."""
    ids = encode(prompt(turns, problem.question))
    weights = [0.0] * len(ids)
    reply = f"{problem.thought}\n{END_THINK}\n\n{problem.answer}{EOS}"
    weight = 1.0
    for piece in re.split(f"([{SLIP}{CHANCE}{END}])", reply):
        if piece in WEIGHTS:
            weight = WEIGHTS[piece]
        else:
            new = encode(piece)
            ids += new
            weights += [weight] * len(new)
    return ids, weights


def documents(seed: int, step: int, count: int) -> list[Document]:
    """One step's conversations, longest first."""
    rng = random.Random(f"{seed}:{step}")
    return sorted((document(rng) for _ in range(count)), key=lambda d: -len(d[0]))


def evaluation(seed: int, family: str) -> Iterator[Problem]:
    """Held-out problems of a family, without end."""
    rng = random.Random(f"{seed}:{family}:held-out")
    while True:
        yield draw(rng, family, held_out=True)
