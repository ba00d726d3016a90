"""The context: what fills it, and what to do when a question, with room to answer it, does not fit any more."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import TYPE_CHECKING

from backends.base import PromptTooLong

if TYPE_CHECKING:
    from localr1.chat import ChatSession

WARN_SHARE = 0.8  # of the context, filled: a warning
RESERVE_TOKENS = 1024  # for a reply, or a quarter of the context where that is less
GOAL_SHARE = 0.5  # of the context, left filled after dropping: turns dropped one by one would have all others read again each time


class ContextFull(PromptTooLong):
    """A question, with room to answer it, does not fit, and would if the `turns` oldest turns were dropped."""

    def __init__(self, prompt_tokens: int, context_tokens: int, turns: int) -> None:
        super().__init__(prompt_tokens, context_tokens)
        self.turns = turns
        self.args = (
            f"the context is full: the conversation has {prompt_tokens:,} tokens of {context_tokens:,}, which leaves too little for a reply; "
            "start a new chat, raise --context, or set when_full to drop the oldest turns",
        )


def reserve(context_tokens: int, max_tokens: int | None) -> int:
    """Tokens kept for a reply."""
    least = min(RESERVE_TOKENS, context_tokens // 4)
    return least if max_tokens is None else min(least, max_tokens)


def to_drop(tokens_without: Callable[[int], int], dropped: int, turns: int, context_tokens: int) -> int:
    """How many more of the oldest turns to leave out so that a good part of the context is free; all, where less does not do; 0 where
    that does not help either. `tokens_without`: of the prompt without so many turns, of which `dropped` are left out already."""
    if dropped >= turns or tokens_without(turns) >= context_tokens:
        return 0
    goal = GOAL_SHARE * context_tokens
    return 1 + bisect_left(range(dropped + 1, turns), True, key=lambda n: tokens_without(n) <= goal)


def used(session: ChatSession) -> int:
    """Tokens in the context now: while a reply is written, it grows; then, what the next prompt begins with."""
    reply = session.reply
    if session.writing and reply is not None:
        return len(reply.prompt_ids) + len(reply.tokens)
    return session.next_tokens


def breakdown(session: ChatSession) -> list[tuple[str, int]]:
    """What the last prompt and its reply fill, by what it is; the free rest last."""
    reply = session.reply
    written = [] if reply is None else list(reply.tokens)
    prompt, system, question = (0, 0, 0) if reply is None else (len(reply.prompt_ids), reply.system_tokens, reply.question_tokens)
    thought = sum(token.part == "thought" for token in written)
    parts = [
        ("system text", system),
        ("earlier turns", prompt - system - question),
        ("question", question),
        ("thought", thought),
        ("answer", len(written) - thought),
    ]
    return [*parts, ("free", max(0, session.backend.info.context_length - prompt - len(written)))]


def told(session: ChatSession) -> str:
    """The same in lines, and what becomes of it."""
    context = session.backend.info.context_length
    lines = [f"Context: {context:,} tokens", ""]
    lines += [f"  {name:<14}{tokens:>9,}{100 * tokens / context:>6.0f} %" for name, tokens in breakdown(session)]
    lines += ["", f"The next question comes behind {session.next_tokens:,}: the last thought is not sent again."]
    if session.dropped:
        lines.append(dropped_line(session.dropped))
    return "\n".join(lines)


def dropped_line(turns: int) -> str:
    return f"No longer sent to the model: the oldest {'turn' if turns == 1 else f'{turns} turns'}."
