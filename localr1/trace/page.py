"""A trace as one HTML file made to be shared: timeline, the thought step by step, its least certain tokens, answer, raw text.

It needs nothing else and fetches nothing. All of it works without a script: links lead through the steps, boxes choose what is seen.
The few lines of script that it has, known by their hash, add the keys n, N and f.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

from localr1.attachments import brief
from localr1.latex.markdown import FORMULA, add_formulas
from localr1.markdown_rules import keep_text
from localr1.trace.record import Trace
from localr1.trace.steps import KINDS, MARKS, Kind, Step
from localr1.trace.timeline import BACK, COLOURS, DARK, INK, SOFT, escaped, shorten, timeline
from localr1.trace.words import cost, count, ending, figures, made, percent, shown

TURNS = ("backtrack", "check")
SURE = 0.9  # a token this likely is not worth a look
LEAST_CERTAIN = 20  # tokens in the list
CONTEXT = 40  # characters before each
ALTERNATIVES = 4  # to each
MARKDOWN_LIMIT = 200_000  # characters: a longer answer is shown as it is
# From which probability on a token is shaded, and with which element: one letter each, for a page of thousands.
SHADES = ((SURE, ""), (0.5, "u"), (0.2, "i"), (0.0, "b"))

STYLE = """
:root { color-scheme: light dark; scroll-padding-top: 1rem; }
body { font: 16px/1.55 system-ui, sans-serif; margin: 1.5rem auto 4rem; max-width: 58rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; line-height: 1.3; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
blockquote, .t, #steps p, pre { white-space: pre-wrap; overflow-wrap: anywhere; tab-size: 4; unicode-bidi: plaintext; }
blockquote { margin: 0; padding-left: 1rem; border-left: 3px solid var(--line); }
dl { display: flex; flex-wrap: wrap; gap: .5rem 1.6rem; } dl div { display: flex; flex-direction: column-reverse; }
dt { font-size: .85rem; } dd { margin: 0; font-variant-numeric: tabular-nums; }
.note, dt, small, figcaption { color: var(--soft); } a { color: var(--link); }
figure { margin: 1rem 0; overflow-x: auto; } figure svg { display: block; min-width: 640px; width: 100%; height: auto; }
fieldset { border: 1px solid var(--line); border-radius: 6px; display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin: 0 0 .8rem; }
label { padding: .25rem 0; } .mark, #steps summary::before { display: inline-block; min-width: 1.4em; text-align: center; border-radius: 3px; color: var(--ink); }
.mark, #steps summary::before { font: 600 .95em ui-monospace, monospace; } #steps summary::before { margin-right: .4em; }
#steps details { position: relative; border-left: 5px solid; padding: .1rem 0 .1rem .8rem; margin: .5rem 0; content-visibility: auto; }
#steps details { contain-intrinsic-size: auto 6rem; } #steps .backtrack, #steps .check { border-left-width: 10px; }
summary { cursor: pointer; padding: .2rem 0; } .jump { position: absolute; top: .3rem; right: 0; } .jump a { padding: .3rem .5rem; }
#steps p { margin: 0; padding-bottom: .3rem; } #steps u, #steps i, #steps b, #steps ins { font: inherit; text-decoration: none; }
:target { outline: 2px solid var(--link); outline-offset: 2px; }
.answer { overflow-wrap: anywhere; } .answer h1, .answer h2, .answer h3 { font-size: 1.05rem; margin: 1rem 0 .4rem; }
pre { background: var(--box); padding: .7rem; border-radius: 6px; } .raw { user-select: all; }
li { margin: .35rem 0; overflow-wrap: anywhere; } li a, code { unicode-bidi: isolate; } code { background: var(--box); border-radius: 3px; padding: 0 .2em; white-space: pre-wrap; }
pre code { padding: 0; } table { border-collapse: collapse; } td, th { border: 1px solid var(--line); padding: .2rem .6rem; }
body:has(#sure:checked) #steps { & u { background: var(--u); border-bottom: 2px dotted; } & i { background: var(--i); border-bottom: 2px dashed; }
& b { background: var(--b); border-bottom: 2px solid; } & ins { border-bottom: 2px double; } }
.key u, .key i, .key b { color: var(--ink); font: inherit; text-decoration: none; padding: 0 .3em; } .key u { background: var(--u); border-bottom: 2px dotted; }
.key i { background: var(--i); border-bottom: 2px dashed; } .key b { background: var(--b); border-bottom: 2px solid; }
.key { display: none; } body:has(#sure:checked) .key { display: block; }
@media (max-width: 40rem) { #steps small { display: none; } }
@media print { fieldset, .jump, nav, #raw, #keys { display: none; } #steps details { content-visibility: visible; break-inside: avoid; } a { color: inherit; } }
"""
# --line, --link, --box, and the three shades
THEMES = ("#cfcfcf #0b57a4 #f3f2ef #fdf0c8 #fcd9a8 #f9b7a0", "#44474a #8fc1f5 #212427 #3d3517 #553a12 #6e2c17")
NAMES = ("line", "link", "box", "u", "i", "b")

SCRIPT = """
const all = q => [...document.querySelectorAll(q)];
document.getElementById("keys").hidden = false;
addEventListener("keydown", e => {
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  if (e.key == "f") { const d = all("#steps details"), open = !d.some(x => x.open); d.forEach(x => x.open = open); }
  if (e.key != "n" && e.key != "N") return;
  const top = x => x.getBoundingClientRect().top - 16, d = all("#steps .backtrack, #steps .check").filter(x => x.offsetParent);
  const to = e.key == "n" ? d.find(x => top(x) > 4) : d.reverse().find(x => top(x) < -4);
  if (to) { to.open = true; location.replace("#" + to.id); to.firstChild.focus({preventScroll: true}); }
});
"""


class _Run(NamedTuple):
    """Characters up to `end` of the thought that are of one shade; `token`: the place of one that has a link to it."""

    end: int
    shade: str
    token: int = -1


def to_html(trace: Trace) -> str:
    title = shorten(brief(trace.question), 120) or "A reasoning trace"
    script_hash = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{script_hash}'; base-uri 'none'; form-action 'none'"
    thought = bool(trace.thought.strip())
    least = [i for i, w in trace.least_certain(LEAST_CERTAIN) if thought and w.token.logprob < math.log(SURE)]
    question = trace.question.strip()
    numbers = "".join(f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>" for name, value in figures(trace))
    parts = [
        f"<header>\n<h1>{escaped(title)}</h1>",
        "" if question == title else f"<blockquote>{escaped(question)}</blockquote>",
        f'<p>{escaped(ending(trace).capitalize())}.<br><span class="note">{escaped(made(trace))}</span></p>',
        f"<dl>{numbers}</dl>\n</header>",
        f'<main>\n<figure tabindex="0" aria-label="Timeline">{timeline(trace, linked=True)}</figure>',
        *(_thought(trace, least) if thought else ['<p class="note">There is no thought.</p>']),
        *(_least_certain(trace, least) if least else []),
        f'<h2 id="answer">Answer</h2>\n<div class="answer">{_rendered(trace.answer) or "<p>(none)</p>"}</div>',
        '<h2 id="raw">Raw text</h2>',
        *(_raw(name, text) for name, text in (("Thought", trace.thought), ("Answer", trace.answer)) if text),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>{_style()}</style>\n</head>\n<body>\n"
        + "\n".join(filter(None, parts))
        + f"\n</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


# ---------------------------------------------------------------------------------------------------------- the thought


def _thought(trace: Trace, linked: Sequence[int]) -> Iterator[str]:
    turns = [i for i, step in enumerate(trace.steps, 1) if step.kind in TURNS]
    yield '<h2 id="thought">Thought</h2>'
    yield (
        '<nav><a href="#answer">To the answer</a>' + (f' · <a href="#s{turns[0]}">First backtrack or check</a>' if turns else "") + "</nav>"
    )
    found = {kind: sum(step.kind == kind for step in trace.steps) for kind in KINDS}
    boxes = (
        f'<label><input type="checkbox" id="see-{kind}" checked> {_mark(kind)} {kind} ({number:,})</label>'
        for kind, number in found.items()
        if number
    )
    yield f"<fieldset><legend>Steps to see</legend>{''.join(boxes)}</fieldset>"
    if any(not math.isnan(w.token.logprob) for w in trace.thought_tokens):
        yield '<p><label><input type="checkbox" id="sure"> Shade what the model was not sure of</label></p>'
        yield (
            f'<p class="key note">Probability of a token: <u>below {SHADES[0][0]:.0%}</u> <i>below {SHADES[1][0]:.0%}</i> <b>below {SHADES[2][0]:.0%}</b>. '
            "A double line: not sampled, but written there.</p>"
        )
    yield '<p class="note" id="keys" hidden>Keys: n and N go to the next and the previous backtrack or check, f folds and unfolds.</p>'
    yield '<div id="steps">'
    texts = _shaded(trace, set(linked))
    around = {turn: (b, a) for b, turn, a in zip([0, *turns], turns, [*turns[1:], 0], strict=False)}
    for number, (step, text) in enumerate(zip(trace.steps, texts, strict=True), 1):
        yield _step(number, step, text, *around.get(number, (0, 0)))
    yield "</div>"


def _step(number: int, step: Step, text: str, before: int, after: int) -> str:
    """`before`, `after`: where the next turns are from a turn; 0: nowhere."""
    jump = f'<a href="#s{before}">‹ previous</a>' if before else ""
    jump += f'<a href="#s{after}">next ›</a>' if after else ""
    summary = f"<summary>{step.kind} {number:,} <small>{cost(step)}</small></summary>"
    jump = f'<div class="jump">{jump}</div>' if jump else ""
    return f'<details open class="{step.kind}" id="s{number}">{summary}<p>{text}</p>{jump}</details>'


def _mark(kind: Kind) -> str:
    return f'<span class="mark m-{kind}" aria-hidden="true">{escaped(MARKS[kind])}</span>'


def _text(trace: Trace) -> str:
    """What steps and tokens are places of."""
    return "".join(w.thought for w in trace.thought_tokens) if trace.thought_tokens else trace.thought


def _shaded(trace: Trace, linked: set[int]) -> Iterator[str]:
    """The text of each step, shaded, without the blanks around it."""
    text, runs = _text(trace), iter([*_runs(trace, linked), _Run(len(trace.thought), "")])
    run, begun = next(runs), False
    for step in trace.steps:
        own = text[step.start : step.end]
        at, end = step.start + len(own) - len(own.lstrip()), step.start + len(own.rstrip())
        found = []
        while at < end:
            while run.end <= at:
                run, begun = next(runs), False
            piece = escaped(text[at : min(end, run.end)])
            place = f' id="t{run.token}"' if run.token >= 0 and not begun else ""
            element = run.shade or ("span" if place else "")
            found.append(f"<{element}{place}>{piece}</{element}>" if element else piece)
            at, begun = min(end, run.end), True
        yield "".join(found)


def _runs(trace: Trace, linked: set[int]) -> list[_Run]:
    """Neighbours of one shade are one run; blanks go with what is before them."""
    found: list[_Run] = [_Run(0, "")]
    end = 0
    for i, w in enumerate(trace.tokens):
        if w.part != "thought" or not w.thought:
            continue
        end += len(w.thought)
        shade, last = _shade(w.token.logprob), found[-1]
        if i not in linked and last.token < 0 and (shade == last.shade or w.thought.isspace()):
            found[-1] = _Run(end, last.shade)
        else:
            found.append(_Run(end, shade, i if i in linked else -1))
    return found


def _shade(logprob: float) -> str:
    if math.isnan(logprob):
        return "ins"
    return next((shade for least, shade in SHADES if logprob >= math.log(least or 1e-300)), "b")


def _least_certain(trace: Trace, places: Sequence[int]) -> Iterator[str]:
    text, starts, at = _text(trace), {}, 0
    for i, w in enumerate(trace.tokens):
        if w.part == "thought":
            starts[i] = at
            at += len(w.thought)
    yield f'<h2 id="least">The {count(len(places), "least certain token")}</h2>\n<ol>'
    for i in places:
        token, before = trace.tokens[i].token, " ".join(text[max(0, starts[i] - CONTEXT) : starts[i]].split())
        others = sorted((o for o in token.alternatives if o[0] != token.id and not math.isnan(o[2])), key=lambda o: -o[2])[:ALTERNATIVES]
        instead = ", ".join(f"{_token(other)} {percent(logprob)}" for _, other, logprob in others)
        instead = f'; <span class="note">instead of</span> {instead}' if instead else ""
        yield f'<li><a href="#t{i}">{f"…{escaped(before)}" if before else "the beginning"}</a> {_token(token.text)} {percent(token.logprob)}{instead}</li>'
    yield "</ol>"


def _token(text: str) -> str:
    return f"<code>{escaped(text).replace(' ', '␣').replace(chr(10), '⏎').replace(chr(9), '⇥') or '(nothing)'}</code>"


# ----------------------------------------------------------------------------------------------------------- the answer


def _rendered(answer: str) -> str:
    """The model's Markdown without what leads or looks elsewhere: links, pictures, HTML. Its formulas keep their backslashes."""
    if len(answer) > MARKDOWN_LIMIT:
        return f'<div class="t">{escaped(answer)}</div>'
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True, "maxNesting": 100}).enable("table")
    parser.disable(["image", "link", "autolink", "html_inline", "html_block", "reference", "entity", "escape"])
    keep_text(parser)
    add_formulas(parser, render=False)
    parser.add_render_rule(FORMULA, _formula)
    return shown(parser.render(shown(answer.strip()))).strip()


def _formula(renderer: object, tokens: Sequence[Token], at: int, options: object, env: object) -> str:
    return f'<div class="t">{escaped(tokens[at].content)}</div>\n'


def _raw(name: str, text: str) -> str:
    return f'<details><summary>{name}: a click marks all of it, to be copied</summary><pre class="raw">\n{escaped(text)}</pre></details>'


def _style() -> str:
    light, dark = (
        "".join(f"--{name}: {value}; " for name, value in zip(NAMES, colours.split(), strict=True))
        + f"--ink: {INK[theme]}; --soft: {SOFT[theme]};"
        for theme, colours in enumerate(THEMES)
    )
    return STYLE + "".join(map(_for_kind, KINDS)) + (_theme(light, 0) + f"{DARK} {{\n{_theme(dark, 1)}}}\n")


def _for_kind(kind: Kind) -> str:
    """Its mark, and that it is not seen where its box is not checked."""
    mark = MARKS[kind].replace('"', '\\"')
    return f'.{kind} summary::before {{ content: "{mark}"; }} body:has(#see-{kind}:not(:checked)) #steps .{kind} {{ display: none; }}\n'


def _theme(names: str, theme: int) -> str:
    kinds = "".join(
        f"#steps .{kind} {{ border-color: {COLOURS[kind][theme]}; }} .m-{kind}, .{kind} summary::before {{ background: {COLOURS[kind][theme]}; }}\n"
        for kind in KINDS
    )
    return f":root {{ {names} }}\nbody {{ color: {INK[theme]}; background: {BACK[theme]}; }}\n{kinds}"
