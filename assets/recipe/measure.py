"""Accuracy per family on held-out problems while training, by torch (`evaluate.py` measures what the program runs).

python measure.py teacher TRAIN.pt [--problems 100] [--temperature 0]
python measure.py teacher TRAIN.pt --problems 200 --hardest 150 --for COLD.pt     # of these, what COLD.pt is least sure of: to see what a stage does
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

import torch
from cold_start import cross_entropy, packed
from data import FAMILIES, Document, encode, evaluation, prompt, written
from grpo import largest_surprises
from problem import Problem
from rewards import BACKTRACKS, right
from sampling import sample, split_reply
from student import Student, StudentConfig
from teacher import Teacher, TeacherConfig
from torch import nn
from trainer import load as load_weights


def held_out(problems: int, seed: int = 0) -> list[Problem]:
    """So many of each family."""
    return [p for family in FAMILIES for p in itertools.islice(evaluation(seed, family), problems)]


def hardest(policy: Teacher, problems: int, count: int, seed: int = 0) -> list[Problem]:
    """Of so many of each family with a result, those that `policy` is least sure of."""
    asked = [p for p in held_out(problems, seed) if p.result]
    surprises = [s for i in range(0, len(asked), 64) for s in largest_surprises(policy, asked[i : i + 64], "cpu")]
    return [asked[i] for i in sorted(range(len(asked)), key=lambda i: -surprises[i])[:count]]


def measure(model: nn.Module, asked: list[Problem], temperature: float, seed: int = 0) -> dict[str, float]:
    """family -> share of right replies; "all" of them; "backtracks" is the share of all thoughts that say "wait", "tokens" a reply's mean
    length."""
    asked = sorted(asked, key=lambda p: (p.family, len(p.thought)))  # rows of a batch end at about the same time
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
    table["all"] = sum(map(sum, scores.values())) / len(asked)
    return table | {"backtracks": waits / len(asked), "tokens": tokens / len(asked)}


def worked(problems: int, seed: int = 0) -> list[Document]:
    """Held-out problems with the generators' worked traces."""
    return [written([], p) for p in held_out(problems, seed)]


@torch.no_grad()
def loss(model: nn.Module, documents: list[Document]) -> float:
    """Cross-entropy on thoughts and answers, nats a token."""
    total = 0.0
    for i in range(0, len(documents), 16):
        ids, weights, view = packed(documents[i : i + 16], "cpu")
        total += float(cross_entropy(model(ids, view), ids, weights, 1))
    return total / sum(sum(d[1]) for d in documents)


@torch.no_grad()
def load(teacher: Teacher, documents: list[Document]) -> dict[int, list[float]]:
    """Layer -> each routed expert's share of the tokens' choices."""
    teacher.train()  # counts
    for i in range(0, len(documents), 16):
        ids, _, view = packed(documents[i : i + 16], "cpu")
        teacher.mtp_logits(teacher.hidden(ids, view), ids, view)
    return teacher.balance(0.0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=["student", "teacher"])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--temperature", type=float, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hardest", type=int, metavar="N", help="only the N of these problems that the teacher of --for is least sure of")
    parser.add_argument("--for", dest="policy", type=Path, metavar="COLD.pt")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--load", action="store_true", help="the teacher's load per expert instead")
    what.add_argument("--loss", action="store_true", help="the loss on worked traces instead")
    args = parser.parse_args()
    model = Teacher(TeacherConfig()) if args.model == "teacher" else Student(StudentConfig())
    load_weights(args.checkpoint, model)
    if args.load:
        table = load(model, worked(args.problems, args.seed))
        print("\n".join(f"layer {i}: " + " ".join(f"{100 * share:5.1f}%" for share in shares) for i, shares in table.items()))
    elif args.loss:
        print(f"{loss(model, worked(args.problems, args.seed)):.5f}")
    else:
        asked = held_out(args.problems, args.seed)
        if args.hardest is not None:
            policy = Teacher(TeacherConfig())
            load_weights(args.policy or args.checkpoint, policy)
            asked = hardest(policy, args.problems, args.hardest, args.seed)
        print(json.dumps({k: round(v, 4) for k, v in measure(model, asked, args.temperature, args.seed).items()}))
