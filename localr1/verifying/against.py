"""`localr1 verify --against`: the same tokens through two engines or two quantizations of a model, and whether they say the same."""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from backends import compare
from backends.base import Backend, Text, Token
from backends.compare import Baseline, Comparison
from backends.dispatch import Asked as Engine
from backends.dispatch import choose
from backends.hardware import look
from backends.model_file import describe
from localr1 import paths
from localr1.files import write_whole
from localr1.models import BUNDLED, ModelSpec, Wanted, open_model, resolve
from localr1.output import put, put_json, put_table
from localr1.student import exam, is_student
from localr1.text import printable
from localr1.verifying.subject import question_ids

VERSION = 1  # of the JSON object
EXACT = "F16"  # what a checkpoint folder is converted to, so that the engine is what differs
WINDOW_TOKENS, WINDOWS = 256, 8
ROUNDING = 1e-12  # nats of mean KL divergence that equals have
GREEDY_TOKENS = 128
QUESTION = "How many r's are in strawberry?"

# Nats a token. The same weights in F16 arithmetic are apart by 1e-5 to 1e-4 on the bundled model, Q8_0 by 3e-4, Q4_K_M by 1e-2.
TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Side:
    """A model in an engine. `difference`: where its greedy continuation leaves the baseline's, None if nowhere."""

    name: str
    backend: str
    format: str
    comparison: Comparison | None = None
    difference: int | None = None
    tokens: tuple[Token, ...] = ()


def verify_against(model: tuple[str | None, str], other: tuple[str | None, str], tolerance: float, as_json: bool, svg: Path | None) -> bool:
    """Compare (model, backend) twice and tell; whether they stay within `tolerance` nats of mean KL divergence. An `other` without a name
    is the same model. Raises BackendError, QuantizeError."""
    spec = resolve(model[0] or BUNDLED)
    sides = _compare([(spec, model[1]), (resolve(other[0]) if other[0] else spec, other[1])])
    within = [side.comparison is None or side.comparison.kl_mean <= max(tolerance, ROUNDING) for side in sides]
    if as_json:
        put_json(to_json(sides, tolerance, all(within)))
    else:
        _show(sides, tolerance, all(within))
    if svg is not None:  # last: should it fail, what was measured is told
        write_whole(svg, picture(sides, tolerance))
    return all(within)


def _compare(asked: list[tuple[ModelSpec, str]]) -> list[Side]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    baseline: Baseline | None = None
    first: list[Token] = []
    sides: list[Side] = []
    columns = (TextColumn("{task.description:32.32}", markup=False), BarColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        for spec, engine in asked:
            task = bar.add_task(f"{printable(spec.name)} in {engine}", total=None)

            def tell(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)  # noqa: B023  (called before the next one)

            with _opened(spec, engine) as opened:
                if baseline is None:
                    baseline = compare.read(opened, _windows(opened, spec), on_progress=tell)
                    comparison, prompt = None, question_ids(opened, QUESTION)
                    continued = first = compare.greedy(opened, prompt, GREEDY_TOKENS)
                else:
                    comparison = compare.compare(baseline, opened, tell)
                    continued = compare.greedy(opened, prompt, GREEDY_TOKENS)
                difference = compare.first_difference(first, continued)
                sides.append(Side(opened.info.name, opened.name, opened.info.format, comparison, difference, tuple(continued)))
    return sides


@contextmanager
def _opened(spec: ModelSpec, engine: str) -> Iterator[Backend]:
    """A folder for GGUF is converted for this alone, so that no quantization stands between."""
    if spec.kind == "folder" and engine == "auto":
        engine = choose(look(paths.cache()), describe(spec.path)).backend
    with ExitStack() as stack:
        if spec.kind == "folder" and engine == "gguf":
            from quantize.convert import convert

            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="localr1-"))
            path = Path(folder) / f"{EXACT}.gguf"
            convert(spec.path, path, EXACT)
            spec, engine = ModelSpec(spec.name, "gguf", path), "gguf"
        elif spec.kind == "folder" and engine == "mlx":
            from backends.mlx import MlxBackend

            yield stack.enter_context(MlxBackend(spec.path, float32=True))
            return
        yield stack.enter_context(open_model(spec, Wanted(cast(Engine, engine))))


def _windows(backend: Backend, spec: ModelSpec) -> list[list[int]]:
    """The bundled model's own kind of text; for others, prose."""
    from quantize.calibrate import cut, heldout

    length = min(WINDOW_TOKENS, backend.info.context_length)
    if spec.kind == "folder" and is_student(spec.path):
        found = [window[:length] for window in exam().windows]
    else:
        found = cut(backend.encode([Text(heldout())]), None, length)
    return found[:WINDOWS]


# ------------------------------------------------------------------------------------------------------------- telling


def _show(sides: list[Side], tolerance: float, within: bool) -> None:
    rows = []
    for side in sides:
        c = side.comparison
        where = "" if c is None else "nowhere" if side.difference is None else f"token {side.difference + 1}"
        figures = (
            ["", "", "", ""]
            if c is None
            else [f"{c.kl_mean:.2g}", f"{c.kl_p99:.2g}", f"{c.top1_agreement:.2%}", f"{c.perplexity_ratio:.5f}"]
        )
        rows.append([side.name, side.backend, side.format, *figures, where if c is not None else "(the baseline)"])
    put_table(("model", "engine", "format", "KL mean", "KL p99", "top-1", "ppl ratio", "greedy parts at"), rows, numbers=(3, 4, 5, 6))
    for side in sides:
        if side.comparison is not None and side.difference is not None:
            put(_parting(sides[0], side))
    said = "agree" if within else "DIFFER"
    put(f"they {said}: mean KL divergence {'at most' if within else 'above'} {tolerance:g} nats a token (--tolerance)")


def _parting(a: Side, b: Side) -> str:
    """What either found likeliest where they part: near a tie this is chance."""
    at = b.difference or 0

    def likeliest(side: Side) -> str:
        if at >= len(side.tokens):
            return f"{side.backend} ends"
        token = side.tokens[at]
        return f"{side.backend} has {printable(token.text)!r} ({math.exp(token.logprob):.1%})"

    return f"greedy, token {at + 1}: {likeliest(a)}, {likeliest(b)}"


def to_json(sides: list[Side], tolerance: float, within: bool) -> dict[str, Any]:
    """Keys: version; tolerance (nats); agree; sides: [{model, backend, format, comparison: null for the baseline or {tokens, kl_mean, kl_p99,
    top1_agreement, baseline_perplexity, perplexity}, greedy_difference (index of the first token that differs, null: none)}]."""
    return {
        "version": VERSION,
        "tolerance": tolerance,
        "agree": within,
        "sides": [
            {
                "model": side.name,
                "backend": side.backend,
                "format": side.format,
                "comparison": None if side.comparison is None else asdict(side.comparison),
                "greedy_difference": side.difference,
            }
            for side in sides
        ],
    }


def picture(sides: list[Side], tolerance: float) -> str:
    """SVG: mean and 99th percentile of the KL divergence of each, on a logarithmic scale, and the tolerance."""
    from localr1.trace.timeline import escaped

    others = [side for side in sides if side.comparison is not None]
    values = [max(v, 1e-9) for side in others if (c := side.comparison) is not None for v in (c.kl_mean, c.kl_p99)] + [max(tolerance, 1e-9)]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 1e-9)
    left, width, row = 250, 560, 34
    height = 70 + row * len(others)

    def x(value: float) -> float:
        return left + width * (math.log10(max(value, 1e-9)) - low) / max(1, high - low)

    style = (
        "text{font:12px system-ui,sans-serif;fill:#1b1b1b}.grid{stroke:#dddddd}.bar{stroke:#2a6f97;stroke-width:3}.dot{fill:#2a6f97}"
        ".limit{stroke:#c04a02;stroke-dasharray:5 4}@media(prefers-color-scheme:dark){text{fill:#e8e6e3}.grid{stroke:#33363a}"
        ".bar{stroke:#76b8de}.dot{fill:#76b8de}.limit{stroke:#f0923a}}"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 860 {height}" role="img" aria-label="KL divergence"><style>{style}</style>'
    ]
    parts.append(
        f'<text x="10" y="20">KL divergence from {escaped(sides[0].backend)}, {escaped(sides[0].format)}: mean to 99th percentile, nats a token</text>'
    )
    for power in range(low, high + 1):
        at = x(10.0**power)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="34" y2="{height - 26}"/>')
        parts.append(f'<text x="{at:.1f}" y="{height - 10}" text-anchor="middle">1e{power}</text>')
    at = x(tolerance)
    parts.append(
        f'<line class="limit" x1="{at:.1f}" x2="{at:.1f}" y1="34" y2="{height - 26}"><title>tolerance {tolerance:g}</title></line>'
    )
    for i, side in enumerate(others):
        assert side.comparison is not None
        y, a, b = 54 + row * i, x(side.comparison.kl_mean), x(side.comparison.kl_p99)
        parts.append(f'<text x="10" y="{y + 4}">{escaped(f"{side.name}, {side.backend}, {side.format}"[:38])}</text>')
        parts.append(f'<line class="bar" x1="{a:.1f}" x2="{b:.1f}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="dot" cx="{a:.1f}" cy="{y}" r="6"><title>mean {side.comparison.kl_mean:.2g}</title></circle>')
    return "\n".join([*parts, "</svg>"]) + "\n"
