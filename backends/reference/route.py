"""Where tokens went: routing decisions as JSON, as text, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backends.reference.config import Config
from backends.reference.moe import Routing

CELL, LEFT, TOP = 14, 70, 46


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
    rows, columns = share.shape
    tokens = len(next(iter(routing.values())).experts)
    width, height = LEFT + columns * CELL + 20, TOP + rows * CELL + 30
    cells = [
        f'<rect x="{LEFT + e * CELL}" y="{TOP + i * CELL}" width="{CELL - 1}" height="{CELL - 1}" '
        f'fill="{_shade(share[i, e] / share.max())}"><title>layer {layer}, expert {e}: {share[i, e]:.1%} of tokens</title></rect>'
        for i, layer in enumerate(sorted(routing))
        for e in range(columns)
    ]
    labels = [
        f'<text x="{LEFT - 8}" y="{TOP + i * CELL + 11}" text-anchor="end">layer {layer}</text>' for i, layer in enumerate(sorted(routing))
    ]
    labels += [
        f'<text x="{LEFT + e * CELL + CELL // 2}" y="{TOP + rows * CELL + 14}" text-anchor="middle">{e}</text>'
        for e in range(0, columns, 8)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{max(width, 420)}" height="{height}" font-family="sans-serif" font-size="11" fill="#333">',
            '<rect width="100%" height="100%" fill="#fff"/>',
            f'<text x="10" y="20" font-size="14">Experts chosen: {tokens} tokens, most to one expert {share.max():.0%}</text>',
            f'<text x="{LEFT}" y="38">expert (darker: more tokens)</text>',
            *labels, *cells, "</svg>", "",
        ]
    )  # fmt: skip


def _shade(part: float) -> str:
    """White to dark blue."""
    return "#" + "".join(f"{round(light + (dark - light) * part):02x}" for light, dark in ((242, 12), (245, 64), (250, 138)))
