"""`localr1 verify`: its command line. What it does is in verifying/, imported when it is run."""

from __future__ import annotations

import argparse
from pathlib import Path

from localr1.flags import number
from localr1.trace_commands import against


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `verify` to the program's commands."""
    verify = commands.add_parser(
        "verify", help="whether every path computes the same: the bundle, a checkpoint, or two models",
        description="Without arguments, the bundle's whole proof in a minute or two. With MODEL, what can be proved of that checkpoint; with "
        "--against, whether two models, quantizations or engines say the same. Exit code 1: something differs.",
    )  # fmt: skip
    verify.add_argument("model", nargs="?", type=against, metavar="MODEL[@BACKEND]", help="a checkpoint folder (default: the bundle)")
    verify.add_argument("--against", type=against, metavar="REF[@BACKEND]", help="another model, quantization or backend")
    verify.add_argument(
        "--tolerance",
        type=number(float, 0, 1e6),
        metavar="NATS",
        help="with --against: mean KL divergence that is allowed (default: 0.001)",
    )
    verify.add_argument(
        "--teacher", action="store_true",
        help="measure the trained teacher in the numpy reference: accuracy with FP8, MTP's drafts, MLA's cache, experts (minutes)",
    )  # fmt: skip
    verify.add_argument("--problems", type=number(int, 1), metavar="N", help="with --teacher: of each family (default: 20)")
    verify.add_argument("--svg", type=Path, metavar="FILE", help="with --against: a picture of the divergences; with --teacher: of experts")
    told = verify.add_mutually_exclusive_group()
    told.add_argument("--json", action="store_true", help="print one JSON object")
    told.add_argument("--markdown", action="store_true", help="with --teacher: print tables for the model card")
    verify.set_defaults(run=run_verify, wrong=verify.error)


def run_verify(args: argparse.Namespace) -> int:
    name, backend = args.model or ("", "")
    if problem := _verify_problem(args, backend):
        args.wrong(problem)
    if args.against is not None:
        from localr1.verifying.against import TOLERANCE, verify_against

        tolerance = TOLERANCE if args.tolerance is None else args.tolerance
        other = (args.against.model, args.against.backend or "auto")
        return 0 if verify_against((name or None, backend or "auto"), other, tolerance, args.json, args.svg) else 1
    from localr1.verifying.command import verify, verify_teacher

    if args.teacher:
        from localr1.verifying.teacher import PROBLEMS

        problems = PROBLEMS if args.problems is None else args.problems
        return 0 if verify_teacher(name or None, problems, args.json, args.markdown, args.svg) else 1
    return 0 if verify(name or None, args.json) else 1


def _verify_problem(args: argparse.Namespace, backend: str) -> str:
    """What is wrong with the flags taken together."""
    if args.against is not None:
        if args.teacher:
            return "--against and --teacher are two questions; ask one"
        return "--problems and --markdown go with --teacher" if args.problems or args.markdown else ""
    if args.tolerance is not None or backend:
        return "--tolerance and @BACKEND go with --against"
    if args.svg is not None and not args.teacher:
        return "--svg goes with --against or --teacher"
    return "" if args.teacher or not (args.problems or args.markdown) else "--problems and --markdown go with --teacher"
