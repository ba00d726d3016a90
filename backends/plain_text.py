"""People's text never becomes a control token: what spells one is cut before it reaches an engine's tokenizer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator


def guard(added: Iterable[str]) -> re.Pattern[str]:
    """Finds added tokens in text, but those of one character: they cannot be spelled otherwise, and are left to people's text."""
    longest_first = sorted((text for text in added if len(text) > 1), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def harmless(text: str, guard: re.Pattern[str]) -> Iterator[str]:
    """Cut every spelled-out added token after its first character: engines match some of them in any text."""
    start = at = 0
    while match := guard.search(text, at):
        at = match.start() + 1
        yield text[start:at]
        start = at
    yield text[start:]
