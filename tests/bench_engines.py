"""Prefill and decode of our backends beside the engines' own programs: the same files, taking turns.

    python tests/bench_engines.py [--gguf FILE.gguf] [--mlx FOLDER] [--prompt 256] [--new 64] [--rounds 3] [--json]

Peers: for GGUF the high-level API of llama-cpp-python, for MLX mlx_lm's stream_generate. Without files, the bundled model is converted for both
(F16; BF16 as it is): a first look, not a measure of larger models. On Apple silicon it measures the GPU; on Linux MLX runs on the processor,
where its quantized products are slow.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

from backends.base import Cancel, End, Sampling
from localr1 import paths

Run = Callable[[], tuple[float, float]]  # seconds of prefill and of decoding


def ours(backend: object, prompt: list[int], new: int) -> Run:
    def run() -> tuple[float, float]:
        backend.prefill([0], Cancel())  # type: ignore[attr-defined]  # forgets what it holds
        end = None
        for item in backend.stream(prompt, Sampling(temperature=0, max_tokens=new), Cancel()):  # type: ignore[attr-defined]
            end = item if isinstance(item, End) else end
        assert end is not None
        return end.prefill_s, end.decode_s * new / max(1, end.new_tokens)

    return run


def llama_cpp_python(file: Path, prompt: list[int], new: int) -> Run:
    import llama_cpp

    model = llama_cpp.Llama(str(file), n_ctx=len(prompt) + new + 8, n_gpu_layers=-1, verbose=False)

    def run() -> tuple[float, float]:
        model.reset()
        began = perf_counter()
        model.eval(prompt)
        prefilled = perf_counter()
        for _ in range(new):
            model.eval([model.sample(temp=0.0)])
        return prefilled - began, perf_counter() - prefilled

    return run


def mlx_lm(folder: Path, prompt: list[int], new: int) -> Run:
    import mlx.core as mx
    from mlx_lm.generate import generate_step
    from mlx_lm.utils import load_model

    model, _ = load_model(folder)

    def run() -> tuple[float, float]:
        began, prefilled = perf_counter(), 0.0
        for i, _ in enumerate(generate_step(mx.array(prompt), model, max_tokens=new)):
            prefilled = prefilled if i else perf_counter()
        return prefilled - began, (perf_counter() - prefilled) * new / max(1, new - 1)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--mlx", type=Path)
    for name, value in (("--prompt", 256), ("--new", 64), ("--rounds", 3)):
        parser.add_argument(name, type=int, default=value)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        gguf, folder = args.gguf, args.mlx
        if gguf is None and folder is None:
            from quantize.convert import convert

            gguf, folder = Path(scratch) / "student.gguf", paths.assets() / "r1-tiny"
            convert(folder, gguf, "F16")
        prompt, context = [5 + i * 7 % 250 for i in range(args.prompt)], args.prompt + args.new + 8
        if gguf is not None:
            from backends.llamacpp import LlamaCppBackend

            with LlamaCppBackend(gguf, context) as backend:
                found += pair("gguf", ours(backend, prompt, args.new), "llama-cpp-python", llama_cpp_python(gguf, prompt, args.new), args)
        if folder is not None:
            from backends.mlx import MlxBackend

            with MlxBackend(folder, context) as backend:
                found += pair("mlx", ours(backend, prompt, args.new), "mlx-lm", mlx_lm(folder, prompt, args.new), args)
    if args.json:
        print(json.dumps(found))
        return
    for row in found:
        print(
            f"{row['engine']:5} {row['work']:8} {row['ours']:10,.1f} tok/s, {row['peer']} {row['theirs']:10,.1f} tok/s, {row['ratio']:.2f}x"
        )


def pair(engine: str, mine: Run, peer: str, theirs: Run, args: argparse.Namespace) -> list[dict[str, object]]:
    """Tokens per second of both, medians of the rounds, the first of which warms up."""
    seconds = [(mine(), theirs()) for _ in range(args.rounds + 1)][1:]
    rows: list[dict[str, object]] = []
    for i, (work, tokens) in enumerate((("prefill", args.prompt), ("decode", args.new))):
        a, b = (tokens / median(each[side][i] for each in seconds) for side in (0, 1))
        rows.append({"engine": engine, "work": work, "peer": peer, "ours": a, "theirs": b, "ratio": a / b})
    return rows


if __name__ == "__main__":
    main()
