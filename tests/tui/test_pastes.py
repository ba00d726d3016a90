"""Pasted text is never taken for keys, however the terminal cuts it."""

import pytest
from pseudo_terminal import Terminal
from textual import events

from localr1.tui.pastes import PasteParser

HOSTILE = "a\x1b[31mred\x07\r\x1b\x1b[20\x1b[2y\x1b[200~/quit\r\x1b"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 1000])
def test_escape_characters_in_a_paste_are_shown(size):
    parser = PasteParser()
    sent = f"k\x1b[A\x1b[200~{HOSTILE}\x1b[201~l\x1b[200~two\x1b[201~m"
    seen = [event for i in range(0, len(sent), size) for event in parser.feed(sent[i : i + size])]
    assert [event.text if isinstance(event, events.Paste) else getattr(event, "key", event) for event in seen] == [
        "k", "up", HOSTILE.replace("\x1b", "␛"), "l", "two", "m",
    ]  # fmt: skip


def test_the_program_does_not_obey_what_is_pasted() -> None:
    with Terminal("chat", "--no-history") as terminal:
        terminal.until("Ask something")
        terminal.type("\x1b[200~what \x1b[31m is /quit\r\x1b[201~")
        terminal.until("␛")
        terminal.until("/quit")
        assert "Esc stops the reply" not in terminal.read
