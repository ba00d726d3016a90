"""How a reply ended, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from backends.base import End, EndReason
from localr1.prompt import Message
from localr1.turn import TurnEnd

if TYPE_CHECKING:
    from localr1.trace.record import Trace

_REASONS = {
    "": "Broken off",  # its process was killed
    "cancelled": "Cancelled",
    "length": "Token limit reached",
    "context": "Context is full, /new starts a new chat",
    "loop": "Went in circles",
}


def tokens_per_s(end: TurnEnd) -> float | None:
    """None: too little was written to say."""
    return end.end.new_tokens / end.end.decode_s if end.end.new_tokens and end.end.decode_s else None


def end_line(end: TurnEnd, separator: str = " · ") -> str:
    """Why the turn ended, if not in the normal way, and what it cost."""
    parts = []
    if end.end.reason in _REASONS:
        parts.append(_REASONS[end.end.reason])
    if end.thought_end == "unclosed":
        parts.append("stopped mid-thought" if parts else "Stopped mid-thought")
    elif end.thought_end == "bypassed":
        parts.append("answered without a thought" if parts else "Answered without a thought")
    parts.append(f"{end.end.new_tokens:,} {'token' if end.end.new_tokens == 1 else 'tokens'}")
    speed = tokens_per_s(end)
    if speed is not None:
        parts.append(f"{speed:.1f} tokens/s")
    steered = end.continued or (end.end if end.given_tokens else None)
    if steered is not None:
        parts.append(f"steered: {steered.prompt_tokens - steered.reused_tokens:,} of {steered.prompt_tokens:,} tokens read again")
    return separator.join(parts)


def ended(trace: Trace) -> TurnEnd:
    """Of a reply that was kept."""
    e = trace.ended
    end = End(cast("EndReason", e.reason), e.prompt_tokens, e.reused_tokens, e.new_tokens, e.prefill_s, e.decode_s)
    return TurnEnd(
        Message("assistant", trace.answer, trace.thought), end, e.thought_end, len(trace.thought_tokens), len(trace.answer_tokens)
    )


def why_it_ended(turn: TurnEnd) -> str:
    """Where the turn did not end by itself; for `localr1 ask`, which has flags in place of commands."""
    where = " mid-thought" if turn.thought_end == "unclosed" else ""
    match turn.end.reason:
        case "length":
            return f"stopped{where} at --max-tokens"
        case "context":
            return f"stopped{where}: the context is full"
        case "cancelled":
            return f"cancelled{where}"
        case "loop":
            return f"stopped{where}: the model repeats itself"
        case _:
            return "the model stopped mid-thought" if where else ""
