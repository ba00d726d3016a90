"""python -m backends.reference logits | mtp | route | inspect CHECKPOINT"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from backends.base import BackendError

if TYPE_CHECKING:
    import numpy as np

PART_TOKENS = 512


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(prog="python -m backends.reference", description="The reference architecture in numpy.")
    commands = main.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], None], help: str, tokens: bool = True) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=help, description=help)
        added.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder with config.json and safetensors weights")
        if tokens:
            if run is run_route:
                added.add_argument(
                    "--tokens", type=_family, action="append", required=True, metavar='"[NAME:] 1 2 3"',
                    help="token ids; with names and more than once, families of texts",
                )  # fmt: skip
            else:
                added.add_argument("--tokens", type=_tokens, required=True, metavar='"1 2 3"', help="token ids")
            added.add_argument("--fp8", choices=["off", "weights", "full"], default="off", help="arithmetic of FP8 weights (default: off)")
        added.set_defaults(run=run)
        return added

    logits = command("logits", run_logits, "scores of the next token after each token: float32 [T, V]")
    logits.add_argument("--prefill", type=_prefill, metavar="N", help="N tokens at once, the rest one by one through the cache")
    logits.add_argument("--out", type=Path, required=True, metavar="FILE.npy")
    mtp = command("mtp", run_mtp, "scores of the token after next, from the MTP layer: float32 [T-1, V]")
    mtp.add_argument("--out", type=Path, required=True, metavar="FILE.npy")
    route = command("route", run_route, "which experts each token goes to, and their weights")
    how = route.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="print one JSON object")
    how.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw how often each expert is chosen")
    command("inspect", run_inspect, "the architecture as a table", tokens=False)
    return main


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code: 0 done, 1 failed (one line on stderr), 2 wrong usage, 130 interrupted."""
    args = parser().parse_args(argv)
    try:
        args.run(args)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (BackendError, OSError) as error:
        print(f"backends.reference: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def run_logits(args: argparse.Namespace) -> None:
    import numpy as np

    from backends.reference.model import Model

    model = Model.open(args.checkpoint, args.fp8)
    cache = model.new_cache()
    if args.prefill is None:  # a part at a time, so that memory does not grow with the square of the length
        parts = [args.tokens[i : i + PART_TOKENS] for i in range(0, len(args.tokens), PART_TOKENS)]
    else:
        parts = [args.tokens[: args.prefill], *([token] for token in args.tokens[args.prefill :])]
    _save(args.out, np.concatenate([model.logits(part, cache) for part in parts if part]))


def run_mtp(args: argparse.Namespace) -> None:
    from backends.reference.model import Model
    from backends.reference.mtp import MtpModule

    if len(args.tokens) < 2:
        raise BackendError("--tokens has one token; the MTP layer needs at least two")
    _save(args.out, MtpModule(Model.open(args.checkpoint, args.fp8)).logits(args.tokens))


def run_route(args: argparse.Namespace) -> None:
    from backends.reference.model import Model
    from backends.reference.route import as_json, as_svg, as_text, families_as_svg, routed

    model = Model.open(args.checkpoint, args.fp8)
    if not any(model.config.is_moe(i) for i in range(model.config.num_hidden_layers)):
        raise BackendError(f"{args.checkpoint} is a dense {model.config.model_type} model: it has no experts to route to")
    families: dict[str, list[list[int]]] = {}
    for name, ids in args.tokens:
        families.setdefault(name, []).append(ids)
    found = {name: routed(model, texts) for name, texts in families.items()}
    named = list(families) != [""]
    if args.plot is not None:
        svg = families_as_svg(found, model.config) if named else as_svg(found[""], model.config)
        _write(args.plot, lambda path: path.write_text(svg, encoding="utf-8"))
        return
    flat = {name: [i for ids in texts for i in ids] for name, texts in families.items()}
    if args.json:
        objects = {name: as_json(found[name], flat[name]) for name in families}
        print(json.dumps(objects if named else objects[""]))
        return
    for name in families:
        if named:
            print(f"{name}:")
        print(as_text(found[name], flat[name]))


def run_inspect(args: argparse.Namespace) -> None:
    from backends.checkpoint import Checkpoint
    from backends.reference.config import parse_config
    from backends.reference.inspect import table
    from backends.reference.weights import check_tensors

    with Checkpoint.open(args.checkpoint) as checkpoint:
        config = parse_config(checkpoint.config)
        check_tensors(checkpoint, config)
        print(table(checkpoint, config))


def _save(target: Path, array: np.ndarray) -> None:
    import numpy as np

    def save(path: Path) -> None:
        with path.open("wb") as file:  # np.save appends .npy to a name that lacks it
            np.save(file, array)

    _write(target, save)


def _write(target: Path, write: Callable[[Path], object]) -> None:
    """Write through a temporary name beside it, so that the target appears complete or not at all."""
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        write(part)
        part.replace(target)
    except OSError as error:
        raise BackendError(f"{target}: cannot be written ({error.strerror}); choose another place") from None
    finally:
        part.unlink(missing_ok=True)


def _tokens(text: str) -> list[int]:
    try:
        ids = [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text[:40]!r} is no list of token ids, such as "1 2 3"') from None
    if not ids:
        raise argparse.ArgumentTypeError('there are no tokens; give ids such as "1 2 3"')
    return ids


def _family(text: str) -> tuple[str, list[int]]:
    name, _, ids = text.rpartition(":")
    return name.strip(), _tokens(ids)


def _prefill(text: str) -> int:
    try:
        tokens = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if tokens < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return tokens


if __name__ == "__main__":
    sys.exit(main())
