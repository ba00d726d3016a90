"""Slash commands: what was typed, read by the table; both faces of the chat know all of it."""

import pytest
from tui.driving import chat

from localr1.commands import COMMANDS, Typed, completions, parse, typed_for
from localr1.keys import Keymap
from localr1.plain import PlainChat
from localr1.tui.help import groups
from localr1.turn import Rules
from scripted import ScriptedBackend


def test_every_command_is_in_the_help():
    rows = [row for _, rows in groups(Keymap()) for row in rows]
    assert all((command.usage, command.help) in rows for command in COMMANDS.values())


@pytest.mark.parametrize(
    ("text", "name", "value", "problem"),
    [
        ("/help", "help", "", ""), ("/NEW ", "new", "", ""), ("/think off", "think", "off", ""), ("/budget 12", "budget", "12", ""),
        ("/budget off", "budget", "off", ""), ("/budget N", "budget", "", "/budget takes N or off"), ("/think", "think", "", ""), ("/file My Notes.txt", "file", "My Notes.txt", ""),
        ("/think maybe", "think", "", "/think takes auto or off or force"), ("/new chat", "new", "", "/new takes nothing behind it"),
        ("/", "", "", "There is no command /: /help lists them"), ("/sing", "sing", "", "There is no command /sing: /help lists them"),
        ("/new to this, please help", "new", "", "/new takes nothing behind it"), ("/think maybe so", "think", "", "/think takes auto or off or force"),
    ],
)  # fmt: skip
def test_commands(text, name, value, problem):
    typed = parse(text)
    assert typed is not None and (typed.name, typed.value if not problem else "", typed.problem) == (name, value, problem)


def test_the_screen_and_the_plain_chat_carry_out_every_command():
    app, _ = chat()
    plain = PlainChat(lambda say: ScriptedBackend(), Rules(), None)
    assert set(app._handlers) == set(plain._handlers) == set(COMMANDS)


def test_aliases_and_completions():
    assert parse("/regen") == Typed("reroll") and parse("/clear") == Typed("new")
    assert [c.name for c in completions("/rer")] == ["reroll"] and [c.name for c in completions("/ex")] == ["quit"]
    assert completions("/new ") == completions("new") == completions("/zzz") == []
    assert len(completions("/")) == len(COMMANDS)


def test_a_command_for_one_question():
    assert parse("/budget 20  What is\n2 + 2?") == Typed("budget", "20", question="What is\n2 + 2?")
    assert parse("/THINK off Why?") == Typed("think", "off", question="Why?")


@pytest.mark.parametrize("text", ["/think off Why?", "/think force /new", "/budget 20 What is\n2 + 2?", "/budget off off"])
def test_a_question_is_typed_again_with_what_held_for_it_alone(text):
    command = parse(text)
    assert typed_for(command.question, {**command.changes(), "when_full": "drop"}) == text


def test_a_question_without_a_command_is_typed_as_it_is():
    assert typed_for("Why?", {"when_full": "drop"}) == typed_for("Why?", {}) == "Why?"


@pytest.mark.parametrize("text", ["/usr/bin is a folder", "/usr/bin", "what is /new?", "/2", "/sing a song for me"])
def test_questions(text):
    assert parse(text) is None
