"""Models to choose from: what is here, what can be pulled; what each is, and whether it fits. The network is not asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from backends.base import ModelFileError
from localr1 import library
from localr1.aliases import FAMILY, Alias, alias_of
from localr1.choosing import PREFERRED
from localr1.fitting import Bandwidth, fits, machine, needs, tokens_per_s
from localr1.model_facts import Facts, kept_facts
from quantize.report_text import size

_FORMS = {"gguf": "GGUF", "mlx": "MLX", "safetensors": "safetensors"}
_BUNDLED = (
    "The bundled model, a toy that thinks in R1's manner, trained by the recipe that comes with it. It adds, compares and counts letters."
)


@dataclass(frozen=True, slots=True)
class Pick:
    """`name`: what opens it, or what pulls it where there is no `path`. `what`: it is, `memory`: whether it fits, in words."""

    name: str
    size: str
    form: str
    fits: bool
    what: str
    memory: str
    path: Path | None = None


def here() -> list[Pick]:
    """The last used ones first. Raises HubError: the cache cannot be read."""
    models = [m for m in library.models() if m.kind != "converted"]
    short = library.short_names()
    picks = [_pick(short.get(m.path, m.name), m.path, m.nbytes, m.facts, m.problem, m.repo) for m in models]
    known = {model.path.resolve() for model in models}
    return picks + [_named(path) for path in library.used_before() if path.resolve() not in known]  # files and folders that were named


def to_pull(bytes_per_s: float | None = None) -> list[Pick]:
    """Of the R1 family, what is not here. `bytes_per_s`: of memory, which tells how fast each would be."""
    return [_to_pull(alias, bytes_per_s) for alias in FAMILY if library.find(alias.name) is None]


def _named(path: Path) -> Pick:
    try:
        facts, problem = kept_facts(path), ""
    except (ModelFileError, OSError) as error:
        facts, problem = None, str(error)
    return _pick(str(path), path, facts.tensor_bytes if facts else 0, facts, problem, path.stem)


def _pick(name: str, path: Path, nbytes: int, facts: Facts | None, problem: str, called: str) -> Pick:
    form = " ".join(part for part in (_FORMS.get(facts.form, facts.form), facts.quant) if part) if facts else ""
    what = (
        _BUNDLED
        if name == library.BUNDLED
        else _what(alias_of(called) or (alias_of(facts.name.replace(" ", "-")) if facts else None), facts)
    )
    parts = [what]
    if facts:
        trained = f", trained for {facts.context:,} tokens of context" if facts.context else ""
        parts.append(f"{_count(facts.parameters)} parameters, {facts.bits_per_weight:.1f} bits each{trained}.")
    weights = facts.tensor_bytes if facts else nbytes
    return Pick(name, size(nbytes), form, fits(weights) and not problem, problem or " ".join(parts), _memory(weights), path)


def _to_pull(alias: Alias, bytes_per_s: float | None) -> Pick:
    speed = "" if bytes_per_s is None else f" About {tokens_per_s(alias.q4_bytes, Bandwidth(bytes_per_s, '')):.0f} tokens/s here."
    what = f"{_what(alias, None)} {_count(int(alias.parameters))} parameters.{speed}"
    return Pick(alias.name, f"about {size(int(alias.q4_bytes))}", PREFERRED, fits(alias.q4_bytes), what, _memory(alias.q4_bytes))


def _what(alias: Alias | None, facts: Facts | None) -> str:
    if alias is not None:
        teacher = "DeepSeek-R1-0528" if "0528" in alias.family else "DeepSeek-R1"
        return f"A distill: {alias.base}, trained on what {teacher} wrote. It is not {teacher} itself."
    return f"Made of {facts.base}." if facts and facts.base else "What it was made of is not said."


def _memory(weight_bytes: float) -> str:
    verdict = "Fits" if fits(weight_bytes) else "Does not fit"
    return f"{verdict}: it takes about {size(needs(weight_bytes))} of {size(machine()[0])} memory."


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.1f} billion" if parameters >= 1e9 else f"{parameters / 1e6:.1f} million"
