"""A conversation as Markdown, for people, and back: the title, and the questions, thoughts and answers of one branch.

Nothing that was said is obeyed: signs are escaped, but for **bold** and fenced code; line breaks and indentation stay. Reading it takes
that back: all texts are as they were, but that control characters are shown.

    # Title
    Model: NAME
    ## Question 1
    <details><summary>Thought</summary> ... </details>     where there is one
    ## Answer 1
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from localr1.store.store import VERSION
from localr1.trace.markdown import BOLD
from localr1.trace.record import Ended, Made, Trace, to_json
from localr1.trace.words import on_one_line, shown

if TYPE_CHECKING:
    from localr1.conversations import Opened

_SIGNS = re.compile(r"[\\`*_\[\]~|$&<>]")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_BEGINS = re.compile(r"(\d{0,9})([#+\-=.)])")
_BACK = {entity: sign for sign, entity in _ENTITIES.items()} | {"&nbsp;": " ", "&#9;": "\t", "&#160;": "\u00a0"}
_ESCAPED = re.compile(r"\\(.)|&(?:#\d+|\w+);")
_FENCE = re.compile(r"(`{3,}|~{3,})[ \w+#.-]*")
_HEADING = re.compile(r"## (Question|Answer) \d+\s*")
_THOUGHT, _CLOSE = "<details><summary>Thought</summary>", "</details>"


class NoConversation(Exception):
    """A text is no conversation that was exported as Markdown; the message says where."""


def to_markdown(conversation: Opened) -> str:
    parts = [f"# {_line(on_one_line(conversation.title)) or 'Untitled'}", f"Model: {_line(on_one_line(conversation.model))}"]
    for i, turn in enumerate(conversation.turns, 1):
        parts += [f"## Question {i}", prose(turn.trace.question)]
        if turn.trace.thought:
            parts += [_THOUGHT, prose(turn.trace.thought), _CLOSE]
        parts += [f"## Answer {i}", prose(turn.trace.answer)]
    return "\n\n".join(parts) + "\n"


def prose(text: str) -> str:
    """Markdown that shows `text`; `unprose` takes it back."""
    found: list[str] = []
    for _, lines, is_code in _blocks(shown(text).split("\n")):
        found += lines if is_code else [_line(line) + "  " * bool(line) for line in lines]
    return "\n".join(found)


def unprose(lines: Sequence[str]) -> str:
    found: list[str] = []
    for _, block, is_code in _blocks(lines):
        found += block if is_code else [_ESCAPED.sub(_unescape, line.removesuffix("  ")) for line in block]
    return "\n".join(found)


def _blocks(lines: Sequence[str]) -> Iterator[tuple[int, Sequence[str], bool]]:
    """Where they begin; the lines, those of fenced code together; whether they are that. A fence that is never closed is a line like others."""
    at, unclosed = 0, dict[str, int]()  # by sign: from so many of them on, none is closed
    while at < len(lines):
        fence, end = _FENCE.fullmatch(lines[at]), at
        if fence is not None and len(fence[1]) < unclosed.get(fence[1][0], 1 << 30):
            closing = re.compile(rf"{fence[1][0]}{{{len(fence[1])},}}[ \t]*")
            end = next((i for i in range(at + 1, len(lines)) if closing.fullmatch(lines[i])), at)
            if end == at:
                unclosed[fence[1][0]] = len(fence[1])
        yield at, lines[at : end + 1], end > at
        at = end + 1


def _line(line: str) -> str:
    body = line.lstrip(" \t")
    before, body = line[: len(line) - len(body)], body.rstrip(" \t")
    after = line[len(before) + len(body) :]
    body = _SIGNS.sub(lambda sign: _ENTITIES.get(sign[0], "\\" + sign[0]), body).replace("\u00a0", "&#160;")
    body = _BEGINS.sub(r"\1\\\2", body, count=1) if _BEGINS.match(body) else body
    return _blanks(before) + BOLD.sub(r"**\1**", body) + _blanks(after)


def _blanks(text: str) -> str:
    """Kept where Markdown would cut them off, or make code of what follows."""
    return text.replace(" ", "&nbsp;").replace("\t", "&#9;")


def _unescape(found: re.Match[str]) -> str:
    return found[1] or _BACK.get(found[0], found[0])


# ------------------------------------------------------------------------------------------------------------- back


def from_markdown(text: str) -> dict[str, Any]:
    """As Store.export has it; of the replies only texts are known. Raises NoConversation."""
    sections = _sections(text.replace("\r\n", "\n").split("\n"))
    _, _, head = next(sections)
    head = [line for line in head if line.strip()]
    if not head or not head[0].startswith("# "):
        raise NoConversation("line 1 is no # title")
    made = [line for line in head[1:2] if line.startswith("Model: ")]
    title, model = (unprose([line.partition(" ")[2]]) for line in (head[0], *made, "Model: ")[:2])
    traces: list[Trace] = []
    parts: dict[str, str] = {}
    for number, kind, lines in sections:
        if kind in parts or (kind != "Question" and "Question" not in parts):
            raise NoConversation(f"line {number}: questions and answers do not take turns")
        if kind:
            parts[kind] = unprose(lines)
        if kind == "Answer":
            traces.append(_trace(model, parts))
            parts = {}
    if parts:
        raise NoConversation(f"line {number}: the last question has no answer")
    if not traces and not made:
        raise NoConversation("there is no question in it")
    return {
        "version": VERSION, "title": title, "model": model, "created_at": "", "updated_at": "", "head": len(traces) - 1 if traces else None,
        "turns": [{"parent": i - 1 if i else None, "trace": to_json(trace)} for i, trace in enumerate(traces)],
    }  # fmt: skip


def _trace(model: str, parts: dict[str, str]) -> Trace:
    ended = Ended("stop", "model" if parts["Answer"] else "unclosed")
    return Trace(parts["Question"], parts.get("Thought", ""), parts["Answer"], Made(model, ""), ended, "")


def _sections(lines: Sequence[str]) -> Iterator[tuple[int, str, list[str]]]:
    """Line number, kind and lines of each: "" what comes before, Question, Thought, "" what is behind a thought, Answer."""
    number, kind, body = 1, "", list[str]()
    for at, block, is_code in _blocks(lines):
        heading = None if is_code else _HEADING.fullmatch(block[0])
        follows = heading[1] if heading else {_THOUGHT: "Thought", _CLOSE: ""}.get(block[0]) if not is_code else None
        if follows is None:
            body += block
        else:
            yield number, kind, _trimmed(body)
            number, kind, body = at + 1, follows, []
    yield number, kind, _trimmed(body)


def _trimmed(lines: list[str]) -> list[str]:
    """Without the empty lines that stand before and behind a text."""
    start = int(lines[:1] == [""])
    return lines[start : len(lines) - (len(lines) > start + 1 and lines[-1] == "")]
