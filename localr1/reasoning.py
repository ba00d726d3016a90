"""ReasoningSplitter: a stream of text -> thought and answer, whatever the places at which the stream is cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from localr1.prompt import END_THINK, THINK

Part = Literal["thought", "answer"]


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of the thought or of the answer."""

    part: Part
    text: str


class ReasoningSplitter:
    """Feed it text as it arrives, flush it at the end.

    A tag counts only where R1 writes one: `<think>` as the first text that is not white space (dropped when the prompt
    has opened the thought already), `</think>` as the first one inside a thought. White space after either tag belongs
    to neither part. Text that may yet turn out to be a tag is held back until it is decided.
    """

    # start: nothing but white space yet; lead: white space at the head of the thought; gap: white space after it
    _state: Literal["start", "lead", "thought", "gap", "answer"]

    def __init__(self, opens_thought: bool) -> None:
        self._opens_thought = opens_thought
        self._state = "start"
        self._held = ""
        self.closed = False  # a closing tag has ended the thought

    @property
    def in_thought(self) -> bool:
        """What comes next belongs to the thought, or closes it."""
        return self._state in ("lead", "thought") or (self._state == "start" and self._opens_thought)

    def close_again(self) -> None:
        """The thought has gone on after it was closed, and is closed now: what comes next is the answer."""
        self._state, self._held, self.closed = "gap", "", True

    def feed(self, text: str) -> list[Piece]:
        """Pieces that are decided now; none are empty."""
        self._held += text
        pieces: list[Piece] = []
        while self._held and self._decide(pieces):
            pass
        return pieces

    def flush(self) -> list[Piece]:
        """What was held back, at the end of the stream."""
        held, self._held = self._held, ""
        if self.in_thought and self._state != "thought":
            held = held.lstrip()
        if not held or self._state == "gap":
            return []
        return [Piece("thought" if self.in_thought else "answer", held)]

    def _decide(self, pieces: list[Piece]) -> bool:
        """Move one step through the held text; False when the step needs more of it."""
        match self._state:
            case "start":
                text = self._held.lstrip()
                if text.startswith(THINK):
                    self._state, self._held = "lead", text.removeprefix(THINK)
                elif THINK.startswith(text):
                    return False
                else:
                    self._state = "lead" if self._opens_thought else "answer"
            case "lead" | "gap":
                self._held = self._held.lstrip()
                if self._held:
                    self._state = "thought" if self._state == "lead" else "answer"
            case "thought":
                thought, tag, rest = self._held.partition(END_THINK)
                held = _overlap(thought, END_THINK) if not tag else 0
                if len(thought) > held:
                    pieces.append(Piece("thought", thought[: len(thought) - held]))
                if not tag:
                    self._held = thought[len(thought) - held :]
                    return False
                self._state, self._held, self.closed = "gap", rest, True
            case "answer":
                pieces.append(Piece("answer", self._held))
                self._held = ""
        return True


def _overlap(text: str, tag: str) -> int:
    """Length of the longest end of `text` that could be the beginning of `tag`."""
    return next((n for n in range(min(len(text), len(tag) - 1), 0, -1) if text.endswith(tag[:n])), 0)
