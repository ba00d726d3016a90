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
from localr1.quantize_command import add_commands as add_quantize_command
from localr1.settings_command import add_commands as add_settings_command
from localr1.text import printable
from localr1.trace_commands import add_commands as add_trace_commands
from localr1.verify_command import add_commands as add_verify_command

USAGE = """examples:
  localr1                                     chat with the model used last, at first the bundled one
  localr1 chat model.gguf                     chat with a GGUF file or a checkpoint folder
  localr1 ask "How many r's are in strawberry?"
  localr1 trace show                          the last reply's trace: steps, timeline, what it was not sure of
  localr1 pull r1:7b                          fetch a model; without a name, which there are
  localr1 quantize CHECKPOINT model.gguf --to Q4_K_M
  localr1 quantize CHECKPOINT model.gguf --fit 6GB
"""


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

    add_quantize_command(commands)
    add_trace_commands(commands, shared)
    add_model_commands(commands)
    add_settings_command(commands)
    add_bench_command(commands)
    add_verify_command(commands)

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
        if signal.getsignal(ending) is not signal.SIG_IGN:  # nohup
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
    from localr1.trace.record import TraceError
    from quantize.errors import QuantizeError

    return isinstance(
        error, AttachError | BackendError | QuantizeError | PromptError | SettingError | StoreError | TraceError | UsageProblem | OSError
    )


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
    files = [Path(os.path.expanduser(file)) for file in args.file]  # noqa: PTH111 - Path's fails for ~nobody
    prompt = _with_files(_prompt(args.prompt, is_free=not any(map(_is_stdin, files))), files)
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


def run_doctor(args: argparse.Namespace) -> int:
    from localr1.doctor import doctor

    return 0 if doctor(args.json) else 1


def _prompt(argument: str | None, is_free: bool = True) -> str:
    """The PROMPT argument with what standard input adds to it; `is_free`: that is not read as a file."""
    parts = [] if argument in (None, "-") else [argument]
    if argument == "-" and sys.stdin is None:
        raise UsageProblem("standard input is closed; give the prompt as an argument, or pipe it in")
    if argument == "-" or (is_free and _stdin_is_pipe_or_file()):
        try:
            parts.append(sys.stdin.buffer.read().decode("utf-8"))
        except UnicodeDecodeError as error:
            raise UsageProblem(f"standard input is no UTF-8 text (byte {error.start}); convert it first") from None
    return "\n\n".join(p.strip("\r\n").rstrip() for p in parts if p and p.strip())  # code keeps its first line's indentation


def _with_files(prompt: str, files: Sequence[Path]) -> str:
    if not files:
        return prompt
    from localr1.attachments import Attachment, added, compose, read

    attachments: tuple[Attachment, ...] = ()
    for file in files:
        attachments = added(attachments, read(file, pipes=True))
    return compose(prompt, attachments)


def _is_stdin(file: Path) -> bool:
    try:
        return os.path.samestat(file.stat(), os.fstat(sys.stdin.fileno()))
    except (AttributeError, OSError, ValueError):  # there is none, or no such file
        return False


def _stdin_is_pipe_or_file() -> bool:
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):  # closed
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


if __name__ == "__main__":
    sys.exit(main())
