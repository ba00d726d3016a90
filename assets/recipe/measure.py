"""Accuracy per family on held-out problems while training, by torch (`evaluate.py` measures what the program runs).

python measure.py teacher TRAIN.pt [--problems 100] [--temperature 0]
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import torch
from data import FAMILIES, encode, evaluation, prompt
from rewards import BACKTRACKS, right
from sampling import sample, split_reply
from student import Student, StudentConfig
from teacher import Teacher, TeacherConfig
from torch import nn


def measure(model: nn.Module, problems: int, temperature: float, seed: int = 0) -> dict[str, float]:
    """family -> share of right replies; "backtracks" is the share of all thoughts that say "wait", "tokens" a reply's mean length."""
    asked = [p for family in FAMILIES for p in itertools.islice(evaluation(seed, family), problems)]
    asked.sort(key=lambda p: (p.family, len(p.thought)))  # rows of a batch end at about the same time
    generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
    scores: dict[str, list[bool]] = {}
    waits, tokens = 0, 0
    for i in range(0, len(asked), 100):
        part = asked[i : i + 100]
        top_p = 1.0 if temperature == 0 else 0.95
        replies = sample(model, [encode(prompt([], p.question)) for p in part], temperature=temperature, top_p=top_p, generator=generator)
        for problem, ids in zip(part, replies, strict=True):
            thought, answer = split_reply(ids)
            scores.setdefault(problem.family, []).append(right(problem, answer))
            waits += bool(BACKTRACKS.search(thought))
            tokens += len(ids)
    table = {family: sum(s) / len(s) for family, s in scores.items()}
    return table | {"backtracks": waits / len(asked), "tokens": tokens / len(asked)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["student", "teacher"])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--temperature", type=float, default=0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    model = Teacher(TeacherConfig()) if args.model == "teacher" else Student(StudentConfig())
    model.load_state_dict(torch.load(args.checkpoint, map_location="cpu", weights_only=True)["model"])
    print(json.dumps({k: round(v, 4) for k, v in measure(model, args.problems, args.temperature, args.seed).items()}))
