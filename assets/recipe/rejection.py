"""Stage 3, rejection sampling: the teacher's own replies in training conversations, of which only right and well-formed ones are kept.

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
from data import EARLIER, conversation, encode, prompt
from problem import Problem
from rewards import right, well_formed
from sampling import sample, split_reply
from teacher import Teacher, TeacherConfig
from trainer import load


def conversations(seed: int, batch: int, count: int, earlier: float = EARLIER) -> list[tuple[list[tuple[str, str]], Problem]]:
    """A batch's, as training has them: each a problem, none held out, and the turns before it."""
    rng = random.Random(f"{seed}:{batch}:rejection")
    return sorted((conversation(rng, earlier) for _ in range(count)), key=lambda c: len(c[1].thought))


def kept(
    teacher: Teacher, asked: list[tuple[list[tuple[str, str]], Problem]], temperature: float, generator: torch.Generator
) -> Iterator[dict]:
    prompts = [encode(prompt(turns, problem.question)) for turns, problem in asked]
    replies = sample(teacher, prompts, temperature=temperature, top_p=0.95, generator=generator)
    for (_, problem), ids, reply in zip(asked, prompts, replies, strict=True):
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
    parser.add_argument("--earlier", type=float, default=EARLIER, help="how many of the conversations have turns before the last")
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
            asked = conversations(args.seed, batch, args.batch, args.earlier)
            traces = list(kept(teacher, asked, args.temperature, generator))
            file.writelines(json.dumps(trace) + "\n" for trace in traces)
            file.flush()
            done.write_text(f"{batch + 1} {file.tell()}")
            print(json.dumps(dict(problems=(batch + 1) * args.batch, kept=len(traces) / args.batch)), flush=True)


if __name__ == "__main__":
    main()
