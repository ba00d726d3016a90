"""Where tokens went: routing decisions as JSON, as text, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from backends.reference.config import Config
from backends.reference.model import Model, Record
from backends.reference.moe import Routing

CELL, LEFT, TOP, WIDEST = 14, 90, 46, 400


def routed(model: Model, texts: Sequence[Sequence[int]]) -> dict[int, Routing]:
    """Where all tokens of some texts go, by layer; each text is read on its own."""
    records = [Record() for _ in texts]
    for ids, record in zip(texts, records, strict=True):
        model.forward(ids, model.new_cache(), record)
    return {
        layer: Routing(*(np.concatenate([getattr(r.routing[layer], part) for r in records]) for part in ("experts", "weights", "leads")))
        for layer in records[0].routing
    }


def as_json(routing: Mapping[int, Routing], ids: Sequence[int]) -> dict[str, Any]:
    """{"tokens": [T], "layers": [{"layer", "experts": [T][k], "weights": [T][k]}]}, best expert first."""
    layers = [{"layer": layer, "experts": r.experts.tolist(), "weights": r.weights.tolist()} for layer, r in sorted(routing.items())]
    return {"tokens": list(ids), "layers": layers}


def as_text(routing: Mapping[int, Routing], ids: Sequence[int]) -> str:
    """One line per layer and token."""
    lines = []
    for layer, r in sorted(routing.items()):
        for token, experts, weights in zip(ids, r.experts, r.weights, strict=True):
            chosen = "  ".join(f"{e}:{w:.3f}" for e, w in zip(experts, weights, strict=True))
            lines.append(f"layer {layer}  token {token}  {chosen}")
    return "\n".join(lines)


def shares(routing: Mapping[int, Routing], config: Config) -> np.ndarray:
    """float64 [layers, E]: part of the tokens that went to each expert."""
    assert config.moe is not None
    counts = [np.bincount(r.experts.ravel(), minlength=config.moe.n_routed_experts) / len(r.experts) for _, r in sorted(routing.items())]
    return np.array(counts)


def as_svg(routing: Mapping[int, Routing], config: Config) -> str:
    """A heat map, one row a layer and one column an expert: the darker, the more tokens went there."""
    share = shares(routing, config)
    tokens = len(next(iter(routing.values())).experts)
    rows: list[Row] = [(f"layer {layer}", f"layer {layer}", row) for layer, row in zip(sorted(routing), share, strict=True)]
    return _heat_map(f"Experts chosen: {tokens} tokens, most to one expert {share.max():.0%}", rows)


def families_as_svg(families: Mapping[str, Mapping[int, Routing]], config: Config) -> str:
    """A heat map for each layer, one row a family of texts and one column an expert."""
    by_layer: dict[int, list[Row]] = {}
    for name, routing in families.items():
        for layer, row in zip(sorted(routing), shares(routing, config), strict=True):
            by_layer.setdefault(layer, []).append((name, f"layer {layer}, {name}", row))
    rows = [row for layer, layer_rows in sorted(by_layer.items()) for row in [(f"layer {layer}", "", None), *layer_rows]]
    return _heat_map(f"Experts chosen by {len(families)} families of texts", rows)


Row = tuple[str, str, np.ndarray | None]  # its label, what its cells are called, their shares [E]; None: a heading


def _heat_map(title: str, rows: Sequence[Row]) -> str:
    """Of few experts, cells are wide and say their share."""
    drawn = [values for _, _, values in rows if values is not None]
    columns, most = len(drawn[0]), max(values.max() for values in drawn)
    wide = max(CELL, min(3 * CELL, WIDEST // columns))
    width, height = LEFT + columns * wide + 20, TOP + len(rows) * CELL + 30
    cells, labels = [], []
    for i, (label, name, values) in enumerate(rows):
        y, weight = TOP + i * CELL, "" if values is not None else ' font-weight="bold"'
        labels.append(f'<text x="{LEFT - 8}" y="{y + 11}" text-anchor="end"{weight}>{escape(label[:12])}</text>')
        for e, value in enumerate([] if values is None else values):
            x, part = LEFT + e * wide, value / most
            said = f"<title>{escape(name)}, expert {e}: {value:.1%} of tokens</title>"
            cells.append(f'<rect x="{x}" y="{y}" width="{wide - 1}" height="{CELL - 1}" fill="{_shade(part)}">{said}</rect>')
            if wide > 2 * CELL:
                ink = "#fff" if part > 0.5 else "#333"
                cells.append(f'<text x="{x + wide // 2}" y="{y + 10}" text-anchor="middle" font-size="9" fill="{ink}">{value:.0%}</text>')
    labels += [
        f'<text x="{LEFT + e * wide + wide // 2}" y="{TOP + len(rows) * CELL + 14}" text-anchor="middle">{e}</text>'
        for e in range(0, columns, 1 if wide > CELL else 8)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{max(width, 420)}" height="{height}" font-family="sans-serif" font-size="11" fill="#333">',
            '<rect width="100%" height="100%" fill="#fff"/>',
            f'<text x="10" y="20" font-size="14">{escape(title)}</text>',
            f'<text x="{LEFT}" y="38">expert (darker: more tokens)</text>',
            *labels, *cells, "</svg>", "",
        ]
    )  # fmt: skip


def _shade(part: float) -> str:
    """White to dark blue."""
    return "#" + "".join(f"{round(light + (dark - light) * part):02x}" for light, dark in ((242, 12), (245, 64), (250, 138)))
