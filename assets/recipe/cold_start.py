"""Stage 1, cold start: the teacher learns from worked traces of the task generators.

    python cold_start.py --out DIR [--steps N] [--base TRAIN.pt]     # run again to resume

The loss is on thought and answer only. Multi-token prediction joins in the last part, and so does its small loss. Experts are balanced
by the router's bias alone, which rests at the end, as in the V3 report (arXiv 2412.19437, 4.2).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from data import Document, documents
from layers import Documents, autocast
from teacher import Teacher, TeacherConfig
from torch import Tensor
from trainer import fit, launch, load, mine, options, summed

BIAS_RESTS = 0.9  # share of the steps from which on the routers' biases stay as they are
MTP_WEIGHT = 0.1


def packed(batch: list[Document], device: str) -> tuple[Tensor, Tensor, Documents]:
    """ids [1, N], weights [N] of each token as the one to predict, and how they are seen."""
    ids = torch.tensor([[i for d in batch for i in d[0]]], device=device)
    weights = torch.tensor([float(w) for d in batch for w in d[1]], device=device)
    return ids, weights, Documents([len(d[0]) for d in batch], device)


def cross_entropy(logits: Tensor, ids: Tensor, weights: Tensor, ahead: int) -> Tensor:
    """Weighted sum of -log p(token), nats: row i of logits [1, N, V] predicts token i + ahead."""
    nll = F.cross_entropy(logits[0, :-ahead].float(), ids[0, ahead:], reduction="none")
    return (nll * weights[ahead:]).sum()


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    teacher = Teacher(TeacherConfig()).to(args.device)
    if args.base is not None:
        load(args.base, teacher)
    if args.mtp_only:
        teacher.requires_grad_(False).eval()
        teacher.model.layers[-1].requires_grad_(True).train()

    def gradients(step: int) -> dict[str, float]:
        batch = documents(args.seed, step, args.documents)
        trained = sum(sum(d[1]) for d in batch)
        ids, weights, view = packed(mine(batch), args.device)
        with autocast(args.device):
            hidden = teacher.hidden(ids, view)
            loss = cross_entropy(teacher.lm_head(hidden), ids, weights, 1) / trained
            figures = [loss.detach()]
            if args.mtp_only or step >= args.mtp_begins * args.steps:
                mtp = cross_entropy(teacher.mtp_logits(hidden, ids, view), ids, weights, 2) / trained
                figures.append(mtp.detach())
                loss = loss + MTP_WEIGHT * mtp
        loss.backward()
        loads = {i: summed(moe.load.clone()) for i, moe in teacher.mixtures().items()}
        for i, moe in teacher.mixtures().items():
            moe.load = loads[i]
        violations = [float(load.max() / load.mean()) for load in loads.values() if load.sum()]
        teacher.balance(args.bias_speed if step + 1 < BIAS_RESTS * args.steps else 0.0)  # for the next step: a checkpoint keeps it
        values = summed(torch.stack(figures)).tolist()
        return dict(zip(("loss", "mtp_loss"), values, strict=False)) | {"fullest_expert": max(violations)}

    fit(teacher, args, gradients)


if __name__ == "__main__":
    parser = options(__doc__, steps=4800)
    parser.add_argument(
        "--base", type=Path, metavar="TRAIN.pt", help="weights, or a published folder, to begin with (default: random ones)"
    )
    parser.add_argument("--bias-speed", type=float, default=0.002, help="of the routers' biases against the load, a step")
    parser.add_argument(
        "--mtp-begins", type=float, default=0.5, help="share of the steps from which on the MTP layer is trained with the rest"
    )
    parser.add_argument("--mtp-only", action="store_true", help="train the MTP layer and leave the rest as it is, as after later stages")
    launch(train, parser.parse_args())
