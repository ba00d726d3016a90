"""What is copied of a reply: exactly what was named, as the model wrote it, with nothing in it that a terminal would obey."""

from __future__ import annotations

import io
import sys

import pytest

from localr1.copying import CopyError, code_blocks, copy_of
from localr1.plain import PlainChat
from localr1.turn import Rules
from scripted import ScriptedBackend

ANSWER = "Do **this**:\n\n1. first\n\n   ```python\n   x = '$1$'\n   ```\n\n~~~\nlast\n~~~\n`no` $block$"


@pytest.mark.parametrize(
    ("wanted", "text", "what"),
    [
        ("", ANSWER, "the answer, 83 characters"),
        ("answer", ANSWER, "the answer, 83 characters"),
        ("thought", "Hm.", "the thought, 3 characters"),
        ("all", f"<think>\nHm.\n</think>\n\n{ANSWER}", "thought and answer, 105 characters"),
        ("code", "last\n", "code block 2 of 2, 5 characters"),
        ("code 1", "x = '$1$'\n", "code block 1 of 2, 10 characters"),
        (" CODE  2 ", "last\n", "code block 2 of 2, 5 characters"),
    ],
)
def test_what_is_named_is_copied_as_the_model_wrote_it(wanted: str, text: str, what: str):
    assert copy_of(wanted, "\nHm.\n", f"\n\n{ANSWER}\n") == (text, what)


@pytest.mark.parametrize(
    ("wanted", "answer", "problem"),
    [
        ("", " ", "There is no answer to copy yet"),
        ("thought", "a", "There is no thought to copy yet"),
        ("code", "a `b`", "There is no code in the answer"),
        ("code 2", "```\na\n```", "The answer has 1 code block: there is no number 2"),
        ("code 0", ANSWER, "The answer has 2 code blocks: there is no number 0"),
        ("code 9" + "9" * 5000, ANSWER, "there is no number 9"),
        ("code x", ANSWER, "/copy takes answer, code, code N, thought or all"),
        ("answer 2", ANSWER, "/copy takes"),
        ("everything", ANSWER, "/copy takes"),
    ],
)
def test_what_is_not_there_is_told(wanted: str, answer: str, problem: str):
    with pytest.raises(CopyError, match=problem):
        copy_of(wanted, "", answer)


def test_nothing_that_a_terminal_would_obey_is_copied():
    assert copy_of("", "", "a\x1b[201~\u202eb").text == "a␛[201~�b"
    assert copy_of("code", "", "```\nrm\x1b[2J\n```").text == "rm␛[2J\n"
    assert copy_of("", "", "a\ud800b").text == "a�b"  # no text: it could not be written


def test_code_that_is_not_closed_yet_is_code():
    assert code_blocks("```js\nlet a") == ["let a\n"] or code_blocks("```js\nlet a") == ["let a"]


def test_the_plain_chat_copies_to_a_terminals_clipboard(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("/copy\nHi\n/copy\n/raw\n/copy code\n"))
    backend = ScriptedBackend(["Hm", "</think>", "$x^2$"])
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    PlainChat(lambda say: backend, Rules(), None).run()
    said = capsys.readouterr().out
    assert "There is no answer to copy yet" in said and "There is no code in the answer" in said
    assert "\x1b]52;c;JHheMiQ=\aCopied the answer, 5 characters" in said
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hi\n/copy\n"))
    PlainChat(lambda say: ScriptedBackend(["a"]), Rules(), None).run()
    assert "\x1b]52" not in capsys.readouterr().out
