"""Train the student on worked traces. Seeded and resumable: a step's data depends on (seed, step) alone.

    python train.py --out DIR [--steps N] [--seed S]     # run again to resume

Muon for the hidden matrices, AdamW for the rest; linear warm-up, constant, linear decay to zero. BF16 autocast.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from data import batches
from model import Student, StudentConfig
from torch import Tensor

WARM_UP, DECAY_SHARE = 100, 0.55


def learning_rate(step: int, steps: int) -> float:
    """Share of the peak rate at `step`."""
    decay = int(steps * DECAY_SHARE)
    return max(0.0, min((step + 1) / WARM_UP, 1.0, (steps - step) / max(1, decay)))


def loss_of(student: Student, ids: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of the next token's cross-entropy, nats. ids, weights: [B, T]."""
    logits = student(ids[:, :-1]).float()
    nll = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    w = weights[:, 1:].flatten()
    return (nll * w).sum()


def optimizers(student: Student, muon_rate: float, adam_rate: float) -> list[torch.optim.Optimizer]:
    hidden = [p for n, p in student.named_parameters() if p.ndim == 2 and "embed" not in n and "lm_head" not in n]
    rest = [p for n, p in student.named_parameters() if p.ndim != 2 or "embed" in n or "lm_head" in n]
    return [
        torch.optim.Muon(hidden, lr=muon_rate, weight_decay=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=adam_rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def save(path: Path, state: dict) -> None:
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--documents", type=int, default=32, help="conversations a step")
    parser.add_argument("--parts", type=int, default=4, help="groups of similar length they are computed in")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--muon-rate", type=float, default=4e-3)
    parser.add_argument("--adam-rate", type=float, default=3e-3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint = args.out / "train.pt"

    torch.manual_seed(args.seed)
    student = Student(StudentConfig(num_hidden_layers=args.layers)).to(args.device)
    opts = optimizers(student, args.muon_rate, args.adam_rate)
    rates = [args.muon_rate, args.adam_rate]
    first = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=args.device, weights_only=True)
        student.load_state_dict(state["student"])
        for opt, s in zip(opts, state["optimizers"], strict=True):
            opt.load_state_dict(s)
        first = state["step"]
    print(f"{sum(p.numel() for p in student.parameters()) / 1e6:.2f}M parameters, step {first} of {args.steps}", flush=True)

    mean, began, seen = 0.0, time.time(), 0
    for step in range(first, args.steps):
        groups = batches(args.seed, step, args.documents, args.parts)
        trained = float(sum(w[:, 1:].sum() for _, w in groups))
        total = 0.0
        for ids, weights in groups:
            with torch.autocast(args.device, dtype=torch.bfloat16):
                loss = loss_of(student, torch.from_numpy(ids).to(args.device), torch.from_numpy(weights).to(args.device)) / trained
            loss.backward()
            total += loss.item()
            seen += ids.size
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        for opt, rate in zip(opts, rates, strict=True):
            for group in opt.param_groups:
                group["lr"] = rate * learning_rate(step, args.steps)
            opt.step()
            opt.zero_grad(set_to_none=True)
        mean = total if step == first else 0.98 * mean + 0.02 * total
        if step % 50 == 0 or step + 1 == args.steps:
            speed = seen / (time.time() - began)
            print(json.dumps(dict(step=step, loss=round(mean, 4), tokens_per_s=round(speed))), flush=True)
        if (step + 1) % 50 == 0 or step + 1 == args.steps:
            save(checkpoint, dict(step=step + 1, student=student.state_dict(), optimizers=[o.state_dict() for o in opts]))


if __name__ == "__main__":
    main()
