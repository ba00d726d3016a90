"""The report as one HTML file that needs nothing else: figures, size against loss, errors by layer, all tensors.

No scripts, nothing fetched. Colours follow the reader's light or dark setting, and whatever they say stands there in words too.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from quantize.convert import Report
from quantize.evaluate import Evaluation
from quantize.fit_plan import HEADER, RIVALS_HEADER, Plan, rivals, table
from quantize.report import ENGINES, by_format, mean_relative_error, merged, path_text, size_ratio, worst
from quantize.report_svg import Point, heat_map, size_plot
from quantize.report_text import percent, size, visible

LONG_TABLE = 400  # rows: from here on it is folded at first

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; color: #1b1b1b; background: #ffffff; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p.note, figcaption, dt { color: #5a5a5a; }
dl.figures { display: flex; flex-wrap: wrap; gap: .8rem; }
dl.figures div { border: 1px solid #cfcfcf; border-radius: 6px; padding: .5rem .9rem; }
dd { margin: 0; font-size: 1.25rem; font-variant-numeric: tabular-nums; } dt { font-size: .85rem; }
figure { margin: 1rem 0; overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .8rem .2rem 0; text-align: left; border-bottom: 1px solid #dddddd; }
th.n, td.n { text-align: right; } td { overflow-wrap: anywhere; }
@media (prefers-color-scheme: dark) {
body { color: #e8e6e3; background: #16181a; }
p.note, figcaption, dt { color: #a9a6a1; }
dl.figures div { border-color: #44474a; } th, td { border-color: #33363a; }
}
"""


def report_html(report: Report, evaluation: Evaluation | str, points: Sequence[Point] = (), plan: Plan | None = None) -> str:
    """`evaluation` may be the reason why there is none; `points` are other mixes of the same model, with what they lose where that is
    known; `plan` is what --fit chose."""
    title = f"{path_text(report.target)}: {report.format}"
    parts = [
        f"<h1>{text(title)}</h1>",
        f'<p class="note">{text(report.architecture)}, {report.parameters:,} parameters, made of {text(path_text(report.source))}</p>',
        _figures(report, evaluation),
        *(f"<p>{text(warning)}</p>" for warning in report.warnings),
        "<h2>Size against loss</h2>",
        _figure(size_plot(report, evaluation, points), _plot_caption(evaluation, points)),
        "<h2>Relative error by layer</h2>",
        _figure(heat_map(merged(report.losses)), "Root of the squared errors' share in the squared weights, matrices only; 0 is exact."),
        "<h2>By format</h2>",
        _formats(report),
        "<h2>All tensors</h2>",
        _tensors(report),
    ]
    tasks = [] if isinstance(evaluation, str) else _tasks(evaluation)
    chosen = [] if plan is None else _plan(plan)
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts[:3] + tasks + chosen + parts[3:])
        + "\n</body>\n</html>\n"
    )


def text(value: str) -> str:
    """Text from a file, for HTML."""
    return html.escape(visible(value))


def _figures(report: Report, evaluation: Evaluation | str) -> str:
    figures = [
        ("size", size(report.target_bytes)),
        ("bits per weight", f"{report.bits_per_weight:.2f}"),
        ("source's weights", f"{size(report.source_bytes)}, {size_ratio(report):.2f} times as large"),
        ("mean relative error", percent(mean_relative_error(report.losses))),
    ]
    figures += [(f"worst: {tensor.name}", f"{percent(tensor.relative_error)} ({tensor.format})") for tensor in worst(report, 1)]
    note = ""
    if isinstance(evaluation, str):
        note = f'<p class="note">What the model says was not measured: {text(evaluation)}.</p>'
    else:
        c = evaluation.comparison
        figures += [
            ("KL divergence, mean (nats)", f"{c.kl_mean:.3g}"),
            ("KL divergence, 99th percentile", f"{c.kl_p99:.3g}"),
            ("same likeliest token", f"{c.top1_agreement:.1%}"),
            ("perplexity, source → target", f"{c.baseline_perplexity:.4g} → {c.perplexity:.4g} (× {c.perplexity_ratio:.4f})"),
        ]
        how = f"as a {evaluation.baseline} GGUF file" if evaluation.baseline else "as it is"
        note = (
            f'<p class="note">Measured on {c.tokens:,} predictions in {evaluation.windows} windows of {evaluation.window_tokens} tokens: '
            f"{text(evaluation.material)}. The source ran {text(how)}, both in {text(ENGINES[evaluation.engine])}.</p>"
        )
    items = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in figures)
    return f'<dl class="figures">{items}</dl>{note}'


def _tasks(evaluation: Evaluation) -> list[str]:
    if not evaluation.tasks:
        return []
    rows = [[family, f"{before:.0%}", f"{after:.0%}"] for family, (before, after) in evaluation.tasks.items()]
    return ["<h2>Problems answered rightly</h2>", _table(["family", "source", "target"], rows, numbers=(1, 2))]


def _plan(plan: Plan) -> list[str]:
    notes = [f"expected KL: {plan.basis}"] if plan.basis else []
    return [
        f"<h2>The plan for {size(plan.budget_bytes)}</h2>",
        *(f'<p class="note">{text(note)}</p>' for note in (*notes, *plan.notes)),
        _table(HEADER, table(plan), numbers=range(2, len(HEADER))),
        *([_table(RIVALS_HEADER, rivals(plan), numbers=range(1, len(RIVALS_HEADER)))] if plan.rivals else []),
    ]


def _plot_caption(evaluation: Evaluation | str, points: Sequence[Point]) -> str:
    what = "mean relative error of the weights" if isinstance(evaluation, str) else "mean KL divergence from the source, in nats"
    others = " Below the axis: what other mixes of this model would take, computed and not made; their loss is not known." if points else ""
    return f"Up: {what}. Right: bytes of all weights, on a logarithmic scale.{others}"


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{text(caption)}</figcaption></figure>"


def _formats(report: Report) -> str:
    rows = [
        [
            s.format,
            f"{s.tensors:,}",
            f"{s.parameters:,}",
            f"{s.nbytes:,}",
            f"{8 * s.nbytes / s.parameters:.2f}",
            f"{s.rmse:.3g}",
            percent(s.relative_error),
        ]
        for s in by_format(report)
    ]
    columns = ["format", "tensors", "parameters", "bytes", "bits per weight", "RMSE", "relative error"]
    return _table(columns, rows, numbers=range(1, 7))


def _tensors(report: Report) -> str:
    tensors = merged(report.losses)
    rows = [[t.name, " × ".join(map(str, t.shape)), t.format, f"{t.nbytes:,}", f"{t.rmse:.3g}", percent(t.relative_error)] for t in tensors]
    rows_table = _table(["tensor", "shape", "format", "bytes", "RMSE", "relative error"], rows, numbers=(3, 4, 5))
    state = "" if len(rows) >= LONG_TABLE else " open"
    return f"<details{state}><summary>{len(rows):,} tensors</summary>{rows_table}</details>"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int]) -> str:
    kinds = [' class="n"' if i in numbers else "" for i in range(len(columns))]
    head = "".join(f"<th{kind}>{text(name)}</th>" for name, kind in zip(columns, kinds, strict=True))
    body = "\n".join("<tr>" + "".join(f"<td{kind}>{text(v)}</td>" for v, kind in zip(row, kinds, strict=True)) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
