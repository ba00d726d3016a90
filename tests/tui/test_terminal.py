"""The real program on the bundled model, in a pseudo-terminal."""

import os
import shutil
import signal
import time

import psutil
import pytest
from pseudo_terminal import LOCALR1, Terminal

from localr1.history import history_file
from localr1.store import Store

STRAWBERRY = "How many r's are in strawberry?"
SLOW = (
    "--backend",
    "reference",
    "--temperature",
    "0",
)  # a reply that takes a second, not a thirtieth of one: there is time to do something


@pytest.mark.parametrize("flags", [(), SLOW], ids=["", "cancelled"])
def test_a_session_leaves_the_terminal_as_it_was(flags: tuple[str, ...]) -> None:
    """Start, ask, cancel, resize, quit."""
    with Terminal("chat", *flags) as terminal:
        terminal.until("Ask something")
        terminal.type(f"{STRAWBERRY}\r")
        if flags:
            terminal.until("Thinking")
            terminal.type("\x03")
            terminal.until("Cancelled")
        else:
            terminal.until("r's in strawberry.")
        for width, height in ((20, 5), (300, 80), (80, 24)):
            terminal.resize(width, height)
            time.sleep(0.1)
        terminal.type("\x1a")  # no shell has started it: nothing to go back to
        terminal.until("\x1b[?1049l")
        terminal.until("\x1b[?1049h")
        terminal.until("Ask something")  # drawn anew, so keys are read again
        terminal.type("/quit\r")
        assert terminal.ended() == 0
        assert terminal.is_as_before() and "Traceback" not in terminal.read


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs a shell with job control")
def test_ctrl_z_goes_back_to_the_shell_and_fg_comes_back() -> None:
    with Terminal(program=("bash", "--norc", "--noprofile", "-i"), PS1="ready> ") as terminal:
        terminal.until("ready> ")
        terminal.type(f"'{LOCALR1[0]}' -m localr1.cli chat --no-history --temperature 0\r")
        terminal.until("Ask something")
        terminal.type(f"{STRAWBERRY}\r")
        terminal.until("r's in strawberry.")
        terminal.type("half a question\x1a")
        terminal.until("\x1b[?1049l")
        terminal.until("Stopped")
        terminal.until("ready> ")
        terminal.type("bg\r")  # a terminal program can do nothing there
        terminal.until("ready> ")
        time.sleep(0.5)
        while psutil.Process(terminal.pid).children()[0].status() != psutil.STATUS_STOPPED:
            time.sleep(0.05)
        terminal.type("fg\r")
        terminal.until("\x1b[?1049h")
        for text in (STRAWBERRY, "r's in strawberry", "half a question"):  # the whole screen, with what it had
            terminal.until(text)
        terminal.type("\x03What is 907 + 195?\r")
        terminal.until("1102")
        terminal.until("Ask something")
        terminal.type("/quit\r")
        terminal.until("ready> ")
        terminal.type("echo code $?\r")
        terminal.until("code 0")
        assert terminal.is_as_before(shell=True)


def test_the_mouse_can_be_left_to_the_terminal() -> None:
    with Terminal("chat", "--no-history", "--no-mouse") as terminal:
        terminal.until("Ask something")
        assert "\x1b[?1000h" not in terminal.read and "\x1b[?1006h" not in terminal.read
        os.kill(terminal.pid, signal.SIGTERM)
        assert terminal.ended() == 128 + signal.SIGTERM
        assert terminal.is_as_before() and "Traceback" not in terminal.read


def test_a_terminal_of_lines_gets_the_plain_chat_told() -> None:
    with Terminal("chat", TERM="dumb") as terminal:
        terminal.until("localr1 chat --plain")
        assert terminal.ended() == 1


def test_a_terminal_that_is_lost_ends_the_program_and_what_was_said_is_kept() -> None:
    with Terminal("chat", *SLOW) as terminal:
        terminal.until("Ask something")
        terminal.type("Whatever is lost?\r")
        terminal.until("Thinking")
        terminal.hang_up()
        assert terminal.ended() == 128 + signal.SIGHUP
    with Store(history_file()) as store:
        assert any(trace.question == "Whatever is lost?" for trace in store.traces())


def test_a_terminal_that_goes_without_a_word_is_missed() -> None:
    with Terminal("chat", "--no-history") as terminal:
        terminal.until("Ask something")
        process = psutil.Process(terminal.pid)
        terminal.hang_up()
        assert terminal.ended() == 128 + signal.SIGHUP
        assert not process.is_running()


def test_the_plain_chat_in_a_terminal() -> None:
    """Ctrl+C stops the reply, clears the line, leaves at the second time; nothing moves the cursor."""
    with Terminal("chat", "--plain", *SLOW) as terminal:
        terminal.until("You: ")
        terminal.type(f"{STRAWBERRY}\r")
        terminal.until("Thinking:")
        terminal.type("\x03")
        terminal.until("[Cancelled")
        terminal.until("You: ")
        terminal.asked()
        terminal.type("half a que\x03")
        terminal.until("You: ")
        terminal.type("/think off\r")
        terminal.until("Answers without thinking")
        terminal.until("You: ")
        terminal.asked()
        terminal.type("\x03")
        terminal.until("again to quit")
        terminal.until("You: ")
        terminal.asked()
        terminal.type("\x03")
        assert terminal.ended() == 0
        assert "Traceback" not in terminal.read
