"""A Backend that plays a script instead of computing: one list of token texts a stream, ids by first use."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

import numpy as np

from backends.base import (
    Cancel,
    ChatFormat,
    End,
    EndReason,
    EngineError,
    ModelInfo,
    PromptTooLong,
    Sampling,
    Segment,
    Special,
    Token,
    common_prefix,
)

BOS, EOS, USER, ASSISTANT = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"
ADDED = frozenset({BOS, EOS, USER, ASSISTANT, "<think>", "</think>"})
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<｜User｜>{{ m.content }}"
    "{% elif m.role == 'assistant' %}<｜Assistant｜>{{ m.content.split('</think>')[-1] }}<｜end▁of▁sentence｜>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}"
)


class ScriptedBackend:
    """Replies from `replies`, the next one each time a stream starts; a reply is a list of token texts.

    Plain text is encoded a character a token. `seen` holds the token lists that were continued, `pause_s` is slept
    before each token. A script that runs out of tokens ends with `end_reason`.
    """

    name = "scripted"

    def __init__(
        self, *replies: Sequence[str], context: int = 4096, pause_s: float = 0.0, end_reason: EndReason = "stop", template: str = TEMPLATE
    ) -> None:
        self.replies = list(replies)
        self.pause_s = pause_s
        self.end_reason: EndReason = end_reason
        self.info = ModelInfo("scripted", "qwen2", "Scripted-Base", context, "Q8_0", 8.5, 1_000_000)
        self.chat_format = ChatFormat(template, BOS, EOS, ADDED)
        self.seen: list[list[int]] = []
        self.samplings: list[Sampling] = []
        self.prefilled: list[list[int]] = []
        self.closed = False
        self._ids: dict[str, int] = {}
        self._held: list[int] = []

    def id_of(self, text: str) -> int:
        return self._ids.setdefault(text, len(self._ids))

    def encode(self, segments: Sequence[Segment]) -> list[int]:
        ids: list[int] = []
        for s in segments:
            ids += [self.id_of(s.text)] if isinstance(s, Special) else [self.id_of(c) for c in s.text]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        texts = list(self._ids)
        return "".join(texts[i] for i in ids)

    def stream(self, ids: Sequence[int], sampling: Sampling, cancel: Cancel) -> Iterator[Token | End]:
        if len(ids) >= self.info.context_length:
            raise PromptTooLong(len(ids), self.info.context_length)
        self.seen.append(list(ids))
        self.samplings.append(sampling)
        reused = common_prefix(self._held, ids[:-1])
        script, new, reason = self.replies.pop(0), 0, self.end_reason
        self._held = list(ids)
        for text in script:
            if self.pause_s:
                time.sleep(self.pause_s)
            if cancel.is_set() or new == sampling.max_tokens:
                reason = "cancelled" if cancel.is_set() else "length"
                break
            new += 1
            self._held.append(self.id_of(text))
            yield Token(self.id_of(text), text, -0.1)
        yield End("cancelled" if cancel.is_set() else reason, len(ids), reused, new, 0.01, 0.01 * new)

    def prefill(self, ids: Sequence[int], cancel: Cancel) -> int:
        self.prefilled.append(list(ids))
        self._held = list(ids)
        return len(ids)

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        return np.zeros((len(ids), 8), np.float32)

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class BreakingBackend(ScriptedBackend):
    """Its engine fails at a text "!"."""

    def stream(self, ids: Sequence[int], sampling: Sampling, cancel: Cancel) -> Iterator[Token | End]:
        for item in super().stream(ids, sampling, cancel):
            if isinstance(item, Token) and item.text == "!":
                raise EngineError("out of memory")
            yield item
