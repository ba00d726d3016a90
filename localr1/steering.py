"""Steering: what a reply can be begun with so that it goes another way. Each is a token list to continue, and shares with the old reply
all that comes before the change, which the backend therefore need not compute again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile

from backends.base import Backend, Text, Token
from localr1.prompt import END_THINK, THINK
from localr1.reasoning import ReasoningSplitter
from localr1.turn import Reply, Start, Written, closing

THINK_LONGER = "Wait,"


class CannotSteer(Exception):
    """The reply has nothing to steer there; the message says what."""


Begin = Callable[[Reply, Backend], Start]


def beginning(what: str, token: int | None = None, choice: int | None = None) -> Begin:
    """By name: answer, again, longer, alternative (`choice` of `token`); anything else draws `token` again, the first one where none is given."""
    plain: dict[str, Begin] = {"answer": answer_now, "again": same_thought, "longer": think_longer}
    if what in plain:
        return plain[what]
    if what == "alternative":
        return lambda reply, backend: with_alternative(reply, token or 0, choice or 0, backend)
    return lambda reply, backend: from_token(reply, token or 0)


def answer_now(reply: Reply, backend: Backend) -> Start:
    """Keep the thought so far, close it, answer."""
    kept, more = _thought(reply)
    return Start(kept, [*([Text(more)] if more else []), *closing(backend)], why="user")


def same_thought(reply: Reply, backend: Backend) -> Start:
    """Keep the thought and its end; the answer is written again. A thought that is still open is closed."""
    if not _closed(reply):
        return answer_now(reply, backend)
    return Start(_whole(list(takewhile(lambda written: not written.answer, reply.tokens))))


def think_longer(reply: Reply, backend: Backend, words: str = THINK_LONGER) -> Start:
    """Open the thought again where it was closed, with words that take it further."""
    kept, more = _thought(reply)
    text = _raw(kept) + more
    gap = "\n" if text and not text.endswith("\n") else ""
    return Start(kept, [Text(more + gap + words)])


def go_on(reply: Reply) -> Start:
    """Keep all of the reply, and write on."""
    return Start(_whole(reply.tokens))


def from_token(reply: Reply, index: int) -> Start:
    """Keep the reply up to its token `index`, which is drawn again."""
    return Start(_whole(reply.tokens[: _checked(reply, index) if index else 0]))


def with_alternative(reply: Reply, index: int, choice: int, backend: Backend) -> Start:
    """Keep the reply up to its token `index`, and put there the alternative `choice` (0: the likeliest) of what might have been."""
    written = reply.tokens[_checked(reply, index)]
    others = [other for other in written.token.alternatives if other[0] != written.token.id]
    if not 0 <= choice < len(others):
        raise CannotSteer(f"the token {written.token.text!r} has {len(others)} known alternatives; there is no number {choice + 1}")
    token, text, logprob = others[choice]
    chosen = Written(Token(token, text, logprob), written.part, "", "", True, written.at_s)
    return Start([*_whole(reply.tokens[:index]), chosen])


def edited(reply: Reply, thought: str, backend: Backend) -> Start:
    """Another thought, still open: the tokens of the old one as far as both agree, then the new text. Raises CannotSteer: the text holds
    the tag that would end it."""
    if END_THINK in thought:
        raise CannotSteer(f"the edited thought holds {END_THINK}, which would end it; take that out and edit it again")
    old, _ = _thought(reply)
    wanted = _opening(reply, old) + thought
    kept: list[Written] = []
    text = ""
    for written in old:
        if not wanted.startswith(text + written.token.text):
            break
        text += written.token.text
        kept.append(written)
    kept = _whole(kept)
    rest = wanted[len(_raw(kept)) :]
    return Start(kept, [Text(rest)] if rest else [])


def _opening(reply: Reply, thought: Sequence[Written]) -> str:
    """What is before the first character of the thought in its tokens: a tag, a line break."""
    raw = ""
    for written in thought:
        raw += written.token.text
        if written.thought:
            return raw[: raw.rindex(written.thought)] if written.thought in raw else ""
    return "" if reply.opens_thought else f"{THINK}\n"


def _thought(reply: Reply) -> tuple[list[Written], str]:
    """The tokens of the reply before the first one that closes its thought, and what the thought went on with behind that. Raises
    CannotSteer: it has none."""
    splitter = ReasoningSplitter(reply.opens_thought)
    for i, written in enumerate(reply.tokens):
        splitter.feed(written.token.text)
        if splitter.closed:
            return _whole(reply.tokens[:i]), "".join(behind.thought for behind in reply.tokens[i + 1 :])
    if not splitter.in_thought:
        raise CannotSteer("this reply has no thought")
    return _whole(reply.tokens), ""


def _raw(tokens: Sequence[Written]) -> str:
    return "".join(written.token.text for written in tokens)


def _closed(reply: Reply) -> bool:
    splitter = ReasoningSplitter(reply.opens_thought)
    for written in reply.tokens:
        splitter.feed(written.token.text)
    return splitter.closed


def _whole(tokens: Sequence[Written]) -> list[Written]:
    """Without tokens at the end whose text comes with a later one, which is not kept: of a part of a character, or put there."""
    kept = list(tokens)
    while kept and kept[-1].token.text == "":
        kept.pop()
    return kept


def _checked(reply: Reply, index: int) -> int:
    if reply.by_text:
        raise CannotSteer(
            "of this reply only the text is known to this model, not its tokens; /reroll, /again, /longer and /edit go by that"
        )
    if not 0 <= index < len(reply.tokens):
        raise CannotSteer(f"the reply has {len(reply.tokens):,} tokens; there is no number {index + 1:,}")
    return index
