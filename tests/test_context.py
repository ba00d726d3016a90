"""The context: what fills it, how many turns are dropped when it is full, how far it can be raised."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from machines import LINUX

from backends.base import Cancel, EngineError, PromptTooLong, Sampling, Special, Text
from backends.llamacpp import LlamaCppBackend
from backends.model_file import ModelFile, Shape
from localr1.chat import ChatSession
from localr1.context import ContextFull, breakdown, reserve, to_drop, told, used
from localr1.opening import larger_context
from localr1.turn import Rules, TurnEnd, WhenFull
from scripted import ScriptedBackend

REPLY = ["Hmm", ".", "</think>", "\n\n", "x" * 10]


def full(when_full: WhenFull, turns: int = 3, context: int = 200) -> tuple[ChatSession, ScriptedBackend]:
    """A session with turns of 50 tokens, whose context is nearly full."""
    backend = ScriptedBackend(*[REPLY] * 9, context=context)
    session = ChatSession(backend, Rules(when_full="stop"))
    for i in range(turns):
        list(session.send(f"{i}" * 46))
    session.rules = Rules(when_full=when_full)
    return session, backend


def test_what_fills_it_adds_up() -> None:
    backend = ScriptedBackend(REPLY, REPLY, context=400)
    session = ChatSession(backend, Rules(system="Be kind."))
    assert breakdown(session) == [("system text", 0), ("earlier turns", 0), ("question", 0), ("thought", 0), ("answer", 0), ("free", 400)]
    list(session.send("first"))
    list(session.send("second"))
    parts = dict(breakdown(session))
    assert parts["system text"] == 8 and parts["question"] == 6 and parts["thought"] == 3 and parts["answer"] == 2
    assert sum(parts.values()) == 400 and parts["free"] == 400 - session.context_tokens
    assert "  thought               3     1 %" in told(session) and "behind" in told(session)


def test_a_question_that_cannot_be_asked_fills_nothing() -> None:
    session = ChatSession(ScriptedBackend(REPLY, context=40), Rules(when_full="stop"))
    list(session.send("first"))
    before = breakdown(session)
    with pytest.raises(PromptTooLong):
        list(session.send("second" * 9))
    assert breakdown(session) == before


def test_while_a_reply_is_written_it_grows_and_then_the_thought_no_longer_counts() -> None:
    session = ChatSession(ScriptedBackend(REPLY))
    seen = [used(session) for _ in session.send("first")]
    prompt = len("first") + 5  # four special tokens and a line break
    assert seen[:3] == [prompt + 1, prompt + 2, prompt + 3] and used(session) == prompt + len(REPLY) - 3 == session.next_tokens


@pytest.mark.parametrize(("context", "limit", "kept"), [(32_768, None, 1024), (400, None, 100), (32_768, 10, 10)])
def test_room_that_is_kept_for_a_reply(context: int, limit: int | None, kept: int) -> None:
    assert reserve(context, limit) == kept


@pytest.mark.parametrize(
    ("dropped", "turns", "sizes", "more"),
    [
        (0, 4, [190, 150, 110, 70, 30], 3),  # the first that leaves half free
        (1, 4, [190, 180, 110, 70, 30], 2),
        (0, 4, [250, 240, 230, 220, 150], 4),  # only all of them help
        (0, 4, [290, 280, 270, 260, 250], 0),  # not even that
        (2, 2, [190, 180, 170], 0),
    ],
)
def test_as_many_turns_are_dropped_as_leave_a_good_part_free(dropped: int, turns: int, sizes: list[int], more: int) -> None:
    assert to_drop(lambda n: sizes[n], dropped, turns, 200) == more


def test_asking_leaves_everything_as_it_was() -> None:
    session, backend = full("ask")
    before = list(session.history)
    with pytest.raises(ContextFull, match="the context is full: the conversation has") as caught:
        session.send("what now?")
    assert caught.value.turns == 2
    assert session.history == before and session.dropped == 0 and len(backend.seen) == 3


def test_dropped_turns_are_whole_and_stay_in_the_history_and_the_system_text_moves_on() -> None:
    session, backend = full("drop")
    session.rules = replace(session.rules, system="Be kind.")
    list(session.send("what now?"))
    prompt = backend.decode(backend.seen[-1])
    assert session.dropped == 2 and len(session.history) == 8
    assert "0" not in prompt and "1" not in prompt and prompt.startswith("<｜begin▁of▁sentence｜><｜User｜>Be kind.\n\n222")
    list(session.send("and now?"))  # they do not come back
    assert session.dropped == 2 and "000" not in backend.decode(backend.seen[-1])
    session.reset()
    assert session.dropped == 0


def test_an_earlier_question_is_asked_again_behind_what_was_dropped_since() -> None:
    session, backend = full("drop")
    list(session.send("what now?"))
    assert session.dropped == 2
    list(session.send("again", after=1))
    assert session.dropped == 0 and "000" in backend.decode(backend.seen[-1])


def test_what_fails_drops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    session, backend = full("drop")

    def broken(*_: object) -> None:
        raise EngineError("out of memory")

    monkeypatch.setattr(backend, "stream", broken)
    with pytest.raises(EngineError):
        list(session.send("what now?"))
    assert session.dropped == 0


def test_a_larger_context_or_another_model_does_not_bring_dropped_turns_back() -> None:
    session, _ = full("drop")
    list(session.send("what now?"))
    assert ChatSession(ScriptedBackend(context=400), session.rules, session).dropped == 2


def test_stop_asks_as_long_as_anything_fits() -> None:
    session, backend = full("stop")
    list(session.send("what now?"))
    assert "000" in backend.decode(backend.seen[-1])
    with pytest.raises(PromptTooLong):
        list(session.send("x" * 60))


def test_a_first_question_that_leaves_little_room_is_asked() -> None:
    """Nothing can be dropped; what there is has to do."""
    backend = ScriptedBackend(REPLY, context=60)
    list(ChatSession(backend).send("x" * 45))
    assert len(backend.seen) == 1


def test_a_reply_that_the_context_ended_goes_on_without_the_oldest_turns() -> None:
    backend = ScriptedBackend(REPLY, REPLY, ["one", " two"], [" three"], context=200)
    session = ChatSession(backend, Rules(when_full="stop"))
    for text in ("0" * 60, "1" * 60, "go"):
        backend.end_reason = "context" if text == "go" else "stop"
        list(session.send(text))
    backend.end_reason = "stop"
    assert session.droppable() == 1
    list(session.go_on(when_full="drop"))
    assert backend.decode(backend.seen[-1]).endswith("<｜User｜>go<｜Assistant｜><think>\none two") and "0" not in backend.decode(
        backend.seen[-1]
    )
    assert session.history[-1].thought == "one two three" and session.dropped == 1 and len(session.history) == 6


SHAPE = Shape(layers=4, hidden=256, feed_forward=768, heads=4, kv_heads=2, key=64, value=64, vocabulary=320, context=4096)


@pytest.mark.parametrize(("now", "free_bytes", "then"), [(512, 10**10, 1024), (3000, 10**10, 4096), (4096, 10**10, 0), (512, 0, 0)])
def test_the_context_is_raised_as_far_as_training_and_memory_allow(now: int, free_bytes: int, then: int) -> None:
    model = ModelFile(Path("m.gguf"), "gguf", "qwen2", "Q8_0", 10**6, 10**6, SHAPE)
    assert larger_context(replace(LINUX, available_bytes=free_bytes), model, "f16", now) == then


def test_the_context_of_an_unknown_model_is_not_raised() -> None:
    assert larger_context(LINUX, ModelFile(Path("m.gguf"), "gguf", "new", "Q8_0", 10**6, 10**6, None), "f16", 512) == 0


def test_of_a_follow_up_the_bundled_model_computes_the_new_text_alone(student: LlamaCppBackend) -> None:
    session = ChatSession(student, Rules(Sampling(temperature=0), system="Be brief."))
    list(session.send("What is 907 + 195?"))
    session.prepare(Cancel())
    *_, end = session.send("And 12 + 13?")
    assert isinstance(end, TurnEnd)
    new = [*student.encode([Text("And 12 + 13?")]), *student.encode([Special("<｜Assistant｜>"), Special("<think>"), Text("\n")])]
    assert end.end.prompt_tokens - end.end.reused_tokens == len(new)
    assert session.next_tokens < session.context_tokens - 20  # the thought is not sent again
