"""Decode and prefill of the reference beside transformers: the same checkpoint in float32, the same threads, taking turns.

    python tests/bench_reference.py [CHECKPOINT] [--threads N] [--rounds N]

Needs torch and transformers (`pip install torch transformers`), which the program itself does not. Default: the bundled student.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

ROOT = Path(__file__).resolve().parents[1]
PROMPT, NEW = 256, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", type=Path, default=ROOT / "assets" / "r1-tiny")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(args.threads)  # read when the libraries are loaded
    sys.path.insert(0, str(ROOT))
    engines = {"reference": reference(args.checkpoint), "transformers": transformers(args.checkpoint, args.threads)}
    seconds: dict[tuple[str, str], list[float]] = {(name, work): [] for name in engines for work in ("prefill", "decode")}
    for _ in range(args.rounds + 1):
        for name, run in engines.items():
            prefill_s, decode_s = run()
            seconds[name, "prefill"].append(prefill_s)
            seconds[name, "decode"].append(decode_s)
    print(f"{args.checkpoint.name}, float32, {args.threads} threads, medians of {args.rounds} (after one to warm up), taking turns")
    for work, tokens in (("prefill", PROMPT), ("decode", NEW)):
        ours, theirs = (median(seconds[name, work][1:]) for name in ("reference", "transformers"))
        print(
            f"{work:8} {tokens:4} tokens: reference {tokens / ours:8.1f} tok/s, transformers {tokens / theirs:8.1f} tok/s, {theirs / ours:.2f}x"
        )


def reference(folder: Path) -> Callable[[], tuple[float, float]]:
    from backends.reference.model import Model

    model = Model.open(folder)
    prompt = [i * 7 % model.config.vocab_size for i in range(PROMPT)]

    def run() -> tuple[float, float]:
        cache, began = model.new_cache(), perf_counter()
        token = int(model.head(model.forward(prompt, cache)[-1:]).argmax())
        prefilled = perf_counter()
        for _ in range(NEW):
            token = int(model.logits([token], cache).argmax())
        return prefilled - began, perf_counter() - prefilled

    return run


def transformers(folder: Path, threads: int) -> Callable[[], tuple[float, float]]:
    import torch
    from transformers import AutoModelForCausalLM, DynamicCache

    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompt = torch.tensor([[i * 7 % model.config.vocab_size for i in range(PROMPT)]])

    @torch.inference_mode()
    def run() -> tuple[float, float]:
        cache, began = DynamicCache(config=model.config), perf_counter()
        token = model(prompt, past_key_values=cache, logits_to_keep=1).logits[:, -1:].argmax(-1)
        prefilled = perf_counter()
        for _ in range(NEW):
            token = model(token, past_key_values=cache).logits[:, -1:].argmax(-1)
        return prefilled - began, perf_counter() - prefilled

    return run


if __name__ == "__main__":
    main()
