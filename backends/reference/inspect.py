"""What a checkpoint is made of, layer by layer, from its headers alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from backends.checkpoint import Checkpoint
from backends.reference.cache import cache_widths
from backends.reference.config import Config
from backends.reference.shapes import mtp_layers
from backends.reference.weights import SCALE


@dataclass(frozen=True, slots=True)
class Part:
    """One layer, or one of the tensors around them. `active`: parameters that one token multiplies; `cache_bytes`: per token."""

    name: str
    kind: str
    parameters: int
    active: int
    bytes: int
    cache_bytes: int = 0


def parts(checkpoint: Checkpoint, config: Config) -> list[Part]:
    """In the order of computing. The cache is counted in float32, as this backend holds it."""
    grouped: dict[str, list[str]] = {}
    for name in checkpoint.names():
        grouped.setdefault(_owner(name), []).append(name)
    cache_bytes = 4 * sum(cache_widths(config))
    order = ["model.embed_tokens", *(f"model.layers.{i}" for i in range(config.num_hidden_layers)), "model.norm", "lm_head"]
    order += [f"model.layers.{i}" for i in mtp_layers(config)]
    found = []
    for owner in order:
        names = grouped.get(owner, [])
        if not names:
            continue
        layer = int(owner.rsplit(".", 1)[1]) if owner.startswith("model.layers.") else None
        parameters = _parameters(checkpoint, names)
        found.append(
            Part(
                name=owner.removeprefix("model."),
                kind=owner.rsplit(".", 1)[-1] if layer is None else _kind(config, layer),
                parameters=parameters,
                active=_active(checkpoint, config, owner, names),
                bytes=sum(map(checkpoint.nbytes, names)),
                cache_bytes=0 if layer is None else cache_bytes,
            )
        )
    return found


def table(checkpoint: Checkpoint, config: Config) -> str:
    """`parts` as text: equal neighbours in one line, the sum of the main model, what runs per token."""
    found = parts(checkpoint, config)
    main = [p for p in found if not p.kind.startswith("mtp")]
    rows: list[tuple[str, ...]] = [("", "kind", "parameters", "active per token", "bytes", "KV bytes per token")]
    rows += [_row(group) for group in _runs(found)]
    rows.append(_row([Part("total", "without mtp" if len(main) < len(found) else "", *map(sum, zip(*map(_numbers, main), strict=True)))]))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) if i < 2 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    lines.insert(-1, lines[1])
    attention = "latent attention" if config.mla else "grouped-query attention"
    fp8 = ", block FP8 weights" if config.fp8 else ""
    title = f"{config.model_type}: {config.num_hidden_layers} layers of {config.hidden_size}, {config.num_attention_heads} heads, {attention}{fp8}"
    return "\n".join([title, *(line.rstrip() for line in lines)])


def _owner(name: str) -> str:
    pieces = name.split(".")
    return ".".join(pieces[:3]) if pieces[:2] == ["model", "layers"] else name.removesuffix(SCALE).removesuffix(".weight")


def _kind(config: Config, layer: int) -> str:
    kind = "moe" if config.is_moe(layer) else "dense"
    return f"mtp {kind}" if layer in mtp_layers(config) else kind


def _parameters(checkpoint: Checkpoint, names: Iterable[str]) -> int:
    return sum(math.prod(checkpoint.shape(name)) for name in names if not name.endswith(SCALE))


def _active(checkpoint: Checkpoint, config: Config, owner: str, names: list[str]) -> int:
    """What one token multiplies: of an embedding one row - and all of it, where it is the head too."""
    if owner == "model.embed_tokens":
        return config.hidden_size + (_parameters(checkpoint, names) if config.tie_word_embeddings else 0)
    looked_up = _parameters(checkpoint, (name for name in names if name.endswith(".embed_tokens.weight")))
    return _parameters(checkpoint, names) - _idle(checkpoint, config, names) - looked_up + (config.hidden_size if looked_up else 0)


def _idle(checkpoint: Checkpoint, config: Config, names: Iterable[str]) -> int:
    """Parameters of the routed experts that a token does not visit."""
    if config.moe is None:
        return 0
    experts = _parameters(checkpoint, (name for name in names if ".mlp.experts." in name))
    return experts // config.moe.n_routed_experts * (config.moe.n_routed_experts - config.moe.num_experts_per_tok)


def _numbers(part: Part) -> tuple[int, int, int, int]:
    return part.parameters, part.active, part.bytes, part.cache_bytes


def _runs(found: list[Part]) -> list[list[Part]]:
    """Neighbours that are alike but for their name."""
    runs: list[list[Part]] = []
    for part in found:
        if runs and runs[-1][0].kind == part.kind and _numbers(runs[-1][0]) == _numbers(part):
            runs[-1].append(part)
        else:
            runs.append([part])
    return runs


def _row(group: list[Part]) -> tuple[str, ...]:
    first = group[0]
    name = first.name if len(group) == 1 else f"{first.name} .. {group[-1].name.removeprefix('layers.')}"
    each = "" if len(group) == 1 else " each"
    cache = f"{first.cache_bytes:,}" if first.cache_bytes else ""
    return name, first.kind + each, f"{first.parameters:,}", f"{first.active:,}", f"{first.bytes:,}", cache
