"""The command line: every command parses, calls one function, and turns errors into one line and an exit code.

0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import codecs
import gc
import os
import signal
import stat
import sys
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from pathlib import Path

from backends.base import BackendError
from localr1 import __version__
from localr1.bench_command import add_commands as add_bench_command
from localr1.flags import add_screen_flags, given, turn_flags
from localr1.model_commands import add_commands as add_model_commands
from localr1.settings_command import add_commands as add_settings_command
from localr1.text import printable
from localr1.trace_commands import add_commands as add_trace_commands
from localr1.trace_commands import against as model_at

USAGE = """examples:
  localr1                                     chat with the model used last, at first the bundled one
  localr1 chat model.gguf                     chat with a GGUF file or a checkpoint folder
  localr1 ask "How many r's are in strawberry?"
  localr1 trace show                          the last reply's trace: steps, timeline, what it was not sure of
  localr1 pull r1:7b                          fetch a model; without a name, which there are
  localr1 quantize CHECKPOINT model.gguf --to Q4_K_M
  localr1 quantize CHECKPOINT model.gguf --fit 6GB
"""


def number(kind: Callable[[str], float], low: float, high: float = float("inf")) -> Callable[[str], float]:
    """An argparse type: a number from `low` to `high`."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no {'whole ' if kind is int else ''}number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is out of range: {low:g} " + ("or more" if high == float("inf") else f"to {high:g}"))
        return value

    return parse


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


def parser() -> argparse.ArgumentParser:
    shared = turn_flags()
    main = argparse.ArgumentParser(
        prog="localr1", description="Distilled R1-style reasoning models on your own machine.",
        epilog=USAGE, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    main.add_argument("--version", action="version", version=f"localr1 {__version__}")
    commands = main.add_subparsers(metavar="COMMAND")

    chat = commands.add_parser("chat", parents=[shared], help="chat in the terminal (the default)")
    chat.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="GGUF file, checkpoint folder or a name of `localr1 list` (default: the last used, else the best here)",
    )
    chat.add_argument(
        "--plain", action="store_true", help="line by line instead of a screen: for screen readers, pipes and simple terminals"
    )
    earlier = chat.add_mutually_exclusive_group()
    earlier.add_argument("--continue", dest="resume", action="store_const", const="", help="go on with the last conversation")
    earlier.add_argument("--resume", metavar="WORDS", help="go on with another one: its number in /chats, or words of it")
    add_screen_flags(chat)
    chat.set_defaults(run=run_chat, resume=None)

    ask = commands.add_parser(
        "ask", parents=[shared], help="one question, one answer", description="One turn: thought to stderr, answer to stdout."
    )
    ask.add_argument("prompt", nargs="?", metavar="PROMPT", help="the question; - reads it from standard input, a pipe is appended to it")
    ask.add_argument(
        "-m",
        "--model",
        metavar="MODEL",
        help="GGUF file, checkpoint folder or a name of `localr1 list` (default: the last used, else the best here)",
    )
    ask.add_argument("--file", type=Path, action="append", default=[], metavar="PATH", help="a text file to ask about; may be given again")
    ask.add_argument("--json", action="store_true", help="print one JSON object")
    ask.set_defaults(run=run_ask)

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
    add_trace_commands(commands, shared)
    add_model_commands(commands)
    add_settings_command(commands)
    add_bench_command(commands)
    verify = commands.add_parser(
        "verify", help="whether every path computes the same: the bundle, a checkpoint, or two models",
        description="Without arguments, the bundle's whole proof in a minute or two. With MODEL, what can be proved of that checkpoint; with "
        "--against, whether two models, quantizations or engines say the same. Exit code 1: something differs.",
    )  # fmt: skip
    verify.add_argument("model", nargs="?", type=model_at, metavar="MODEL[@BACKEND]", help="a checkpoint folder (default: the bundle)")
    verify.add_argument("--against", type=model_at, metavar="REF[@BACKEND]", help="another model, quantization or backend")
    verify.add_argument(
        "--tolerance", type=number(float, 0), metavar="NATS", help="with --against: mean KL divergence that is allowed (default: 0.001)"
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

    doctor = commands.add_parser(
        "doctor", help="what is installed, what this machine has, whether it works",
        description="Versions, engines, memory, a short self-test of each engine, folders, terminal. Exit code 1: something is broken.",
    )  # fmt: skip
    doctor.add_argument("--json", action="store_true", help="print one JSON object, to send back; it names no person")
    doctor.set_defaults(run=run_doctor)
    return main


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    _open_closed_streams()
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _terminate)
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help", "--version")):
        arguments.insert(0, "chat")
    args = parser().parse_args(arguments)
    try:
        run: Callable[[argparse.Namespace], int] = args.run
        return run(args)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader has gone (localr1 ask ... | head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if not _is_expected(error):
            raise
        print(f"localr1: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return 1


def _open_closed_streams() -> None:
    """A stream that was closed for us (`>&-`) swallows what is written to it; one in another encoding shows ? for what it lacks."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115, PTH123
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and codecs.lookup(stream.encoding).name != "utf-8":
            stream.reconfigure(errors="replace")  # a sign that the terminal does not know is no reason to end


def _terminate(number: int, frame: object) -> None:
    """Leave the way an error does, so that half-written files are removed and the terminal is restored."""
    raise SystemExit(128 + number)


class UsageProblem(Exception):
    """Something asked for that cannot be done here; the message says what to do instead."""


def _is_expected(error: Exception) -> bool:
    """Errors whose message is meant for people."""
    from localr1.attachments import AttachError
    from localr1.prompt import PromptError
    from localr1.settings import SettingError
    from localr1.store.schema import StoreError
    from quantize.errors import QuantizeError

    return isinstance(error, AttachError | BackendError | QuantizeError | PromptError | SettingError | StoreError | UsageProblem | OSError)


def run_chat(args: argparse.Namespace) -> int:
    on_terminal = all(stream and stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))  # Textual draws on stderr
    if not on_terminal and not args.plain:
        raise UsageProblem('the chat needs a terminal; without one, use: localr1 ask "your question", or localr1 chat --plain')
    if os.environ.get("TERM") == "dumb" and not args.plain:
        raise UsageProblem("this terminal says that it can only write lines (TERM is dumb); use: localr1 chat --plain")
    from localr1.history import history_file
    from localr1.opening import Opener, wanted
    from localr1.settings_layers import layers_for

    layers, spec = layers_for(given(args))  # a wrong name is told before the screen is taken
    opener = Opener(spec, wanted(layers.settings, args.force), chosen=args.model is not None)
    history = history_file() if layers.settings.chat.history else None
    resume = None if args.resume is None else _resumed(history, args.resume)
    if args.plain:
        from localr1.plain import PlainChat

        return PlainChat(opener, history=history, layers=layers).run(resume)
    gc.disable()  # until the first paint: nothing that is imported goes
    from localr1.tui.app import ChatApp

    app = ChatApp(opener, history=history, layers=layers, resume=resume)
    app.run(mouse=layers.settings.look.mouse)
    if line := app.savings.line():
        print(line)
    return app.return_code or 0


def _resumed(history: Path | None, wanted: str) -> int:
    """The conversation to go on with."""
    if history is None:
        raise UsageProblem("without history there is nothing to go on with; leave --no-history away")
    from localr1.conversations import find_in

    return find_in(history, wanted)


def run_ask(args: argparse.Namespace) -> int:
    prompt = _with_files(_prompt(args.prompt), args.file)
    if not prompt:
        raise UsageProblem('the prompt is empty; try: localr1 ask "How many r\'s are in strawberry?"')
    from localr1.ask import ask, load
    from localr1.history import history_file
    from localr1.opening import wanted
    from localr1.settings_layers import layers_for

    layers, spec = layers_for(given(args))
    settings = layers.settings
    model = load(spec, wanted(settings, args.force))
    if args.model is not None:
        from localr1.library import used

        used(spec.path)  # the default from now on
    with model.backend:
        done = ask(model, prompt, settings.rules(), history_file() if settings.chat.history else None, args.json)
    return 0 if done else 130


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
        return "--against and --teacher are two questions; ask one" if args.teacher else ""
    if args.tolerance is not None or backend:
        return "--tolerance and @BACKEND go with --against"
    if args.svg is not None and not args.teacher:
        return "--svg goes with --against or --teacher"
    return "" if args.teacher or not (args.problems or args.markdown) else "--problems and --markdown go with --teacher"


def run_doctor(args: argparse.Namespace) -> int:
    from localr1.doctor import doctor

    return 0 if doctor(args.json) else 1


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


def _prompt(argument: str | None) -> str:
    """The PROMPT argument with what standard input adds to it."""
    parts = [] if argument in (None, "-") else [argument]
    if argument == "-" and sys.stdin is None:
        raise UsageProblem("standard input is closed; give the prompt as an argument, or pipe it in")
    if argument == "-" or _stdin_is_pipe_or_file():
        try:
            parts.append(sys.stdin.buffer.read().decode("utf-8"))
        except UnicodeDecodeError as error:
            raise UsageProblem(f"standard input is no UTF-8 text (byte {error.start}); convert it first") from None
    return "\n\n".join(p.strip() for p in parts if p and p.strip())


def _with_files(prompt: str, files: Sequence[Path]) -> str:
    if not files:
        return prompt
    from localr1.attachments import Attachment, added, compose, read

    attachments: tuple[Attachment, ...] = ()
    for file in files:
        attachments = added(attachments, read(file, pipes=True))
    return compose(prompt, attachments)


def _stdin_is_pipe_or_file() -> bool:
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):  # closed
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


if __name__ == "__main__":
    sys.exit(main())
