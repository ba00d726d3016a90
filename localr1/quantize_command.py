"""`localr1 quantize`: its command line. What it does is in converting.py, imported when it is run."""

from __future__ import annotations

import argparse
from pathlib import Path

from localr1.flags import number


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `quantize` to the program's commands."""
    quantize = commands.add_parser("quantize", help="make a GGUF file, or a smaller checkpoint, of a checkpoint")
    quantize.add_argument("source", type=Path, metavar="SRC", help="checkpoint folder (safetensors), or a GGUF file")
    quantize.add_argument("target", type=Path, metavar="DST", help="GGUF file to write; with --to fp8 or mlx-..., a folder")
    quantize.add_argument(
        "--to", metavar="FORMAT",
        help="a GGUF mix: F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q4_K_M, ... IQ1_S; fp8: safetensors in block FP8; mlx-4bit, ...: for "
        "mlx-lm; with --fit: gguf (the default) or mlx",
    )  # fmt: skip
    quantize.add_argument(
        "--fit", type=size, metavar="SIZE",
        help="choose a format for each tensor, so that DST takes at most SIZE (6GB, 900MB; auto: what this machine's memory leaves) "
        "and loses as little as it can",
    )  # fmt: skip
    quantize.add_argument("--context", type=number(int, 1), metavar="N", help="tokens of context that --fit auto leaves room for")
    quantize.add_argument("--force", action="store_true", help="overwrite DST")
    quantize.add_argument("--allow-nan", action="store_true", help="convert a checkpoint with weights that are infinite or no numbers")
    calibration = quantize.add_mutually_exclusive_group()
    calibration.add_argument("--imatrix", type=Path, metavar="FILE", help="importance matrix to use (llama.cpp's GGUF or .dat form)")
    calibration.add_argument(
        "--calibrate", type=Path, nargs="?", const=Path(), metavar="TEXT",
        help="make an importance matrix of a text file, or of the built-in corpus; it is kept as DST.imatrix.gguf",
    )  # fmt: skip
    told = quantize.add_argument_group("what is told")
    told.add_argument(
        "--eval", action=argparse.BooleanOptionalAction,
        help="run source and target on a held-out text: KL divergence, perplexity (default: below 500M parameters)",
    )  # fmt: skip
    told.add_argument(
        "--report", type=html_file, nargs="?", const=Path(), metavar="FILE.html",
        help="tables of all tensors on the terminal, or a page with pictures in a file",
    )  # fmt: skip
    told.add_argument("--json", action="store_true", help="print one JSON object")
    quantize.set_defaults(run=run_quantize, wrong=quantize.error)


def size(text: str) -> str:
    """An argparse type: "auto", or a size as quantize.fit_size reads it."""
    from quantize.errors import QuantizeError
    from quantize.fit_size import parse_size

    try:
        return "auto" if parse_size(text) is None else text
    except QuantizeError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def html_file(name: str) -> Path:
    """An argparse type. DST, put behind a bare --report, would be taken for its file."""
    if not name.lower().endswith((".html", ".htm")):
        raise argparse.ArgumentTypeError(f"{name!r} is no .html file; write a --report without one behind SRC and DST")
    return Path(name)


def run_quantize(args: argparse.Namespace) -> int:
    from localr1.converting import Order, quantize

    form = args.to or "gguf"
    if problem := _quantize_problem(args, form):
        args.wrong(problem)
    quantize(
        Order(
            source=args.source, target=args.target, form=form, fit=args.fit, context=args.context, force=args.force,
            allow_nan=args.allow_nan, imatrix=args.imatrix, text=args.calibrate, evaluate=args.eval, page=args.report, as_json=args.json,
        )
    )  # fmt: skip
    return 0


def _quantize_problem(args: argparse.Namespace, form: str) -> str:
    """What is wrong with the flags taken together."""
    kinds = ("gguf", "mlx")
    if args.fit is None and args.to is None:
        return "give --to FORMAT, for example --to Q4_K_M, or --fit SIZE, for example --fit 6GB"
    if args.fit is not None and form not in kinds:
        return f"--fit chooses the formats itself, and --to is gguf or mlx with it, not {form}; leave one of the two away"
    if args.fit is None and form in kinds:
        return f"--to {form} goes with --fit SIZE; without that, name a format: Q4_K_M, mlx-4bit, ..."
    if args.allow_nan and (args.fit is not None or args.calibrate is not None or args.eval):
        return "--allow-nan makes a model that cannot be run; leave it away, or --fit, --calibrate and --eval"
    if args.context is not None and args.fit != "auto":
        return "--context goes with --fit auto"
    if args.fit is None and form.lower().startswith(("mlx", "fp8")) and (args.imatrix is not None or args.calibrate is not None):
        return f"{form} has no use for an importance matrix; leave --imatrix and --calibrate away"
    return "" if args.fit is not None else _unknown_format(form)


def _unknown_format(name: str) -> str:
    from quantize.convert import wanted
    from quantize.errors import QuantizeError

    try:
        wanted(name)
    except QuantizeError as error:
        return str(error)
    return ""
