"""`localr1 trace list / show / search / stats / export`: what was kept, told on a terminal, in a pipe, or as JSON.

A trace is named by its number, "last", or the file that it was exported to. Everything raises StoreError: the history cannot be read, or has no
such trace; TraceError: the file is none.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple

from localr1.attachments import brief
from localr1.files import write_whole
from localr1.history import history_file
from localr1.output import console, put, put_json, put_table
from localr1.store import Hit, Store, StoreError
from localr1.store.replies import DamagedTurn
from localr1.trace.export import Form, export, from_jsonl
from localr1.trace.record import Trace, TraceError, from_json, stats
from localr1.trace.steps import MARKS
from localr1.trace.totals import HEADER, totals
from localr1.trace.words import cost, ending, figures, made, on_one_line, shown

Id = int | Literal["last"] | Path
_WIDE = 130  # columns, for a table of statistics
_EMPTY = 'no traces are kept yet; ask something: localr1 ask "How many r\'s are in strawberry?"'
_REASONS = {"": "unfinished", "stop": "done", "length": "limit", "context": "context full", "cancelled": "stopped"}
_THOUGHTS = {"model": "", "user": "by hand", "bypassed": "no thought"}


# ------------------------------------------------------------------------------------------------------- the history


@contextmanager
def history() -> Iterator[Store]:
    """What was kept; a reader makes no file."""
    file = history_file()
    if not file.exists():
        raise StoreError(_EMPTY)
    with Store(file) as store:
        yield store


class Found(NamedTuple):
    """`name`: what to call it. `id`: None if it is a file's."""

    name: str
    id: int | None
    trace: Trace


def find(*ids: Id) -> list[Found]:
    """The history is read only for those that are kept there."""
    if all(isinstance(id, Path) for id in ids):
        return [_of_file(id) for id in ids if isinstance(id, Path)]
    with history() as store:
        return [_of_file(id) if isinstance(id, Path) else _kept(store, id) for id in ids]


def _kept(store: Store, id: int | Literal["last"]) -> Found:
    if id == "last":
        latest = store.traces(1)
        if not latest:
            raise StoreError(_EMPTY)
        id = latest[0].id
    try:
        return Found(f"trace {id}", id, store.turn(id).trace)
    except DamagedTurn:
        raise
    except StoreError:
        if any(trace.id == id for trace in store.traces()):
            raise
        raise StoreError(f"there is no trace {id}; localr1 trace list shows those that are kept") from None


def _of_file(file: Path) -> Found:
    try:
        text = file.read_text(encoding="utf-8-sig")
        return Found(on_one_line(file.name), None, from_jsonl(text) if file.suffix.lower() == ".jsonl" else from_json(json.loads(text)))
    except (ValueError, RecursionError):
        raise TraceError(f"{file}: is no JSON; export the trace again with --to json") from None
    except TraceError as error:
        raise TraceError(f"{file}: {error}") from None


# ---------------------------------------------------------------------------------------------------------- commands


def list_traces(limit: int, as_json: bool = False) -> None:
    """`thought` in tokens. JSON: an array of store.values.TraceSummary, the latest first."""
    try:
        with history() as store:
            found = store.traces(limit)
    except StoreError as error:
        if not as_json or str(error) != _EMPTY:
            raise
        found = []
    if as_json:
        put_json([asdict(trace) for trace in found])
        return
    if not found:
        raise StoreError(_EMPTY)
    rows = [
        (
            str(t.id), when(t.started_at), t.model, f"{t.thought_tokens:,}", f"{t.seconds:.1f}", _how_it_ended(t.reason, t.thought_end),
            on_one_line(t.question),
        )
        for t in found
    ]  # fmt: skip
    put_table(("id", "when", "model", "thought", "seconds", "ended", "question"), rows, numbers=(0, 1, 3, 4))


def show(id: Id = "last", plain: bool = False, as_json: bool = False) -> None:
    """On a terminal to browse in. JSON: as `export` writes it."""
    ((name, _, trace),) = find(id)
    if as_json:
        put(export(trace, "json"), end="")
    elif not plain and all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):  # Textual draws on stderr
        from localr1.settings_layers import own_settings
        from localr1.tui.trace_app import TraceApp

        settings = own_settings()
        title = f"{name.removeprefix('trace ')}: {on_one_line(brief(trace.question))}"
        TraceApp(trace, title, settings).run(mouse=settings.look.mouse)
    else:
        put(as_text(trace, name))


def search(words: str, limit: int, as_json: bool = False) -> bool:
    """Something was found. JSON: an array of store.values.Hit."""
    with history() as store:
        hits = store.search(words, limit)
    if as_json:
        put_json([asdict(hit) for hit in hits])
        return True
    if not hits:
        print(f"localr1: nothing was found with all of these words: {on_one_line(words)}", file=sys.stderr)
        return False
    _put_hits(hits)
    return True


def show_stats(id: Id, as_json: bool = False) -> None:
    """JSON: trace.record.Stats, and `id`, null for a file's."""
    ((name, number, trace),) = find(id)
    if as_json:
        put_json({"id": number} | asdict(stats(trace)))
    else:
        put("\n".join(_statistics(trace, name)))


def show_totals(as_json: bool = False) -> None:
    """JSON: {all: {...}, models: {name: {...}}} of Totals.as_object."""
    with history() as store:
        everything, models = totals(store)
    if as_json:
        put_json({"all": everything.as_object(), "models": {name: found.as_object() for name, found in models.items()}})
        return
    if not everything.traces:
        raise StoreError(_EMPTY)
    rows = [(name, *found.as_row()) for name, found in models.items()]
    if len(rows) > 1:
        rows.append(("all", *everything.as_row()))
    out = console()
    if out.is_terminal and out.width < _WIDE:
        for i, (name, *values) in enumerate(rows):
            put("\n" * (i > 0), end="")
            put_table((name, ""), list(zip(HEADER, values, strict=True)), numbers=(1,))
    else:
        put_table(("model", *HEADER), rows, numbers=range(1, 1 + len(HEADER)))


def write(id: Id, form: Form, file: Path | None = None, force: bool = False) -> None:
    """The trace in `form`, into `file` (all of it or nothing, and over another one only with `force`), else to stdout.

    Raises OSError too.
    """
    if file is not None and file.exists() and not (force and file.is_file()):
        raise _exists(file)
    ((_, _, trace),) = find(id)
    text = export(trace, form)
    if file is None:
        put(text, end="")
    else:
        try:
            write_whole(file, text, replace=force)
        except FileExistsError:
            raise _exists(file) from None
        except OSError as error:
            raise OSError(f"{file}: cannot be written ({error.strerror}); choose another place") from None


# ------------------------------------------------------------------------------------------------------------- words


def when(started_at: str) -> str:
    """In local time, to the minute."""
    try:
        return f"{datetime.fromisoformat(started_at).astimezone():%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError):
        return on_one_line(started_at)


def _how_it_ended(reason: str, thought_end: str) -> str:
    thought = _THOUGHTS.get(thought_end, thought_end) if reason else ""
    return ", ".join(filter(None, [_REASONS.get(reason, reason), thought]))


def _statistics(trace: Trace, name: str) -> list[str]:
    found = figures(trace)
    width = max(len(what) for what, _ in found)
    return [
        f"{name}: {on_one_line(brief(trace.question))}", made(trace), ending(trace), "", *(f"{what:<{width}}  {value}" for what, value in found)
    ]  # fmt: skip


def as_text(trace: Trace, name: str) -> str:
    """Statistics, then the steps with their marks and texts, then the answer. `name`: what to call it."""
    lines = _statistics(trace, name)
    for i, step in enumerate(trace.steps if trace.thought.strip() else [], 1):
        lines += ["", f"{i} {MARKS[step.kind]} {step.kind}, {cost(step)}", *indented(trace.step_text(step))]
    return "\n".join([*lines, "", "answer", *indented(trace.answer or "(none)")])


def indented(text: str) -> list[str]:
    """Lines of a model's text."""
    return [f"    {line}".rstrip() for line in shown(text).strip("\n").split("\n")]


def _put_hits(hits: Sequence[Hit]) -> None:
    """A line for each, the words that were looked for in bold."""
    from rich.table import Table
    from rich.text import Text

    out = console()
    width = max(len(str(hit.turn)) for hit in hits)
    grid = Table.grid(padding=(0, 2, 0, 0))
    for hit in hits:
        snippet = Text(shown(hit.snippet))
        for a, b in hit.at:
            snippet.stylize("bold", a, b)
        if out.is_terminal:
            grid.add_row(str(hit.turn), hit.part, snippet)
        else:
            put(f"{hit.turn:>{width}}  {hit.part:<8}  {snippet.plain}")
    if out.is_terminal:
        out.print(grid)


def _exists(file: Path) -> FileExistsError:
    return FileExistsError(f"{file}: exists already; choose another name or pass --force to replace it")
