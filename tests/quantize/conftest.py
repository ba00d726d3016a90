"""Small random checkpoints of the architectures that can be converted, in the published folder format."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from goldens import checkpoints as goldens
from safetensors.numpy import save_file

from backends.llamacpp import LlamaCppBackend
from backends.llamacpp_library import library

ROOT = Path(__file__).resolve().parents[2]

LAYERS, HIDDEN, FEED_FORWARD, HEADS, KV_HEADS = 2, 64, 96, 4, 2

COMMON = dict(
    hidden_act="silu", hidden_size=HIDDEN, intermediate_size=FEED_FORWARD, max_position_embeddings=512, num_attention_heads=HEADS,
    num_hidden_layers=LAYERS, num_key_value_heads=KV_HEADS, rms_norm_eps=1e-6, rope_theta=10000.0, tie_word_embeddings=False,
    bos_token_id=7, eos_token_id=8, vocab_size=330,
)  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2": COMMON | dict(architectures=["Qwen2ForCausalLM"], model_type="qwen2"),
    "llama": COMMON
    | dict(
        architectures=["LlamaForCausalLM"], model_type="llama", rms_norm_eps=1e-5, rope_theta=500000.0,
        rope_scaling=dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=128,
                          rope_type="llama3"),
    ),
    "qwen3": COMMON
    | dict(
        architectures=["Qwen3ForCausalLM"], model_type="qwen3", head_dim=32,
        rope_scaling=dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=128, attn_factor=0.875),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Made:
    """A checkpoint on disk and what was put into it."""

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, np.ndarray]


def recipe_tokenizer() -> ModuleType:
    """assets/recipe/tokenizer.py, which is no package."""
    spec = importlib.util.spec_from_file_location("recipe_tokenizer", ROOT / "assets" / "recipe" / "tokenizer.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The tensors a published checkpoint of this config has, as transformers names and shapes them."""
    hidden, ff, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim", hidden // heads)
    q, kv = heads * head_dim, config["num_key_value_heads"] * head_dim
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for i in range(config["num_hidden_layers"]):
        p = f"model.layers.{i}."
        found |= {p + "input_layernorm.weight": (hidden,), p + "post_attention_layernorm.weight": (hidden,)}
        found |= {p + f"self_attn.{n}_proj.weight": (rows, hidden) for n, rows in (("q", q), ("k", kv), ("v", kv))}
        found[p + "self_attn.o_proj.weight"] = (hidden, q)
        if config["model_type"] == "qwen2":
            found |= {p + f"self_attn.{n}_proj.bias": (rows,) for n, rows in (("q", q), ("k", kv), ("v", kv))}
        if config["model_type"] == "qwen3":
            found |= {p + "self_attn.q_norm.weight": (head_dim,), p + "self_attn.k_norm.weight": (head_dim,)}
        found |= {p + "mlp.gate_proj.weight": (ff, hidden), p + "mlp.up_proj.weight": (ff, hidden)}
        found[p + "mlp.down_proj.weight"] = (hidden, ff)
    return found | {"model.norm.weight": (hidden,), "lm_head.weight": (config["vocab_size"], hidden)}


def write_checkpoint(
    folder: Path, architecture: str, dtype: Any = ml_dtypes.bfloat16, shards: int = 1, drop: tuple[str, ...] = (), **changes: Any
) -> Made:
    config = {k: v for k, v in (CONFIGS[architecture] | changes).items() if v is not None}
    rng = np.random.default_rng(0)
    tensors = {
        name: (rng.standard_normal(shape, np.float32) * 0.1 + ("norm" in name)).astype(dtype)
        for name, shape in shapes(config).items()
        if name not in drop
    }
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps(dict(temperature=0.6, top_p=0.95, do_sample=True)))
    recipe_tokenizer().write_tokenizer(folder)
    names = list(tensors)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    else:
        where = {}
        for i in range(shards):
            file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
            part = names[i::shards]
            save_file({name: tensors[name] for name in part}, folder / file, {"format": "pt"})
            where |= dict.fromkeys(part, file)
        (folder / "model.safetensors.index.json").write_text(json.dumps(dict(metadata={}, weight_map=where)))
    return Made(folder, config, tensors)


@pytest.fixture
def make_checkpoint(tmp_path: Path) -> Callable[..., Made]:
    def make(architecture: str = "qwen2", **options: Any) -> Made:
        return write_checkpoint(tmp_path / options.pop("name", "Tiny-R1-330K"), architecture, **options)

    return make


def edit_json(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in value.items() if v is not None}))


@pytest.fixture
def edit() -> Callable[..., None]:
    return edit_json


DTYPES = {
    "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e8m0fnu": "F8_E8M0", "int32": "I32",
}  # fmt: skip


def write_weights(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """One safetensors file, by the format's description: the package's own writer knows no E8M0."""
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[name] = dict(dtype=DTYPES[tensor.dtype.name], shape=tensor.shape, data_offsets=[begin, end])
    raw = json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + b"".join(tensor.tobytes() for tensor in tensors.values()))


@pytest.fixture
def rewrite() -> Callable[..., None]:
    """Give a checkpoint in one file other weights."""
    return lambda folder, tensors: write_weights(folder / "model.safetensors", tensors)


def cut_tokenizer(folder: Path) -> None:
    """Leave the ASCII letters and signs of the recipe's tokenizer: the goldens have a vocabulary of 160."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    letters = [chr(i) for i in range(33, 127)] + ["Ġ", "Ċ", "Ġa"]
    tokenizer["model"] |= dict(vocab={letter: i for i, letter in enumerate(letters)}, merges=["Ġ a"])
    for i, token in enumerate(tokenizer["added_tokens"], len(letters)):
        token["id"] = i
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


@pytest.fixture
def make_golden(tmp_path: Path) -> Callable[..., Made]:
    """A kind of assets/goldens with a tokenizer, drawn from its config or from a changed one."""

    def make(kind: str, name: str | None = None, **changes: Any) -> Made:
        changed = replace(goldens.KINDS[kind], config=goldens.KINDS[kind].config | changes)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(goldens.KINDS, kind, changed)
            made = Made(goldens.build(kind, tmp_path / (name or kind)), changed.config, goldens.tensors(kind))
        recipe_tokenizer().write_tokenizer(made.folder)
        if changed.config["vocab_size"] == 160:
            cut_tokenizer(made.folder)
        return made

    return make


@pytest.fixture
def exact_llama_cpp(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, np.ndarray], np.ndarray]:
    """Logits with the cache in F32 and without flash attention, which rounds to F16 on its way: then llama.cpp is exact to 1e-4."""
    real = library().llama_context_default_params

    def exact() -> Any:
        params = real()
        params.type_k = params.type_v = 0  # GGML_TYPE_F32
        params.flash_attn_type = 0  # LLAMA_FLASH_ATTN_TYPE_DISABLED
        return params

    def logits(path: Path, tokens: np.ndarray) -> np.ndarray:
        monkeypatch.setattr(library(), "llama_context_default_params", exact)
        with LlamaCppBackend(path, 512) as backend:
            return backend.logits(tokens.tolist())

    return logits
