"""Steering: each is the reply's own tokens up to a change, then what a fresh run over that token list gives."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest

from backends.base import Backend, Cancel, End, Sampling, Token
from backends.llamacpp import LlamaCppBackend
from backends.reference.backend import ReferenceBackend
from localr1 import paths, steering
from localr1.chat import ChatSession
from localr1.prompt import Message
from localr1.steering import CannotSteer
from localr1.turn import AnswerDelta, Event, LoopFound, Reply, Rules, ThoughtDelta, TurnEnd, Written
from quantize.convert import convert
from scripted import ScriptedBackend

REPLY = ["Hmm", ", two", " r", ".", "\n", "</think>", "\n\n", "There", " are", " 2", "."]
CLOSED = "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<｜User｜>{{ m.content }}{% else %}{{ m.content }}{% endif %}{% endfor %}<｜Assistant｜>"


def play(events: Iterator[Event]) -> tuple[str, str, TurnEnd]:
    found = list(events)
    end = found[-1]
    assert isinstance(end, TurnEnd)
    thought = "".join(e.text for e in found if isinstance(e, ThoughtDelta))
    answer = "".join(e.text for e in found if isinstance(e, AnswerDelta))
    assert (thought, answer) == (end.message.thought, end.message.content)
    return thought, answer, end


def session_after(*replies: list[str], **options: str) -> tuple[ChatSession, ScriptedBackend]:
    backend = ScriptedBackend(REPLY, *replies, **options)  # type: ignore[arg-type]
    session = ChatSession(backend)
    play(session.send("How many?"))
    return session, backend


def continued(backend: ScriptedBackend) -> str:
    """What the last stream began with, behind the prompt."""
    return backend.decode(backend.seen[-1][len(backend.seen[0]) :])


def reply_of(session: ChatSession) -> Reply:
    assert session.reply is not None
    return session.reply


# ------------------------------------------------------------------------------------------------------------- afterwards


def test_the_reply_is_its_tokens() -> None:
    session, backend = session_after()
    reply = reply_of(session)
    assert [w.token.text for w in reply.tokens] == REPLY
    assert [w.part for w in reply.tokens] == ["thought"] * 6 + ["answer"] * 5
    assert (reply.thought, reply.answer) == ("Hmm, two r.\n", "There are 2.")
    assert list(reply.prompt_ids) == backend.seen[0] and not any(w.given for w in reply.tokens)
    assert all(a.at_s <= b.at_s for a, b in zip(reply.tokens, reply.tokens[1:], strict=False))


def test_answer_now_afterwards_keeps_the_thought() -> None:
    session, backend = session_after(["Two", "."])
    thought, answer, end = play(session.steer(steering.answer_now(reply_of(session), backend)))
    assert (thought, answer, end.thought_end) == ("Hmm, two r.\n", "Two.", "user")
    assert continued(backend) == "Hmm, two r.\n</think>\n\n"
    assert (end.answer_tokens, end.thought_tokens) == (2, 0) and end.given_tokens == 5 + 3
    assert session.history == [Message("user", "How many?"), end.message]


def test_the_answer_is_written_again_behind_the_same_thought() -> None:
    session, backend = session_after(["2"])
    thought, answer, end = play(session.steer(steering.same_thought(reply_of(session), backend)))
    assert (thought, answer, end.thought_end) == ("Hmm, two r.\n", "2", "model")
    assert continued(backend) == "Hmm, two r.\n</think>\n\n"
    assert end.end.reused_tokens == end.end.prompt_tokens - 1  # the last token is always computed again


def test_the_time_of_what_is_kept_stays_and_the_clock_goes_on_from_there() -> None:
    session, backend = session_after([" three", "?", "</think>", "\n\n", "Three"])
    reply = reply_of(session)
    reply.tokens = [replace(w, at_s=100.0 + i) for i, w in enumerate(reply.tokens)]
    play(session.steer(steering.think_longer(reply, backend)))
    times = [w.at_s for w in reply_of(session).tokens]
    assert times[:5] == [100.0, 101.0, 102.0, 103.0, 104.0]
    assert all(104 <= a <= b < 160 for a, b in pairwise(times[4:]))


def test_think_longer_opens_the_thought_again() -> None:
    session, backend = session_after([" three", "?", "</think>", "\n\n", "Three"])
    thought, answer, _ = play(session.steer(steering.think_longer(reply_of(session), backend)))
    assert (thought, answer) == ("Hmm, two r.\nWait, three?", "Three")
    assert continued(backend) == "Hmm, two r.\nWait,"


def test_think_longer_begins_a_line() -> None:
    backend = ScriptedBackend(["So", " two", "</think>", "2"], ["!"])
    session = ChatSession(backend)
    play(session.send("x"))
    play(session.steer(steering.think_longer(reply_of(session), backend, "Hmm,")))
    assert continued(backend) == "So two\nHmm,"


@pytest.mark.parametrize("index", range(len(REPLY)))
def test_a_reply_goes_another_way_from_any_token(index: int) -> None:
    session, backend = session_after(["</think>", "x"])
    play(session.steer(steering.from_token(reply_of(session), index)))
    assert continued(backend) == "".join(REPLY[:index])
    assert backend.seen[1] == [*backend.seen[0], *map(backend.id_of, REPLY[:index])]


def test_an_edited_thought_keeps_the_tokens_before_the_edit() -> None:
    session, backend = session_after([" four", "</think>", "4"])
    thought, answer, _ = play(session.steer(steering.edited(reply_of(session), "Hmm, two s, so", backend)))
    assert (thought, answer) == ("Hmm, two s, so four", "4")
    assert backend.seen[1][len(backend.seen[0]) :] == [backend.id_of(t) for t in ["Hmm", ", two", *" s, so"]]


def test_an_edited_thought_may_be_empty_or_longer() -> None:
    session, backend = session_after(["a", "</think>", "b"], ["c", "</think>", "d"])
    play(session.steer(steering.edited(reply_of(session), "Hmm, two r.\nBut", backend)))
    assert continued(backend) == "Hmm, two r.\nBut"
    play(session.steer(steering.edited(reply_of(session), "", backend)))
    assert continued(backend) == ""


def test_an_edited_thought_cannot_end_itself() -> None:
    session, backend = session_after()
    with pytest.raises(CannotSteer, match="holds </think>, which would end it"):
        steering.edited(reply_of(session), "So 5 </think> five", backend)


def test_an_alternative_takes_the_place_of_a_token() -> None:
    session, backend = session_after([" r", "</think>", "3"])
    reply, three = reply_of(session), backend.id_of(", three")
    old = reply.tokens[1]
    others = ((old.token.id, ", two", -0.5), (three, ", three", -1.0))
    reply.tokens[1] = Written(Token(old.token.id, ", two", -0.5, others), "thought", ", two", "", False, 0.1)
    thought, answer, _ = play(session.steer(steering.with_alternative(reply, 1, 0, backend)))
    assert (thought, answer, continued(backend)) == ("Hmm, three r", "3", "Hmm, three")
    with pytest.raises(CannotSteer, match=r"has 1 known alternatives; there is no number 2"):
        steering.with_alternative(reply, 1, 1, backend)


def test_steering_twice_goes_on_from_the_latest() -> None:
    session, backend = session_after([" longer", "</think>", "a"], ["b"])
    play(session.steer(steering.think_longer(reply_of(session), backend)))
    thought, answer, _ = play(session.steer(steering.same_thought(reply_of(session), backend)))
    assert (thought, answer) == ("Hmm, two r.\nWait, longer", "b")
    assert session.history == [Message("user", "How many?"), Message("assistant", "b", thought)]


def test_steering_takes_the_last_turns_place_and_no_other() -> None:
    session, backend = session_after(REPLY, ["two"])
    play(session.send("And now?"))
    play(session.steer(steering.same_thought(reply_of(session), backend)))
    assert [m.content for m in session.history] == ["How many?", "There are 2.", "And now?", "two"]


def test_there_must_be_something_to_steer() -> None:
    with pytest.raises(CannotSteer, match="there is no reply yet"):
        ChatSession(ScriptedBackend()).steer(steering.Start())
    session, _ = session_after()
    with pytest.raises(CannotSteer, match="has 11 tokens; there is no number 12"):
        steering.from_token(reply_of(session), 11)
    plain = ScriptedBackend(["Just", " this"], template=CLOSED)
    session = ChatSession(plain)
    play(session.send("x"))
    with pytest.raises(CannotSteer, match="no thought"):
        steering.think_longer(reply_of(session), plain)


def test_half_a_character_is_not_kept() -> None:
    class Bytes(ScriptedBackend):
        def decode(self, ids: object) -> str:
            return super().decode(ids) + ("\ufffd" if ids and ids[-1] == self.id_of("\xe2") else "")  # type: ignore[arg-type, index]

    backend = Bytes(["a", "\xe2", "b", "</think>", "c"], ["x"])
    session = ChatSession(backend)
    play(session.send("q"))
    reply = reply_of(session)
    half = reply.tokens[1]
    reply.tokens[1] = Written(Token(half.token.id, "", -0.1), "thought", "", "", False, 0.0)
    assert [w.token.text for w in steering.from_token(reply, 2).kept] == ["a"]


# ------------------------------------------------------------------------------------------------------------- in mid-stream


def test_answer_now_while_the_thought_streams() -> None:
    backend = ScriptedBackend(REPLY, ["Two", "."])
    session, text = ChatSession(backend), ""
    for event in session.send("How many?"):
        if isinstance(event, ThoughtDelta):
            text += event.text
            if text == "Hmm, two":
                session.answer_now()
        elif isinstance(event, TurnEnd):
            end = event
    assert end.message == Message("assistant", "Two.", "Hmm, two")
    assert (end.thought_end, end.end.reason, end.thought_tokens, end.answer_tokens) == ("user", "stop", 2, 2)
    assert backend.decode(backend.seen[1][len(backend.seen[0]) :]) == "Hmm, two</think>\n\n"
    assert end.continued is not None and end.continued.prompt_tokens - end.continued.reused_tokens == 3  # the close


def test_answer_now_while_the_answer_streams_does_nothing() -> None:
    backend = ScriptedBackend(REPLY)
    session = ChatSession(backend)
    for event in session.send("How many?"):
        if isinstance(event, AnswerDelta):
            session.answer_now()
    assert session.history[-1].content == "There are 2." and len(backend.seen) == 1
    session.answer_now()
    ChatSession(backend).answer_now()


def test_a_budget_for_one_message() -> None:
    backend = ScriptedBackend(REPLY, ["a"], REPLY)
    session = ChatSession(backend)
    assert play(session.send("x", think_budget=1))[2].thought_end == "budget"
    assert play(session.send("x"))[2].thought_end == "model"


def test_a_thought_that_goes_on_after_it_was_closed_is_thought() -> None:
    """Models that were never interrupted may write on as if nothing had happened, and close the thought themselves."""
    backend = ScriptedBackend(["Hmm", ", two", " r"], ["So", " three", ".", "</think>", "\n\n", "Three"])
    session = ChatSession(backend, Rules(think_budget=2))
    *_, end = session.send("How many?")
    assert isinstance(end, TurnEnd)
    assert end.message == Message("assistant", "Three", "Hmm, two\n\nSo three.")
    assert (end.thought_end, end.thought_tokens, end.answer_tokens) == ("budget", 6, 2)
    assert [w.part for w in reply_of(session).tokens if not w.given] == ["thought"] * 6 + ["answer"] * 2
    backend = ScriptedBackend(["I", " count", "</think>", "\n\n", "3"])
    *_, end = ChatSession(backend, Rules(thinking="off")).send("How many?")
    assert isinstance(end, TurnEnd) and (end.message.thought, end.message.content) == ("I count", "3")


def test_a_thought_that_went_on_is_still_thought_when_it_is_steered() -> None:
    backend = ScriptedBackend(["Hmm", ","], [" so", "</think>", "\n\n", "Two"], ["Three"], ["Four"])
    session = ChatSession(backend, Rules(think_budget=2))
    list(session.send("How many?"))
    for answer, begin in (("Three", steering.same_thought(reply_of(session), backend)), ("Four", None)):
        begin = begin or steering.from_token(reply_of(session), len(reply_of(session).tokens) - 1)
        *_, end = session.steer(begin)
        assert isinstance(end, TurnEnd)
        assert (end.message, end.thought_tokens, end.answer_tokens) == (Message("assistant", answer, "Hmm,\n\nso"), 0, 1)


def test_a_thought_that_went_on_goes_on_whole() -> None:
    """Its first end, which the model did not heed, is left out."""
    for begin, prompt in (
        (steering.answer_now, "Hmm,\n\nso</think>\n\n"),
        (steering.think_longer, "Hmm,\n\nso\nWait,"),
        (lambda reply, backend: steering.edited(reply, reply.thought + " be it", backend), "Hmm,\n\nso be it"),
        (lambda reply, backend: steering.edited(reply, "Hmm, no", backend), "Hmm, no"),
    ):
        backend = ScriptedBackend(["Hmm", ","], [" so", "</think>", "\n\n", "Two"], ["!"])
        session = ChatSession(backend, Rules(think_budget=2))
        list(session.send("How many?"))
        session.rules = Rules()
        list(session.steer(begin(reply_of(session), backend)))
        assert continued(backend) == prompt


@pytest.mark.parametrize("template", [None, CLOSED])
def test_a_thought_behind_an_end_that_came_first_is_edited_as_a_thought(template: str | None) -> None:
    backend = ScriptedBackend([">b", "</think>", "\n\n", "Two"], ["!"], **({"template": template} if template else {}))
    session = ChatSession(backend, Rules(thinking="off"))
    list(session.send("How many?"))
    assert reply_of(session).thought == ">b"
    list(session.steer(steering.edited(reply_of(session), "new thought", backend)))
    begun = backend.decode(backend.seen[-1][len(reply_of(session).prompt_ids) :])
    assert begun == ("<think>\n" if template else "") + "new thought"
    assert reply_of(session).thought == "new thought!"


@pytest.mark.parametrize("thought", ["think", "ink", ">"])
def test_a_thought_that_is_a_part_of_its_tag_is_edited_too(thought: str) -> None:
    backend = ScriptedBackend(["<think>", "\n", thought, "</think>", "\n\n", "Two"], ["!"], template=CLOSED)
    session = ChatSession(backend)
    play(session.send("How many?"))
    play(session.steer(steering.edited(reply_of(session), f"{thought} more", backend)))
    assert continued(backend) == f"<think>\n{thought} more"


def test_an_answer_may_speak_of_the_tag() -> None:
    session = ChatSession(ScriptedBackend(["Hm", "</think>", "It ends with ", "</think>", "."]))
    assert play(session.send("x"))[:2] == ("Hm", "It ends with </think>.")


# ------------------------------------------------------------------------------------------------------------- with or without


def test_no_thinking_closes_the_thought_at_once() -> None:
    for template, opened in ((None, ""), (CLOSED, "<think>\n")):
        backend = ScriptedBackend(["Two"], **({} if template is None else {"template": template}))  # type: ignore[arg-type]
        thought, answer, end = play(ChatSession(backend, Rules(thinking="off")).send("x"))
        assert (thought, answer, end.thought_end) == ("", "Two", "user")
        assert backend.decode(backend.seen[0]).endswith(f"{opened}</think>\n\n")


def test_forcing_opens_the_thought_where_the_prompt_does_not() -> None:
    backend = ScriptedBackend(["Hm", "</think>", "Two"], template=CLOSED)
    thought, answer, end = play(ChatSession(backend, Rules(thinking="force")).send("x"))
    assert (thought, answer, end.thought_end) == ("Hm", "Two", "model")
    assert backend.decode(backend.seen[0]).endswith("<｜Assistant｜><think>\n")


@pytest.mark.parametrize(("question", "words"), [("How many?", "Okay"), ("多少?", "嗯")])
def test_forcing_does_not_take_an_empty_thought(question: str, words: str) -> None:
    backend = ScriptedBackend(["\n", "</think>", "\n\n", "Two"], [", so", " two", "</think>", "\n\n", "Two"])
    thought, answer, end = play(ChatSession(backend, Rules(thinking="force")).send(question))
    assert (thought, answer, end.thought_end) == (f"{words}, so two", "Two", "model")
    assert backend.decode(backend.seen[1][len(backend.seen[0]) :]) == words
    assert end.end.new_tokens == end.thought_tokens + end.answer_tokens == 5


def test_forcing_takes_what_comes_the_second_time() -> None:
    backend = ScriptedBackend(["</think>", "Two"], ["</think>", "\n\n", "Two"])
    thought, answer, _ = play(ChatSession(backend, Rules(thinking="force")).send("x"))
    assert (thought, answer) == ("Okay", "Two")


# ------------------------------------------------------------------------------------------------------------- loops

ROUND = ["Wait", ",", " let", " me", " see", " again", ":", " is", " it", " two", "?", "\n"]


def test_a_loop_in_a_thought_is_told_and_ended() -> None:
    backend = ScriptedBackend(ROUND * 100, ["Two"])
    session = ChatSession(backend)
    events = list(session.send("x"))
    (found,) = [e for e in events if isinstance(e, LoopFound)]
    assert found.loop.period == len(ROUND) and found.part == "thought"
    end = events[-1]
    assert isinstance(end, TurnEnd)
    assert (end.thought_end, end.end.reason, end.message.content) == ("loop", "stop", "Two")
    assert end.thought_tokens < 300


def test_a_loop_in_an_answer_ends_it() -> None:
    session = ChatSession(ScriptedBackend(["Hm", "</think>", *ROUND * 100]))
    end = play(session.send("x"))[2]
    assert (end.end.reason, end.thought_end) == ("loop", "model") and end.answer_tokens < 300


@pytest.mark.parametrize(("on_loop", "told"), [("warn", 1), ("ignore", 0)])
def test_loops_may_go_on(on_loop: str, told: int) -> None:
    session = ChatSession(ScriptedBackend([*ROUND * 50, "</think>", "Two"]), Rules(on_loop=on_loop))  # type: ignore[arg-type]
    events = list(session.send("x"))
    assert sum(isinstance(e, LoopFound) for e in events) == told
    assert session.history[-1].content == "Two" and reply_of(session).thought == "".join(ROUND * 50)


# ------------------------------------------------------------------------------------------------------------- the real thing

GREEDY = Sampling(temperature=0, max_tokens=400)


@pytest.fixture(scope="module", params=["gguf", "reference"])
def student(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Backend]:
    folder = paths.assets() / "r1-tiny"
    if request.param == "reference":
        with ReferenceBackend(folder, 1024) as reference:
            yield reference
        return
    path = tmp_path_factory.mktemp("steering") / "m.gguf"
    convert(folder, path, "F32")
    with LlamaCppBackend(path, 1024) as backend:
        yield backend


def test_each_equals_a_fresh_run_over_the_same_tokens(student: Backend) -> None:
    """A greedy reply from the kept cache, and one computed from nothing."""
    session = ChatSession(student, Rules(GREEDY))
    for question in ("How many r's are in strawberry?", "What is 907 + 195?")[: 1 if student.name == "reference" else 2]:
        session.reset()
        play(session.send(question))
        reply = reply_of(session)
        middle = next(i for i, w in enumerate(reply.tokens) if w.part == "answer") // 2
        unsure = next(i for i, w in enumerate(reply.tokens) if w.token.alternatives)
        starts = {
            "answer now": steering.answer_now(reply, student),
            "same thought": steering.same_thought(reply, student),
            "longer": steering.think_longer(reply, student),
            "from a token": steering.from_token(reply, middle),
            "edited": steering.edited(reply, reply.thought[: len(reply.thought) // 2] + " so", student),
            "alternative": steering.with_alternative(reply, unsure, 0, student),
        }
        for name, start in starts.items():
            session.reply = reply
            end = play(session.steer(start))[2]
            again = reply_of(session)
            given = [w.token.id for w in again.tokens if w.given]
            assert [w.token.id for w in again.tokens[: len(given)]] == given, name
            assert end.end.prompt_tokens == len(reply.prompt_ids) + len(given), name
            agreed = next((i for i, (a, b) in enumerate(zip(reply.ids, given, strict=False)) if a != b), min(len(given), len(reply.ids)))
            assert end.end.reused_tokens >= min(len(reply.prompt_ids) + agreed, end.end.prompt_tokens - 1) - 1, name  # only what changed
            student.prefill([0], Cancel())  # forgets the rest
            fresh = [t for t in student.stream([*reply.prompt_ids, *given], GREEDY, Cancel()) if not isinstance(t, End)]
            sampled = [w for w in again.tokens if not w.given]
            assert [t.id for t in fresh] == [w.token.id for w in sampled], name
            for a, b in zip(fresh, sampled, strict=True):
                assert math.isclose(a.logprob, b.token.logprob, abs_tol=0.05)
