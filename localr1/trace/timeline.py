"""The timeline of a reply as SVG: a bar of its steps, as wide as their tokens, and below it how unsure the model was.

A kind is a colour, a pattern, and a mark where there is room. Steps too thin to be seen are drawn together, in the kind that most of
their tokens are of; backtracks and checks then have rows of their own above the bar, so that none is lost.
"""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from localr1.attachments import brief
from localr1.trace.record import Trace
from localr1.trace.steps import KINDS, MARKS, Kind
from localr1.trace.words import cost, count, ending, on_one_line, seconds, shown
from localr1.turn import Written

# fills of light and dark, for text in INK
COLOURS: dict[str, tuple[str, str]] = {
    "restate": ("#dcdce6", "#4b4b5a"), "plan": ("#b5d3f2", "#20507e"), "work": ("#e9dfc4", "#45412f"), "check": ("#ffd25e", "#785800"),
    "backtrack": ("#ffa184", "#982f10"), "conclude": ("#a3dba9", "#1f6131"), "answer": ("#ffffff", "#16181a"),
}  # fmt: skip
INK = ("#1b1b1b", "#f4f2ef")
SOFT = ("#5a5a5a", "#a9a6a1")
BACK = ("#ffffff", "#16181a")
DARK = "@media screen and (prefers-color-scheme: dark)"

# of a tile of 6 x 6
PATTERNS: dict[Kind, str] = {
    "restate": "M0 3H6", "plan": "M3 0V6", "check": "M1.5 1.5h1.5M4.5 4.5h1.5", "backtrack": "M-1 -1L7 7M-1 5L1 7M5 -1L7 1", "conclude": "M0 3H6M3 0V6",
}  # fmt: skip

WIDTH, LEFT, RIGHT = 900, 48, 12
BAR, DOUBT, ROW = 34, 36, 10  # heights: of the bar, of what is below it, of a row above it
THIN, MARKED = 3.0, 11.0  # px: what is drawn alone, and what has its mark
LEAST_ANSWER = 17.0  # px: room for its mark
COLUMN = 2.0  # px: of doubt, where there are more tokens than pixels
LETTER = 7.0  # px, an average one


@dataclass(frozen=True, slots=True)
class _Segment:
    """Steps `first` to `last`, drawn as one."""

    kind: str
    first: int
    last: int
    x: float
    wide: float


def timeline(trace: Trace, linked: bool = False) -> str:
    """`linked`: for a page that has the title, and a place s1, s2 ... for each step, and one called answer."""
    steps = trace.steps if trace.thought.strip() else []
    sizes = [step.tokens for step in steps] if trace.tokens else [step.end - step.start for step in steps]
    answer = len(trace.answer_tokens) if trace.tokens else len(trace.answer)
    thought, room = sum(sizes), float(WIDTH - LEFT - RIGHT)
    answer_wide = 0.0 if not answer else room if not thought else max(LEAST_ANSWER, room * answer / (thought + answer))
    scale = (room - answer_wide) / max(1, thought)
    segments = list(_segments([step.kind for step in steps], [size * scale for size in sizes]))

    y = 12.0 if linked else 70.0
    parts = [] if linked else list(_title(trace, y))
    if any(s.first != s.last or s.wide < MARKED for s in segments):
        starts = {kind: [s.first_token if trace.tokens else s.start for s in steps if s.kind == kind] for kind in ("backtrack", "check")}
        for kind in (kind for kind in KINDS if starts.get(kind)):
            parts += _ticks(kind, [LEFT + start * scale for start in starts[kind]], y)
            y += ROW
        y += 3
    for s in segments:
        parts.append(_segment(s, y, _told(trace, s), f"s{s.first + 1}" if linked else ""))
    if answer:
        last = _Segment("answer", -1, -1, LEFT + room - answer_wide, answer_wide)
        told = f"answer: {count(answer, 'token' if trace.tokens else 'character')}"
        parts.append(_segment(last, y, told, "answer" if linked else ""))
    y += BAR + 6
    known = any(not math.isnan(w.token.logprob) for w in trace.tokens)
    if known:
        parts += _doubt(trace, LEFT + room - answer_wide, y)
        y += DOUBT + 4
    parts += _axis(thought, scale, y, "tokens" if trace.tokens else "characters")
    y += 40
    shares = {kind: sum(size for step, size in zip(steps, sizes, strict=True) if step.kind == kind) for kind in KINDS}
    parts += _legend(shares, thought, bool(answer), y, known)
    return _svg(y + (36 if known else 14), trace, parts, linked)


# ------------------------------------------------------------------------------------------------------------- the bar


def _segments(kinds: Sequence[Kind], widths: Sequence[float]) -> Iterator[_Segment]:
    """Steps that are THIN are put together until they are not."""
    x, first = float(LEFT), 0
    shares: dict[str, float] = {}
    for i, (kind, wide) in enumerate(zip(kinds, widths, strict=True)):
        if wide >= THIN and shares:
            yield (done := _together(shares, first, i - 1, x))
            x, first, shares = x + done.wide, i, {}
        shares[kind] = shares.get(kind, 0.0) + wide
        if sum(shares.values()) >= THIN or i == len(kinds) - 1:
            yield (done := _together(shares, first, i, x))
            x, first, shares = x + done.wide, i + 1, {}


def _together(shares: dict[str, float], first: int, last: int, x: float) -> _Segment:
    return _Segment(max(shares, key=shares.__getitem__), first, last, x, sum(shares.values()))


def _told(trace: Trace, segment: _Segment) -> str:
    step = trace.steps[segment.first]
    if segment.first != segment.last:
        return f"steps {segment.first + 1:,} to {segment.last + 1:,}, most of it {segment.kind}"
    return f"step {segment.first + 1:,}, {step.kind}, {cost(step)}: {shorten(trace.step_text(step), 60)}"


def _segment(s: _Segment, y: float, told: str, target: str = "", high: int = BAR) -> str:
    gap = 1.0 if s.wide > 2 * THIN else 0.0
    if s.wide < 0.05:
        return ""
    crisp = "" if gap else ' shape-rendering="crispEdges"'
    inset = 0.5 if s.kind == "answer" else 0.0  # of its outline
    box = f'x="{s.x + inset:.1f}" y="{y + inset:.1f}" width="{max(0.1, s.wide - gap - 2 * inset):.1f}" height="{high - 2 * inset:.0f}"'
    found = f'<title>{escaped(told)}</title><rect class="f-{s.kind}" {box}{crisp}/>'
    if s.kind in PATTERNS and s.wide >= THIN:
        found += f'<rect fill="url(#p-{s.kind})" {box}/>'
    if s.wide >= MARKED:
        mark = "A" if s.kind == "answer" else MARKS[s.kind]  # type: ignore[index]
        found += f'<text class="mark h-{s.kind}" x="{s.x + s.wide / 2:.1f}" y="{y + high / 2 + 5:.1f}">{escaped(mark)}</text>'
    return f'<a href="#{target}">{found}</a>' if target else f"<g>{found}</g>"


def _ticks(kind: Kind, places: Sequence[float], y: float) -> Iterator[str]:
    yield _label(LEFT - 8, y + 8, MARKS[kind], "end", "mono")
    drawn, path = -math.inf, []
    for x in places:
        if x - drawn >= 2:
            path.append(f"M{x + 0.6:.1f} {y:.0f}v{ROW - 2}")
            drawn = x
    yield f'<path class="tick" d="{"".join(path)}"/>'


# ------------------------------------------------------------------------------------------------------- below the bar


def _doubt(trace: Trace, middle: float, y: float) -> Iterator[str]:
    """Bars as high as the tokens above them were unlikely, in the mean; nothing where they were not sampled."""
    parts = (trace.thought_tokens, LEFT, middle), (trace.answer_tokens, middle, WIDTH - RIGHT)
    columns = [column for tokens, left, right in parts for column in _columns(tokens, left, right)]
    top = next(top for top in (0.1, 0.2, 0.5, 1.0) if top >= max(doubt for _, _, doubt in columns))
    base = y + DOUBT
    yield f'<path class="grid" d="M{LEFT} {y + 0.5:.1f}H{WIDTH - RIGHT}M{LEFT} {base + 0.5:.1f}H{WIDTH - RIGHT}"/>'
    yield _label(LEFT - 8, y + 9, f"{top:.0%}", "end", "soft")
    yield _label(LEFT - 8, base + 2, "0%", "end", "soft")
    bars = (f"M{x:.1f} {base:.0f}v{-DOUBT * doubt / top:.1f}h{wide:.1f}V{base:.0f}z" for x, wide, doubt in columns if doubt >= 0.01 * top)
    yield f'<path class="doubt" shape-rendering="crispEdges" d="{"".join(bars)}"/>'


def _columns(tokens: Sequence[Written], left: float, right: float) -> Iterator[tuple[float, float, float]]:
    """Place, width, and 1 - mean probability of what was sampled there."""
    columns = min(len(tokens), max(1, int((right - left) / COLUMN)))
    for i in range(columns):
        held = tokens[i * len(tokens) // columns : (i + 1) * len(tokens) // columns]
        known = [math.exp(min(0.0, w.token.logprob)) for w in held if not math.isnan(w.token.logprob)]
        if known:
            yield left + (right - left) * i / columns, (right - left) / columns, 1 - sum(known) / len(known)


def _axis(thought: int, scale: float, y: float, unit: str) -> Iterator[str]:
    step = next(
        digit * power
        for power in (10**n for n in range(12))
        for digit in (1, 2, 5)
        if digit * power * scale >= 110 or digit * power > thought
    )
    for value in range(0, thought + 1, step):
        x = LEFT + value * scale
        yield f'<path class="grid" d="M{x:.1f} {y - 4:.0f}v4"/>'
        yield _label(x, y + 12, f"{value:,}" if value else f"0 {unit}", "middle" if value else "start", "soft")


def _legend(shares: dict[Kind, int], thought: int, answer: bool, y: float, known: bool) -> Iterator[str]:
    x = float(LEFT)
    for kind in (*(kind for kind in KINDS if shares[kind]), *(["answer"] if answer else [])):
        name = kind if kind == "answer" else f"{kind} {_share(shares[kind] / thought)}"  # type: ignore[index]
        yield _segment(_Segment(kind, -1, -1, x, 24), y - 13, name, high=18)
        yield _label(x + 29, y, name)
        x += 29 + LETTER * len(name) + 20
    if known:
        yield _label(LEFT, y + 24, "Below the bar: doubt, 1 - the mean probability of the tokens that the model chose.", "start", "soft")


def _share(value: float) -> str:
    return f"{value:.0%}" if value >= 0.01 else "<1%"


# ----------------------------------------------------------------------------------------------------------------- SVG


def _title(trace: Trace, y: float) -> Iterator[str]:
    total = (
        count(len(trace.tokens), "token") + f", {seconds(trace.tokens[-1].at_s)}"
        if trace.tokens
        else count(len(trace.thought), "character")
    )
    yield _label(LEFT, y - 42, shorten(brief(trace.question), 100), kind="title")
    yield _label(LEFT, y - 21, f"{shorten(trace.made.model, 50) or 'unknown model'}: {total}; {ending(trace)}", kind="soft")


def shorten(text: str, cells: int) -> str:
    """The beginning of `text` on one line, as wide as `cells` letters at most."""
    line, wide = on_one_line(text[: 4 * cells]), 0
    for i, character in enumerate(line):
        wide += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if wide > cells:
            return line[: i - 1].rstrip() + "…"
    return line


def escaped(text: str) -> str:
    """Text for HTML and XML."""
    return html.escape(shown(text))


def _label(x: float, y: float, value: str, anchor: str = "start", kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escaped(value)}</text>'


def _svg(height: float, trace: Trace, parts: Sequence[str], linked: bool) -> str:
    patterns = "".join(
        f'<pattern id="p-{kind}" width="6" height="6" patternUnits="userSpaceOnUse"><path class="hatch" d="{path}"/></pattern>'
        for kind, path in PATTERNS.items()
    )
    box = f'viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}"'
    name = f"Timeline of the reply to: {shorten(brief(trace.question), 100)}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="{"group" if linked else "img"}" aria-label="{escaped(name)}">'
    back = "" if linked else f'<rect class="back" width="{WIDTH}" height="{height:.0f}"/>\n'
    return (
        f"{head}\n<title>{escaped(name)}</title>\n<style>{_style()}</style>\n<defs>{patterns}</defs>\n{back}"
        + "\n".join(filter(None, parts))
        + "\n</svg>"
    )


def _style() -> str:
    return (
        "\ntext { font: 12px system-ui, sans-serif; } .title { font-size: 15px; font-weight: 600; } .mono, .mark { font: 600 13px ui-monospace, monospace; }\n"
        ".mark { text-anchor: middle; paint-order: stroke; stroke-width: 5px; stroke-linejoin: round; } .tick, .grid, .hatch { fill: none; }\n"
        ".tick { stroke-width: 1.2; } .hatch { opacity: .3; }\n" + _colours(0) + f"{DARK} {{\n{_colours(1)}}}\n"
    )


def _colours(theme: int) -> str:
    kinds = "".join(f".f-{kind} {{ fill: {fill[theme]}; }} .h-{kind} {{ stroke: {fill[theme]}; }}\n" for kind, fill in COLOURS.items())
    ink, soft = INK[theme], SOFT[theme]
    return (
        f"text {{ fill: {ink}; }} .soft {{ fill: {soft}; }} .back {{ fill: {BACK[theme]}; }} .tick, .hatch {{ stroke: {ink}; }}\n"
        f".grid {{ stroke: {('#d4d4d4', '#3a3d40')[theme]}; }} .doubt {{ fill: {('#9a9a9a', '#7d7f82')[theme]}; }}\n"
        f"{kinds}.f-answer {{ stroke: {soft}; }}\n"
    )
