"""A turn: its events, its history, its budget; the backend is a script."""

import io
from collections.abc import Sequence

import pytest
from test_reasoning import CASES

from backends.base import Cancel, EngineError, PromptTooLong, Sampling, Segment, Text
from localr1.chat import ChatSession
from localr1.prompt import Message, PromptError
from localr1.steering import same_thought, think_longer
from localr1.turn import AnswerDelta, Event, Rules, ThoughtDelta, TurnEnd
from localr1.writing import Writer, write_reply
from scripted import TEMPLATE, BreakingBackend, ScriptedBackend

REPLY = ["Hmm", ", two", " r", ".", "\n", "</think>", "\n\n", "There", " are", " **2**", "."]


def run(session: ChatSession, text: str) -> tuple[str, str, TurnEnd, list[Event]]:
    events = list(session.send(text))
    thought = "".join(e.text for e in events if isinstance(e, ThoughtDelta))
    answer = "".join(e.text for e in events if isinstance(e, AnswerDelta))
    assert isinstance(events[-1], TurnEnd)
    assert sum(isinstance(e, TurnEnd) for e in events) == 1
    return thought, answer, events[-1], events


def test_a_turn_streams_thought_then_answer() -> None:
    session = ChatSession(ScriptedBackend(REPLY))
    thought, answer, end, events = run(session, "How many?")
    assert (thought, answer) == ("Hmm, two r.\n", "There are **2**.")
    assert end.message == Message("assistant", answer, thought)
    assert (end.thought_end, end.end.reason) == ("model", "stop")
    assert (end.thought_tokens, end.answer_tokens) == (6, 5)
    assert sum(e.token is not None for e in events if not isinstance(e, TurnEnd)) == len(REPLY)


def test_after_a_reply_broke_off_the_one_before_it_is_steered() -> None:
    session = ChatSession(BreakingBackend(REPLY, ["Hm", "</think>", "second"], ["I", "!"], ["</think>", "again"]))
    run(session, "one")
    run(session, "two")
    with pytest.raises(EngineError):
        list(session.send("three"))
    list(session.steer(think_longer(session.last_reply(), session.backend)))
    assert [m.content for m in session.history] == ["one", "There are **2**.", "two", "again"]


def test_old_thoughts_are_dropped_from_the_next_prompt() -> None:
    backend = ScriptedBackend(REPLY, REPLY)
    session = ChatSession(backend)
    run(session, "first")
    run(session, "second")
    assert backend.decode(backend.seen[1]) == (
        "<｜begin▁of▁sentence｜><｜User｜>first<｜Assistant｜>There are **2**.<｜end▁of▁sentence｜><｜User｜>second<｜Assistant｜><think>\n"
    )
    assert session.history[1].thought == "Hmm, two r.\n"
    session.reset()
    assert session.history == [] and session.context_tokens == 0


def test_context_tokens_count_the_whole_turn() -> None:
    backend = ScriptedBackend(REPLY)
    session = ChatSession(backend)
    _, _, end, _ = run(session, "x")
    assert session.context_tokens == len(backend.seen[0]) + len(REPLY) == end.end.prompt_tokens + end.end.new_tokens


def test_cancel_keeps_what_has_come() -> None:
    session = ChatSession(ScriptedBackend(REPLY))
    seen = ""
    for event in session.send("x"):
        if isinstance(event, ThoughtDelta):
            seen += event.text
            if seen == "Hmm, two":
                session.cancel()
        elif isinstance(event, TurnEnd):
            end = event
    assert end.message.thought == "Hmm, two"
    assert (end.end.reason, end.thought_end) == ("cancelled", "unclosed")
    assert session.history == [Message("user", "x"), end.message]


def test_cancel_without_a_turn_does_nothing() -> None:
    ChatSession(ScriptedBackend()).cancel()


def test_cancel_before_the_first_event_is_not_lost() -> None:
    session = ChatSession(ScriptedBackend(REPLY))
    events = session.send("x")
    session.cancel()
    (end,) = events
    assert isinstance(end, TurnEnd) and end.end.reason == "cancelled"


@pytest.mark.parametrize("limit", range(1, 12))
def test_max_tokens_ends_the_turn_anywhere(limit: int) -> None:
    _, _, end, _ = run(ChatSession(ScriptedBackend(REPLY), Rules(Sampling(max_tokens=limit))), "x")
    assert end.thought_tokens + end.answer_tokens == end.end.new_tokens == limit
    assert end.thought_end == ("unclosed" if limit < 6 else "model")


# start tag 100, end tag 101, counted tokens
def test_budget_closes_the_thought_and_continues_from_there() -> None:
    backend = ScriptedBackend(["a", "b", "c", "d"], ["An", "swer"])
    thought, answer, end, _ = run(ChatSession(backend, Rules(think_budget=2)), "x")
    assert (thought, answer) == ("ab", "Answer")
    assert (end.thought_end, end.thought_tokens, end.answer_tokens) == ("budget", 2, 2)
    assert backend.decode(backend.seen[1][len(backend.seen[0]) :]) == "ab</think>\n\n"
    assert backend.seen[1][: len(backend.seen[0])] == backend.seen[0]


def test_budget_that_is_not_reached_changes_nothing() -> None:
    backend = ScriptedBackend(REPLY)
    thought, answer, end, _ = run(ChatSession(backend, Rules(think_budget=6)), "x")
    assert (thought, answer, end.thought_end, len(backend.seen)) == ("Hmm, two r.\n", "There are **2**.", "model", 1)


def test_budget_zero_closes_at_once() -> None:
    backend = ScriptedBackend(["4"])
    thought, answer, end, _ = run(ChatSession(backend, Rules(think_budget=0)), "x")
    assert (thought, answer, end.thought_end) == ("", "4", "bypassed")
    assert backend.decode(backend.seen[0]).endswith("<think>\n</think>\n\n")


def test_budget_and_max_tokens_together_count_all_tokens() -> None:
    backend = ScriptedBackend(["a", "b", "c"], ["d", "e", "f"])
    _, answer, end, _ = run(ChatSession(backend, Rules(Sampling(max_tokens=4), think_budget=2)), "x")
    assert (answer, end.end.new_tokens, end.end.reason) == ("de", 4, "length")
    assert backend.samplings[1].max_tokens == 2


def test_a_thought_may_be_bypassed_or_never_end() -> None:
    assert run(ChatSession(ScriptedBackend(["</think>", "\n\nHi"])), "x")[2].thought_end == "bypassed"
    thought, answer, end, _ = run(ChatSession(ScriptedBackend(["on and", " on </th"], end_reason="context")), "x")
    assert (thought, answer, end.thought_end, end.end.reason) == ("on and on </th", "", "unclosed", "context")


def test_too_long_a_prompt_leaves_the_history_alone() -> None:
    session = ChatSession(ScriptedBackend(REPLY, context=20))
    with pytest.raises(PromptTooLong, match="the context holds 20"):
        next(session.send("far too long for twenty tokens"))
    assert session.history == []


def test_the_budget_counts_the_thought_not_its_opening_tag() -> None:
    """A start tag, then three tokens, with a budget of two: the close comes after the second."""
    template = "{{ bos_token }}<｜User｜>{{ messages[-1].content }}<｜Assistant｜>"
    backend = ScriptedBackend(["<think>", "50", "51", "52", "53"], ["answer"], template=template)
    thought, answer, end, _ = run(ChatSession(backend, Rules(think_budget=2)), "x")
    assert (thought, answer, end.thought_end) == ("5051", "answer", "budget")


def test_a_context_that_fills_up_at_the_budget_ends_the_turn() -> None:
    prompt = (
        len("<｜User｜>x<｜Assistant｜><think>\n".replace("<｜User｜>", "U").replace("<｜Assistant｜>", "A").replace("<think>", "T")) + 1
    )
    backend = ScriptedBackend(["a", "b", "c"], context=prompt + 2)
    session = ChatSession(backend, Rules(think_budget=2))
    thought, answer, end, _ = run(session, "x")
    assert (thought, answer, end.end.reason) == ("ab", "", "context")
    assert session.history[-1] is end.message


def test_cancel_while_the_prompt_is_prepared_is_not_lost() -> None:
    backend = ScriptedBackend(REPLY)
    session = ChatSession(backend)
    encode = backend.encode
    backend.encode = lambda segments: (session.cancel(), encode(segments))[1]  # type: ignore[method-assign, assignment, return-value]
    (end,) = session.send("x")
    assert isinstance(end, TurnEnd) and end.end.reason == "cancelled"


def test_cancel_between_two_streams_is_not_lost() -> None:
    backend = ScriptedBackend(["a", "b", "c"], ["answer"])
    session = ChatSession(backend, Rules(think_budget=2))
    encode = backend.encode

    def encoding(segments: Sequence[Segment]) -> list[int]:
        if len(backend.seen) == 1:
            session.cancel()
        return encode(segments)

    backend.encode = encoding  # type: ignore[method-assign]
    _, answer, end, _ = run(session, "x")
    assert (answer, end.end.reason) == ("", "cancelled")


@pytest.mark.parametrize(("opens", "stream", "thought", "answer"), CASES)
def test_a_turn_has_the_same_parts_at_every_cut(opens: bool, stream: str, thought: str, answer: str) -> None:
    """The splitter's cases through the whole chain, with the reply's record; tags that no vocabulary has as tokens."""
    template = TEMPLATE if opens else "{{ bos_token }}<｜User｜>{{ messages[-1].content }}<｜Assistant｜>"
    for cut in range(len(stream) + 1):
        session = ChatSession(
            ScriptedBackend([text for text in (stream[:cut], stream[cut:]) if text], template=template), Rules(on_loop="ignore")
        )
        assert run(session, "x")[:2] == (thought, answer)
        assert session.reply is not None and (session.reply.thought, session.reply.answer) == (thought, answer)
        assert session.history[-1] == Message("assistant", answer, thought)


def test_what_is_prepared_is_all_of_the_next_prompt_but_the_new_text() -> None:
    backend = ScriptedBackend(REPLY, REPLY)
    session = ChatSession(backend)
    run(session, "first")
    session.prepare(Cancel())
    assert backend.decode(backend.prefilled[0]).endswith("<｜User｜>first<｜Assistant｜>There are **2**.<｜end▁of▁sentence｜><｜User｜>")
    end = run(session, "second")[2].end
    assert end.prompt_tokens - end.reused_tokens == len("second") + len("｜｜\n")  # two tags and a line break are three tokens


def test_system_text_goes_into_the_first_question_alone_and_not_into_the_history() -> None:
    backend = ScriptedBackend(REPLY, REPLY)
    session = ChatSession(backend, Rules(system="Be kind."))
    run(session, "first")
    run(session, "second")
    prompt = backend.decode(backend.seen[1])
    assert "<｜User｜>Be kind.\n\nfirst<｜Assistant｜>" in prompt and "<｜User｜>second<｜Assistant｜>" in prompt
    assert prompt.startswith(backend.decode(backend.seen[0]).removesuffix("<think>\n"))  # so that it is reused from turn to turn
    assert session.history[0] == Message("user", "first")


def test_system_text_as_a_message_is_the_templates_to_place_and_is_never_lost_in_silence() -> None:
    """Published ones hoist it to the front; one that has no place for it says so."""
    hoisting = "{{ bos_token }}{{ messages[0].content if messages[0].role == 'system' }}" + TEMPLATE.removeprefix("{{ bos_token }}")
    backend = ScriptedBackend(REPLY, template=hoisting)
    rules = Rules(system="Be kind.", system_in_question=False)
    run(ChatSession(backend, rules), "first")
    assert backend.decode(backend.seen[0]).startswith("<｜begin▁of▁sentence｜>Be kind.<｜User｜>first<｜Assistant｜>")
    with pytest.raises(PromptError, match="leaves system messages out; set system_in_question to true"):
        ChatSession(ScriptedBackend(REPLY), rules).send("first")


def test_another_model_takes_the_conversation_over_by_its_text() -> None:
    first, second = ScriptedBackend(REPLY), ScriptedBackend(REPLY)
    second.encode([Text("other ids")])
    before = ChatSession(first)
    run(before, "first")
    session = ChatSession(second, before.rules, before)
    assert session.last_reply().by_text and session.last_reply().answer == "There are **2**."
    list(session.send("first", after=-1))
    assert second.decode(second.seen[0]) == first.decode(first.seen[0])
    assert len(session.history) == 2 and session.last_reply().answer == "There are **2**."


def test_the_same_model_with_another_context_can_steer_what_it_wrote() -> None:
    before = ChatSession(ScriptedBackend(REPLY, context=200))
    run(before, "first")
    larger = ScriptedBackend(REPLY, context=400)
    larger.decode, larger.encode = before.backend.decode, before.backend.encode  # type: ignore[method-assign]
    session = ChatSession(larger, before.rules, before)
    assert not session.last_reply().by_text and session.context_tokens == before.context_tokens


def test_the_same_model_with_a_template_that_leaves_the_thought_to_it_can_steer_too() -> None:
    before = ChatSession(ScriptedBackend(REPLY))
    run(before, "first")
    other = ScriptedBackend(["again"], template=TEMPLATE.replace("<think>\n", ""))
    other._ids = before.backend._ids  # type: ignore[attr-defined]
    session = ChatSession(other, before.rules, before)
    assert session.last_reply().by_text and session.last_reply().thought.strip() == "Hmm, two r."
    list(session.steer(same_thought(session.last_reply(), other)))
    assert session.history[-1] == Message("assistant", "again", session.last_reply().thought)


def test_what_a_thought_went_on_with_after_its_budget_is_written_as_thought() -> None:
    for known, shown in (("", "Hm,\n\nso\n\n"), ("Hm,", "so\n\n")):
        backend = ScriptedBackend(["Hm", ","], [" so", "</think>", "\n\n", "42"], ["7"])
        session, thought, answer = ChatSession(backend, Rules(think_budget=2)), io.StringIO(), io.StringIO()
        events = session.send("Why?")
        if known:
            list(events)
            events = session.steer(same_thought(session.last_reply(), backend))
        write_reply(events, Writer(thought), Writer(answer), waits=True, known=known)
        assert (thought.getvalue().replace("\n\n\n", "\n\n"), answer.getvalue()) == (shown, "7\n" if known else "42\n")


def test_an_answer_after_a_loop_is_written_when_it_is_known_to_be_one() -> None:
    loops = ScriptedBackend(["la "] * 400, ["Hm", ", still", "</think>", "\n\n", "42"], context=100_000)
    thought, answer = io.StringIO(), io.StringIO()
    write_reply(ChatSession(loops).send("Why?"), Writer(thought), Writer(answer), waits=False)
    assert answer.getvalue() == "42\n"
