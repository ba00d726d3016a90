"""Questions, typed a line at a time or read from a pipe. On a terminal, lines are edited by readline, where Python has it."""

from __future__ import annotations

import sys
from collections.abc import Callable

from localr1.completion import choices

PROMPT, MORE = "You: ", "... "
_FENCE = '"""'


class Lines:
    """`read` gives the next question. Raises EOFError (there is none), KeyboardInterrupt, UnicodeDecodeError."""

    def __init__(self) -> None:
        self.typed = sys.stdin is not None and sys.stdin.isatty()
        if self.typed:
            _learn_commands()

    def read(self) -> tuple[str, bool]:
        """And whether it is meant as a question, be it one of the commands to look at."""
        return question(self.line)

    def line(self, prompt: str) -> str:
        """One line. Raises as `read` does."""
        if self.typed and sys.stdout.isatty():
            return input(prompt)
        if self.typed:
            print(prompt, end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline() if sys.stdin is not None else ""
        if not line:
            raise EOFError
        line = line.rstrip("\r\n")
        if not self.typed:  # so that what is written reads as a conversation
            print(prompt + line, flush=True)
        return line


def question(line: Callable[[str], str]) -> tuple[str, bool]:
    """One line; several, where a backslash ends all but the last, or three quotation marks stand around them: then, True. `line` reads
    one, given its prompt, and raises EOFError."""
    text = line(PROMPT)
    if text.lstrip().startswith(_FENCE):
        return _fenced(text.lstrip().removeprefix(_FENCE), line), True
    lines = []
    while text.endswith("\\"):
        lines.append(text[:-1])
        try:
            text = line(MORE)
        except EOFError:
            text = ""
    return "\n".join([*lines, text]), False


def _fenced(text: str, line: Callable[[str], str]) -> str:
    lines = []
    while not text.rstrip().endswith(_FENCE):
        lines.append(text)
        try:
            text = line(MORE)
        except EOFError:
            text = _FENCE
    return "\n".join([*lines, text.rstrip().removesuffix(_FENCE)]).strip("\n")


def _learn_commands() -> None:
    """Tab completes commands and what they take."""
    try:
        import readline
    except ImportError:
        return

    def complete(text: str, state: int) -> str | None:
        found = choices(text)
        return found[state].text if state < len(found) else None

    readline.set_completer_delims("")
    readline.set_completer(complete)
    readline.parse_and_bind("bind ^I rl_complete" if "libedit" in (readline.__doc__ or "") else "tab: complete")


def being_edited() -> bool:
    """Something stands in the line that Ctrl+C has just ended."""
    readline = sys.modules.get("readline")
    return bool(readline is not None and readline.get_line_buffer())
