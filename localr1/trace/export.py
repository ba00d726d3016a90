"""A trace in the forms in which it leaves the program: for people (md, html, svg) and for programs (json, jsonl).

json is record.to_json, a step and a token a line. jsonl is the same for programs that read while it is written, an object a line:

    {"type": "trace", "version", "question", "started_at", "opens_thought", "made"}
    {"type": "token", ...}    for each token, as in json
    {"type": "end", "ended", "thought", "answer", "steps"}

Without its end (and but for a last line that is cut), it is read as the trace of a reply that is being written.
"""

from __future__ import annotations

import json
import math
from typing import Any, Literal, get_args

from localr1.trace.markdown import to_markdown
from localr1.trace.page import to_html
from localr1.trace.record import Ended, Trace, TraceError, from_json, to_json
from localr1.trace.timeline import timeline
from localr1.trace.words import shown

Form = Literal["md", "json", "jsonl", "html", "svg"]
FORMS: tuple[Form, ...] = get_args(Form)

_HEADER = ("version", "question", "started_at", "opens_thought", "made")
_READABLE = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_END = ("ended", "thought", "answer", "steps")


def export(trace: Trace, form: Form) -> str:
    """`trace` in `form`, with a newline at its end; it is valid UTF-8 whatever the model wrote."""
    match form:
        case "md":
            return to_markdown(trace)
        case "json":
            return _json(to_json(trace))
        case "jsonl":
            return _jsonl(to_json(trace))
        case "html":
            return to_html(trace)
        case "svg":
            return timeline(trace) + "\n"


def from_jsonl(text: str) -> Trace:
    """The trace that jsonl has kept, as far as it goes. Raises TraceError."""
    found: dict[str, Any] = {"tokens": []}
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            kind = value.pop("type", None)
        except (ValueError, TypeError, AttributeError, RecursionError):
            if number == len(lines) and number > 1:  # cut
                break
            raise TraceError(f"line {number} is no JSON object; export the trace again with --to jsonl") from None
        if (kind == "trace") != (number == 1) or "ended" in found:
            raise TraceError(f"line {number} is out of place: a trace is one header, then its tokens, then its end")
        if kind == "token":
            found["tokens"].append(value)
        elif kind in ("trace", "end"):
            found |= {name: value[name] for name in (*_HEADER, *_END) if name in value}
    if "ended" not in found:
        found |= {part: "".join(str(token.get(part, "")) for token in found["tokens"]) for part in ("thought", "answer")}
        found["ended"] = {"reason": Ended().reason}
    return from_json(found)


def _json(value: dict[str, Any]) -> str:
    """Indented, but that what is long is a line for each of its items."""
    items = (f"  {json_line(name)}: {_lines(part) if name in ('steps', 'tokens') else json_line(part)}" for name, part in value.items())
    return "{\n" + ",\n".join(items) + "\n}\n"


def _lines(values: list[Any]) -> str:
    return "[\n    " + ",\n    ".join(map(json_line, values)) + "\n  ]" if values else "[]"


def _jsonl(value: dict[str, Any]) -> str:
    header = {"type": "trace"} | {name: value[name] for name in _HEADER}
    tokens = ({"type": "token"} | token for token in value["tokens"])
    end = {"type": "end"} | {name: value[name] for name in _END}
    return "".join(json_line(item) + "\n" for item in (header, *tokens, end))


def json_line(value: object) -> str:
    """One line of JSON, exact. Readable, unless there is something in it that a terminal would obey: then in ASCII."""
    try:
        text = _READABLE(value)
    except ValueError:
        value = _finite(value)
        text = _READABLE(value)
    return text if shown(text) == text else json.dumps(value)


def _finite(value: Any) -> Any:
    """JSON has no infinities: a probability of 0 becomes as good as 0."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return math.copysign(1e9, value) if isinstance(value, float) and not math.isfinite(value) else value
