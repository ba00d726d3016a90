"""Messages -> Prompt: what the chat template writes kept apart from what people wrote.

The template is rendered as transformers does it (Jinja's sandbox, `trim_blocks`, `lstrip_blocks`, loop controls,
`raise_exception`, `strftime_now`, `tojson` without escapes), and joining the segments gives exactly that text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

from backends.base import ChatFormat, Segment, Special, Text

if TYPE_CHECKING:
    from jinja2 import Template

THINK, END_THINK = "<think>", "</think>"


class PromptError(Exception):
    """The chat template is missing or cannot be rendered."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation. `thought` is kept for people; templates drop it from the prompt."""

    role: Literal["system", "user", "assistant"]
    content: str
    thought: str | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered conversation. `opens_thought`: the reply starts inside a thought that the prompt has opened."""

    segments: tuple[Segment, ...]
    opens_thought: bool

    @property
    def text(self) -> str:
        return "".join(s.text for s in self.segments)


def with_system(messages: Sequence[Message], text: str, in_question: bool) -> list[Message]:
    """`text` put before the conversation: at the head of its first question, as DeepSeek advises for R1, or as a message of its own."""
    if not text:
        return list(messages)
    if not in_question:
        return [Message("system", text), *messages]
    first, *rest = messages
    return [replace(first, content=f"{text}\n\n{first.content}"), *rest]


def render(messages: Sequence[Message], chat: ChatFormat) -> Prompt:
    """Render `messages` and the opening of the model's reply.

    Control tokens come only from the template. So that nothing in a message can become one, or a part of one, the
    characters that added tokens are spelled with are swapped for characters that occur nowhere else before rendering,
    and back afterwards: whatever then still spells an added token was written by the template. Raises PromptError.
    """
    contents = _contents(messages, chat)
    swap = _swap(chat.added_tokens, contents)
    back = str.maketrans({chr(v): chr(k) for k, v in swap.items()})
    plain = _render(messages, contents, chat)
    marked = _render(messages, [c.translate(swap) for c in contents], chat)
    if marked.translate(back) != plain:
        # The template looked into a message: published ones cut a reply's thought off at its closing tag.
        cut = [c.rsplit(END_THINK, 1)[-1] if m.role == "assistant" else c for m, c in zip(messages, contents, strict=True)]
        marked = _render(messages, [c.translate(swap) for c in cut], chat)
    segments: list[Segment] = []
    for piece in re.split(_added_pattern(chat.added_tokens), marked):
        if piece in chat.added_tokens:
            segments.append(Special(piece))
        elif piece:
            segments.append(Text(piece.translate(back)))
    tail = marked.rstrip()
    return Prompt(tuple(segments), opens_thought=tail.endswith(THINK))


def _contents(messages: Sequence[Message], chat: ChatFormat) -> list[str]:
    """Some templates take a reply without an answer, one that was stopped in its thought, for a tool call: those get a line break there."""
    contents = [m.content for m in messages]
    with_breaks = [m.content or "\n" * (m.role == "assistant") for m in messages]
    if with_breaks == contents:
        return contents
    mark = chr(next(c for c in range(0xE000, 0xF900) if chr(c) not in "".join(contents)))
    marked = [m.content or mark * (m.role == "assistant") for m in messages]
    return contents if _render(messages, marked, chat).replace(mark, "") == _render(messages, contents, chat) else with_breaks


def _swap(added: frozenset[str], contents: Sequence[str]) -> dict[int, int]:
    """Each character of the added tokens, but white space, -> a private-use character that no message contains."""
    used = set("".join(contents))
    free = (c for c in chain(range(0xE000, 0xF900), range(0xF0000, 0xFFFFE)) if chr(c) not in used)
    spelled_with = sorted({c for token in added for c in token if not c.isspace()})
    return {ord(c): private for c, private in zip(spelled_with, free, strict=False)}


@lru_cache(maxsize=4)
def _added_pattern(added: frozenset[str]) -> re.Pattern[str]:
    longest_first = sorted(added, key=len, reverse=True)
    return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")" if added else "((?!))")


def _render(messages: Sequence[Message], contents: Sequence[str], chat: ChatFormat) -> str:
    turns = [{"role": m.role, "content": c} for m, c in zip(messages, contents, strict=True)]
    try:
        # enable_thinking: some published templates close the thought unless it is passed.
        return _template(chat.template).render(
            messages=turns, add_generation_prompt=True, bos_token=chat.bos_token, eos_token=chat.eos_token, enable_thinking=True
        )
    except PromptError:
        raise
    except Exception as error:  # the template is a program that came with the model: it can fail in any way
        raise PromptError(f"the model's chat template failed: {error or type(error).__name__}") from error


@lru_cache(maxsize=4)
def _template(source: str) -> Template:
    """Source: `_compile_jinja_template` in utils/chat_template_utils.py@transformers."""
    from jinja2 import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)

    if not source:
        raise PromptError("the model has no chat template; use a chat model's checkpoint or GGUF file")
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(source)
