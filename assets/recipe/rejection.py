"""Stage 3, rejection sampling: the teacher's own replies to training problems, of which only right and well-formed ones are kept.

    python rejection.py TEACHER.pt TRACES.jsonl [--problems N]     # run again to resume

One line a kept reply: its family, the prompt's token ids and the reply's.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path

import torch
from data import SHARES, draw, encode, prompt
from problem import Problem
from rewards import right, well_formed
from sampling import sample, split_reply
from teacher import Teacher, TeacherConfig
from trainer import load


def problems(seed: int, batch: int, count: int) -> list[Problem]:
    """A batch's problems, none held out, families by their shares in training."""
    rng = random.Random(f"{seed}:{batch}:rejection")
    families = rng.choices(list(SHARES), list(SHARES.values()), k=count)
    return sorted((draw(rng, family) for family in families), key=lambda p: len(p.thought))


def kept(teacher: Teacher, asked: list[Problem], temperature: float, generator: torch.Generator) -> Iterator[dict]:
    prompts = [encode(prompt([], p.question)) for p in asked]
    replies = sample(teacher, prompts, temperature=temperature, top_p=0.95, generator=generator)
    for problem, ids, reply in zip(asked, prompts, replies, strict=True):
        thought, answer = split_reply(reply)
        if right(problem, answer) and well_formed(problem, thought, answer):
            yield dict(family=problem.family, prompt=ids, reply=reply)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("traces", type=Path)
    parser.add_argument("--problems", type=int, default=40000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    teacher = Teacher(TeacherConfig()).to(args.device)
    load(args.teacher, teacher)
    done = args.traces.with_suffix(".done")  # batches finished, and the size of the file then
    first, size = map(int, done.read_text().split()) if done.exists() else (0, 0)
    args.traces.parent.mkdir(parents=True, exist_ok=True)
    with args.traces.open("a") as file:
        file.truncate(size)
        for batch in itertools.count(first):
            if batch * args.batch >= args.problems:
                break
            generator = torch.Generator(args.device).manual_seed(args.seed * 1_000_003 + batch)
            traces = list(kept(teacher, problems(args.seed, batch, args.batch), args.temperature, generator))
            file.writelines(json.dumps(trace) + "\n" for trace in traces)
            file.flush()
            done.write_text(f"{batch + 1} {file.tell()}")
            print(json.dumps(dict(problems=(batch + 1) * args.batch, kept=len(traces) / args.batch)), flush=True)


if __name__ == "__main__":
    main()
