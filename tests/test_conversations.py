"""Conversations that are kept: opened, gone on with, branched, exported and imported."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from localr1 import conversations, steering
from localr1.chat import ChatSession
from localr1.conversation_markdown import NoConversation, from_markdown, prose, to_markdown, unprose
from localr1.conversations import Opened
from localr1.history import MEMORY, History
from localr1.steering import CannotSteer
from localr1.store import Store, StoreError, Turn
from localr1.trace.record import Ended, Made, Trace
from localr1.trace.words import shown
from localr1.turn import Event
from scripted import ScriptedBackend

THINK = ["Let", " me", " count", ".", "</think>", "\n\n"]


class Talk:
    """A chat that is kept, without a screen."""

    def __init__(self, history: History, *replies: list[str]) -> None:
        self.history, self.backend = history, ScriptedBackend(*replies)
        self.session = ChatSession(self.backend)

    def ask(self, text: str, after: int | None = None) -> list[Event]:
        return list(self.history.keep(self.session, self.session.send(text, after), after))

    def steer(self, begin: steering.Begin) -> list[Event]:
        start = begin(self.session.last_reply(), self.backend)
        return list(self.history.keep(self.session, self.session.steer(start), after=-1))

    def open(self, turn: int | None = None) -> Opened:
        store = self.history.store()
        found = conversations.opened(store, conversations.find(store, ""), turn)
        conversations.go_on(self.session, self.history, found)
        return found

    def said(self) -> list[str]:
        return [message.content for message in self.session.history]


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    history = History(tmp_path / "h.db")
    yield history
    history.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "h.db") as store:
        yield store


# ------------------------------------------------------------------------------------------------------- going on


def test_a_conversation_is_gone_on_with(history: History) -> None:
    Talk(history, [*THINK, "3"], [*THINK, "4"]).ask("One?")
    later = Talk(history, [*THINK, "5"])
    later.open()
    assert (later.said(), later.session.history[1].thought) == (["One?", "3"], "Let me count.")
    later.ask("Two?")
    assert later.backend.decode(later.backend.seen[0]).count("count") == 0  # old thoughts are not sent
    found = later.open()
    assert [(turn.trace.question, turn.trace.answer) for turn in found.turns] == [("One?", "3"), ("Two?", "5")]
    assert [len(turn.trace.tokens) for turn in found.turns] == [0, 7]


def test_the_last_reply_is_steered_by_its_tokens(history: History) -> None:
    talk = Talk(history, [*THINK, "3"], [*THINK, "5"])
    talk.ask("One?")
    prompt = talk.backend.seen[0]
    later = Talk(history, ["four"])
    later.backend._ids = talk.backend._ids  # the same model
    later.open()
    assert later.session.context_tokens == talk.session.context_tokens
    later.steer(steering.same_thought)
    assert later.backend.seen[0][: len(prompt)] == prompt
    assert later.backend.decode(later.backend.seen[0][len(prompt) :]) == "Let me count.</think>\n\n"
    assert later.said() == ["One?", "four"] and [len(place.branches) for place in later.open().places] == [2]


def test_of_another_models_reply_the_text_is_taken_over(history: History) -> None:
    Talk(history, [*THINK, "3"]).ask("One?")
    for begin, began in (
        (steering.same_thought, "Let me count.</think>\n\n"),
        (steering.think_longer, "Let me count.\nWait,"),
        (lambda reply, backend: steering.edited(reply, "Let me see.", backend), "Let me see."),
        (lambda reply, backend: steering.from_token(reply, 0), ""),
    ):
        other = Talk(history, ["x", "</think>", "4"])  # its ids mean other texts
        found = conversations.opened(history.store(), 1, 1)
        conversations.go_on(other.session, history, found)
        reply = other.session.last_reply()
        assert reply.by_text and (reply.thought, reply.answer) == ("Let me count.", "3")
        with pytest.raises(CannotSteer, match="only the text is known"):
            steering.from_token(reply, 2)
        with pytest.raises(CannotSteer, match="only the text is known"):
            steering.with_alternative(reply, 0, 0, other.backend)
        other.steer(begin)
        assert other.backend.decode(other.backend.seen[0]).endswith(f"<think>\n{began}")


def test_a_model_without_a_template_shows_what_was_said(history: History) -> None:
    Talk(history, [*THINK, "3"]).ask("One?")
    other = Talk(history)
    other.backend.chat_format = replace(other.backend.chat_format, template="")
    other.open()
    assert other.said() == ["One?", "3"] and other.session.reply is None


def test_branches_are_made_and_switched(history: History) -> None:
    talk = Talk(history, *([*THINK, str(i)] for i in range(6)))
    for question in ("One?", "Two?", "Three?"):
        talk.ask(question)
    talk.ask("Two, please?", after=1)  # an earlier question edited
    assert talk.said() == ["One?", "0", "Two, please?", "3"]
    talk.ask("Two, please?", after=1)  # and its reply written again
    assert (history.place.turn, history.place.branches) == (5, (2, 4, 5))
    store = history.store()
    place = conversations.opened(store, 1).places[1]
    for which, turn in (("prev", 4), ("1", 2)):
        assert conversations.beside(place, which) == turn
    found = talk.open(turn=2)
    assert talk.said() == ["One?", "0", "Two?", "1", "Three?", "2"]  # to the end of that branch
    assert store.head(1) == 3 and [place.branches for place in found.places] == [(1,), (2, 4, 5), (3,)]
    talk.ask("Four?")
    assert [turn.trace.question for turn in talk.open().turns] == ["One?", "Two?", "Three?", "Four?"]
    for place, which in ((found.places[0], "next"), (found.places[1], "prev"), (found.places[1], "0"), (found.places[1], "4")):
        with pytest.raises(StoreError, match=r"there is no other branch here|there are 3 branches here"):
            conversations.beside(place, which)


def test_what_cannot_be_asked_changes_nothing(history: History) -> None:
    talk = Talk(history, [*THINK, "3"])
    talk.ask("One?")
    talk.backend.info = replace(talk.backend.info, context_length=3)
    with pytest.raises(Exception, match="the context holds 3"):
        talk.ask("Other?", after=0)
    assert talk.said() == ["One?", "3"] and history.path == (1,) and talk.session.last_reply().answer == "3"


def test_a_history_in_memory_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    talk = Talk(History(MEMORY), [*THINK, "3"], [*THINK, "4"])
    talk.ask("One?")
    talk.ask("One?", after=0)
    assert len(talk.open().places[0].branches) == 2 and talk.history.problem == ""
    talk.history.close()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_read_on(history: History) -> None:
    Talk(history, [*THINK, "3"]).ask("One?")
    history.store()._db.execute("PRAGMA query_only = ON")
    talk = Talk(history, [*THINK, "5"])
    talk.open()
    talk.ask("Two?")
    assert talk.said() == ["One?", "3", "Two?", "5"] and "read-only" in history.problem


def test_a_conversation_that_another_program_deletes_meanwhile(history: History, store: Store) -> None:
    talk = Talk(history, [*THINK, "3"], [*THINK, "4"])
    events = history.keep(talk.session, talk.session.send("One?"))
    next(events)
    store.delete(1)
    assert list(events) and "there is no turn 1" in history.problem
    history.new_conversation()
    talk.session.reset()
    talk.ask("Two?")
    assert (history.problem, [each.title for each in store.conversations()]) == ("", ["Two?"])


def test_branches_of_a_conversation_that_is_gone_or_empty(history: History, store: Store) -> None:
    Talk(history, [*THINK, "3"]).ask("One?")
    with pytest.raises(StoreError, match="nothing has been asked"):
        conversations.forked(store, 1, ())
    store.delete(1)
    with pytest.raises(StoreError, match="deleted by another program"):
        conversations.forked(history.store(), 1, history.path)


def test_another_program_asks_something_while_a_conversation_is_opened(
    history: History, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = Talk(history, [*THINK, "3"])
    talk.ask("One?")

    def head(self: Store, conversation: int) -> int | None:
        store.add_turn(1, 1, "Two?", Made("m", ""))
        return 2

    monkeypatch.setattr(Store, "head", head)
    assert [turn.trace.question for turn in conversations.opened(history.store(), 1).turns] == ["One?", "Two?"]


# ------------------------------------------------------------------------------------------------------- finding


def test_find(history: History) -> None:
    store = history.store()
    with pytest.raises(StoreError, match="no conversation is kept yet"):
        conversations.find(store, "")
    for i, question in enumerate(("Tiles of a floor?", "Strawberry?", "Tiles of a roof?")):
        history.new_conversation()
        Talk(history, [*THINK, f"answer{i}"]).ask(question)
    for wanted, found in (("", 3), ("1", 1), ("tiles", 3), ("FLOOR tiles", 1), ("answer1", 2)):
        assert conversations.find(store, wanted) == found, wanted
    for wanted, says in (
        ("7", "there is no conversation 7"),
        ("9" * 30, "there is no such number"),
        ("nowhere", "has all of these words: nowhere"),
    ):
        with pytest.raises(StoreError, match=says):
            conversations.find(store, wanted)


# ------------------------------------------------------------------------------------------------------- files


def test_as_json_with_all_branches_and_back(history: History, tmp_path: Path) -> None:
    talk = Talk(history, [*THINK, "3"], [*THINK, "\x1b[2J\ud800"], [*THINK, "5"])
    talk.ask("One?")
    talk.ask("Two?")
    talk.ask("Other?", after=1)
    store, file = history.store(), tmp_path / "c.json"
    assert conversations.save(store, 1, str(file)) == file
    assert "\x1b" not in file.read_text(encoding="utf-8")
    copy = conversations.load(store, str(file))
    a, b = (json.loads(json.dumps(store.export(id))) for id in (1, copy))
    assert b.pop("updated_at") > a.pop("updated_at") and a == b


def test_as_markdown_and_back(history: History, tmp_path: Path) -> None:
    answer = "So **3**:\n\n```python\nprint('<b>')\n```\n- done"
    talk = Talk(history, [*THINK, answer], ["</think>", "ok"])
    talk.ask("How many <r>?\n\tindented  ")
    talk.ask("# Sure?")
    file = tmp_path / "c.md"
    conversations.save(history.store(), 1, str(file))
    text = file.read_text(encoding="utf-8")
    assert "**3**" in text and "print('<b>')" in text and "&lt;r&gt;" in text and "\\# Sure?" in text
    found = conversations.opened(history.store(), conversations.load(history.store(), str(file)))
    assert (found.title, found.model) == ("How many <r>?", "scripted")
    assert [(t.trace.question, t.trace.thought, t.trace.answer) for t in found.turns] == [
        ("How many <r>?\n\tindented  ", "Let me count.", answer), ("# Sure?", "", "ok"),
    ]  # fmt: skip


def test_any_text_survives_markdown() -> None:
    pieces = (
        "a|b| |\t|\n|```|~~~|`|*|**|_|#|## Answer 1|<details><summary>Thought</summary>|</details>|&nbsp;|&lt;|<b>|\\|\u00a0|1.|-".split(
            "|"
        )
    )
    pieces += ["```py\n<b>\n```\n", "~~~\n</details>\n## Question 2\n~~~\n", "\x1b", "\u2028", "\ud800", "\r", "漢", "|", "&#9;"]
    dice = random.Random(1)

    def text() -> str:
        return "".join(dice.choice(pieces) for _ in range(dice.randrange(12)))

    for _ in range(500):
        one = text()
        assert unprose(prose(one).split("\n")) == shown(one)
        turns = [Turn(i, 1, None, Trace(text(), text(), text(), Made("m", ""), Ended(), "")) for i in range(dice.randrange(4))]
        found = from_markdown(to_markdown(Opened(1, one, "r1 *x*", tuple(turns), ())))
        assert (found["title"], found["model"]) == (" ".join(shown(one).split()) or "Untitled", "r1 *x*")
        traces = [turn["trace"] for turn in found["turns"]]
        for turn, trace in zip(turns, traces, strict=True):
            for part in ("question", "thought", "answer"):
                assert trace[part] == shown(getattr(turn.trace, part))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1 is no # title"),
        ("# t\n\n## Answer 1\n\nx", "line 3: questions and answers do not take turns"),
        ("# t\n\n## Question 1\n\nx\n\n## Question 2\n\ny", "line 7: questions and answers do not take turns"),
        ("# t\n\n## Question 1\n\nx", "line 3: the last question has no answer"),
        ("# A program\n\nIt does things.\n\n## How\n\nWell.", "there is no question in it"),
    ],
)  # fmt: skip
def test_markdown_that_is_no_conversation(text: str, says: str) -> None:
    with pytest.raises(NoConversation, match=says):
        from_markdown(text)


def test_fences_without_an_end_take_no_time() -> None:
    lines = [f"{'`' * 3}x{i}" for i in range(20_000)]
    assert unprose(prose("\n".join(lines)).split("\n")).split("\n") == lines


def test_files_that_cannot_be_loaded_or_written(history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Talk(history, [*THINK, "3"]).ask("One?")
    store, trace = history.store(), json.loads(conversations.as_json(history.store(), 1))
    for name, content, says in (
        ("missing.json", None, "cannot be read"), ("binary.json", b"\xff\xfe", "it is not UTF-8"), ("broken.json", b"{", "line 1 column 2"),
        ("deep.json", b"[" * 100_000, "is no conversation"), ("other.json", b"[1]", "this is no conversation of localr1"),
        ("other.md", b"Dear diary", "line 1 is no # title"), ("large.json", b" " * 2000, "is larger than"),
        ("number.json", b"9" * 5000, "digits"), ("infinite.json", json.dumps(trace).replace('"id": ', '"id": 1e999, "was": ').encode(), "infinity"),
        ("odd.json", json.dumps(trace | {"turns": [{"parent": None, "trace": trace["turns"][0]["trace"] | {"ended": {"reason": []}}}]}).encode(), "reason is"),
    ):  # fmt: skip
        if content is not None:
            (tmp_path / name).write_bytes(content)
        monkeypatch.setattr(conversations, "MOST_BYTES", 1999 if name == "large.json" else 1_000_000)
        with pytest.raises(StoreError, match=says) as caught:
            conversations.load(store, str(tmp_path / name))
        assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)
    for name, says in (
        ("c.txt", "Name it .md"),
        ("no/where.md", "cannot be written"),
        ("other.md", "exists already; .*--force"),
        ("h.db/c.md", "cannot be written"),
    ):
        with pytest.raises(StoreError, match=says):
            conversations.save(store, 1, str(tmp_path / name))
    os.mkfifo(tmp_path / "pipe.json")
    for name, says in (("/dev/zero", "is no file"), (str(tmp_path / "pipe.json"), "is no file"), ("a\0b.json", "zero bytes")):
        with pytest.raises(StoreError, match=says):
            conversations.load(store, name)
    for name in ("~no such person/c.md", f"{tmp_path}/{'c' * 300}.md"):
        with pytest.raises(StoreError, match="cannot be written"):
            conversations.save(store, 1, name)
        with pytest.raises(StoreError, match="cannot be read"):
            conversations.load(store, name)
    assert conversations.save(store, 1, f"{tmp_path / 'other.md'} --force") == tmp_path / "other.md"
    assert [each.turns for each in store.conversations()] == [1]


EXPORTING = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from localr1 import conversations
from localr1.store import Store
with Store(Path(sys.argv[1])) as store:
    for i in range(10_000):
        conversations.save(store, 1, sys.argv[2] + " --force")
        print(i, flush=True)
"""


def test_a_killed_export_leaves_a_whole_file(history: History, tmp_path: Path) -> None:
    Talk(history, [*THINK, *(f"word{i} " for i in range(4000))]).ask("One?")
    before, file = history.store().export(1), tmp_path / "c.json"
    program = EXPORTING.format(root=str(Path(__file__).parents[1]))
    for saves in (1, 2, 4):
        with subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "h.db"), str(file)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for _ in range(saves):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)  # in the midst of the next one
        assert json.loads(file.read_text(encoding="utf-8"))["turns"] == json.loads(json.dumps(before))["turns"]
    assert history.store()._db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert json.loads(json.dumps(history.store().export(1))) == json.loads(json.dumps(before))
