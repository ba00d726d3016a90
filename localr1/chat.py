"""ChatSession: a conversation with one model, turn by turn; owns the history that is sent to the model.

A turn is a list of tokens. Everything that can be done to a turn is "continue from this other token list", and the
backend computes only what differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from backends.base import Backend
from localr1.prompt import Message, render
from localr1.steering import CannotSteer
from localr1.turn import Event, Reply, Rules, Start, Turn, TurnEnd


class ChatSession:
    """`send` and `steer` run on one thread; `cancel` and `answer_now` may be called from any other. The rules hold from the next turn on."""

    def __init__(self, backend: Backend, rules: Rules | None = None) -> None:
        self.backend = backend
        self.rules = Rules() if rules is None else rules
        self.history: list[Message] = []
        self.reply: Reply | None = None  # the one being written, or the last one
        self.context_tokens = 0  # what the last turn filled of the context
        self._turn: Turn | None = None
        self.cancelled = False

    def send(self, text: str, **changes: Any) -> Iterator[Event]:
        """Ask `text`; the events of the reply, a TurnEnd last. What has come before a cancel stays in the history. `changes`: to the
        rules, for this turn.

        Raises PromptError, EngineError or PromptTooLong before the first event, with the history as it was.
        """
        self.cancelled = False
        rules = replace(self.rules, **changes)
        question = Message("user", text)
        prompt = render([*self.history, question], self.backend.chat_format)
        reply = Reply(text, tuple(self.backend.encode(prompt.segments)), prompt.opens_thought)
        return self._play(self.history, Turn(self.backend, reply, rules, Start(), lambda: self.cancelled))

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
        if self.reply is None or not self.history:
            raise CannotSteer("there is no reply yet")
        return self.reply

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
