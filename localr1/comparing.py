"""`localr1 trace compare`: one question to two models, one after another, or two traces that were kept; then both side by side."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, cast

from backends.dispatch import Asked as Engine
from localr1.attachments import brief
from localr1.chat import ChatSession
from localr1.history import history_file, made_by, now
from localr1.output import console, put, put_json, put_table
from localr1.status_line import status_line
from localr1.store import Store, StoreError
from localr1.trace.compare import Comparison, Divergence, compare, to_json
from localr1.trace.difference import difference
from localr1.trace.record import Stats, Trace
from localr1.trace.steps import MARKS
from localr1.trace.words import ending, made, on_one_line, shown
from localr1.tracing import Id, find, indented
from localr1.turn import Rules, TurnEnd

if TYPE_CHECKING:
    from rich.text import Text

    from localr1.models import Wanted

DEFAULT_SEED = 0  # a comparison is repeatable without being asked to
WIDE = 100  # columns: from here on two of text, side by side


@dataclass(frozen=True, slots=True)
class Asked:
    """What both models are asked, and how."""

    question: str
    rules: Rules
    wanted: Wanted
    keep: bool = True


class Side(NamedTuple):
    """`id`: of the trace, None if it is not kept."""

    id: int | None
    trace: Trace


def ask_both(asked: Asked, *models: tuple[str, str]) -> tuple[Side, Side]:
    """Of each (model, backend) the reply; one model is loaded at a time. Both are branches of one conversation in the history.

    Raises BackendError, QuantizeError, PromptError.
    """
    from localr1.models import resolve

    for model, _ in models:  # before the first one works for long
        resolve(model or None)
    sides: list[Side] = []
    for (model, backend), letter in zip(models, "AB", strict=True):
        trace = _ask(asked, model, backend, letter)
        sides.append(Side(_keep(trace, sides) if asked.keep else None, trace))
    return sides[0], sides[1]


def compare_kept(*ids: Id) -> tuple[Side, Side]:
    """Raises StoreError, TraceError."""
    a, b = (Side(found.id, found.trace) for found in find(*ids))
    return a, b


def _ask(asked: Asked, model: str, backend: str, letter: str) -> Trace:
    from localr1.ask import load
    from localr1.models import resolve

    engine = cast(Engine, backend)
    loaded = load(resolve(model or None, engine), replace(asked.wanted, backend=engine))
    with loaded.backend:
        session, began = ChatSession(loaded.backend, asked.rules), now()
        how = made_by(session)
        line = f"{letter}: {on_one_line(loaded.name)} ({how.format}, {how.backend})"
        with status_line(line) as tell:
            for tokens, event in enumerate(session.send(asked.question)):
                if tokens % 16 == 0:
                    tell(f"{line}: {tokens:,} tokens")
                if isinstance(event, TurnEnd):
                    assert session.reply is not None
                    return Trace.of(session.reply, how, began, event)
    raise AssertionError("a turn ended without a TurnEnd")


def _keep(trace: Trace, beside: Sequence[Side]) -> int | None:
    """Its id; a history that cannot be written is told, and the comparison goes on."""
    try:
        with Store(history_file()) as store:
            first = beside[0].id if beside else None
            conversation = store.new() if first is None else store.turn(first).conversation
            turn = store.add_turn(conversation, None, trace.question, trace.made)
            store.save(turn, trace)
            return turn
    except StoreError as error:
        print(f"localr1: this is not kept: {error}", file=sys.stderr)
        return None


# --------------------------------------------------------------------------------------------------------- what is told


def look_at(a: Side, b: Side) -> None:
    """On a screen of their own."""
    from localr1.settings_layers import own_settings
    from localr1.tui.compare_app import CompareApp

    settings = own_settings()
    CompareApp(a.trace, b.trace, settings).run(mouse=settings.look.mouse)


def show(a: Side, b: Side, as_json: bool = False) -> None:
    """On stdout. JSON: trace.compare.to_json, with the `id` of each trace that is kept in `a` and `b`."""
    found = compare(a.trace, b.trace)
    if as_json:
        value = to_json(a.trace, b.trace, found)
        for name, side in (("a", a), ("b", b)):
            value[name] = {"id": side.id} | value[name]
        put_json(value)
        return
    out = console()
    is_wide = out.is_terminal and out.width >= WIDE
    put("\n".join(_heading(a, b, found)))
    put("")
    _put_divergence(found.divergence)
    if found.pairs:
        put("")
        if is_wide:
            _put_columns([_cells(a.trace, b.trace, p.a, p.b, p.similarity) for p in found.pairs], ("thought of A", "thought of B"))
        else:
            put("\n\n".join(_entry(a.trace, b.trace, p.a, p.b, p.similarity) for p in found.pairs))
    put("")
    same = {True: "the same", False: "different", None: "not both there"}[found.same_answer]
    if is_wide:
        from rich.text import Text

        answers = [Text(shown(side.trace.answer.strip()) or "(none)") for side in (a, b)]
        _put_columns([(answers[0], answers[1])], (f"answer of A ({same})", "answer of B"))
    else:
        put(f"answers: {same}")
        for letter, side in zip("AB", (a, b), strict=True):
            put("\n".join([f"  {letter}", *indented(side.trace.answer.strip() or "(none)")]))
    put("")
    put_table(("", "A", "B"), _figures(a.trace, b.trace, found), numbers=(1, 2))


def _heading(a: Side, b: Side, found: Comparison) -> list[str]:
    lines = []
    if found.same_question:
        lines += [shown(brief(a.trace.question).strip()), ""]
    for letter, side in zip("AB", (a, b), strict=True):
        lines.append(f"{letter}  {made(side.trace)}" + (f"; trace {side.id}" if side.id is not None else ""))
        if not found.same_question:
            lines.append(f"   {on_one_line(brief(side.trace.question))}")
    return [*lines, *_notes(a.trace, b.trace, found)]


def _notes(a: Trace, b: Trace, found: Comparison) -> Iterator[str]:
    """What to know before reading a difference as one of the models."""
    x, y = a.made.sampling, b.made.sampling
    if not found.same_question:
        yield "note: the questions are different"
    if x != y or a.made.think_budget != b.made.think_budget:
        yield "note: they were not sampled in the same way"
    elif not x.greedy and x.seed is None:
        yield "note: no seed was set, so that the draws differ; --temperature 0 compares what the models find likeliest"
    elif not x.greedy and a.made.backend != b.made.backend:
        yield "note: backends draw differently from one seed; --temperature 0 compares what the models find likeliest"


def _put_divergence(divergence: Divergence | None) -> None:
    headline, rows = difference(divergence)
    put(headline)
    if rows:
        put_table(("next (* chosen)", "A", "B"), rows, numbers=(1, 2))


# -------------------------------------------------------------------------------------------------------------- steps


def _name(trace: Trace, i: int) -> str:
    kind = trace.steps[i].kind
    return f"{MARKS[kind]} {kind}"


def _entry(a: Trace, b: Trace, i: int | None, j: int | None, similarity: float) -> str:
    """One under the other; what is the same is told once."""
    if i is not None and j is not None and similarity == 1:
        return "\n".join([f"A{i + 1} B{j + 1} {_name(a, i)}, the same", *indented(a.step_text(a.steps[i]))])
    entries = []
    for letter, trace, index, other in (("A", a, i, j), ("B", b, j, i)):
        if index is not None:
            note = f"only in {letter}" if other is None else f"{similarity:.0%} like {'BA'[letter == 'B']}{other + 1}"
            entries.append(
                "\n".join([f"{letter}{index + 1} {_name(trace, index)}, {note}", *indented(trace.step_text(trace.steps[index]))])
            )
    return "\n".join(entries)


def _cells(a: Trace, b: Trace, i: int | None, j: int | None, similarity: float) -> tuple[Text, Text]:
    """Side by side."""
    from rich.text import Text

    cells = []
    for letter, trace, index in (("A", a, i), ("B", b, j)):
        cell = Text()
        if index is not None:
            cell.append(f"{letter}{index + 1} {_name(trace, index)}", "bold")
            if letter == "B" and similarity == 1:
                cell.append("\nthe same", "dim")
            else:
                cell.append("\n" + shown(trace.step_text(trace.steps[index]).strip()))
        cells.append(cell)
    return cells[0], cells[1]


def _put_columns(rows: list[tuple[Text, Text]], header: tuple[str, str]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, expand=True, padding=(0, 2, 1, 0))
    for name in header:
        table.add_column(name, ratio=1, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console().print(table)


def _figures(a: Trace, b: Trace, found: Comparison) -> list[tuple[str, str, str]]:
    def row(name: str, value: object, other: object) -> tuple[str, str, str]:
        return name, str(value), str(other)

    def speed(s: Stats) -> str:
        return "-" if s.tokens_per_s is None else f"{s.tokens_per_s:,.1f}"

    x, y = found.a, found.b
    return [
        row("thought tokens", f"{x.thought_tokens:,}", f"{y.thought_tokens:,}"),
        row("answer tokens", f"{x.answer_tokens:,}", f"{y.answer_tokens:,}"),
        row("steps", x.steps, y.steps),
        row("backtracks", x.backtracks, y.backtracks),
        row("seconds", *(f"{s.thought_s + s.answer_s:,.2f}" for s in (x, y))),
        row("tokens per second", speed(x), speed(y)),
        row("ended", ending(a), ending(b)),
    ]
