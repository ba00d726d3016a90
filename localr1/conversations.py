"""Conversations that are kept: found, opened at a turn, gone on with, switched between branches, written to files and read from them."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from localr1.chat import ChatSession
from localr1.files import write_whole
from localr1.history import History, Place
from localr1.prompt import Message
from localr1.store import StoreError

if TYPE_CHECKING:
    from localr1.store import Store, Turn

MOST_BYTES = 100_000_000  # of a file that is read
FORCE = "--force"
_NONE = "no conversation is kept yet; ask something first"


@dataclass(frozen=True, slots=True)
class Opened:
    """A conversation from its first turn to one of its last ones. `turns`: without tokens, but for the last; `places`: of each of them."""

    id: int
    title: str
    model: str
    turns: tuple[Turn, ...]
    places: tuple[Place, ...]


def find(store: Store, wanted: str) -> int:
    """By its number, by words of its title, or by words that were said in it; the latest one without any. Raises StoreError."""
    kept = store.conversations()
    if not kept:
        raise StoreError(_NONE)
    wanted = wanted.strip()
    if wanted.isascii() and wanted.isdigit():
        return store.summary(int(wanted)).id
    words = wanted.casefold().split()
    for each in kept:
        if all(word in each.title.casefold() for word in words):
            return each.id
    hits = store.search(wanted, limit=1)
    if not hits:
        raise StoreError(f"no conversation has all of these words: {' '.join(words)}")
    return hits[0].conversation


def find_in(file: Path, wanted: str) -> int:
    """As `find`; a reader makes no file."""
    if not file.exists():
        raise StoreError(_NONE)
    from localr1.store import Store

    with Store(file) as store:
        return find(store, wanted)


def opened(store: Store, conversation: int, turn: int | None = None) -> Opened:
    """At its head; or on the latest branch through `turn`. Raises StoreError."""
    about, head = store.summary(conversation), store.head(conversation)
    parents = store.parents(conversation)  # after the head, for another program may ask something meanwhile
    if turn is not None and not (head is not None and turn in _path(parents, head)):
        head = latest(parents, turn)
    turns = store.path(head) if head is not None else []
    if turns:
        turns[-1] = store.turn(turns[-1].id)
    after: dict[int | None, list[int]] = {}
    for each, parent in parents.items():
        after.setdefault(parent, []).append(each)
    places = tuple(Place(each.id, tuple(after[each.parent])) for each in turns)
    return Opened(conversation, about.title, about.model, tuple(turns), places)


def latest(parents: Mapping[int, int | None], turn: int) -> int:
    """The last turn of the newest branch through `turn`."""
    newest = {parent: each for each, parent in parents.items()}  # they are in the order in which they were asked
    while (following := newest.get(turn)) is not None:
        turn = following
    return turn


def _path(parents: Mapping[int, int | None], turn: int | None) -> list[int]:
    found: list[int] = []
    while turn is not None:
        found.append(turn)
        turn = parents.get(turn)
    return found[::-1]


def go_on(session: ChatSession, history: History, found: Opened) -> None:
    """What comes next in the session belongs to this conversation, behind its last turn. On the thread that plays the turns."""
    said = [message for turn in found.turns for message in _messages(turn)]
    session.take_over(said, found.turns[-1].trace.tokens if found.turns else ())
    history.go_on(found.id, tuple(turn.id for turn in found.turns))
    with suppress(StoreError):  # a file that cannot be written can be read on; the next reply will tell
        history.store().set_head(found.id, found.turns[-1].id if found.turns else None)


def _messages(turn: Turn) -> tuple[Message, Message]:
    return Message("user", turn.trace.question), Message("assistant", turn.trace.answer, turn.trace.thought)


def forked(store: Store, conversation: int, path: Sequence[int]) -> Place:
    """The last of these turns that has branches beside it; the very last one if none has. Raises StoreError: there is none, or none any more."""
    if not path:
        raise StoreError("there is no branch: nothing has been asked yet")
    beside: dict[int | None, list[int]] = {}
    for turn, parent in (parents := store.parents(conversation)).items():
        beside.setdefault(parent, []).append(turn)
    if not all(turn in parents for turn in path):
        raise StoreError("this conversation was deleted by another program; /new begins another one")
    several = [turn for turn in path if len(beside[parents[turn]]) > 1]
    last = (several or path)[-1]
    return Place(last, tuple(beside[parents[last]]))


def beside(place: Place, which: str) -> int:
    """The branch that is meant: next, prev, or a number from 1 on. Raises StoreError: there is none."""
    count, at = len(place.branches), place.branches.index(place.turn)
    to = {"next": at + 1, "prev": at - 1}.get(which)
    to = int(which) - 1 if to is None else to
    if count < 2:
        raise StoreError("there is no other branch here; /revise and /reroll make one")
    if not 0 <= to < count:
        raise StoreError(f"there are {count} branches here, and this is number {at + 1}")
    return place.branches[to]


# ------------------------------------------------------------------------------------------------------------- files


def save(store: Store, conversation: int, where: str) -> Path:
    """Write it to the file `where`: as JSON with all branches, or as Markdown as it goes to its head. "--force" behind the name replaces
    a file. Raises StoreError."""
    force = where.endswith(f" {FORCE}")
    file = _file((where.removesuffix(FORCE) if force else where).strip())
    if file.suffix.lower() == ".json":
        text = as_json(store, conversation)
    elif file.suffix.lower() in (".md", ".markdown"):
        from localr1.conversation_markdown import to_markdown

        text = to_markdown(opened(store, conversation))
    else:
        raise StoreError(f"{file}: what form is that? Name it .md (for people) or .json (with all branches, to load again)")
    if os.path.exists(file) and not (force and file.is_file()):  # noqa: PTH110 - Path's fails on names that are too long
        raise StoreError(f"{file}: exists already; choose another name, or put {FORCE} behind it")
    try:
        write_whole(file, text, replace=force)
    except FileExistsError:
        raise StoreError(f"{file}: exists already; choose another name, or put {FORCE} behind it") from None
    except OSError as error:
        raise StoreError(f"{file}: cannot be written ({error.strerror}); choose another place") from None
    return file


def _file(where: str) -> Path:
    """Raises StoreError: no file can be called so."""
    if "\0" in where:
        raise StoreError("a file's name has no zero bytes; choose another name")
    return Path(os.path.expanduser(where))  # noqa: PTH111 - Path's fails where there is no such home


def load(store: Store, where: str) -> int:
    """The conversation of a file that `save` has written, as a new one. Raises StoreError."""
    from localr1.conversation_markdown import NoConversation, from_markdown

    file = _file(where)
    try:
        about = file.stat()
        if about.st_size > MOST_BYTES:
            raise StoreError(f"{file}: is larger than {MOST_BYTES // 1_000_000} MB, the most that is read")
        if not stat.S_ISREG(about.st_mode):  # a device or a pipe may never end
            raise StoreError(f"{file}: is no file; check the name")
        text = file.read_text(encoding="utf-8-sig")
        return store.import_(from_markdown(text) if file.suffix.lower() in (".md", ".markdown") else json.loads(text))
    except OSError as error:
        raise StoreError(f"{file}: cannot be read ({error.strerror}); check the name") from None
    except (ValueError, RecursionError, NoConversation) as error:  # a number of too many digits is a ValueError, too
        said = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error) or "nested too deeply"
        raise StoreError(f"{file}: is no conversation of localr1 ({said}); /save writes them as .json and .md") from None
    except StoreError as error:
        raise StoreError(str(error) if str(file) in str(error) else f"{file}: {error}") from None


def as_json(store: Store, conversation: int) -> str:
    """As Store.export has it, a turn a line."""
    from localr1.trace.export import json_line

    value = store.export(conversation)
    turns = ",\n    ".join(map(json_line, value.pop("turns")))
    head = "".join(f"  {json_line(name)}: {json_line(part)},\n" for name, part in value.items())
    return f'{{\n{head}  "turns": [\n    {turns}\n  ]\n}}\n'
