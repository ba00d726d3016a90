"""What GGUF's general.* keys say of a model: its name taken apart, its licence, what it was made from, how to sample it.

Source: gguf-py/gguf/metadata.py and utility.py @ggml-org/llama.cpp (the same rules, so that files compare equal).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.checkpoint import model_name, read_json
from quantize.dimensions import number
from quantize.gguf_file import Kind, Metadata, TensorInfo, Value, real, text, texts, uint

_SIZE = re.compile(r"(a|\d+x)?\d+([._]\d+)?[kmbt]\d?|small|mini|medium|large|x?xl", re.IGNORECASE)
_VERSION = re.compile(r"(v|iter)?\d+(\.\d+)*", re.IGNORECASE)
_WEIGHT_TYPE = re.compile(r"i?q\d(_\w)*|b?fp?(16|32)", re.IGNORECASE)
_FINETUNE = re.compile(r"chat|instruct|vision|lora", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ModelName:
    """A model id such as `org/Base-Name-7B-Instruct-v0.3`, taken apart."""

    name: str | None = None
    organization: str | None = None
    basename: str | None = None
    finetune: str | None = None
    version: str | None = None
    size_label: str | None = None


def general_metadata(folder: Path, config: dict[str, Any], tensors: Sequence[TensorInfo]) -> Metadata:
    """general.name, .version, .organization, .finetune, .basename, .size_label, .license..., .base_model.*, .dataset.*, .tags,
    .languages. `tensors` are those of the file. The folder's README.md (a model card) may be missing."""
    parameters = sum(math.prod(tensor.shape) for tensor in tensors)
    card = read_card(folder / "README.md")
    own_name = os.fsencode(model_name(folder)).decode("utf-8", "replace")  # a folder's name need not be Unicode
    known: dict[str, str] = {}
    ids = [config.get("_name_or_path"), own_name]
    for model_id in ids:
        if isinstance(model_id, str) and model_id.count("/") <= 1:
            parts = split_name(model_id, parameters)
            for field in ("name", "version", "organization", "finetune", "basename", "size_label"):
                value = getattr(parts, field)
                if value is not None:
                    known.setdefault(field, title(value) if field == "name" else value)
    known.setdefault("name", own_name)
    stacks = [tensor.shape for tensor in tensors if "_exps." in tensor.name]
    experts = stacks[0][0] if stacks else 0
    known.setdefault("size_label", size_label(parameters, experts, sum(map(math.prod, stacks))))

    out = {f"general.{field}": text(known[field]) for field in _ORDER if field in known}
    for field, key in (("license", "license"), ("license_name", "license.name"), ("license_link", "license.link")):
        if card.get(field):
            out[f"general.{key}"] = text(",".join(card[field]))
    for field, key in (("base_model", "base_model"), ("datasets", "dataset")):
        if card.get(field):
            out[f"general.{key}.count"] = uint(len(card[field]))
            for i, source in enumerate(card[field]):
                out |= _source(f"general.{key}.{i}", source, parameters)
    for field, values in (("tags", [*card.get("tags", []), *card.get("pipeline_tag", [])]), ("languages", card.get("language", []))):
        if values:
            out[f"general.{field}"] = texts(values)
    return out


_ORDER = ("name", "version", "organization", "finetune", "basename", "size_label")


def sampling_metadata(folder: Path) -> Metadata:
    """general.sampling.*: the model's own advice in generation_config.json, where it gives any."""
    path = folder / "generation_config.json"
    advice = read_json(path) if path.is_file() else {}
    if "penalty_repeat" not in advice and "repetition_penalty" in advice:
        advice["penalty_repeat"] = advice["repetition_penalty"]
    out: Metadata = {}
    for source, key, kind in (
        ("top_k", "top_k", Kind.INT32),
        ("top_p", "top_p", Kind.FLOAT32),
        ("min_p", "min_p", Kind.FLOAT32),
        ("temperature", "temp", Kind.FLOAT32),
        ("penalty_repeat", "penalty_repeat", Kind.FLOAT32),
    ):
        if advice.get(source) is not None:
            value = number(advice, source, 0.0, file="generation_config.json")
            # a top-k beyond any vocabulary and an unlimited one are the same
            out[f"general.sampling.{key}"] = Value(kind, min(max(int(value), -1), 2**31 - 1)) if kind is Kind.INT32 else real(value)
    return out


def size_label(parameters: int, experts: int = 0, in_experts: int = 0) -> str:
    """1777088000 -> "1.8B": two digits at least. With experts, "256x20B": how many there are, and the size of a model with one of them."""
    if experts:
        return f"{experts}x{size_label(parameters - in_experts + in_experts // experts)}"
    for scale, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if parameters > scale or unit == "K":
            break
    scaled = parameters / scale
    decimals = max(2 - len(str(round(scaled)).lstrip("0")), 0)
    return f"{scaled:.{decimals}f}{unit}"


def title(name: str) -> str:
    """`my-model-v2` -> "My Model v2": lower-case words get a capital, versions stay."""
    words = name.strip().replace("-", " ").split()
    return " ".join(w.title() if w.islower() and not re.match(r"^(v\d+(\.\d+)*|\d.*)$", w) else w for w in words)


def split_name(model_id: str, parameters: int) -> ModelName:
    """Take a model id apart by the shape of its dash-separated parts."""
    if " " in model_id:
        return ModelName(name=model_id)
    organization, _, full = model_id.rpartition("/")
    named = [_classify(i, part, parameters) for i, part in enumerate(p for p in full.split("-") if p)]
    if any(kind == "size" and not part.isalpha() for part, kind in named):  # then a word such as "mini" is no size
        named = [(part, None if kind == "size" and part.isalpha() else kind) for part, kind in named]

    # The base name ends at the first part of another kind; versions inside it belong to it, at the very end they do not.
    base = 0
    while base < len(named) and (named[base][1] == "version" or (named[base][1] is None and named[base][0][0].isalpha())):
        base += 1
    if base == len(named):
        while base > 0 and named[base - 1][1] == "version":
            base -= 1
    rest = [(part, "finetune" if kind is None else kind) for part, kind in named[base:]]

    finetune = "-".join(part for part, kind in rest if kind == "finetune") or None
    version = "-".join(part for part, kind in rest if kind == "version") or None
    size = "-".join(dict.fromkeys(part for part, kind in rest if kind == "size")) or None
    ambiguous = finetune is None and version is None and size is None
    return ModelName(
        name=full,
        organization=None if not organization or organization.startswith(".") else organization,
        basename=None if ambiguous else "-".join(part for part, _ in named[:base]) or None,
        finetune=finetune,
        version=version,
        size_label=size,
    )


def _classify(index: int, part: str, parameters: int) -> tuple[str, str | None]:
    """A part of a name as it is spelled in GGUF, and what it is: version, weight type, size, finetune or unknown (None)."""
    if _VERSION.fullmatch(part):
        return part, "version"
    if _WEIGHT_TYPE.fullmatch(part):
        return part.upper(), "weight type"
    if index > 0 and _SIZE.fullmatch(part):
        size = part.replace("_", ".")
        if size[-1].isdecimal():  # 7b1 is 7.1B
            size = f"{size[:-2]}.{size[-1]}{size[-2]}"
        if size[-2].isdecimal():
            size = size[:-1] + size[-1].upper()
        plain = re.fullmatch(r"([\d.]+)([KMBT])", size)
        if plain and parameters and abs(float(plain[1]) * 1000 ** " KMBT".index(plain[2]) - parameters) > 7 * parameters // 8:
            return size[:-1] + size[-1].lower(), "finetune"  # far from this model's size: a context length, as in -128k
        return size, "size"
    if index > 0 and _FINETUNE.fullmatch(part):
        return part, "finetune"
    return part, None


def _source(prefix: str, source: str, parameters: int) -> Metadata:
    """Where a base model or data set comes from: an id on the hub or an address."""
    host = "https://huggingface.co/"
    on_hub = re.fullmatch(rf"({re.escape(host)})?([^/:]+/[^/:]+)", source)
    if on_hub is None and "://" in source:
        return {f"{prefix}.repo_url": text(source)}
    model_id = on_hub[2] if on_hub else source
    parts = split_name(model_id, parameters)
    out: Metadata = {}
    if parts.name is not None:
        out[f"{prefix}.name"] = text(title(parts.name))
    if parts.version is not None:
        out[f"{prefix}.version"] = text(parts.version)
    if parts.organization is not None:
        out[f"{prefix}.organization"] = text(title(parts.organization))
        out[f"{prefix}.repo_url"] = text(host + model_id)
    return out


def read_card(path: Path) -> dict[str, list[str]]:
    """The front matter of a model card: every top-level key with its values, one or a list. Nested values are left out.

    Cards use a small part of YAML (`key: value`, `key: [a, b]`, `key:` and dashes), and that part is what is read.
    """
    try:
        if not path.is_file():  # opening a pipe would wait for ever
            return {}
        with path.open(encoding="utf-8", errors="replace") as f:
            lines = f.read(1 << 16).splitlines()
    except OSError:
        return {}
    if not lines or lines[0] != "---" or "---" not in lines[1:]:
        return {}
    card: dict[str, list[str]] = {}
    key = ""
    for line in lines[1 : lines.index("---", 1)]:
        if match := re.fullmatch(r"([\w-]+):\s*(.*)", line):
            key, rest = match[1], match[2].strip()
            listed = rest[1:-1].split(",") if rest.startswith("[") and rest.endswith("]") else [rest]
            card[key] = [plain for item in listed if (plain := _scalar(item))]
        elif key and (match := re.fullmatch(r"\s*-\s+([^:]+|https?:.*)", line)) and (plain := _scalar(match[1])):
            card[key].append(plain)
    return card


def _scalar(item: str) -> str:
    item = item.strip()
    quoted = len(item) > 1 and item[0] == item[-1] and item[0] in "'\""
    return item[1:-1] if quoted else re.sub(r"(^|\s)#.*", "", item).strip()
