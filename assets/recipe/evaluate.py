"""Accuracy per family on held-out problems, through the program's own path: GGUF, llama.cpp, chat template.

    python evaluate.py ../r1-tiny [--problems 200] [--json FILE]

A reply is right if it has one bold part and that part is the result; for talk, if the answer is the expected one; for
prompts outside the families, if it is the honest answer. `unseen` are prompts written by hand, in no generator; `second` are problems of all
families, each asked behind another one and its answer.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import tempfile
from pathlib import Path

from data import FAMILIES, evaluation
from problem import Problem
from rewards import right
from talk import HONEST

from backends.base import Sampling
from backends.llamacpp import LlamaCppBackend
from localr1.chat import ChatSession
from localr1.prompt import Message
from localr1.turn import Rules, TurnEnd
from quantize.convert import convert

SETTINGS = {"temperature 0": Sampling(temperature=0), "temperature 0.6, top-p 0.95": Sampling(seed=1)}

UNSEEN = """Why is the sky blue?
Who painted the Mona Lisa?
can you recommend a good restaurant nearby
What is the tallest mountain on Earth?
write me a limerick about a lonely toaster
how do i boil an egg
What's the population of Brazil
explain recursion like I'm five
What is 144 divided by 12?
If all bloops are razzies and all razzies are lazzies, are all bloops lazzies?
translate 'where is the library' to spanish
How many people have walked on the moon?
my boss is mean to me, what should I do?
What is the chemical symbol for gold
Is it going to snow next week?
solve for x: 3x + 7 = 22
What is the square root of 169
what is 17 percent of 250?
Give me a workout plan for beginners
who won the world cup in 1998
What's the difference between a virus and a bacterium?
sort these numbers: 5, 3, 9, 1
How old is the universe?
Write a regex that matches an email address
what language do they speak in Belgium?
tell me something interesting
Is a tomato a fruit?
how many minutes are in a day
Which planet is closest to the sun?
My dog ate chocolate. Help!
What does HTTP stand for?
Write a SQL query that finds duplicate rows
how do airplanes fly?
Who was the first woman in space?
Which is heavier, a ton of feathers or a ton of bricks?
What is the next prime after 97?
Convert 100 fahrenheit to celsius
please proofread my cover letter
what's your favourite colour
are tigers bigger than lions
When did the second world war end?
How many sides does a dodecahedron have?
Name three rivers in Africa
is 51 a prime number?
what does carpe diem mean
Give me a password with 12 characters
What should I name my cat?
How do vaccines work?
What is 5 factorial?
Do aliens exist?
Find the derivative of sin(x)
play some music
How many bones are in the human body?
who wrote Pride and Prejudice?
What is the longest river in the world?
how many words are there in the english language
Which came first, the chicken or the egg?
lorem ipsum dolor sit amet
Compare cats and dogs
how do I center a div
Which of these animals can fly: bat, penguin, ostrich?
What is 2 to the power of 10?""".splitlines()


def reply(backend: LlamaCppBackend, sampling: Sampling, question: str, before: Problem | None = None) -> TurnEnd:
    session = ChatSession(backend, Rules(sampling))
    if before is not None:
        session.take_over([Message("user", before.question), Message("assistant", before.answer)])
    *_, end = session.send(question)
    assert isinstance(end, TurnEnd)
    return end


def pairs(seed: int, count: int) -> list[tuple[Problem, Problem]]:
    """Held-out problems of all families in turn, each with the one before it."""
    others = [evaluation(seed + 1, family) for family in FAMILIES]
    problems = [next(others[i % len(others)]) for i in range(2 * count)]
    random.Random(seed).shuffle(problems)
    return list(zip(problems[::2], problems[1::2], strict=True))


def evaluate(backend: LlamaCppBackend, count: int, seed: int = 0) -> dict[str, dict[str, float]]:
    """family -> setting -> share of right replies; also how often thoughts say "Wait"."""
    table: dict[str, dict[str, float]] = {}
    for family in FAMILIES:
        problems = list(itertools.islice(evaluation(seed, family), count))
        for setting, sampling in SETTINGS.items():
            turns = [(p, reply(backend, sampling, p.question)) for p in problems]
            for name in sorted({p.family for p in problems}):
                scores = [right(p, t.message.content) for p, t in turns if p.family == name]
                table.setdefault(name, {})[setting] = sum(scores) / len(scores)
            waits = sum("Wait" in (t.message.thought or "") for _, t in turns)
            table[f'{family}: thoughts with "Wait"'] = table.get(f'{family}: thoughts with "Wait"', {}) | {setting: waits / count}
    for setting, sampling in SETTINGS.items():
        honest = [reply(backend, sampling, q).message.content.strip() == HONEST for q in UNSEEN]
        table.setdefault("unseen", {})[setting] = sum(honest) / len(honest)
        second = [right(p, reply(backend, sampling, p.question, before).message.content) for before, p in pairs(seed, count)]
        table.setdefault("second", {})[setting] = sum(second) / len(second)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        gguf = Path(temporary) / "model.gguf"
        convert(args.folder, gguf, "Q8_0")
        with LlamaCppBackend(gguf) as backend:
            table = evaluate(backend, args.problems)
    for family, scores in table.items():
        print(f"{family:36}" + "".join(f"  {100 * s:5.1f}% at {setting}" for setting, s in scores.items()))
    if args.json:
        args.json.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
