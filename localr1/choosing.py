"""Which files of a repository make a model: pure functions of names and sizes, for the hub's lists and for folders alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from backends.checkpoint import CONFIG, INDEX, PICKLES, WEIGHTS

Form = Literal["gguf", "mlx", "safetensors"]
PREFERRED = "Q4_K_M"
_QUANT = re.compile(r"(?:^|[-._])((?:UD-)?(?:I?Q\d+(?:_[A-Z0-9]+)*|TQ\d_\d|MXFP4(?:_MOE)?|BF16|FP?16|FP?32))$", re.IGNORECASE)
_PART = re.compile(r"-(\d{5})-of-(\d{5})$")
_NO_MODEL = re.compile(r"^(mmproj|imatrix)|[-._](mmproj|imatrix)", re.IGNORECASE)
_BITS = re.compile(r"-(\d+bit\S*|mxfp[48]|nvfp4|bf16|fp16)$", re.IGNORECASE)
_SMALL = re.compile(r"\.(json|jinja|txt|model|tiktoken)$|^(README\.md|LICEN[SC]E.*|NOTICE.*)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Gguf:
    """One model in a repository: its file, or all parts of it, the first one first. `quant` is "" where the name does not say."""

    quant: str
    files: tuple[str, ...]
    nbytes: int
    complete: bool = True

    @property
    def stem(self) -> str:
        return _PART.sub("", PurePosixPath(self.files[0]).stem)


def gguf_models(sizes: Mapping[str, int]) -> list[Gguf]:
    """The GGUF models among files, the smallest first."""
    groups: dict[str, dict[int, str]] = {}
    parts: dict[str, int] = {}
    for name in sorted(sizes):
        path = PurePosixPath(name)
        if path.suffix.lower() != ".gguf" or _NO_MODEL.search(path.name):
            continue
        part = _PART.search(path.stem)
        stem = str(path.with_name(_PART.sub("", path.stem)))
        groups.setdefault(stem, {})[int(part[1]) if part else 1] = name
        parts[stem] = int(part[2]) if part else 1
    found = []
    for stem, members in groups.items():
        files = tuple(members[n] for n in sorted(members))
        complete = sorted(members) == list(range(1, parts[stem] + 1))
        found.append(Gguf(quant_of(PurePosixPath(stem).name), files, sum(sizes[f] for f in files), complete))
    return sorted(found, key=lambda model: (model.nbytes, model.files))


def quant_of(stem: str) -> str:
    """DeepSeek-R1-Distill-Qwen-7B-Q4_K_M -> Q4_K_M; "" if the name does not say."""
    found = _QUANT.search(stem)
    return re.sub(r"^FP(?=\d)", "F", found[1].upper()) if found else ""


def bits_of(repo: str) -> str:
    """mlx-community/DeepSeek-R1-Distill-Qwen-7B-4bit -> 4bit; "" if the name does not say."""
    found = _BITS.search(repo)
    return found[1].lower() if found else ""


def named(models: Iterable[Gguf], wanted: str) -> list[Gguf]:
    """Those that `wanted`, a quantization or a file's name, means."""
    low = wanted.lower()
    return [m for m in models if low in (m.quant.lower(), m.stem.lower(), *(f.lower() for f in m.files), *(_base(f) for f in m.files))]


def preferred(models: list[Gguf], fits: Callable[[int], bool]) -> Gguf:
    """Q4_K_M where it fits, else the largest that does (unquantized ones last); the smallest where none does."""
    small = [m for m in models if m.quant not in ("F16", "BF16", "F32")] or models
    fitting = [m for m in small if fits(m.nbytes)]
    return next((m for m in fitting if m.quant == PREFERRED), fitting[-1] if fitting else small[0])


def folder_files(names: Iterable[str]) -> list[str]:
    """Of a repository, those that make a checkpoint folder: weights and the small files beside them; none if there are no weights."""
    top = [name for name in sorted(names) if "/" not in name]
    weights = [name for name in top if name.endswith(".safetensors") and not name.startswith("consolidated")]
    if WEIGHTS in weights and INDEX not in top:
        weights = [WEIGHTS]
    if CONFIG not in top or not weights:
        return []
    return sorted({*weights, *(name for name in top if _SMALL.search(name))})


def pickles(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name.endswith(PICKLES))


def _base(name: str) -> str:
    return PurePosixPath(name).name.lower()
