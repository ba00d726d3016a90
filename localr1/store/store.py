"""Store: conversations and their replies, kept while they stream."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from localr1.attachments import brief
from localr1.store.replies import PARTS, DamagedTurn, Replies
from localr1.store.schema import StoreError, count, inserted, opened, plain, problems, row, transaction
from localr1.store.values import Conversation, Hit, Summary, TraceSummary, Turn
from localr1.store.words import Query
from localr1.trace.record import Ended, Made, Trace, TraceError, from_json, to_json

VERSION = 1  # of an exported conversation: a key that goes, or means something else, makes it 2
_TITLE = 60  # characters of a question that name its conversation


class Store:
    """One SQLite file. Several threads may call, and several processes may have it open. A context manager.

    Everything raises StoreError: the file cannot be read or written, or what was asked for is not there.
    """

    def __init__(self, path: Path) -> None:
        """Opens, creates or migrates the file."""
        self._file = path
        self._lock = threading.RLock()
        self._db = opened(path)
        self._replies = Replies(self._db)
        with suppress(StoreError):  # a file that cannot be written can still be read
            self._adopt_orphans()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # ---------------------------------------------------------------------------------------------- conversations

    def new(self, title: str = "", model: str = "") -> int:
        """A conversation without turns. Its first question names it where `title` is empty."""
        now = _now()
        with self._change() as db:
            return inserted(db, "conversation", title=plain(title), model=plain(model), created_at=now, updated_at=now)

    def conversations(self, limit: int | None = None) -> list[Summary]:
        """The latest changed first."""
        with self._look() as db:
            rows = db.execute(f"SELECT {_SUMMARY} FROM conversation c ORDER BY updated_at DESC, id DESC LIMIT ?", (_limit(limit),))
            return [Summary(*found) for found in rows]

    def summary(self, id: int) -> Summary:
        with self._look() as db:
            return Summary(*row(db, "conversation c", id, _SUMMARY))

    def latest(self) -> int | None:
        """The conversation that was changed last."""
        with self._look() as db:
            found = db.execute("SELECT id FROM conversation ORDER BY updated_at DESC, id DESC LIMIT 1").fetchone()
            return found[0] if found else None

    def conversation(self, id: int) -> Conversation:
        with self._look() as db:
            columns = "title, model, created_at, updated_at, head"
            title, model, created_at, updated_at, head = row(db, "conversation", id, columns)
            turns = tuple(self._replies.turns("conversation = ?", id))
            return Conversation(id, title, model, created_at, updated_at, turns, head)

    def parents(self, conversation: int) -> dict[int, int | None]:
        """Of all its turns, in the order in which they were asked."""
        with self._look() as db:
            return dict(db.execute("SELECT id, parent FROM turn WHERE conversation = ? ORDER BY id", (conversation,)).fetchall())

    def head(self, conversation: int) -> int | None:
        """The turn from which it goes on."""
        with self._look() as db:
            (head,) = row(db, "conversation", conversation, "head")
            return cast("int | None", head)

    def rename(self, id: int, title: str) -> None:
        with self._change() as db:
            row(db, "conversation", id, "id")
            db.execute("UPDATE conversation SET title = ? WHERE id = ?", (plain(title), id))

    def set_head(self, conversation: int, turn: int | None) -> None:
        """The turn from which the conversation goes on; None: from its beginning."""
        with self._change() as db:
            row(db, "conversation", conversation, "id")
            self._expect(db, turn, conversation)
            db.execute("UPDATE conversation SET head = ? WHERE id = ?", (turn, conversation))

    def delete(self, id: int) -> None:
        """With all its turns."""
        with self._change() as db:
            row(db, "conversation", id, "id")
            # the last ones first: SQLite follows a chain of cascades for a thousand turns only
            for (turn,) in db.execute("SELECT id FROM turn WHERE conversation = ? ORDER BY id DESC", (id,)).fetchall():
                self._replies.unindex(turn, PARTS)
                db.execute("DELETE FROM turn WHERE id = ?", (turn,))
            db.execute("DELETE FROM conversation WHERE id = ?", (id,))
        self._give_back()

    def duplicate(self, id: int) -> int:
        """A copy with all branches, as the latest conversation."""
        with self._change() as db:
            title, model, head = row(db, "conversation", id, "title, model, head")
            now = _now()
            new = inserted(db, "conversation", title=f"{title} (copy)", model=model, created_at=now, updated_at=now)
            copies: dict[int | None, int | None] = {None: None}
            for turn, parent in db.execute("SELECT id, parent FROM turn WHERE conversation = ? ORDER BY id", (id,)).fetchall():
                copies[turn] = self._replies.copy(turn, new, copies[parent])
            db.execute("UPDATE conversation SET head = ? WHERE id = ?", (copies[head], new))
            return new

    # ---------------------------------------------------------------------------------------------- turns

    def add_turn(self, conversation: int, parent: int | None, question: str, made: Made) -> int:
        """A question, whose reply will be saved; it becomes the head."""
        with self._change() as db:
            (title,) = row(db, "conversation", conversation, "title")
            self._expect(db, parent, conversation)
            turn = self._replies.insert(conversation, parent, Trace(question, "", "", made, Ended(), _now()))
            db.execute(
                "UPDATE conversation SET head = ?, updated_at = ?, model = ?, title = ? WHERE id = ?",
                (turn, _now(), plain(made.model), title or plain(_headline(question)), conversation),
            )
            return turn

    def save(self, turn: int, trace: Trace) -> None:
        """The reply as it is now; costs what has come since the last time. It is found by `search` once it has ended."""
        is_over = trace.ended.reason != ""
        with self._change() as db:
            (conversation,) = row(db, "turn", turn, "conversation")
            self._replies.write(turn, trace, is_over)
            db.execute("UPDATE conversation SET updated_at = ? WHERE id = ?", (_now(), conversation))
        if is_over:
            self._give_back()

    def turn(self, id: int) -> Turn:
        """With all its tokens."""
        with self._look():
            return self._replies.turn(id)

    def path(self, turn: int) -> list[Turn]:
        """From the first turn of the conversation to this one, without tokens."""
        with self._look() as db:
            row(db, "turn", turn, "id")
            return self._replies.turns(f"id IN ({_PATH})", turn)

    def branches(self, turn: int) -> list[int]:
        """The turns that follow the same one, itself included, the oldest first."""
        with self._look() as db:
            conversation, parent = row(db, "turn", turn, "conversation, parent")
            found = db.execute("SELECT id FROM turn WHERE conversation = ? AND parent IS ? ORDER BY id", (conversation, parent))
            return [id for (id,) in found]

    def traces(self, limit: int | None = None) -> list[TraceSummary]:
        """The latest first."""
        with self._look():
            return self._replies.summaries(_limit(limit))

    def tokens(self) -> int:
        """Of all replies that are kept."""
        with self._look() as db:
            (tokens,) = db.execute("SELECT COALESCE(SUM(thought_tokens + answer_tokens), 0) FROM turn").fetchone()
            return int(tokens)

    def questions(self, limit: int) -> list[str]:
        """Asked in any conversation, the latest first."""
        found = list[str]()
        with self._look() as db:
            for (turn,) in db.execute("SELECT id FROM turn ORDER BY id DESC LIMIT ?", (_limit(limit),)).fetchall():
                with suppress(DamagedTurn):
                    found.append(self._replies.text(turn, "question"))
        return found

    def search(self, words: str, limit: int = 50) -> list[Hit]:
        """Questions, thoughts and answers in which every word occurs, the latest first; the last word may be unfinished."""
        query, hits = Query(words), list[Hit]()
        if not query:
            return hits
        with self._look() as db:
            for (place,) in db.execute("SELECT rowid FROM words WHERE words MATCH ? ORDER BY rowid DESC", (query.expression,)):
                if len(hits) >= limit:
                    break
                turn, part = place // len(PARTS), PARTS[place % len(PARTS)]
                with suppress(DamagedTurn):
                    found = db.execute(_FOUND, (turn,)).fetchone()
                    snippet = query.snippet(self._replies.text(turn, part)) if found else None
                    if snippet is not None:
                        hits.append(Hit(turn, found[0], found[1], part, snippet.text, snippet.at, found[2]))
        return hits

    # ---------------------------------------------------------------------------------------------- export

    def export(self, conversation: int) -> dict[str, Any]:
        """For JSON. Keys: version; title, model, created_at, updated_at; head: a place in `turns`, or null; turns: [{parent: a place
        before its own, or null; trace: trace.record.to_json}]."""
        with self._look() as db:
            title, model, created_at, updated_at, head = row(db, "conversation", conversation, "title, model, created_at, updated_at, head")
            parents = db.execute("SELECT id, parent FROM turn WHERE conversation = ? ORDER BY id", (conversation,)).fetchall()
            places: dict[int | None, int | None] = {None: None} | {turn: i for i, (turn, _) in enumerate(parents)}
            return {
                "version": VERSION,
                "title": title,
                "model": model,
                "created_at": created_at,
                "updated_at": updated_at,
                "head": places[head],
                "turns": [{"parent": places[parent], "trace": to_json(self._replies.turn(turn).trace)} for turn, parent in parents],
            }

    def import_(self, value: object) -> int:
        """The conversation that `export` has given, as a new one and the latest."""
        try:
            given = cast("Mapping[str, Any]", value)
            version = given["version"]
            if type(version) is not int or not 1 <= version <= VERSION:
                raise StoreError(f"the conversation is of version {version!r}, and this program reads up to {VERSION}; update localr1")
            texts = {name: plain(given[name]) for name in ("title", "model", "created_at", "updated_at")}
            parents, head = [turn["parent"] for turn in given["turns"]], given["head"]
            traces = [from_json(turn["trace"]) for turn in given["turns"]]
            for i, parent in enumerate([*parents, head]):
                if parent is not None and (type(parent) is not int or not 0 <= parent < i):
                    raise ValueError(f"{parent!r} is no turn before number {i}")
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError, TraceError) as error:
            said = f"{type(error).__name__}: {error}"
            raise StoreError(f"this is no conversation of localr1 ({said}); export it again as JSON") from error
        texts["updated_at"] = _now()
        texts["created_at"] = texts["created_at"] or texts["updated_at"]
        with self._change() as db:
            conversation = inserted(db, "conversation", **texts)
            turns: list[int] = []
            for parent, trace in zip(parents, traces, strict=True):
                turn = self._replies.insert(conversation, None if parent is None else turns[parent], trace)
                self._replies.write(turn, trace, is_over=True)
                turns.append(turn)
            db.execute("UPDATE conversation SET head = ? WHERE id = ?", (None if head is None else turns[head], conversation))
            return conversation

    # ---------------------------------------------------------------------------------------------- transactions

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """A transaction that writes."""
        with self._lock, problems(self._file):
            try:
                with transaction(self._db):
                    yield self._db
            except BaseException:
                self._replies.lost()
                raise

    @contextmanager
    def _look(self) -> Iterator[sqlite3.Connection]:
        """One state of the file, whatever others write meanwhile."""
        with self._lock, problems(self._file), transaction(self._db, "DEFERRED"):
            yield self._db

    def _expect(self, db: sqlite3.Connection, turn: int | None, conversation: int) -> None:
        if turn is not None and row(db, "turn", turn, "conversation") != (conversation,):
            raise StoreError(f"turn {turn} is of another conversation than {conversation}; look at the list again")

    def _adopt_orphans(self) -> None:
        """Replies whose process was killed are found by `search` too."""
        with self._look() as db:
            if not count(db, "turn WHERE indexed = 0"):
                return
        with self._change():
            for turn in self._replies.orphans():
                self._replies.adopt(turn)

    def _give_back(self) -> None:
        """What was deleted takes no room in the file."""
        with self._lock, suppress(sqlite3.Error):  # later, then
            self._db.executescript("PRAGMA incremental_vacuum")  # execute would free a single page


_SUMMARY = "id, title, model, created_at, updated_at, (SELECT count(*) FROM turn WHERE conversation = c.id)"

# The turns from the first one to that of the given id, and what a hit tells of its turn.
_PATH = """WITH RECURSIVE before (id, parent) AS (
    SELECT id, parent FROM turn WHERE id = ? UNION ALL SELECT turn.id, turn.parent FROM turn JOIN before ON turn.id = before.parent)
    SELECT id FROM before"""
_FOUND = "SELECT c.id, title, started_at FROM turn JOIN conversation c ON c.id = conversation WHERE turn.id = ?"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _headline(question: str) -> str:
    line = brief(question).strip().partition("\n")[0].strip()
    return line if len(line) <= _TITLE else line[: _TITLE - 1].rstrip() + "…"


def _limit(limit: int | None) -> int:
    return -1 if limit is None else max(0, limit)
