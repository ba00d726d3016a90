"""A trace as Markdown, for GitHub and for plain text.

Nothing the model wrote is obeyed: its signs are escaped, but for **bold** and fenced code. Steps are folded, and below them the
thought stands once more as the model wrote it, in a code block: that one is exact, but that control characters are shown.
"""

from __future__ import annotations

import re

from localr1.trace.record import Trace, stats
from localr1.trace.steps import MARKS, Step
from localr1.trace.words import cost, count, ending, figures, made, on_one_line, shown

_SIGNS = re.compile(r"[\\`*_\[\]~|$&<]")
_BEGINS = re.compile(r"(\d{0,9})([#>+\-=.)])")
BOLD = re.compile(r"\\\*\\\*(?! )([^\\]+)(?<! )\\\*\\\*")
_FENCE = re.compile(r"\s{0,3}(`{3,}(?=[^`]*$)|~{3,})\s*(\w*)")


def to_markdown(trace: Trace) -> str:
    parts = [f"# A reasoning trace of {_line(on_one_line(trace.made.model)) or 'an unknown model'}", _quoted(trace.question)]
    parts += [f"{_line(made(trace))}  \n{_line(ending(trace).capitalize())}."]
    if trace.thought.strip():
        s = stats(trace)
        summary = f"{count(s.steps, 'step')}, {count(s.backtracks, 'backtrack')}, {count(s.checks, 'check')}"
        steps = [_step(i, step, trace.step_text(step)) for i, step in enumerate(trace.steps, 1)]
        parts += ["## Thought", _folded(summary, "\n\n".join(steps)), _folded("As the model wrote it", fenced(trace.thought, "text"))]
    parts += ["## Answer", prose(trace.answer.strip()) or "(none)", "---"]
    parts += [" · ".join(f"{name}: {value}" for name, value in figures(trace))]
    return "\n\n".join(parts) + "\n"


def prose(text: str) -> str:
    """Markdown that shows `text` as it is, line for line, but for **bold** and fenced code."""
    found, lines = [], iter(shown(text).split("\n"))
    for line in lines:
        fence = _FENCE.match(line)
        if fence is None:
            found.append(_line(line) + "  " if line.strip() else "")
            continue
        code = []
        for inner in lines:
            if inner.strip().startswith(fence[1]) and not inner.strip().strip(fence[1][0]):
                break
            code.append(inner)
        found += ["", fenced("\n".join(code), fence[2]), ""]
    return "\n".join(found)


def fenced(text: str, language: str = "") -> str:
    """A code block that `text` cannot end."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{shown(text)}\n{fence}"


def _line(line: str) -> str:
    body = line.lstrip()
    indent = line[: len(line) - len(body)].replace("\t", "    ")
    body = _SIGNS.sub(lambda m: {"&": "&amp;", "<": "&lt;"}.get(m[0], "\\" + m[0]), body)
    body = _BEGINS.sub(r"\1\\\2", body, count=1) if _BEGINS.match(body) else body
    return "\u00a0" * len(indent) + BOLD.sub(r"**\1**", body)  # blanks would make a code block


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip(" ") + "  " for line in prose(text.strip()).split("\n"))


def _step(number: int, step: Step, text: str) -> str:
    mark = MARKS[step.kind]
    return f"`{mark}` **{number} {step.kind}** · {cost(step)}\n\n{prose(text.strip(chr(10)))}".rstrip()


def _folded(summary: str, body: str) -> str:
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"
