"""The chat line by line: what is written, in which order, and what it is told."""

import io
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from backends.base import BackendError, EngineError
from localr1.chat import ChatSession
from localr1.lines import question
from localr1.models import ModelSpec, Wanted
from localr1.opening import Opener
from localr1.plain import PlainChat
from localr1.tui.engine import OpenBackend
from localr1.turn import Rules
from scripted import ScriptedBackend

THINK = ["Let", " me", " count", ".", "</think>", "\n\n"]
END = "[7 tokens, 100.0 tokens/s]"


def talk(
    monkeypatch: pytest.MonkeyPatch, text: str, open_backend: OpenBackend, rules: Rules | None = None, history: Path | None = None
) -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    return PlainChat(open_backend, rules or Rules(), history).run()


def test_a_conversation_reads_from_top_to_bottom(monkeypatch, capsys):
    backend = ScriptedBackend([*THINK, "600"], ["Now", "</think>", "12\x1b[2J"])
    assert talk(monkeypatch, "How many?\nAnd\\\ntwice?\n\n", lambda say: backend) == 0
    shown = capsys.readouterr().out
    assert shown == (
        f"You: How many?\nThinking:\nLet me count.\n\nAnswer:\n600\n{END}\n\n"
        "You: And\\\n... twice?\nThinking:\nNow\n\nAnswer:\n12␛[2J\n[3 tokens, 100.0 tokens/s]\n\nYou: \n"
    )
    assert "And\ntwice?" in backend.decode(backend.seen[1]) and backend.closed


@pytest.mark.parametrize(("change", "answer"), [("", "So x² and [ 42 ]"), ("/set look.latex false\n", r"So $x^2$ and \boxed{42}")])
def test_formulas_are_readable_to_who_types(monkeypatch, capsys, change, answer):
    replies = [*THINK, "So", " $x", "^2$", " and \\boxed", "{42}"]
    monkeypatch.setattr(sys, "stdin", Typed(f"{change}How many?\n"))
    assert PlainChat(lambda say: ScriptedBackend(replies), Rules(), None).run() == 0
    assert f"Answer:\n{answer}\n[" in capsys.readouterr().out


def test_what_is_kept_of_a_steered_thought_is_not_written_again(monkeypatch, capsys):
    backend = ScriptedBackend([*THINK, "600"], ["601"], [" once", " more", "</think>", "602"])
    talk(monkeypatch, "How many?\n/again\n/longer\n/trace\n", lambda say: backend)
    again, longer, trace = capsys.readouterr().out.split("You: /")[1:4]
    assert again.startswith("again\nAnswer:\n601\n")
    assert longer.startswith("longer\nThinking:\nWait, once more\n\nAnswer:\n602\n")
    assert "    Let me count.\n" in trace and "    Wait, once more\n" in trace and "    602" in trace


def test_settings_and_words_on_what_cannot_be_done(monkeypatch, capsys):
    backend = ScriptedBackend(["4"], [*THINK, "5"])
    talk(monkeypatch, "/again\n/edit\n/trace\n/sing\n/budget 9\n/think off Two?\n/new\n/longer\n/quit\nnever asked\n", lambda say: backend)
    said = capsys.readouterr().out
    for line in (
        "no reply to steer yet",
        "no thought to edit",
        "no trace yet",
        "no command /sing",
        "closed after 9 tokens",
        "Answer:\n4",
        "A new chat.",
    ):
        assert line in said
    assert said.count("no reply to steer yet") == 2 and "never asked" not in said


def test_the_thought_is_edited(monkeypatch, capsys, tmp_path):
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nprintf 'Let me guess.' > \"$1\"\n")
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    backend = ScriptedBackend([*THINK, "600"], ["</think>", "7"])
    talk(monkeypatch, "How many?\n/edit\n/edit\n", lambda say: backend)
    assert "Thinking:\n guess.\n\nAnswer:\n7\n" in capsys.readouterr().out


def test_failures_are_a_line_and_an_exit_code(monkeypatch, capsys):
    def broken(say):
        raise BackendError("no model here; pull one")

    assert talk(monkeypatch, "Hello?\n", broken) == 1
    assert capsys.readouterr().err == "localr1: no model here; pull one\n"
    backend = ScriptedBackend(["</think>", "4"], context=200)
    assert talk(monkeypatch, "word " * 50 + "\nTwo?\n", lambda say: backend) == 1
    assert "holds 200" in capsys.readouterr().out and len(backend.seen) == 1


def test_a_store_that_fails_is_told_once(monkeypatch, capsys, tmp_path):
    (tmp_path / "history.db").write_text("no database, but long enough to be taken for one by nobody")
    backend = ScriptedBackend(["</think>", "4"], ["</think>", "5"])
    talk(monkeypatch, "One?\nTwo?\n", lambda say: backend, history=tmp_path / "history.db")
    assert capsys.readouterr().out.count("This conversation is not kept: ") == 1


def test_bytes_that_are_no_text_end_it_with_a_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), encoding="utf-8"))
    assert PlainChat(lambda say: ScriptedBackend(), Rules(), None).run() == 1
    assert capsys.readouterr().err == "localr1: standard input is no UTF-8 text (byte 3); convert it first\n"


@pytest.mark.parametrize(
    ("lines", "read", "is_question"),
    [
        (["one"], "one", False), (["one\\", "two\\", "three"], "one\ntwo\nthree", False), (["one\\"], "one\n", False),
        (['"""', "a", "", " b", '"""'], "a\n\n b", True), (['"""a', 'b"""'], "a\nb", True), (['"""a"""'], "a", True),
        (['"""a', "b"], "a\nb", True),
    ],
)  # fmt: skip
def test_questions_of_several_lines(lines, read, is_question):
    def line(prompt):
        if not lines:
            raise EOFError
        return lines.pop(0)

    assert question(line) == (read, is_question) and not lines


def test_a_command_in_quotes_is_a_question(monkeypatch, capsys):
    backend = ScriptedBackend([*THINK, "4"], [*THINK, "5"])
    talk(monkeypatch, 'Hi?\n"""\n/new\n"""\n', lambda say: backend)
    assert "A new chat." not in capsys.readouterr().out and "/new<" in backend.decode(backend.seen[1])


@pytest.mark.parametrize("text", ["/budget 2\n/think force Why?\n", "Why?\n/again\n"])
def test_what_may_turn_out_to_be_thought_is_not_written_as_the_answer(monkeypatch, capsys, text):
    backend = ScriptedBackend(["a", " b", " c"], ["So", " still", "</think>", "\n\n", "42"], end_reason="length")
    talk(monkeypatch, text, lambda say: backend)
    assert "Answer:\n42" in capsys.readouterr().out


def test_settings_are_changed_and_listed(monkeypatch, capsys):
    backend = ScriptedBackend([*THINK, "600"])
    text = "/set temperature 0.65\n/set temprature 1\n/budget 30\nHow many?\n/set\n"
    assert talk(monkeypatch, text, lambda say: backend) == 0
    shown = capsys.readouterr().out
    assert "You: /set temperature 0.65\nsampling.temperature is now 0.65, for this session" in shown
    assert "there is no setting temprature; did you mean sampling.temperature?" in shown
    assert backend.samplings[0].temperature == 0.65
    assert re.search(r"\nthinking\.budget +30  \(/set\)\n", shown) and re.search(r"\nsampling\.top_p +0\.95\n", shown)


def test_what_fills_the_context_and_what_is_dropped_of_it_is_said(monkeypatch, capsys):
    backend = ScriptedBackend(*[["</think>", "4"]] * 4, context=200)
    asked = "".join(f"{i}" * 46 + "\n" for i in range(4))
    talk(monkeypatch, f"/system Be kind.\n{asked}/context\n", lambda say: backend, Rules(when_full="drop"))
    said = capsys.readouterr().out
    assert "System text, in the first question: Be kind." in said and "  system text           8     4 %" in said
    assert "No longer sent to the model: the oldest 2 turns.\n[Answered without" in said
    assert said.count("No longer sent to the model: the oldest 2 turns.\n") == 2


def test_a_full_context_is_a_line_with_what_can_be_done(monkeypatch, capsys):
    backend = ScriptedBackend(*[["</think>", "4"]] * 3, context=200)
    assert talk(monkeypatch, "".join(f"{i}" * 46 + "\n" for i in range(4)), lambda say: backend) == 1
    assert "the context is full: the conversation has" in capsys.readouterr().out and len(backend.seen) == 2


class Growing(Opener):
    """A script in whatever context is wanted, twice as large each time."""

    def __call__(self, say: object) -> ScriptedBackend:
        return ScriptedBackend(*[["</think>", f"in {self.wanted.context}"]] * 3, context=self.wanted.context or 0)

    def larger(self, context_tokens: int) -> Opener:
        return replace(self, wanted=replace(self.wanted, context=2 * context_tokens))


def test_a_full_context_is_raised_if_that_is_set(monkeypatch, capsys):
    opener = Growing(ModelSpec("scripted", "gguf", Path("s.gguf")), Wanted(context=200))
    assert talk(monkeypatch, "".join(f"{i}" * 46 + "\n" for i in range(4)), opener, Rules(when_full="raise")) == 0
    said = capsys.readouterr().out
    assert "The context is full. It is raised to 400 tokens." in said and "in 400" in said


class Typed(io.StringIO):
    """A terminal that these lines are typed at."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("answer", "line"),
    [("drop", "No longer sent to the model: the oldest 2 turns."), ("r", "It is raised to 400 tokens."), ("", "which leaves too little")],
)
def test_a_full_context_asks_the_person(monkeypatch, capsys, answer, line):
    monkeypatch.setattr(sys, "stdin", Typed("".join(f"{i}" * 46 + "\n" for i in range(3)) + f"{answer}\n"))
    opener = Growing(ModelSpec("scripted", "gguf", Path("s.gguf")), Wanted(context=200))
    assert PlainChat(opener, Rules(), None).run() == 0
    said, asked = capsys.readouterr()
    assert "What shall be done?\n  drop: Drop the oldest 2 turns from what the model gets\n  raise: Raise the context to 400" in said
    assert line in said and "drop, raise, stop? " in asked


def test_a_reply_that_the_context_ends_goes_on_where_there_is_room(monkeypatch, capsys):
    backend = ScriptedBackend(["</think>", "4"], ["</think>", "half"], [" whole"], context=200)
    stream = backend.stream

    def ended_once(ids, sampling, cancel):
        backend.end_reason = "context" if len(backend.replies) == 2 else "stop"
        yield from stream(ids, sampling, cancel)

    backend.stream = ended_once
    talk(monkeypatch, "One?\nTwo?\n", lambda say: backend, Rules(when_full="drop"))
    assert "half whole" in capsys.readouterr().out


def test_a_model_that_is_not_there_is_a_line(monkeypatch, capsys):
    backend = ScriptedBackend([*THINK, "600"])
    talk(monkeypatch, "/model\n/model nothing-here\nHow many?\n", lambda say: backend)
    said = capsys.readouterr().out
    assert (
        "Here are:\n  r1-tiny, 6." in said and "Fits: it takes about" in said and "no model called 'nothing-here'" in said and "600" in said
    )


def test_a_larger_context_is_had_at_once(monkeypatch, capsys):
    asked = []

    def open_model(spec, wanted, *tell):
        asked.append(wanted)
        return ScriptedBackend([*THINK, "600"])

    monkeypatch.setattr("localr1.models.open_model", open_model)
    opener = Opener(ModelSpec("r1:7b", "gguf", Path("r1.gguf")), Wanted())
    assert talk(monkeypatch, "One?\n/set context 2048\nTwo?\n", opener) == 0
    assert asked == [Wanted(), Wanted(context=2048)] and capsys.readouterr().out.count("Answer:\n600") == 2


def test_what_could_not_be_opened_is_not_set(monkeypatch, capsys):
    asked = []

    def open_model(spec, wanted, *tell):
        asked.append(wanted)
        if wanted.context == 99:
            raise EngineError("too little")
        return ScriptedBackend([*THINK, "600"])

    monkeypatch.setattr("localr1.models.open_model", open_model)
    opener = Opener(ModelSpec("r1:7b", "gguf", Path("r1.gguf")), Wanted())
    talk(monkeypatch, "/set context 99\n/set context\n/set kv q8_0\n", opener)
    assert asked == [Wanted(), Wanted(context=99), Wanted(), Wanted(kv="q8_0")]
    assert "could not be loaded: too little" in (said := capsys.readouterr().out) and "model.context is none" in said


def test_conversations_in_lines(monkeypatch, capsys, tmp_path):
    history = tmp_path / "h.db"
    talk(monkeypatch, "One?\nTwo?\n/rename Mine\n", lambda say: ScriptedBackend([*THINK, "first"], [*THINK, "second"]), history=history)
    capsys.readouterr()
    other = ScriptedBackend([*THINK, "again"], [*THINK, "third"], [*THINK, "fourth"])
    monkeypatch.setattr("localr1.editor.edit", lambda text, **_: text + "!")
    lines = [
        "/chats", "/search second", "/resume mine", "/reroll 1", "/branch prev", "/revise 2", "Three?", f"/save {tmp_path / 'c.json'}",
        "/branch 7", "/duplicate", "/delete", "y", f"/load {tmp_path / 'c.json'}", "/branch 1", "/trace",
    ]  # fmt: skip
    talk(monkeypatch, "\n".join(lines) + "\n", lambda say: other, history=history)
    said = re.split(r"You: (?=/)", capsys.readouterr().out)
    told = dict(zip(["", *(line for line in lines if line not in ("y", "Three?"))], said, strict=True))
    assert "1: Mine (2 turns," in told["/chats"] and "1: Mine, answer: second" in told["/search second"]
    assert "Mine, 2 turns\nYou: One?\nAnswer:\nfirst\n" in told["/resume mine"]
    assert "Answer:\nagain" in told["/reroll 1"] and "[branch 1 of 2]\nYou: One?" in told["/branch prev"]
    assert "Answer:\nthird" in told["/revise 2"] and "Two?!" in other.decode(other.seen[1]) and "fourth" in told["/revise 2"]
    assert "there are 2 branches here" in told["/branch 7"] and "Mine (copy), 3 turns" in told["/duplicate"]
    assert "A new chat." in told["/delete"] and "Mine, 3 turns" in told[lines[12]]
    assert "[branch 1 of 2]\nYou: Two?\nAnswer:\nsecond" in told["/branch 1"] and "    second" in told["/trace"]


def test_after_new_nothing_is_done_to_the_old_conversation(monkeypatch, capsys, tmp_path):
    reset = ChatSession.reset

    def slow(session: ChatSession) -> None:
        time.sleep(0.1)
        reset(session)

    monkeypatch.setattr(ChatSession, "reset", slow)
    lines = "One?\n/new\n/rename Other\n/delete\ny\n"
    talk(monkeypatch, lines, lambda say: ScriptedBackend([*THINK, "first"], [*THINK, "second"]), history=tmp_path / "h.db")
    assert capsys.readouterr().out.count("nothing has been said yet") == 2
