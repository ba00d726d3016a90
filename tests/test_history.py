"""Keeping a chat as it goes: what a kill loses, what a failing store costs."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backends.base import EngineError
from localr1.chat import ChatSession
from localr1.history import SAVE_EVERY_S, History
from localr1.store.schema import StoreError
from localr1.store.store import Store
from localr1.turn import TurnEnd
from scripted import BreakingBackend, ScriptedBackend

REPLY = ["Two", " r's", "</think>", "Two"]

_SLOW = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from localr1.chat import ChatSession
from localr1.history import History
from localr1.turn import Rules
from scripted import BreakingBackend, ScriptedBackend
session = ChatSession(ScriptedBackend([f"word{{i}} " for i in range(1000)], pause_s=0.02), Rules(on_loop="ignore"))
for n, _ in enumerate(History(Path({file!r})).keep(session, session.send("Why?"))):
    print(n, flush=True)
"""


def test_a_killed_process_loses_a_second_at_most(tmp_path: Path) -> None:
    program = _SLOW.format(tests=str(Path(__file__).parent), file=str(tmp_path / "h.db"))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(2.5)
        process.send_signal(signal.SIGKILL)
        seen = process.stdout.read().split()[-1]
    with Store(tmp_path / "h.db") as store:
        (found,) = store.traces()
        trace = store.turn(found.id).trace
    kept = len(trace.tokens)
    assert int(seen) - kept <= (SAVE_EVERY_S + 0.3) / 0.02 and kept > 30
    assert trace.thought == "".join(f"word{i} " for i in range(kept)) and (trace.ended.reason, trace.question) == ("", "Why?")


def test_what_broke_off_is_kept_as_far_as_it_came(tmp_path: Path) -> None:
    history, session = History(tmp_path / "h.db"), ChatSession(ScriptedBackend(REPLY))
    events = history.keep(session, session.send("How many?"))
    next(events)
    next(events)
    events.close()  # type: ignore[attr-defined]
    history.close()
    with Store(tmp_path / "h.db") as store:
        assert store.turn(store.traces()[0].id).trace.thought == "Two r's"


def test_a_reply_without_a_token_is_kept_as_ended(tmp_path: Path) -> None:
    """Its end is its first event: the model stopped at once, or Esc came before the first token."""
    history, session = History(tmp_path / "h.db"), ChatSession(ScriptedBackend(REPLY, []))
    for question in ("One?", "Two?"):
        *_, end = history.keep(session, session.send(question))
    assert isinstance(end, TurnEnd) and history.trace is not None and history.trace.question == "Two?"
    found = history.store().turn(2).trace
    assert (found.question, found.ended.reason) == ("Two?", "stop")
    history.close()


def test_a_question_with_its_own_rules_is_kept_with_them(tmp_path: Path) -> None:
    history, session = History(tmp_path / "h.db"), ChatSession(ScriptedBackend(REPLY, REPLY))
    for changes, budget in (({"think_budget": 64}, 64), ({}, None)):
        list(history.keep(session, session.send("How many?", **changes)))
        assert history.trace is not None and history.trace.made.think_budget == budget
    history.close()


@pytest.mark.parametrize("after", [None, 1], ids=["a question", "another reply"])
def test_a_reply_that_fails_is_a_branch_and_no_part_of_what_goes_on(tmp_path: Path, after: int | None) -> None:
    history, session = History(tmp_path / "h.db"), ChatSession(BreakingBackend(REPLY, REPLY, ["Two", "!"], REPLY))
    for question in ("One?", "Two?"):
        list(history.keep(session, session.send(question)))
    with pytest.raises(EngineError, match="out of memory"):
        list(history.keep(session, session.send("Again?", after), after))
    assert (history.path, history.place, history.store().head(1)) == ((1, 2), None, 2)
    list(history.keep(session, session.send("Four?")))
    store = history.store()
    assert store.parents(1) == {1: None, 2: 1, 3: 2 if after is None else 1, 4: 2} and history.path == (1, 2, 4)
    assert (store.turn(3).trace.thought, store.turn(3).trace.ended.reason) == ("Two", "")
    history.close()


def test_questions_of_a_folder_that_may_not_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "exists", refuse)
    assert History(tmp_path / "h.db").questions() == []


def test_a_store_that_fails_is_given_up_and_the_chat_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    history, session = History(tmp_path / "h.db"), ChatSession(ScriptedBackend(REPLY, REPLY, REPLY))
    calls = []

    def full(self: Store, turn: int, trace: object) -> None:
        calls.append(turn)
        raise StoreError("h.db: cannot be written (disk full); make room")

    monkeypatch.setattr(Store, "save", full)
    for _ in range(2):
        *_, end = history.keep(session, session.send("How many?"))
        assert isinstance(end, TurnEnd) and end.message.content == "Two"
    history.close()
    assert len(calls) == 1 and history.problem == "h.db: cannot be written (disk full); make room"


def test_without_a_file_nothing_is_kept() -> None:
    history, session = History(None), ChatSession(ScriptedBackend(REPLY))
    assert isinstance(list(history.keep(session, session.send("How many?")))[-1], TurnEnd)
    assert history.problem == ""
