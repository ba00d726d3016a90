"""What can be copied of a reply, as the model wrote it: the answer, one of its code blocks, the thought, everything."""

from __future__ import annotations

from base64 import b64encode
from typing import NamedTuple

from localr1.trace.words import shown


class CopyError(Exception):
    """There is nothing of the kind. The message says what there is."""


class Copy(NamedTuple):
    text: str
    what: str  # in words


def copy_of(wanted: str, thought: str, answer: str) -> Copy:
    """What `wanted` names: answer (or nothing), thought, all, code, code N. Control characters are shown, not copied: whoever pastes
    them would have them obeyed. Raises CopyError."""
    part, *rest = wanted.lower().split() or ["answer"]
    number = rest[0] if rest else ""
    if part not in ("answer", "thought", "all", "code") or len(rest) > (part == "code") or not (number or "1").isdecimal():
        raise CopyError("/copy takes answer, code, code N, thought or all")
    if part == "code":
        return _code(shown(answer), number)
    if part == "all":
        thought, answer = thought.strip(), f"<think>\n{thought.strip()}\n</think>\n\n{answer.strip()}" if thought.strip() else answer
    text = shown(thought if part == "thought" else answer).strip()
    if not text:
        raise CopyError(f"There is no {'thought' if part == 'thought' else 'answer'} to copy yet")
    return Copy(text, _told({"answer": "the answer", "thought": "the thought", "all": "thought and answer"}[part], text))


def to_clipboard(text: str) -> str:
    """What has a terminal put it on the clipboard (OSC 52), if it is one that does, over SSH too."""
    return f"\x1b]52;c;{b64encode(text.encode()).decode()}\a"


def code_blocks(markdown: str) -> list[str]:
    from markdown_it import MarkdownIt

    return [
        token.content for token in MarkdownIt("commonmark", {"maxNesting": 100}).parse(markdown) if token.type in ("fence", "code_block")
    ]


def _code(answer: str, number: str) -> Copy:
    """The last block, or the one of this number."""
    blocks = code_blocks(answer)
    count = len(blocks)
    if not blocks:
        raise CopyError("There is no code in the answer")
    n = int(number[:6]) if number else count
    if not 1 <= n <= count:
        raise CopyError(f"The answer has {count} {'code block' if count == 1 else 'code blocks'}: there is no number {number}")
    text = blocks[n - 1]
    return Copy(text, _told("the code" if count == 1 else f"code block {n} of {count}", text))


def _told(what: str, text: str) -> str:
    return f"{what}, {len(text):,} {'character' if len(text) == 1 else 'characters'}"
