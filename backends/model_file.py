"""What a model on disk is, from its headers: kind, architecture, quantization, bytes, and the shape that memory plans need."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, Literal

from backends import config_values
from backends.base import ModelFileError
from backends.checkpoint import AGAIN, CONFIG, PICKLES, Checkpoint, short
from backends.gguf_header import FILE_TYPES, MAGIC, GgufHeader, read_gguf_header

Kind = Literal["gguf", "mlx", "safetensors"]
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
_LFS = b"version https://git-lfs"


@dataclass(frozen=True, slots=True)
class Latent:
    """Latent attention (MLA): the cache holds `rank` + `rotated` values a token; a head's query and key have `nope` values beside these."""

    rank: int
    rotated: int
    nope: int
    value: int


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a decoder. `key`, `value`: of one head. `latent`: its keys and values are cached as one latent. `context`: as trained."""

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    key: int
    value: int
    vocabulary: int
    context: int
    latent: Latent | None = None
    experts_used: int = 0
    expert_feed_forward: int = 0


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A GGUF file, a folder quantized for MLX, or a safetensors folder. `bytes`: of the weights as stored; `parameters`: 0 if unknown.

    `shape` is None where the headers do not give it (architectures that only llama.cpp knows).
    """

    path: Path
    kind: Kind
    architecture: str
    quantization: str
    bytes: int
    parameters: int
    shape: Shape | None

    @property
    def words(self) -> str:
        """For a reason or an error: "GGUF file (qwen2, Q4_K_M)"."""
        kind = {"gguf": "GGUF file", "mlx": "MLX folder", "safetensors": "safetensors folder"}[self.kind]
        return f"{kind} ({self.architecture}, {self.quantization})"


def describe(path: Path) -> ModelFile:
    """By content, whatever the name. Raises ModelFileError: nothing there, half a download, damaged, or no model."""
    if path.is_dir():
        return _folder(path)
    if path.exists() and not path.is_file():  # opening a pipe waits for ever
        raise ModelFileError(f"{path}: is no regular file; name a .gguf file or a checkpoint folder")
    try:
        with path.open("rb") as file:
            begin = file.read(64)
    except FileNotFoundError:
        raise ModelFileError(f"{path}: no such file or folder; check the path") from None
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror})") from None
    if begin.startswith(MAGIC):
        return _gguf(path)
    if path.name.endswith(PICKLES):
        raise ModelFileError(f"{path}: a pickle file can run code when read and is not supported; convert the model to safetensors first")
    if begin.startswith(_LFS):
        raise ModelFileError(f"{path}: is a Git LFS pointer, not the weights; run git lfs pull in its folder, or download the file itself")
    if begin[8:9] == b"{" and int.from_bytes(begin[:8], "little") < path.stat().st_size:
        named = " with the name of a GGUF file" if path.suffix == ".gguf" else ""
        raise ModelFileError(f"{path}: is a safetensors file{named}; name the checkpoint folder it belongs to, with its {CONFIG}")
    raise ModelFileError(f"{path}: is no model file (it begins with {short(begin[:4])}); name a .gguf file or a checkpoint folder")


# ------------------------------------------------------------------------------------------------- GGUF


def _gguf(path: Path) -> ModelFile:
    header = read_gguf_header(path)
    architecture = _word(header.metadata.get("general.architecture"))
    weights, nbytes = header.weights, header.weight_bytes
    for other in _other_parts(path):
        part = read_gguf_header(other)
        weights, nbytes = weights + part.weights, nbytes + part.weight_bytes
    file_type = header.metadata.get("general.file_type")
    name = FILE_TYPES.get(file_type, header.main_type) if type(file_type) is int else header.main_type
    return ModelFile(path, "gguf", architecture, name, nbytes, weights, gguf_shape(header))


def _other_parts(path: Path) -> list[Path]:
    """Of a model split into several files, those behind the first, which is the one to open."""
    found = _PART.search(path.name)
    if not found or int(found[2]) == 1:
        return []
    stem, total = path.name[: found.start()], int(found[2])
    first, *rest = (path.with_name(f"{stem}-{n:05}-of-{total:05}.gguf") for n in range(1, min(total, 9999) + 1))
    if path != first:
        raise ModelFileError(f"{path}: is part {int(found[1])} of {total} of a model; name the first, {first.name}")
    missing = next((part for part in rest if not part.is_file()), None)
    if missing is not None:
        raise ModelFileError(f"{missing}: missing, the model is split into {total} files; download this one too")
    return rest


def gguf_shape(header: GgufHeader) -> Shape | None:
    count = header.count
    layers, hidden, heads, context = map(count, ("block_count", "embedding_length", "attention.head_count", "context_length"))
    if not (layers and hidden and heads and context):
        return None
    key = count("attention.key_length") or hidden // heads
    value = count("attention.value_length") or key
    latent = None
    rank, key_mla = count("attention.kv_lora_rank"), count("attention.key_length_mla")
    if rank and key_mla:  # older conversions have the rank alone, and llama.cpp caches every head's keys and values
        rotated = count("rope.dimension_count") or 0
        latent = Latent(rank, rotated, key_mla - rotated, count("attention.value_length_mla") or key_mla)
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    vocabulary = count("vocab_size") or (tokens if type(tokens) is int else 0)
    return Shape(
        layers, hidden, count("feed_forward_length") or 4 * hidden, heads, count("attention.head_count_kv") or heads, key, value, vocabulary,
        context, latent, count("expert_used_count") or 0, count("expert_feed_forward_length") or 0,
    )  # fmt: skip


# --------------------------------------------------------------------------------------------- folders


def _folder(path: Path) -> ModelFile:
    ggufs = sorted(path.glob("*.gguf"))
    if ggufs and not (path / CONFIG).exists():
        raise ModelFileError(f"{path}: is a folder of GGUF files; name one of them, for example {ggufs[0]}")
    for file in sorted(path.glob("*.safetensors")):
        if file.is_file():
            _check_begin(file)
    checkpoint = Checkpoint.open(path)
    config = checkpoint.config
    sizes: Counter[str] = Counter()
    for name in checkpoint.names():
        sizes[checkpoint.dtype(name)] += checkpoint.nbytes(name)
    main = sizes.most_common(1)[0][0]
    packed = mlx_quantization(config)
    if packed is None and any(name.endswith(".scales") for name in checkpoint.names()):
        packed = {}
    kind: Kind = "safetensors" if packed is None else "mlx"
    weights = 0 if kind == "mlx" else sum(prod(checkpoint.shape(n)) for n in checkpoint.names() if not n.endswith("_scale_inv"))
    return ModelFile(
        path, kind, _word(config.get("model_type")), _packing(packed) if packed is not None else main.replace("F8_E4M3", "FP8"),
        checkpoint.bytes_total, weights, config_shape(config),
    )  # fmt: skip


def _check_begin(file: Path) -> None:
    """Raises ModelFileError: a file with the name of safetensors that is something else."""
    try:
        with file.open("rb") as opened:
            begin = opened.read(64)
    except OSError:
        return  # opening the checkpoint says it better
    if begin.startswith(MAGIC):
        raise ModelFileError(f"{file}: is a GGUF file with the name of a safetensors file; rename it to {file.stem}.gguf and name that")
    if begin.startswith(_LFS):
        raise ModelFileError(f"{file}: is a Git LFS pointer, not the weights; run git lfs pull in its folder, or download the file itself")
    if begin.lstrip()[:1] == b"<":
        raise ModelFileError(f"{file}: is a web page, not the weights; {AGAIN}")


def mlx_quantization(config: dict[str, Any]) -> dict[str, Any] | None:
    """What mlx-lm's config.json says of how it is packed; None for a folder that MLX has not quantized."""
    for key in ("quantization", "quantization_config"):
        given = config.get(key)
        if isinstance(given, dict) and "group_size" in given and "quant_method" not in given:
            return given
    return None


def _packing(given: dict[str, Any]) -> str:
    mode = given.get("mode", "affine")
    return f"{_word(given.get('bits'))}-bit" if mode == "affine" else _word(mode)


def _word(value: Any) -> str:
    """A name from a file, harmless in a message."""
    text = "?" if value is None else str(value)
    return text if text.isprintable() and len(text) <= 40 else short(text, 40)


def config_shape(config: dict[str, Any]) -> Shape | None:
    """Of config.json; None where it does not say what is needed (an architecture that is not known here)."""
    try:
        return _config_shape(config)
    except ModelFileError:
        return None


def _config_shape(config: dict[str, Any]) -> Shape:
    count = partial(config_values.count, config)
    hidden, heads = count("hidden_size"), count("num_attention_heads")
    head = count("head_dim", default=128 if config.get("model_type") == "qwen3" else max(1, hidden // heads))
    kv_heads, key, value, latent = count("num_key_value_heads", default=heads), head, head, None
    if config.get("kv_lora_rank") is not None:
        latent = Latent(count("kv_lora_rank"), count("qk_rope_head_dim"), count("qk_nope_head_dim"), count("v_head_dim"))
        key, value = latent.nope + latent.rotated, latent.value
    return Shape(
        count("num_hidden_layers"), hidden, count("intermediate_size"), heads, kv_heads, key, value, count("vocab_size"),
        count("max_position_embeddings"), latent, count("num_experts_per_tok", default=0, least=0),
        count("moe_intermediate_size", default=0, least=0),
    )  # fmt: skip
