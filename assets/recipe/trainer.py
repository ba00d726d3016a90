"""What every training stage shares: Muon and AdamW, the schedule, data-parallel workers, checkpoints to resume from.

A step's data depends on (seed, step) alone, so that training can resume anywhere. Several workers on one CPU compute
halves of each step and add up their gradients: faster than one with as many threads.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from layers import fast_type
from safetensors.torch import load_file
from torch import Tensor, nn

Gradients = Callable[[int], dict[str, float]]  # step -> figures to log; leaves the gradients in the parameters


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalized by Newton-Schulz, all matrices of a shape at once. Source: kellerjordan.github.io/posts/muon."""

    def __init__(self, matrices: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(matrices, dict(lr=lr, momentum=0.95, weight_decay=0.01))

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            shapes = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    shapes[p.shape].append(p)
            for shape, matrices in shapes.items():
                for p in matrices:
                    state = self.state[p]
                    if not state:
                        state["momentum"] = torch.zeros_like(p)
                    state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                moved = [p.grad.lerp(self.state[p]["momentum"], group["momentum"]) for p in matrices]
                rate = 0.2 * max(shape) ** 0.5 * group["lr"]  # an update as large as AdamW's
                for p, update in zip(matrices, orthogonal(torch.stack(moved)), strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)


def orthogonal(x: Tensor) -> Tensor:
    """[n, a, b] -> nearly orthogonal matrices with the same singular vectors."""
    tall = x.shape[1] > x.shape[2]
    x = (x.mT if tall else x).to(fast_type(x.device.type))
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.mT if tall else x).float()


def optimizers(model: nn.Module, muon_rate: float, adam_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices; AdamW for embeddings, output head, routers, norms and biases."""

    def hidden(name: str, p: nn.Parameter) -> bool:
        return p.ndim == 2 and not any(part in name for part in ("embed", "lm_head", "gate.weight"))

    named = list(model.named_parameters())
    muon, adam = [p for n, p in named if hidden(n, p)], [p for n, p in named if not hidden(n, p)]
    return [Muon(muon, muon_rate), torch.optim.AdamW(adam, lr=adam_rate, betas=(0.9, 0.95), weight_decay=0.0)]


def learning_rate(step: int, steps: int, warm_up: int, decay_share: float) -> float:
    """Share of the peak rate: linear warm-up, constant, linear decay to zero."""
    decay = int(steps * decay_share)
    return max(0.0, min((step + 1) / max(1, warm_up), 1.0, (steps - step) / max(1, decay)))


# ------------------------------------------------------------------------------------------------- workers


def options(description: str | None, **defaults: object) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and logs; run again to resume")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, required="steps" not in defaults)
    parser.add_argument("--documents", type=int, default=32, help="conversations a step")
    parser.add_argument("--muon-rate", type=float, default=4e-3)
    parser.add_argument("--adam-rate", type=float, default=3e-3)
    parser.add_argument("--warm-up", type=int, default=100, help="steps")
    parser.add_argument("--decay-share", type=float, default=0.55, help="last part of the steps, in which the rate falls to zero")
    parser.add_argument("--workers", type=int, default=1 if torch.cuda.is_available() else min(8, os.cpu_count() or 1))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.set_defaults(**defaults)
    return parser


def launch(main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Run `main` in each worker."""
    if args.workers > min(args.documents, getattr(args, "problems", args.documents)):
        raise SystemExit(f"{args.workers} workers and fewer conversations a step; give fewer --workers")
    args.out.mkdir(parents=True, exist_ok=True)
    for stale in args.out.glob(".workers-*"):  # of a run that was killed, whose process number may come again
        stale.unlink(missing_ok=True)
    if args.workers == 1:
        main(args)
    else:
        mp.spawn(_worker, (main, args), nprocs=args.workers)


def _worker(rank: int, main: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(args.out / f".workers-{os.getppid()}"), args.workers)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=args.workers)
    main(args)
    dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def mine(items: list) -> list:
    """This worker's share of a step's items."""
    return items[rank() :: dist.get_world_size()] if dist.is_initialized() else items


def summed(x: Tensor) -> Tensor:
    """Added up over the workers."""
    if dist.is_initialized():
        dist.all_reduce(x)
    return x


def _add_gradients(model: nn.Module) -> None:
    """Over the workers; what one of them had no use for, an expert without tokens say, counts as zero there."""
    if not dist.is_initialized():
        return
    trained = [p for p in model.parameters() if p.requires_grad]
    used = summed(torch.tensor([float(p.grad is not None) for p in trained]))
    trained = [p for p, workers in zip(trained, used.tolist(), strict=True) if workers]
    if not trained:
        return
    flat = summed(torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trained]))
    for p, total in zip(trained, flat.split([p.numel() for p in trained]), strict=True):
        p.grad = total.view_as(p).clone()


# ------------------------------------------------------------------------------------------------- training


def save(path: Path, state: dict) -> None:
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def load(path: Path, model: nn.Module) -> dict:
    """Weights of a checkpoint, or of a published folder, into `model`; returns the checkpoint."""
    if path.is_dir():
        weights = published(path)
        state = dict(model={name: weights[name] for name in model.state_dict()})  # without the MTP layer's copies
    else:
        state = torch.load(path, map_location=next(model.parameters()).device, weights_only=True)
    model.load_state_dict(state["model"])
    return state


def published(folder: Path) -> dict[str, Tensor]:
    """The weights of a published folder, float32; E4M3 codes times the scales of their 128 x 128 blocks."""
    tensors = {name: t.float() for name, t in load_file(folder / "model.safetensors").items()}
    for name in [n for n in tensors if n.endswith("_scale_inv")]:
        weight, scales = tensors[name.removesuffix("_scale_inv")], tensors.pop(name)
        weight *= scales.repeat_interleave(128, 0)[: weight.shape[0]].repeat_interleave(128, 1)[:, : weight.shape[1]]
    return tensors


def fit(model: nn.Module, args: argparse.Namespace, gradients: Gradients, name: str = "train.pt", every: int = 25) -> None:
    """Train to the end from the newest checkpoint in args.out, or from the model as it is. `gradients` fills in a step's."""
    opts = optimizers(model, args.muon_rate, args.adam_rate)
    checkpoint, first = args.out / name, 0
    if checkpoint.exists():
        state = load(checkpoint, model)
        for opt, s in zip(opts, state["optimizers"], strict=True):
            opt.load_state_dict(s)
        first = state["step"]
    if rank() == 0:
        print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}M parameters, step {first} of {args.steps}", flush=True)
    figures: dict[str, float] = {}
    began = time.time()
    for step in range(first, args.steps):
        for key, value in gradients(step).items():
            figures[key] = 0.95 * figures.get(key, value) + 0.05 * value
        _add_gradients(model)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        share = learning_rate(step, args.steps, args.warm_up, args.decay_share)
        for opt, rate in zip(opts, (args.muon_rate, args.adam_rate), strict=True):
            opt.param_groups[0]["lr"] = rate * share
            opt.step()
            opt.zero_grad(set_to_none=True)
        if rank() == 0 and (step % 10 == 0 or step + 1 == args.steps):
            shown = {k: round(v, 4) for k, v in figures.items()}
            line = json.dumps(
                dict(
                    step=step, **shown, seconds=round(time.time() - began), s_per_step=round((time.time() - began) / (step - first + 1), 2)
                )
            )
            print(line, flush=True)
            with (args.out / "log.jsonl").open("a") as log:
                log.write(line + "\n")
        if rank() == 0 and ((step + 1) % every == 0 or step + 1 == args.steps):
            save(checkpoint, dict(step=step + 1, model=model.state_dict(), optimizers=[o.state_dict() for o in opts]))
