"""What the header of a GGUF file, or of a checkpoint folder, says of a model; nothing is loaded."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backends.base import ModelFileError
from backends.checkpoint import Checkpoint, read_json, repo_of
from localr1 import paths
from localr1.aliases import alias_of
from localr1.choosing import Form, gguf_models, quant_of
from localr1.files import write_whole

VERSION = 1  # of the kept facts
KEPT_LIMIT = 500


@dataclass(frozen=True, slots=True)
class Facts:
    """`formats`: tensors by format; `tensor_bytes` and `parameters`: of all tensors; `fit`: what `quantize --fit` noted; "" and 0: not said."""

    form: Form
    name: str
    architecture: str
    parameters: int
    tensor_bytes: int
    formats: dict[str, int]
    quant: str
    context: int
    template: bool
    base: str
    licence: str
    fit: str

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.tensor_bytes / max(1, self.parameters)


def title(name: str, facts: Facts | None, quant: str = "") -> str:
    """What a model is called, never just R1: "R1-Distill, base Qwen2.5-Math-1.5B, Q4_K_M"."""
    alias = alias_of(name) or (alias_of(facts.name.replace(" ", "-")) if facts else None)
    base = f"{name}, base {facts.base}" if facts and facts.base else name
    return ", ".join(part for part in (alias.title if alias else base, quant or (facts.quant if facts else "")) if part)


def read_facts(path: Path) -> Facts:
    """Raises ModelFileError: damaged, or no model."""
    return _of_folder(path) if path.is_dir() else _of_gguf(path)


def kept_facts(path: Path) -> Facts:
    """`read_facts`, remembered while size and time of the files stay: a GGUF header with its vocabulary takes 0.4 s. Raises ModelFileError."""
    store = paths.cache() / "headers.json"
    try:
        kept = json.loads(store.read_text())
        if kept.pop("version") != VERSION:
            kept = {}
    except (OSError, ValueError, AttributeError, KeyError):
        kept = {}
    state = _state(path)
    try:
        return Facts(**kept[str(path)][state])
    except (LookupError, TypeError, AttributeError):
        pass
    facts = read_facts(path)
    kept = dict([*kept.items(), (str(path), {state: asdict(facts)})][-KEPT_LIMIT:])
    try:
        store.parent.mkdir(parents=True, exist_ok=True)
        write_whole(store, json.dumps({"version": VERSION, **kept}))
    except OSError:  # then it is read again next time
        pass
    return facts


def _state(path: Path) -> str:
    try:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        return repr([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()])
    except OSError:
        return ""


def _of_gguf(path: Path) -> Facts:
    from quantize.gguf_metadata import FIT
    from quantize.gguf_reader import read_gguf_header
    from quantize.recipe import MIXES

    header = read_gguf_header(path)
    tensors = [*header.tensors]
    for part in parts_of(path)[1:]:
        tensors += read_gguf_header(part).tensors
    values = header.metadata
    counts = Counter(tensor.format.name if tensor.format else f"type {tensor.ggml_type}" for tensor in tensors)
    types = {mix.file_type: mix.name for mix in MIXES.values()}
    architecture = _text(values.get("general.architecture"))
    url = _text(values.get("general.base_model.0.repo_url")).rpartition("huggingface.co/")[2]
    name = _text(values.get("general.name"))
    return Facts(
        form="gguf",
        name=name,
        architecture=architecture,
        parameters=sum(math.prod(t.shape) for t in tensors if t.name != "rope_freqs.weight"),
        tensor_bytes=sum(t.nbytes or 0 for t in tensors),
        formats=dict(counts.most_common()),
        quant=quant_of(re.sub(r"-\d{5}-of-\d{5}$", "", path.stem))
        or types.get(_number(values.get("general.file_type"), -1), "")
        or _most(counts),
        context=_number(values.get(f"{architecture}.context_length")),
        template="tokenizer.chat_template" in values,
        base=_base(f"{name.replace(' ', '-')} {path.stem}", url or _text(values.get("general.base_model.0.name"))),
        licence=_text(values.get("general.license")),
        fit=_text(values.get(FIT)),
    )


def parts_of(path: Path) -> list[Path]:
    """The file, or all parts of a split one. Raises ModelFileError: some are missing."""
    if not re.search(r"-\d{5}-of-\d{5}$", path.stem):
        return [path]
    names = {file.name: 0 for file in path.parent.glob("*.gguf")}
    model = next((m for m in gguf_models(names) if path.name in m.files), None)
    if model is None or not model.complete:
        raise ModelFileError(f"{path}: parts of this model are missing beside it; download them all, with `localr1 pull`")
    return [path.parent / name for name in model.files]


def _of_folder(folder: Path) -> Facts:
    from quantize.gguf_general import read_card
    from quantize.mlx_folder import FIT

    with Checkpoint.open(folder) as checkpoint:
        config, names = checkpoint.config, checkpoint.names()
        counts = Counter(checkpoint.dtype(name) for name in names)
        packing = config.get("quantization")
        mlx = isinstance(packing, dict)
        parameters = sum(_elements(checkpoint, name, packing if isinstance(packing, dict) else {}) for name in names)
        nbytes = checkpoint.bytes_total
    card = read_card(folder / "README.md")
    settings = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    bits = _number(packing.get("bits")) if isinstance(packing, dict) else 0
    note = config.get(FIT)
    own = repo_of(folder)
    return Facts(
        form="mlx" if mlx or "mlx" in [*card.get("library_name", []), *card.get("tags", [])] else "safetensors",
        name=own,
        architecture=_text(config.get("model_type")) or "unknown",
        parameters=parameters,
        tensor_bytes=nbytes,
        formats=dict(counts.most_common()),
        quant=f"{bits}bit" if bits else "FP8" if "F8_E4M3" in counts else _most(counts),
        context=_number(config.get("max_position_embeddings")),
        template=bool(settings.get("chat_template")) or (folder / "chat_template.jinja").is_file(),
        base=_base(own, next(iter(card.get("base_model", [])), "")),
        licence=next(iter(card.get("license", [])), ""),
        fit="" if note is None else json.dumps(note) if not isinstance(note, str) else note,
    )


def _elements(checkpoint: Checkpoint, name: str, packing: dict[str, Any]) -> int:
    """Weights a tensor stands for: of MLX's packed ones, a group for each scale; scales themselves are none."""
    module, _, last = name.rpartition(".")
    if packing and f"{module}.scales" in checkpoint:
        if last != "weight":
            return 0
        own = packing.get(module)
        group = _number((own if isinstance(own, dict) else packing).get("group_size")) or 64
        return math.prod(checkpoint.shape(f"{module}.scales")) * group
    return 0 if last in ("weight_scale_inv", "weight_scale") else math.prod(checkpoint.shape(name))


def _base(name: str, said: str) -> str:
    """The model that was distilled onto, not the distill that a quantization was made of."""
    alias = alias_of(name) or alias_of(said)
    return alias.base if alias else said


def _most(counts: Counter[str]) -> str:
    return counts.most_common(1)[0][0] if counts else ""


def _text(value: object) -> str:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def _number(value: object, otherwise: int = 0) -> int:
    return value if type(value) is int else otherwise
