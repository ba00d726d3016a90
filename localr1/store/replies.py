"""Replies: the turns of a store, written and read inside a transaction that the store has begun."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby

from backends.base import Sampling
from localr1.attachments import brief, has_files
from localr1.store import packing
from localr1.store.schema import StoreError, count, inserted, plain, row
from localr1.store.values import TextPart, TraceSummary, Turn
from localr1.store.words import indexed
from localr1.trace.record import Ended, Made, Trace
from localr1.turn import Written

PARTS: tuple[TextPart, ...] = ("question", "thought", "answer")  # as `words` counts them
REPLY: tuple[TextPart, ...] = ("thought", "answer")

# tokens: so many are packed again at the next save; and larger chunks, which take less room, once a reply is over
_CHUNK, _CHUNK_AT_END = 1024, 16384


class DamagedTurn(StoreError):
    """What is kept of a turn cannot be unpacked."""


@dataclass(slots=True)
class _Writing:
    """A reply that is being saved: what is in full chunks, which are not written again."""

    question: str
    vocabulary: packing.Vocabulary = field(default_factory=packing.Vocabulary)
    chunks: int = 0
    tokens: int = 0
    last: Written | None = None
    of_thought: int = 0  # tokens
    characters: tuple[int, int] = (0, 0)  # of the thought and the answer

    def still_begins(self, trace: Trace) -> bool:
        """The trace goes on from what was saved. Replies grow at their end, so the last token tells."""
        if self.question != trace.question or len(trace.tokens) < self.tokens:
            return False
        return self.last is None or trace.tokens[self.tokens - 1] is self.last

    def add(self, tokens: Sequence[Written]) -> None:
        self.chunks += 1
        self.tokens += len(tokens)
        self.last = tokens[-1]
        self.of_thought += _of_thought(tokens)
        self.characters = self.characters_with(tokens)

    def characters_with(self, tokens: Sequence[Written]) -> tuple[int, int]:
        thought, answer = self.characters
        return thought + sum(len(w.thought) for w in tokens), answer + sum(len(w.answer) for w in tokens)


class Replies:
    """Everything raises StoreError, DamagedTurn among them, and what `schema.problems` translates."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._writing: dict[int, _Writing] = {}

    def lost(self) -> None:
        """A transaction has failed: what is known of replies being written no longer holds."""
        self._writing.clear()

    # ---------------------------------------------------------------------------------------------- writing

    def insert(self, conversation: int, parent: int | None, trace: Trace) -> int:
        """A turn, so far without reply."""
        turn = inserted(
            self._db, "turn", conversation=conversation, parent=parent, question=packing.pack_text(trace.question),
            made=json.dumps(asdict(trace.made)), ended=json.dumps(asdict(trace.ended)), started_at=plain(trace.started_at),
            opens_thought=trace.opens_thought,
        )  # fmt: skip
        self.index(turn, ("question",))
        self._writing[turn] = _Writing(trace.question)
        return turn

    def write(self, turn: int, trace: Trace, is_over: bool) -> None:
        """The reply. Full chunks that were written stay; the last, shorter one is written again. At its end, all are."""
        db = self._db
        (was_indexed,) = row(db, "turn", turn, "indexed")
        if was_indexed:  # saved again after its end, or taken for an orphan by another process
            self.unindex(turn, REPLY)
        writing = self._writing.get(turn)
        if writing is None or not writing.still_begins(trace) or self._full_chunks(turn, writing.chunks) != writing.chunks:
            self.unindex(turn, ("question",))
            db.execute("UPDATE turn SET question = ? WHERE id = ?", (packing.pack_text(trace.question), turn))
            self.index(turn, ("question",))
            writing = _Writing(trace.question)
        elif is_over:
            writing = _Writing(trace.question)
        self._writing[turn] = writing
        db.execute("DELETE FROM chunk WHERE turn = ? AND (n < 0 OR n >= ?)", (turn, writing.chunks))
        size = _CHUNK_AT_END if is_over else _CHUNK
        while len(trace.tokens) - writing.tokens >= size:
            full = trace.tokens[writing.tokens : writing.tokens + size]
            self._put(turn, writing.chunks, *packing.pack(full, writing.vocabulary))
            writing.add(full)
        rest = trace.tokens[writing.tokens :]
        if rest:
            known = len(writing.vocabulary)
            self._put(turn, writing.chunks, *packing.pack(rest, writing.vocabulary))
            writing.vocabulary.forget(known)
        if writing.characters_with(rest) != (len(trace.thought), len(trace.answer)) or (is_over and not _adds_up(trace)):
            self._put(turn, -1, packing.pack_reply(trace.thought, trace.answer), b"")
        of_thought = writing.of_thought + _of_thought(rest)
        db.execute(
            """UPDATE turn SET made = ?, ended = ?, started_at = ?, opens_thought = ?, thought_tokens = ?, answer_tokens = ?,
            seconds = ?, indexed = ? WHERE id = ?""",
            (
                json.dumps(asdict(trace.made)), json.dumps(asdict(trace.ended)), plain(trace.started_at), trace.opens_thought, of_thought,
                len(trace.tokens) - of_thought, trace.tokens[-1].at_s if trace.tokens else 0.0, is_over, turn,
            ),
        )  # fmt: skip
        if is_over:
            self.index(turn, REPLY)
            del self._writing[turn]

    def _put(self, turn: int, n: int, text: bytes, numbers: bytes) -> None:
        self._db.execute("INSERT INTO chunk (turn, n, text, numbers) VALUES (?, ?, ?, ?)", (turn, n, text, numbers))

    def _full_chunks(self, turn: int, expected: int) -> int:
        return count(self._db, "chunk WHERE turn = ? AND n BETWEEN 0 AND ?", turn, expected - 1)

    def copy(self, turn: int, conversation: int, parent: int | None) -> int:
        kept = "question, made, ended, started_at, opens_thought, thought_tokens, answer_tokens, seconds, indexed"
        new = inserted(
            self._db, "turn", conversation=conversation, parent=parent, question=b"", made="", ended="", started_at="", opens_thought=0
        )
        self._db.execute(f"UPDATE turn SET ({kept}) = (SELECT {kept} FROM turn WHERE id = ?) WHERE id = ?", (turn, new))
        self._db.execute("INSERT INTO chunk (turn, n, text, numbers) SELECT ?, n, text, numbers FROM chunk WHERE turn = ?", (new, turn))
        (is_indexed,) = row(self._db, "turn", new, "indexed")
        self.index(new, PARTS if is_indexed else ("question",))
        return new

    # ---------------------------------------------------------------------------------------------- the index

    def index(self, turn: int, parts: Sequence[TextPart]) -> None:
        for part in parts:
            terms = indexed(self.text(turn, part))
            self._db.execute("INSERT INTO words (rowid, terms) VALUES (?, ?)", (_place(turn, part), terms))

    def unindex(self, turn: int, parts: Sequence[TextPart]) -> None:
        """The index forgets a text by being told it again. What is damaged leaves terms behind, and `search` finds no text for them."""
        (is_indexed,) = row(self._db, "turn", turn, "indexed")
        for part in parts:
            with suppress(DamagedTurn):
                if is_indexed or part == "question":
                    terms = indexed(self.text(turn, part))
                    self._db.execute("INSERT INTO words (words, rowid, terms) VALUES ('delete', ?, ?)", (_place(turn, part), terms))

    def orphans(self) -> list[int]:
        """Turns whose reply is not in the index: a process is writing it, or was killed."""
        return [turn for (turn,) in self._db.execute("SELECT id FROM turn WHERE indexed = 0")]

    def adopt(self, turn: int) -> None:
        """Index an orphan. If a process is still writing it, its next save takes that back."""
        with suppress(DamagedTurn):
            self.index(turn, REPLY)
        self._db.execute("UPDATE turn SET indexed = 1 WHERE id = ?", (turn,))

    # ---------------------------------------------------------------------------------------------- reading

    def turns(self, which: str, id: int) -> list[Turn]:
        """The turns WHERE `which`, in the order of their ids, with texts and without tokens."""
        db = self._db
        chunks = db.execute(f"SELECT turn, n, text FROM chunk WHERE turn IN (SELECT id FROM turn WHERE {which}) ORDER BY turn, n", (id,))
        texts: dict[int, tuple[str, str]] = {}
        for turn, rows in groupby(chunks, key=lambda chunk: chunk[0]):
            with _undamaged(turn):
                texts[turn] = _texts([(n, blob) for _, n, blob in rows])
        turns: list[Turn] = []
        columns = "id, conversation, parent, question, made, ended, started_at, opens_thought, thought_tokens"
        for turn, conversation, parent, question, made, ended, started_at, opens, of_thought in db.execute(
            f"SELECT {columns} FROM turn WHERE {which} ORDER BY id", (id,)
        ):
            with _undamaged(turn):
                thought, answer = texts.get(turn, ("", ""))
                trace = Trace(packing.unpack_text(question), thought, answer, _made(made), _ended(ended), started_at, bool(opens))
            turns.append(Turn(turn, conversation, parent, trace, of_thought))
        return turns

    def turn(self, id: int) -> Turn:
        """With its tokens."""
        row(self._db, "turn", id, "id")
        (turn,) = self.turns("id = ?", id)
        chunks = self._db.execute("SELECT text, numbers FROM chunk WHERE turn = ? AND n >= 0 ORDER BY n", (id,))
        with _undamaged(id):
            return replace(turn, trace=replace(turn.trace, tokens=tuple(packing.unpack(chunks))))

    def text(self, turn: int, part: TextPart) -> str:
        with _undamaged(turn):
            if part == "question":
                (question,) = row(self._db, "turn", turn, "question")
                return packing.unpack_text(question)
            thought, answer = _texts(self._db.execute("SELECT n, text FROM chunk WHERE turn = ? ORDER BY n", (turn,)).fetchall())
            return thought if part == "thought" else answer

    def summaries(self, limit: int) -> list[TraceSummary]:
        """The latest first; -1: all."""
        found: list[TraceSummary] = []
        columns = "id, conversation, question, made, started_at, thought_tokens, answer_tokens, seconds, ended"
        for turn, conversation, question, made, started_at, of_thought, of_answer, seconds, ended in self._db.execute(
            f"SELECT {columns} FROM turn ORDER BY id DESC LIMIT ?", (limit,)
        ):
            with _undamaged(turn):
                how, model, line = _ended(ended), _made(made).model, packing.first_line(question)
                if has_files(line):
                    line = brief(packing.unpack_text(question)).strip().partition("\n")[0]
            found.append(
                TraceSummary(turn, conversation, line, model, started_at, of_thought, of_answer, seconds, how.reason, how.thought_end)
            )
        return found


def _place(turn: int, part: TextPart) -> int:
    return turn * len(PARTS) + PARTS.index(part)


def _texts(chunks: Sequence[tuple[int, bytes]]) -> tuple[str, str]:
    """Thought and answer, from (n, text) of all chunks of a turn."""
    if chunks and chunks[0][0] < 0:
        return packing.unpack_reply(chunks[0][1])
    return packing.unpack_texts(blob for _, blob in chunks)


def _of_thought(tokens: Sequence[Written]) -> int:
    return sum(w.part == "thought" for w in tokens)


def _adds_up(trace: Trace) -> bool:
    return trace.thought == "".join(w.thought for w in trace.tokens) and trace.answer == "".join(w.answer for w in trace.tokens)


def _made(value: str) -> Made:
    made = json.loads(value)
    return Made(**made | {"sampling": Sampling(**made["sampling"])})


def _ended(value: str) -> Ended:
    return Ended(**json.loads(value))


@contextmanager
def _undamaged(turn: int) -> Iterator[None]:
    try:
        yield
    except (zlib.error, ValueError, TypeError, LookupError) as error:
        said = f"{type(error).__name__}: {error}"
        raise DamagedTurn(
            f"turn {turn} of the history is damaged ({said}); restore a copy of the file, or delete the conversation"
        ) from error
