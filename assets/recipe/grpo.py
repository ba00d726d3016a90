"""Stage 2, reinforcement learning: group relative policy optimization (GRPO) with rule-based rewards.

    python grpo.py --base COLD.pt --out DIR [--steps N]     # run again to resume

Each round draws problems, keeps those that the policy is least sure of (what it always gets right teaches nothing; DAPO, arXiv 2503.14476,
3.2, leaves it out after sampling), samples a group of replies to each, and rewards what is right and well formed; a reply's advantage is
its reward normalized within its group. The ratio to the policy that sampled is clipped, and the distance to the reference policy, the
cold start's, costs. Source: DeepSeekMath (arXiv 2402.03300) 4.1, DeepSeek-R1 (arXiv 2501.12948) 2.2. DIR/curve.jsonl: one line a round.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from cold_start import packed
from data import FAMILIES, draw, encode, prompt, written
from layers import Documents, autocast
from problem import Problem
from rewards import BACKTRACKS, advantages, reward, right
from sampling import sample, split_reply
from teacher import Teacher, TeacherConfig
from torch import Tensor
from trainer import fit, launch, load, mine, options, rank, summed

CLIP, KL_WEIGHT = 0.2, 0.04


@dataclass(slots=True)
class Round:
    """Replies with something to learn from, packed. `weights` [N] is 1 / length of the reply on its tokens, else 0."""

    ids: Tensor
    weights: Tensor
    advantages: Tensor  # [N]
    view: Documents
    reference: Tensor  # [N - 1]: log-probabilities
    old: Tensor | None = None


REASONED = [family for family in FAMILIES if family != "talk"]


def problems(seed: int, number: int, count: int, families: list[str] = REASONED) -> list[Problem]:
    """A round's problems, none held out, the families by turns."""
    rng = random.Random(f"{seed}:{number}:grpo")
    return [draw(rng, families[i % len(families)]) for i in range(count)]


@torch.no_grad()
def largest_surprises(policy: Teacher, drawn: list[Problem], device: str) -> list[float]:
    """Of each problem, the largest surprise of the policy in its worked trace, nats; what could as well be another counts for little."""
    ids, weights, view = packed([written([], p) for p in drawn], device)
    surprise = -log_probabilities(policy, ids, view) * weights[1:]
    ends = torch.tensor(view.lengths).cumsum(0).tolist()
    return [float(surprise[end - length : end - 1].max()) for end, length in zip(ends, view.lengths, strict=True)]


def least_sure(policy: Teacher, drawn: list[Problem], count: int, device: str) -> list[Problem]:
    """Those in whose worked trace the policy meets the largest surprise."""
    largest = largest_surprises(policy, drawn, device)
    return [drawn[i] for i in sorted(range(len(drawn)), key=lambda i: -largest[i])[:count]]


def log_probabilities(model: Teacher, ids: Tensor, view: Documents) -> Tensor:
    """float32 [N - 1]: of each token after the first."""
    with autocast(ids.device.type):
        logits = model(ids, view)[0, :-1]
    return logits.float().log_softmax(dim=-1).gather(1, ids[0, 1:, None])[:, 0]


def policy_loss(new: Tensor, old: Tensor, reference: Tensor, advantage: Tensor) -> tuple[Tensor, Tensor]:
    """Per token: the clipped objective's negative with the distance to the reference policy, and that distance (Schulman's k3)."""
    ratio = (new - old).exp()
    gain = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)
    distance = (reference - new).exp() - (reference - new) - 1
    return KL_WEIGHT * distance - gain, distance


def play(policy: Teacher, reference: Teacher, args: argparse.Namespace, number: int) -> tuple[Round | None, dict[str, float]]:
    """Sample a round and judge it; groups whose replies are all as good as each other teach nothing and are left out."""
    drawn = mine(problems(args.seed, number, args.problems * args.drawn, args.families))
    drawn = least_sure(policy, drawn, len(mine([*range(args.problems)])), args.device)
    generator = torch.Generator(args.device).manual_seed(args.seed * 1_000_003 + number * 97 + rank())
    asked = [problem for problem in drawn for _ in range(args.group)]
    prompts = [encode(prompt([], p.question)) for p in asked]
    longest = max(len(written([], p)[0]) - len(ids) for p, ids in zip(drawn, prompts[:: args.group], strict=True))
    replies = sample(policy, prompts, temperature=1.0, max_new=longest + longest // 4, generator=generator)
    texts = [split_reply(ids) for ids in replies]
    rewards = [reward(p, *text) for p, text in zip(asked, texts, strict=True)]
    batch, signals = [], []
    for i in range(0, len(asked), args.group):
        group = range(i, i + args.group)
        for j, advantage in zip(group, advantages([rewards[j] for j in group]), strict=True):
            if advantage:
                batch.append((prompts[j] + replies[j], [0.0] * len(prompts[j]) + [1 / len(replies[j])] * len(replies[j])))
                signals += [advantage] * len(batch[-1][0])
    n = len(asked)
    totals = summed(torch.tensor([
        n, sum(rewards), sum(right(p, t[1]) for p, t in zip(asked, texts, strict=True)), sum(len(r) for r in replies),
        sum(bool(BACKTRACKS.search(t[0])) for t in texts), len(batch),
    ], dtype=torch.float64)).tolist()  # fmt: skip
    names = ("reward", "accuracy", "tokens", "backtracks", "learned_from")
    figures = {name: value / totals[0] for name, value in zip(names, totals[1:], strict=True)}
    if not batch:
        return None, figures
    ids, weights, view = packed(batch, args.device)
    with torch.no_grad():
        before = log_probabilities(reference, ids, view)
    return Round(ids, weights, torch.tensor(signals, device=args.device), view, before), figures


def forget_from(curve: Path, number: int) -> None:
    """Drop the rounds that were played after the checkpoint from which training resumes."""
    if curve.exists():
        curve.write_text("".join(line + "\n" for line in curve.read_text().splitlines() if json.loads(line)["round"] < number))


def train(args: argparse.Namespace) -> None:
    policy, reference = (Teacher(TeacherConfig()).to(args.device) for _ in range(2))
    load(args.base, policy)
    load(args.base, reference)
    reference.eval()
    policy.eval()  # the routers' biases rest
    current: Round | None = None
    number = -1

    def gradients(step: int) -> dict[str, float]:
        nonlocal current, number
        figures: dict[str, float] = {}
        if number < 0 and rank() == 0:
            forget_from(args.out / "curve.jsonl", step // args.passes)
        if number != step // args.passes:
            number = step // args.passes
            current, figures = play(policy, reference, args, number)
        distance = torch.zeros(1)
        if current is not None:
            new = log_probabilities(policy, current.ids, current.view)
            if current.old is None:
                current.old = new.detach()
            losses, distances = policy_loss(new, current.old, current.reference, current.advantages[1:])
            (losses * current.weights[1:]).sum().div(args.problems * args.group).backward()
            tokens = (current.weights[1:] > 0).float()
            distance = (distances.detach() * tokens).sum() / tokens.sum()
        figures["kl"] = float(distance)
        if rank() == 0 and "reward" in figures:
            with (args.out / "curve.jsonl").open("a") as file:
                file.write(json.dumps({"round": number} | {k: round(v, 5) for k, v in figures.items()}) + "\n")
        return figures

    fit(policy, args, gradients, every=args.passes * 4)


if __name__ == "__main__":
    parser = options(__doc__, steps=200, muon_rate=2e-4, adam_rate=1e-4, warm_up=4, decay_share=0.5)
    parser.add_argument("--base", type=Path, required=True, metavar="COLD.pt", help="the cold start's weights: first and reference policy")
    parser.add_argument("--problems", type=int, default=24, help="problems a round")
    parser.add_argument("--drawn", type=int, default=4, help="times as many are drawn")
    parser.add_argument("--families", nargs="+", choices=REASONED, default=REASONED)
    parser.add_argument("--group", type=int, default=8, help="replies to each")
    parser.add_argument("--passes", type=int, default=2, help="optimizer steps a round")
    launch(train, parser.parse_args())
