"""What is on each row of a trace. Only rows that are asked for are built.

Colours are the terminal's own; whatever a colour says, a mark or a style says too.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from itertools import groupby

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style

from localr1.attachments import brief
from localr1.trace.record import Stats
from localr1.trace.steps import MARKS, Kind, Step
from localr1.trace.words import REASONS, THOUGHT_ENDS, count, shown
from localr1.tui.status import Field
from localr1.tui.trace_outline import BREAK, INDENT, TAB, Outline
from localr1.tui.trace_tape import UNSURE, Part, Search, Tape

MARK_OF_ANSWER = "A"
COLOURS: dict[Kind, str] = {
    "restate": "magenta", "plan": "blue", "work": "default", "check": "cyan", "backtrack": "yellow", "conclude": "green",
}  # fmt: skip
PLAIN, DIM, RULE, BOLD = Style(), Style(dim=True), Style(color="bright_black"), Style(bold=True)
REVERSE, FOUND, FOUND_NOW = Style(reverse=True, dim=False), Style(bold=True, underline=True), Style(bold=True, reverse=True)
SHADES = (
    (UNSURE, PLAIN, "plain"),
    (0.5, Style(underline=True), "underlined"),
    (0.2, Style(underline=True, bold=True), "bold"),
    (0.0, Style(reverse=True), "reverse"),
)


# --------------------------------------------------------------------------------------------------------------- rows


def clean(text: str) -> str:
    """On one line."""
    return shown(text).replace("\t", " " * TAB).replace("\n", " ")


def words(text: str, start: int, end: int, width: int) -> str:
    """The first words, in at most `width` cells."""
    begin = BREAK.search(text, start, end)
    if begin is None or width < 1:
        return ""
    taken = " ".join(shown(text[begin.start() : min(end, begin.start() + 4 * width)]).split())
    return taken if cell_len(taken) <= width else set_cell_size(taken, width - 1).rstrip() + "…"


def likely(logprob: float | None) -> str:
    p = math.nan if logprob is None else math.exp(min(0.0, logprob))
    return "" if math.isnan(p) else "<1%" if p < 0.005 else f"{p:.0%}"


def entry_row(outline: Outline, entry: int, width: int) -> list[Segment]:
    """Mark, kind, first words, and what it took; what there is no room for goes, the kind first."""
    tape, is_open = outline.tape, outline.is_open(entry)
    part, start, end = outline.text(entry)
    if outline.is_step(entry):
        step = tape.steps[entry]
        mark, kind, style = MARKS[step.kind], str(step.kind), Style(color=COLOURS[step.kind], bold=True)
        tokens, seconds, mean = step.tokens, step.seconds, step.mean_logprob
    else:
        mark, kind, style = MARK_OF_ANSWER, "answer", BOLD
        tokens, seconds = len(tape.answer.tokens), tape.stats().answer_s
        mean = part.logprob / part.scored if part.scored else None
    figures = (f"{tokens:,} tok" if tokens else f"{end - start:,} ch").rjust(11) if width >= 40 else ""
    if tape.counted and width >= 50:
        figures += f"{seconds:.1f} s".rjust(8)
    if tape.counted and width >= 30:
        figures += likely(mean).rjust(6)
    kind = kind.ljust(10) if width >= 80 or is_open else ""
    room = width - 4 - len(kind) - len(figures)
    text = "" if is_open else words(part.text, start, end, room)
    return [
        Segment("▾ " if is_open else "▸ ", RULE),
        Segment(mark + " " + kind, style),
        Segment(text + " " * (room - cell_len(text)), PLAIN if outline.is_step(entry) else BOLD),
        Segment(figures, DIM),
    ]


def text_row(part: Part, start: int, end: int, shaded: bool, search: Search | None, token: int | None) -> list[Segment]:
    """A row of unfolded text; `shaded`: by how likely its tokens were. `token` is pointed out."""
    text = part.text[start:end].rstrip()
    end = start + len(text)
    styles = [PLAIN] * len(text)

    def paint(first: int, last: int, style: Style) -> None:
        first, last = max(first, start) - start, min(last, end) - start
        if first < last:
            styles[first:last] = [style] * (last - first)

    for i, first, last in part.spans(start, end) if shaded else ():
        logprob = part.tokens[i].logprob
        if not math.isnan(logprob):
            p = math.exp(min(0.0, logprob))
            paint(first + (text[first - start : first - start + 1] == " "), last, next(s for least, s, _ in SHADES if p >= least))
    if search is not None and search.words:
        size, places, now = len(search.words), search.places(part), search.at_current()
        for place in places[bisect_left(places, start - size) : bisect_left(places, end)]:
            paint(place, place + size, FOUND_NOW if now == (part, place) else FOUND)
    if token is not None:
        paint(*part.span(token), FOUND_NOW)
    segments, at = [Segment(INDENT, RULE)], 0
    for style, run in groupby(styles):
        size = len(list(run))
        segments.append(Segment(clean(text[at : at + size]), style))
        at += size
    return segments


def _total(tape: Tape) -> int:
    return max(1, len(tape.thought.tokens) if tape.counted else tape.thought.length)


def _begin(tape: Tape) -> Callable[[Step], int]:
    return (lambda step: step.first_token) if tape.counted else (lambda step: step.start)


def timeline(tape: Tape, width: int, current: int) -> list[Segment]:
    """The whole thought in `width` cells of its steps' marks; where there are few to a cell, a backtrack comes first."""
    steps = tape.steps
    if not steps:
        return []
    total, begin = _total(tape), _begin(tape)
    begun = [bisect_left(steps, total * cell // width, key=begin) for cell in range(width)] + [len(steps)]  # before each cell
    shows = []
    for cell in range(width):
        step = bisect_right(steps, total * (2 * cell + 1) // (2 * width), key=begin) - 1
        if begun[cell + 1] - begun[cell] == 2:
            back = bisect_left(tape.backtracks, begun[cell])
            step = next((i for i in tape.backtracks[back : back + 1] if i < begun[cell + 1]), step)
        shows.append((steps[step].kind, step == current))
    if current < len(steps):
        shows[min(width - 1, begin(steps[current]) * width // total)] = (steps[current].kind, True)
    segments = []
    for (kind, here), run in groupby(shows):
        style = Style(color=COLOURS[kind], reverse=here, bold=here)
        segments.append(Segment(MARKS[kind] * len(list(run)), style))
    return segments


def step_in_cell(tape: Tape, width: int, cell: int) -> int:
    """The step that begins in this cell of the timeline, else the one that it is in the middle of."""
    steps, total, begin = tape.steps, _total(tape), _begin(tape)
    first, after = (bisect_left(steps, total * c // width, key=begin) for c in (cell, cell + 1))
    return first if first < after else after - 1


# -------------------------------------------------------------------------------------------------------------- words


def nothing(tape: Tape, question: str, width: int) -> str:
    """In place of the timeline, where there is no step."""
    if tape.ended is None and not tape.answer.length:
        text = f"Waiting for the first words on: {brief(question)}" if question else "Nothing yet"
    elif tape.ended is not None and tape.ended.thought_end == "user":
        text = "No thought: it was switched off"
    else:
        text = "No thought: the model answered at once"
    return words(text, 0, len(text), width)


def _ending(tape: Tape) -> str:
    if tape.ended is None:
        return "answering" if tape.answer.length else "thinking" if tape.thought.tokens else "waiting for the model"
    thought = "" if tape.ended.thought_end == "unclosed" and tape.answer.length else THOUGHT_ENDS.get(tape.ended.thought_end, "")
    return ", ".join(filter(None, [REASONS.get(tape.ended.reason, ""), thought]))


def figures(tape: Tape) -> list[Field]:
    """The statistics; the higher the rank, the sooner one is left out."""
    s: Stats = tape.stats()

    def size(tokens: int, seconds: float, characters: int) -> str:
        return f"{count(tokens, 'token')}, {seconds:.1f} s" if tape.counted else count(characters, "character")

    fields = [
        Field(f"Thought {size(s.thought_tokens, s.thought_s, tape.thought.length)}" if tape.steps else "", 0),
        Field(f"answer {size(s.answer_tokens, s.answer_s, tape.answer.length)}" if tape.answer.length else "", 4),
        Field(count(s.steps, "step") if s.steps else "", 7),
        Field(count(s.backtracks, "backtrack") if s.steps else "", 2),
        Field(count(s.checks, "check") if s.steps else "", 3),
        Field(f"longest step {count(s.longest_step_tokens, 'token')}" if s.longest_step_tokens else "", 6),
        Field(f"{s.tokens_per_s:.1f} tokens/s" if s.tokens_per_s is not None else "", 5),
        Field(_ending(tape), 1),
    ]
    return [field for field in fields if field.text]


def pack(fields: list[Field], width: int, lines: int) -> Iterator[str]:
    """The fields in their order on at most so many lines; those that do not fit are left out, the highest rank first."""
    kept = list(fields)
    while kept:
        packed = [kept[0].text]
        for field in kept[1:]:
            longer = f"{packed[-1]} · {field.text}"
            if cell_len(longer) <= width:
                packed[-1] = longer
            else:
                packed.append(field.text)
        if (len(packed) <= lines and cell_len(packed[-1]) <= width) or len(kept) == 1:
            yield from (set_cell_size(line, min(width, cell_len(line))) for line in packed[:lines])
            return
        kept.remove(max(kept, key=lambda field: field.rank))
