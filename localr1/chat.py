"""ChatSession: a conversation with one model, turn by turn; owns the history that is sent to the model.

A turn is a list of tokens. Everything that can be done to a turn is "continue from this other token list", and the
backend computes only what differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from backends.base import Backend, BackendError, Cancel, Segment, Text, common_prefix
from localr1.context import ContextFull, reserve, to_drop
from localr1.prompt import THINK, Message, Prompt, PromptError, render, with_system
from localr1.steering import CannotSteer, go_on
from localr1.turn import Event, Reply, Rules, Start, Turn, TurnEnd, Written, closing, tag


class ChatSession:
    """`send` and `steer` run on one thread; `cancel` and `answer_now` may be called from any other. The rules hold from the next turn on.

    `before`: a session whose conversation is taken over, with another model or a larger context.
    """

    def __init__(self, backend: Backend, rules: Rules | None = None, before: ChatSession | None = None) -> None:
        self.backend = backend
        self.rules = Rules() if rules is None else rules
        self.history: list[Message] = []
        self.reply: Reply | None = None  # the one being written, or the last one
        self.dropped = 0  # oldest turns that are no longer sent
        self.context_tokens = 0  # what the last turn filled of the context
        self.next_tokens = 0  # what the next prompt begins with: of that, all but the thought
        self.writing = False
        self._turn: Turn | None = None
        self.cancelled = False
        if before is not None:
            self.take_over(before.history, before.reply.tokens if before.reply is not None else (), before.dropped)

    @property
    def rules_in_force(self) -> Rules:
        """Of the turn that is written, or was last: a question may have its own."""
        return self.rules if self._turn is None else self._turn.rules

    @property
    def turns(self) -> int:
        """Of the conversation."""
        return len(self.history) // 2

    def send(self, text: str, after: int | None = None, **changes: Any) -> Iterator[Event]:
        """Ask `text`; the events of the reply, a TurnEnd last. What has come before a cancel stays in the history. `after`: so many
        turns (-1: all but the last), in place of those behind them. `changes`: to the rules, for this turn.

        Raises PromptError, EngineError or PromptTooLong before the first event, with the history as it was.
        """
        self.cancelled = False
        history, rules = self.history if after is None else self.history[: 2 * after], replace(self.rules, **changes)
        dropped = min(self.dropped, len(history) // 2)
        if after not in (None, -1) and dropped == len(history) // 2:  # nothing would be left, and now it may fit
            dropped = 0
        reply, dropped = self._fitting(history, text, rules, dropped)
        return self._play(history, Turn(self.backend, reply, rules, Start(), lambda: self.cancelled), dropped)

    def steer(self, start: Start) -> Iterator[Event]:
        """Write the last reply again from another beginning (localr1.steering makes them); it takes the old one's place in the history.

        Events of tokens that are given come first. Raises CannotSteer (there is no reply), EngineError or PromptTooLong before the
        first event, with the history as it was.
        """
        self.cancelled = False
        last = self.last_reply()
        reply = replace(last, tokens=[], by_text=False)
        return self._play(self.history[:-2], Turn(self.backend, reply, self.rules, start, lambda: self.cancelled), self.dropped)

    def go_on(self, **changes: Any) -> Iterator[Event]:
        """Write the last reply on where the context ended it, with oldest turns dropped or in a larger one. Raises as `steer`."""
        self.cancelled = False
        last, history, rules = self.last_reply(), self.history[:-2], replace(self.rules, **changes)
        start = go_on(last)
        reply, dropped = self._fitting(history, last.question, rules, self.dropped, len(start.kept))
        return self._play(history, Turn(self.backend, reply, rules, start, lambda: self.cancelled), dropped)

    def droppable(self) -> int:
        """How many of the oldest turns would be dropped for the last reply to go on."""
        last = self.last_reply()
        return self._to_drop(self.history[:-2], last.question, self.rules, self.dropped, len(last.tokens))

    def last_reply(self) -> Reply:
        """Raises CannotSteer: there is none."""
        if not self.history:
            raise CannotSteer("there is no reply yet")
        if self.reply is None:
            raise CannotSteer("this model cannot take the last reply over; /reroll lets it answer")
        return self.reply

    def prepare(self, cancel: Cancel) -> None:
        """Compute what the prompt of any next question begins with. It takes the place of the last thought, which the next prompt leaves out,
        in the backend's cache."""
        one, other = (self._encode(self._prompt(self.history, text, self.rules, self.dropped)) for text in ("A", "1"))
        self.backend.prefill(one[: common_prefix(one, other)], cancel)

    def take_over(self, history: Sequence[Message], tokens: Sequence[Written] = (), dropped: int = 0) -> None:
        """Go on with a conversation that took place elsewhere. `tokens`: of its last reply; where they mean other texts to this model, they
        are made anew of the text. `dropped`: so many of the oldest turns are not sent."""
        self.reset()
        self.history, self.dropped = list(history), dropped
        if not history:
            return
        *before, question, answer = history
        try:
            reply = self._reply(before, question.content, self.rules, min(dropped, len(before) // 2))
            opened = any(written.token.text == THINK for written in tokens)  # by the model, or by its template, which may be another here
            reply.tokens, reply.by_text = list(tokens), not (tokens and opened != reply.opens_thought and self._speaks(tokens))
            if reply.by_text:
                reply.tokens = []
                list(Turn(self.backend, reply, self.rules, Start(segments=self._spelled(reply, answer)), lambda: False).begin())
        except (PromptError, BackendError):  # whoever asks next is told
            return
        self.reply = reply
        self._count(reply)

    def _speaks(self, tokens: Sequence[Written]) -> bool:
        """These tokens mean the same to this model."""
        try:
            text = self.backend.decode([written.token.id for written in tokens])
        except (BackendError, LookupError):  # an id beyond the vocabulary
            return False
        return text.rstrip("\ufffd") == "".join(written.token.text for written in tokens).rstrip("\ufffd")

    def _spelled(self, reply: Reply, answer: Message) -> list[Segment]:
        """A reply's text as the model would have written it; a thought without an answer is open."""
        opened = [] if reply.opens_thought else [tag(THINK, self.backend), Text("\n")]
        thought = [Text(answer.thought)] if answer.thought else []
        return [*opened, *thought, *([*closing(self.backend), Text(answer.content)] if answer.content or not thought else [])]

    def _fitting(self, history: Sequence[Message], question: str, rules: Rules, dropped: int, kept_tokens: int = 0) -> tuple[Reply, int]:
        """As `_reply`, with so many of the oldest turns `dropped`, and how many are at last: where it would not fit, behind so many
        `kept_tokens`, more, if the rules want that. Raises ContextFull: it does not fit, and would if turns were dropped."""
        reply, context = self._reply(history, question, rules, dropped), self.backend.info.context_length
        tokens = len(reply.prompt_ids) + kept_tokens
        if tokens + reserve(context, rules.sampling.max_tokens) <= context or rules.when_full == "stop":
            return reply, dropped
        turns = self._to_drop(history, question, rules, dropped, kept_tokens)
        if turns and rules.when_full != "drop":
            raise ContextFull(tokens, context, turns)
        return self._reply(history, question, rules, dropped + turns), dropped + turns

    def _to_drop(self, history: Sequence[Message], question: str, rules: Rules, dropped: int, kept_tokens: int) -> int:
        """How many more of the oldest turns to leave out; 0: none that would help."""

        def tokens_without(turns: int) -> int:
            return kept_tokens + len(self._encode(self._prompt(history, question, rules, turns)))

        return to_drop(tokens_without, dropped, len(history) // 2, self.backend.info.context_length)

    def _reply(self, history: Sequence[Message], question: str, rules: Rules, dropped: int) -> Reply:
        """To `question`, so far without tokens."""
        prompt = self._prompt(history, question, rules, dropped)
        ids = self._encode(prompt)
        system, own = (len(self.backend.encode([Text(text)])) for text in (rules.system, question))
        return Reply(question, tuple(ids), prompt.opens_thought, system, own)

    def _prompt(self, history: Sequence[Message], text: str, rules: Rules, dropped: int) -> Prompt:
        sent = history[2 * dropped :]
        messages = with_system([*sent, Message("user", text)], rules.system, rules.system_in_question)
        prompt = render(messages, self.backend.chat_format)
        if rules.system.strip() not in prompt.text:
            raise PromptError("this model's chat template leaves system messages out; set system_in_question to true")
        return prompt

    def _encode(self, prompt: Prompt) -> list[int]:
        return self.backend.encode(prompt.segments)

    def _play(self, history: list[Message], turn: Turn, dropped: int) -> Iterator[Event]:
        self._turn = turn
        if self.cancelled:
            turn.stop()
        return self._events(list(history), turn, dropped)

    def _events(self, history: list[Message], turn: Turn, dropped: int) -> Iterator[Event]:
        before, is_whole = (self.reply, self.dropped), False
        try:
            for event in turn.run():
                self.reply, self.dropped, self.writing = turn.reply, dropped, True
                if isinstance(event, TurnEnd):
                    self.history = [*history, Message("user", turn.reply.question), event.message]
                    self._count(turn.reply)
                    is_whole = True
                yield event
        finally:
            self.writing = False
            if not is_whole:  # it broke off: what is steered next is what the history ends with
                self.reply, self.dropped = before

    def _count(self, reply: Reply) -> None:
        """What a whole reply has filled."""
        self.context_tokens = len(reply.prompt_ids) + len(reply.tokens)
        self.next_tokens = self.context_tokens - sum(written.part == "thought" for written in reply.tokens)

    def cancel(self) -> None:
        """End the turn that is being prepared or written, within a token."""
        self.cancelled = True
        if self._turn is not None:
            self._turn.stop()

    def answer_now(self) -> None:
        """Close the thought that is being written, and go on with the answer; nothing if there is none."""
        if self._turn is not None:
            self._turn.answer_now()

    def reset(self) -> None:
        """Forget the conversation."""
        self.history, self.reply = [], None
        self.dropped = self.context_tokens = self.next_tokens = 0
