"""`localr1 bench`: how fast models are on this machine: opening, reading a prompt, writing behind it. One model is open at a time.

The prompt is running text, read anew in each round. Written is greedily; where the model ends its reply, it goes on behind the text's next token, so that
every round writes as much. The middle of the rounds counts, after one to warm up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from backends.base import Cancel, ContextTooLong, End, EngineError, Sampling, Text
from localr1.output import put, put_json, put_table
from localr1.status_line import Tell, status_line
from localr1.trace.words import on_one_line
from quantize.report_text import size

if TYPE_CHECKING:
    from backends.base import Backend
    from backends.dispatch import Asked
    from localr1.models import ModelSpec
    from localr1.settings_layers import Layers

THOUGHT_TOKENS = 2000  # of a usual one, to say what a speed means
UNSTEADY = 1.15  # the fastest round beside the slowest; on a quiet machine it is below 1.05


@dataclass(frozen=True, slots=True)
class Work:
    """Tokens of each prompt, ascending; tokens written behind each; how often."""

    prompts: tuple[int, ...]
    new: int
    rounds: int


class Speed(NamedTuple):
    """Tokens a second: the middle one of the rounds, the slowest, the fastest."""

    middle: float
    slowest: float
    fastest: float


@dataclass(frozen=True, slots=True)
class Measured:
    """A model behind one length of prompt. `format`, `weight_bytes`: what the engine runs, a conversion of `model` maybe."""

    model: str
    backend: str
    format: str
    weight_bytes: int
    load_s: float
    prompt_tokens: int
    reading: Speed
    writing: Speed


def bench(models: Sequence[tuple[str, str]], layers: Layers, spec: ModelSpec, work: Work, force: bool, as_json: bool) -> None:
    """Measure each (model, backend), empty for what the settings say, and tell. `layers`, `spec`: the settings and the model they name.

    Raises BackendError, QuantizeError.
    """
    specs = [(_resolved(model, backend, layers) if model else spec, backend) for model, backend in models or [("", "")]]
    found: list[Measured] = []
    try:
        with status_line("opening") as tell:
            for each, backend in specs:
                found += _of_one(each, backend, layers, work, force, tell)
    finally:  # the next model may be one too many: what was measured is told
        if as_json and found:
            put_json({"rounds": work.rounds, "new_tokens": work.new, "models": [_as_object(one) for one in found]})
        elif found:
            show(found)


def _resolved(model: str, backend: str, layers: Layers) -> ModelSpec:
    from localr1.models import resolve

    return resolve(model, cast("Asked", backend or layers.settings.model.backend))


def _of_one(spec: ModelSpec, backend: str, layers: Layers, work: Work, force: bool, tell: Tell) -> list[Measured]:
    from localr1.ask import load
    from localr1.opening import wanted

    layers.open(spec.name, spec.path)
    tell(f"opening {on_one_line(spec.name)}")
    behind = 2 * work.new  # see _round
    asked = replace(wanted(layers.settings, force), context=work.prompts[-1] + behind)
    if backend:
        asked = replace(asked, backend=cast("Asked", backend))
    try:
        loaded = load(spec, asked)
    except ContextTooLong as error:
        raise EngineError(
            f"{on_one_line(spec.name)} was trained for {error.trained:,} tokens, too few for --prompt {work.prompts[-1]} and twice "
            f"--new {work.new} behind it; "
            + (f"choose --prompt {error.trained - behind} or less" if error.trained > behind else "choose fewer of both")
        ) from error
    with loaded.backend as opened:
        info = opened.info
        return [
            Measured(spec.name, opened.name, info.format, info.weight_bytes, loaded.load_s, prompt, *speeds(opened, prompt, work, tell))
            for prompt in work.prompts
        ]


def speeds(backend: Backend, prompt_tokens: int, work: Work, tell: Tell = lambda line: None) -> tuple[Speed, Speed]:
    """Of reading and of writing. Raises EngineError: the model writes nothing."""
    text = backend.encode([Text(_running_text())])
    reading, writing = [], []
    for number in range(work.rounds + 1):
        tell(
            f"{on_one_line(backend.info.name)}, {prompt_tokens:,} tokens: "
            + (f"round {number} of {work.rounds}" if number else "warming up")
        )
        backend.prefill(text[1:2], Cancel())  # forgets the last round
        read_s, write_s = _round(backend, islice(cycle(text), prompt_tokens + work.new + 1), prompt_tokens, work.new)
        reading.append(prompt_tokens / read_s)
        writing.append(work.new / write_s)
    return _speed(reading[1:]), _speed(writing[1:])


def _running_text() -> str:
    from quantize.calibrate import corpus

    return corpus()[:16_000]  # some thousands of tokens; longer prompts have it again


def _round(backend: Backend, text: Iterator[int], prompt_tokens: int, new: int) -> tuple[float, float]:
    """Seconds of reading the first `prompt_tokens` of `text`, and of computing `new` ones behind them, with at most as many of the text's
    between. What a reply begins with comes of reading: one more is written than computed."""
    ids, left = list(islice(text, prompt_tokens)), new
    read_s: float | None = None
    write_s = 0.0
    for following in text:
        for item in backend.stream(ids, Sampling(temperature=0, max_tokens=left + 1), Cancel()):
            if not isinstance(item, End):
                ids.append(item.id)
                continue
            read_s = item.prefill_s if read_s is None else read_s
            if item.new_tokens:
                write_s += item.decode_s
                left -= item.new_tokens - (item.reason != "stop")  # a stop is computed, too
        if not left:
            break
        ids.append(following)  # the model has ended its reply
    if left or not read_s or not write_s:
        raise EngineError(f"{backend.info.name} writes nothing behind running text, so its speed cannot be measured; try another --prompt")
    return read_s, write_s


def _speed(rounds: Sequence[float]) -> Speed:
    return Speed(median(rounds), min(rounds), max(rounds))


# ------------------------------------------------------------------------------------------------ telling


def show(found: Sequence[Measured]) -> None:
    """On stdout: a row for each model and length of prompt, several models against the first one; then a sentence for each model."""
    firsts: dict[int, Measured] = {}
    for one in found:
        firsts.setdefault(one.prompt_tokens, one)
    several = len(found) > len(firsts)
    rows = [
        [
            one.model, f"{one.backend} {one.format}", f"{one.prompt_tokens:,}", _rate(one.reading), _rate(one.writing),
            *([_against(one, firsts[one.prompt_tokens])] if several else []),
        ]
        for one in found
    ]  # fmt: skip
    columns = ("model", "engine", "prompt", "reads/s", "writes/s", *(["times as fast"] if several else []))
    put_table(columns, rows, numbers=range(2, len(columns)))
    put("a second, in tokens" + ("; times as fast as the first: reading, writing" if several else ""))
    for last in {(one.model, one.backend, one.format): one for one in found}.values():
        put(
            f"{on_one_line(last.model)} ({last.backend} {last.format}, {size(last.weight_bytes)}) opened in {last.load_s:.1f} s; "
            f"{THOUGHT_TOKENS:,} tokens of thought: {_duration(THOUGHT_TOKENS / last.writing.middle)}"
        )
        if last.writing.fastest > UNSTEADY * last.writing.slowest:
            put(
                f"  its rounds differ by {100 * (last.writing.fastest / last.writing.slowest - 1):.0f}%: something else was running, or heat slowed it"
            )


def _rate(speed: Speed) -> str:
    return f"{speed.middle:,.{1 if speed.middle < 100 else 0}f}"


def _against(one: Measured, first: Measured) -> str:
    return f"{one.reading.middle / first.reading.middle:.2f} {one.writing.middle / first.writing.middle:.2f}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _as_object(one: Measured) -> dict[str, Any]:
    return {
        "model": one.model, "backend": one.backend, "format": one.format, "weight_bytes": one.weight_bytes, "load_s": round(one.load_s, 4),
        "prompt_tokens": one.prompt_tokens, "prefill_tokens_per_s": _figures(one.reading), "decode_tokens_per_s": _figures(one.writing),
    }  # fmt: skip


def _figures(speed: Speed) -> dict[str, float]:
    return {"median": round(speed.middle, 2), "least": round(speed.slowest, 2), "most": round(speed.fastest, 2)}
