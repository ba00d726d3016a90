"""`localr1 bench`: its command line. What it does is in benching.py, imported when it is run."""

from __future__ import annotations

import argparse

from localr1.flags import add_flags, given
from localr1.trace_commands import against, some

PROMPT, NEW, ROUNDS = 512, 64, 3
_DESCRIPTION = """How fast models are on this machine: each is opened as the chat would open it, reads running text, and writes behind it. One after another;
several are compared with the first one."""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `bench` to the program's commands."""
    bench = commands.add_parser("bench", help="how fast models are on this machine", description=_DESCRIPTION)
    bench.add_argument("models", nargs="*", type=against, metavar="MODEL[@BACKEND]", help="default: the model the chat would open")
    bench.add_argument(
        "--prompt",
        type=_lengths,
        default=(PROMPT,),
        metavar="N[,N...]",
        help=f"tokens to read; several show what length costs (default: {PROMPT})",
    )
    bench.add_argument("--new", type=some, default=NEW, metavar="N", help=f"tokens to write (default: {NEW})")
    bench.add_argument("--rounds", type=some, default=ROUNDS, metavar="N", help=f"how often, after one to warm up (default: {ROUNDS})")
    add_flags(bench, "model.backend", "model.kv")
    bench.add_argument("--force", action="store_true", help="open a model that does not fit memory, too")
    bench.add_argument("--json", action="store_true", help="print one JSON object")
    bench.set_defaults(run=run_bench)


def _lengths(text: str) -> tuple[int, ...]:
    """An argparse type."""
    return tuple(sorted({some(part.strip()) for part in text.split(",")}))


def run_bench(args: argparse.Namespace) -> int:
    from localr1.benching import Work, bench
    from localr1.settings_layers import layers_for

    layers, spec = layers_for(given(args))
    bench(args.models, layers, spec, Work(args.prompt, args.new, args.rounds), args.force, args.json)
    return 0
