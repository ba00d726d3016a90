"""`localr1 trace`: its command line. What the commands do is in tracing.py and comparing.py, imported when one of them is run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Literal, NamedTuple

LAST = "last"
BACKENDS = ("auto", "gguf", "mlx", "reference")

_DESCRIPTION = """Replies that were kept: what the model thought, step by step. ID is a number of `localr1 trace list`, last, or a file that `trace export`
has written, .json or .jsonl."""
_COMPARE = """One question to two models, backends or quantizations, one after another, with the same seed; then both side by side: where they
part and what was likely there, the thoughts step by step, the answers, the speed."""


class Against(NamedTuple):
    """MODEL[@BACKEND]; empty parts are those of the other side."""

    model: str
    backend: str


def against(text: str) -> Against:
    """An argparse type."""
    model, at, backend = text.rpartition("@")
    if at and backend in BACKENDS:
        return Against(model, backend)
    if not text or (at and not model):
        raise argparse.ArgumentTypeError(f"{text!r} is no MODEL[@BACKEND]; backends are {', '.join(BACKENDS)}")
    return Against(text, "")


def some(text: str) -> int:
    """An argparse type: 1 or more."""
    if not (text.isascii() and text.isdigit() and len(text) < 16 and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 1 or more")
    return int(text)


def trace_id(text: str) -> int | Literal["last"] | Path:
    """An argparse type."""
    if text == LAST:
        return "last"
    if Path(text).suffix.lower() in (".json", ".jsonl"):
        return Path(text)
    try:
        return some(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no trace; give a number of `localr1 trace list`, {LAST}, or a file that was exported, .json or .jsonl"
        ) from None


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser) -> None:
    """Add `trace` to the program's commands. `shared`: the flags of a turn, for `trace compare`."""
    trace = commands.add_parser("trace", help="replies that were kept: list, show, search, compare, export", description=_DESCRIPTION)
    trace.set_defaults(run=lambda args: trace.error("give a command: list, show, search, stats, export or compare"))
    inner = trace.add_subparsers(metavar="COMMAND")

    listed = inner.add_parser("list", help="the latest traces")
    listed.add_argument("--limit", type=some, default=20, metavar="N", help="at most so many (default: 20)")
    listed.set_defaults(run=run_list)

    show = inner.add_parser("show", help="one trace: on a terminal to browse in, else as text")
    show.add_argument("id", nargs="?", type=trace_id, default=LAST, metavar="ID", help="default: last")
    show.add_argument("--plain", action="store_true", help="as text, on a terminal too")
    show.set_defaults(run=run_show)

    search = inner.add_parser("search", help="find words in questions, thoughts and answers")
    search.add_argument("words", nargs="+", metavar="WORD", help="all must occur; the last one may be the beginning of a word")
    search.add_argument("--limit", type=some, default=20, metavar="N", help="at most so many (default: 20)")
    search.set_defaults(run=run_search)

    stats = inner.add_parser("stats", help="statistics of one trace, or of all by model")
    stats.add_argument("id", nargs="?", type=trace_id, metavar="ID", help="default: all traces")
    stats.set_defaults(run=run_stats)

    export = inner.add_parser("export", help="write a trace for others to read")
    export.add_argument("id", nargs="?", type=trace_id, default=LAST, metavar="ID", help="default: last")
    export.add_argument("--to", choices=["md", "json", "jsonl", "html", "svg"], help="default: by the name of FILE, else md")
    export.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: standard output")
    export.add_argument("--force", action="store_true", help="overwrite FILE")
    export.set_defaults(run=run_export)

    compare = inner.add_parser("compare", parents=[shared], help="one question to two models, side by side", description=_COMPARE)
    compare.add_argument("prompt", nargs="?", metavar="PROMPT", help="the question")
    compare.add_argument("-m", "--model", type=against, default=Against("", ""), metavar="MODEL[@BACKEND]", help="default: as for chat")
    compare.add_argument("--against", type=against, metavar="MODEL[@BACKEND]", help="the other one; @BACKEND alone: the same model there")
    compare.add_argument("--traces", nargs=2, type=trace_id, metavar="ID", help="two traces that are there, instead of a question")
    compare.add_argument("--screen", action="store_true", help="look at the two traces side by side, step beside step")
    compare.set_defaults(run=run_compare, wrong=compare.error)

    for command in (listed, show, search, stats, compare):
        command.add_argument("--json", action="store_true", help="print JSON")


def run_list(args: argparse.Namespace) -> int:
    from localr1.tracing import list_traces

    list_traces(args.limit, args.json)
    return 0


def run_show(args: argparse.Namespace) -> int:
    from localr1.tracing import show

    show(args.id, args.plain, args.json)
    return 0


def run_search(args: argparse.Namespace) -> int:
    from localr1.tracing import search

    return 0 if search(" ".join(args.words), args.limit, args.json) else 1


def run_stats(args: argparse.Namespace) -> int:
    from localr1.tracing import show_stats, show_totals

    if args.id is None:
        show_totals(args.json)
    else:
        show_stats(args.id, args.json)
    return 0


def run_export(args: argparse.Namespace) -> int:
    from localr1.trace.export import FORMS, Form
    from localr1.tracing import write

    form: Form = "md"
    suffix = args.output.suffix.lower() if args.output is not None else ""
    write(args.id, args.to or next((known for known in FORMS if suffix == f".{known}"), form), args.output, args.force)
    return 0


def run_compare(args: argparse.Namespace) -> int:
    if (args.traces is None) == (args.prompt is None):
        args.wrong("give a question and --against MODEL[@BACKEND], or --traces ID ID")
    if args.traces is not None and args.against is not None:
        args.wrong("--traces compares what was kept; leave --against away")
    if args.screen and (args.json or not (sys.stdin.isatty() and sys.stdout.isatty())):
        args.wrong("--screen needs a terminal, and no --json")
    from localr1.comparing import DEFAULT_SEED, Asked, ask_both, compare_kept, look_at, show

    if args.traces is not None:
        pair = compare_kept(*args.traces)
        look_at(*pair) if args.screen else show(*pair, args.json)
        return 0
    if args.against is None:
        args.wrong("give --against MODEL[@BACKEND], for example --against @reference")
    if not args.prompt.strip():
        args.wrong("the prompt is empty")
    from localr1.flags import given
    from localr1.opening import wanted
    from localr1.settings_file import read
    from localr1.settings_layers import Layers

    settings = Layers(read(), given(args)).settings
    if settings.sampling.seed is None:
        settings = settings.changed({"sampling.seed": DEFAULT_SEED})
        if settings.sampling.temperature:
            print(f"localr1: both are asked with seed {DEFAULT_SEED}, as none was given", file=sys.stderr)
    engine = settings.model.backend
    first = args.model.model or settings.model.name
    sides = [Against(first, args.model.backend or engine)]
    sides += [Against(args.against.model or first, args.against.backend or engine)]
    asked = Asked(args.prompt.strip(), settings.rules(), wanted(settings, args.force), settings.chat.history)
    pair = ask_both(asked, *sides)
    look_at(*pair) if args.screen else show(*pair, args.json)
    return 0
