"""ChatSession: a conversation with one model, turn by turn; owns the history that is sent to the model.

A turn is a list of tokens. Everything that can be done to a turn is "continue from this other token list", and the
backend computes only what differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from backends.base import Backend, Cancel, common_prefix
from localr1.prompt import Message, Prompt, PromptError, render, with_system
from localr1.steering import CannotSteer
from localr1.turn import Event, Reply, Rules, Start, Turn, TurnEnd


class ChatSession:
    """`send` and `steer` run on one thread; `cancel` and `answer_now` may be called from any other. The rules hold from the next turn on.

    `before`: a session whose conversation is taken over, with another model or a larger context.
    """

    def __init__(self, backend: Backend, rules: Rules | None = None, before: ChatSession | None = None) -> None:
        self.backend = backend
        self.rules = Rules() if rules is None else rules
        self.history: list[Message] = [] if before is None else before.history
        self.reply: Reply | None = None  # the one being written, or the last one, if this model wrote it
        self.context_tokens = 0  # what the last turn filled of the context
        if before is not None and _same_model(before.backend, backend):
            self.reply, self.context_tokens = before.reply, before.context_tokens
        self._turn: Turn | None = None
        self.cancelled = False

    def send(self, text: str, **changes: Any) -> Iterator[Event]:
        """Ask `text`; the events of the reply, a TurnEnd last. What has come before a cancel stays in the history. `changes`: to the
        rules, for this turn.

        Raises PromptError, EngineError or PromptTooLong before the first event, with the history as it was.
        """
        return self._ask(self.history, text, replace(self.rules, **changes))

    def ask_again(self) -> Iterator[Event]:
        """Ask the last question again, whichever model answered it; the new reply takes the old one's place. Raises as `send`; CannotSteer:
        there is none."""
        if not self.history:
            raise CannotSteer("there is no reply yet")
        return self._ask(self.history[:-2], self.history[-2].content, self.rules)

    def steer(self, start: Start) -> Iterator[Event]:
        """Write the last reply again from another beginning (localr1.steering makes them); it takes the old one's place in the history.

        Events of tokens that are given come first. Raises CannotSteer (there is no reply), EngineError or PromptTooLong before the
        first event, with the history as it was.
        """
        self.cancelled = False
        last = self.last_reply()
        reply = Reply(last.question, last.prompt_ids, last.opens_thought)
        return self._play(self.history[:-2], Turn(self.backend, reply, self.rules, start, lambda: self.cancelled))

    def last_reply(self) -> Reply:
        """Raises CannotSteer: there is none."""
        if not self.history:
            raise CannotSteer("there is no reply yet")
        if self.reply is None:
            raise CannotSteer("another model wrote the last reply; /reroll lets this one answer")
        return self.reply

    def prepare(self, cancel: Cancel) -> None:
        """Compute what the prompt of any next question begins with. It takes the place of the last thought, which the next prompt leaves out,
        in the backend's cache."""
        one, other = (self.backend.encode(self._prompt(self.history, text, self.rules).segments) for text in ("A", "1"))
        self.backend.prefill(one[: common_prefix(one, other)], cancel)

    def _ask(self, history: list[Message], text: str, rules: Rules) -> Iterator[Event]:
        self.cancelled = False
        prompt = self._prompt(history, text, rules)
        reply = Reply(text, tuple(self.backend.encode(prompt.segments)), prompt.opens_thought)
        return self._play(history, Turn(self.backend, reply, rules, Start(), lambda: self.cancelled))

    def _prompt(self, history: list[Message], text: str, rules: Rules) -> Prompt:
        messages = with_system([*history, Message("user", text)], rules.system, rules.system_in_question)
        prompt = render(messages, self.backend.chat_format)
        if rules.system.strip() not in prompt.text:
            raise PromptError("this model's chat template leaves system messages out; set system_in_question to true")
        return prompt

    def _play(self, history: list[Message], turn: Turn) -> Iterator[Event]:
        self._turn = turn
        if self.cancelled:
            turn.stop()
        return self._events(list(history), turn)

    def _events(self, history: list[Message], turn: Turn) -> Iterator[Event]:
        for event in turn.run():
            self.reply = turn.reply
            if isinstance(event, TurnEnd):
                self.history = [*history, Message("user", turn.reply.question), event.message]
                self.context_tokens = len(turn.ids)
            yield event

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
        self.context_tokens = 0


def _same_model(one: Backend, other: Backend) -> bool:
    """Whatever their contexts: what one wrote, the other can go on with."""
    return one.name == other.name and replace(one.info, context_length=0) == replace(other.info, context_length=0)
