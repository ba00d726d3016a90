"""A program in a pseudo-terminal: typed to, read from, resized, and asked in which state it has left the terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from pathlib import Path

import psutil

import localr1

_ESCAPES = re.compile(r"\x1b\[[0-9;?<=>]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\\\)|\x1bP[^\x1b]*\x1b\\\\|\x1b[^\[\]P]")
LOCALR1 = (sys.executable, "-m", "localr1.cli")
_ON_BY_ITSELF = {"25", "7"}  # modes that a terminal has when a program gets it: the cursor, wrapping
_OF_SHELLS = {"2004"}


class Terminal:
    """`read` is everything that the program has written."""

    def __init__(self, *arguments: str, program: tuple[str, ...] = LOCALR1, **environment: str) -> None:
        self.read = ""
        self._seen = {False: 0, True: 0}  # of the text alone, of everything
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            for name in ("COLUMNS", "LINES", "NO_COLOR"):
                os.environ.pop(name, None)
            os.environ |= {"PYTHONPATH": str(Path(localr1.__file__).parents[1]), "TERM": "xterm-256color"} | environment
            os.execvp(program[0], [*program, *arguments])
        self.resize(80, 24)
        self.before = termios.tcgetattr(self.fd)

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def asked(self) -> None:
        """Wait until the program waits for a key. Between a prompt and that, Python's readline would miss a Ctrl+C until the next key."""
        process, waits, deadline = psutil.Process(self.pid), 0, time.monotonic() + 30
        while waits < 5:
            assert time.monotonic() < deadline, f"it never waits for a key: {self.read[-1500:]!r}"
            time.sleep(0.01)
            waits = waits + 1 if process.status() == psutil.STATUS_SLEEPING else 0

    def until(self, text: str, limit_s: float = 30) -> None:
        """Read until `text` comes, behind what was waited for before; escape sequences do not count, but in a text that has one."""
        deadline = time.monotonic() + limit_s
        goes_on = True
        while True:
            shown = self.read if "\x1b" in text else _ESCAPES.sub("", self.read)
            at = shown.find(text, self._seen["\x1b" in text])
            if at >= 0:
                self._seen["\x1b" in text] = at + len(text)
                return
            assert goes_on and time.monotonic() < deadline, f"never came: {text!r}, but {shown[-1500:]!r}"
            goes_on = self._take()

    def _take(self) -> bool:
        if not select.select([self.fd], [], [], 0.1)[0]:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # it has ended
            return False
        self.read += data.decode(errors="replace")
        return bool(data)

    def ended(self, limit_s: float = 20) -> int:
        """Wait until the program ends; its exit code."""
        deadline = time.monotonic() + limit_s
        while (found := os.waitpid(self.pid, os.WNOHANG)) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError(f"it has not ended: {self.read[-1500:]!r}")
            if self.fd >= 0:
                self._take()
            else:
                time.sleep(0.05)
        if self.fd >= 0:
            while self._take() and select.select([self.fd], [], [], 0)[0]:
                pass
        return os.waitstatus_to_exitcode(found[1])

    def hang_up(self) -> None:
        os.close(self.fd)
        self.fd = -1

    def is_as_before(self, shell: bool = False) -> bool:
        """The terminal is as the program got it: settings (but of a shell, which has its own), modes, screen."""
        modes: dict[str, str] = {}
        for numbers, state in re.findall(r"\x1b\[\?([0-9;]+)([hl])", self.read):
            modes |= dict.fromkeys(numbers.split(";"), state)
        left = {mode for mode, state in modes.items() if (state == "h") != (mode in _ON_BY_ITSELF)} - (_OF_SHELLS if shell else set())
        assert not left, f"modes that were left changed: {left}"
        assert self.read.count("\x1b[>") >= self.read.count("\x1b[<u") > 0, "the keyboard protocol was left on"
        return shell or termios.tcgetattr(self.fd) == self.before

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
