"""The memory plan against llama.cpp's own accounting of the published shapes, and what it decides."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from machines import CUDA, LINUX, M1_8GB, M3_PRO_36GB
from model_shapes import deepseek, dense, write_folder, write_gguf

from backends.base import DEFAULT_CONTEXT
from backends.hardware import look
from backends.memory import cache_bytes, compute_bytes, converted, free_bytes, largest_quantization, plan, room_for_weights
from backends.model_file import ModelFile, config_shape, describe

QWEN_15B = ("qwen2", 28, 1536, 8960, 12, 2, 151936)
LLAMA_8B = ("llama", 32, 4096, 14336, 32, 8, 128256)
QWEN_32B = ("qwen2", 64, 5120, 27648, 40, 8, 152064)
CONTEXTS = (2048, 32768)

# The engine loads the header and simulates its allocations (`no_alloc`): what it says of them is what a real load says, at once.
# In a process of its own: the log callback is the process's.
ENGINE = """
import ctypes, json, re, sys
import llama_cpp as c
from backends.llamacpp_library import model_params
said = []
@c.llama_log_callback
def keep(level, text, _):
    said.append(text.decode("utf-8", "replace"))
params = model_params()
c.llama_log_set(keep, ctypes.c_void_p(0))
path, asked = sys.argv[1], json.loads(sys.argv[2])
params.no_alloc, params.load_mode = True, 0
model = c.llama_model_load_from_file(path.encode(), params)
assert model, "".join(said)[-2000:]
found = []
for tokens, kv in asked:
    said.clear()
    params = c.llama_context_default_params()
    params.n_ctx, params.n_batch = tokens, min(2048, tokens)
    params.type_k = params.type_v = {"f16": 1, "q8_0": 8, "q4_0": 2}[kv]
    context = c.llama_init_from_model(model, params)
    text = "".join(said)
    assert context, text[-2000:]
    c.llama_free(context)
    def mib(pattern):
        return int(sum(float(size) for size in re.findall(pattern, text)) * 2**20)
    cache, compute = mib(r"llama_kv_cache: size = +([0-9.]+) MiB"), mib(r"compute buffer size = +([0-9.]+) MiB")
    found.append((c.llama_model_size(model), cache, compute + mib(r"output buffer size = +([0-9.]+) MiB")))
print(json.dumps(found))
"""


def engine(path: Path, asked: list[tuple[int, str]]) -> list[tuple[int, int, int]]:
    """Weights, cache and compute in bytes, as llama.cpp plans them."""
    done = subprocess.run([sys.executable, "-c", ENGINE, str(path), json.dumps(asked)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    return [tuple(row) for row in json.loads(done.stdout)]


def gguf(folder: Path, shape: tuple[dict[str, Any], Any]) -> ModelFile:
    return describe(write_gguf(folder / "model.gguf", *shape))


@pytest.mark.parametrize(
    "shape", [dense(*QWEN_15B), dense(*LLAMA_8B), dense("qwen3", 36, 4096, 12288, 32, 8, 151936), deepseek(4)],
    ids=["R1-Distill-Qwen-1.5B", "R1-Distill-Llama-8B", "R1-0528-Qwen3-8B", "R1, 4 layers"],
)  # fmt: skip
def test_the_plan_is_the_engines_own(tmp_path: Path, shape: tuple[dict[str, Any], Any]) -> None:
    if shape[0]["general.architecture"] == "qwen3":
        shape[1].update({f"blk.{i}.attn_{n}_norm.weight": ((128,), "F32") for i in range(36) for n in "qk"})
    model = gguf(tmp_path, shape)
    asked = [(tokens, kv) for tokens in CONTEXTS for kv in ("f16", "q8_0")]
    for (tokens, kv), (weights, cache, compute) in zip(asked, engine(model.path, asked), strict=True):
        ours = plan(M3_PRO_36GB, model, tokens, kv)
        # The log rounds to 10 kB. The issue allows 10%; measured: weights and cache the same, F16's compute within 0.1%.
        assert ours.weights_bytes == pytest.approx(weights, rel=1e-6)
        assert ours.cache_bytes == pytest.approx(cache, rel=0.001)
        assert ours.total_bytes == pytest.approx(weights + cache + compute, rel=0.1 if look().gpus else 0.005)
        if not look().gpus:  # with one, its buffers and the processor's are two
            assert ours.compute_bytes == pytest.approx(compute, rel=0.01 if kv == "f16" else 0.05)


def test_the_compute_buffer_follows_whatever_is_largest(tmp_path: Path) -> None:
    """With a small vocabulary the feed-forward or the attention, and the mask of a long context. Tolerance: the allocator's fragments."""
    shapes = {
        "feed-forward": dense("llama", 2, 1024, 8192, 8, 8, 320),
        "attention": dense("llama", 2, 1024, 1024, 32, 8, 320),
    }
    for name, shape in shapes.items():
        model = describe(write_gguf(tmp_path / f"{name}.gguf", *shape))
        assert model.shape is not None
        for tokens, found in zip((512, 65536), engine(model.path, [(512, "f16"), (65536, "f16")]), strict=True):
            assert compute_bytes(model.shape, tokens) == pytest.approx(found[2], rel=0.3 if look().gpus else 0.1), (name, tokens)


def test_latent_attention_caches_one_latent(tmp_path: Path) -> None:
    shape = gguf(tmp_path, deepseek(4)).shape
    assert shape is not None
    assert cache_bytes(shape, 1024) == 4 * 1024 * (512 + 64) * 2  # not 128 heads of 192 and 128 values
    assert cache_bytes(shape, 1000) == cache_bytes(shape, 1024)  # the engine rounds up
    assert cache_bytes(shape, 1024, "q8_0") == cache_bytes(shape, 1024) * 17 // 32


def test_a_folder_has_the_shape_of_its_gguf_file(tmp_path: Path) -> None:
    config = dict(
        architectures=["Qwen2ForCausalLM"], model_type="qwen2", hidden_size=1536, intermediate_size=8960, max_position_embeddings=131072,
        num_attention_heads=12, num_hidden_layers=28, num_key_value_heads=2, vocab_size=151936,
    )  # fmt: skip
    assert config_shape(config) == gguf(tmp_path, dense(*QWEN_15B)).shape
    assert config_shape({"model_type": "mamba", "d_model": 512}) is None


def test_a_model_that_fits_is_offered_whole(tmp_path: Path) -> None:
    model = gguf(tmp_path, dense(*QWEN_15B, form="Q4_K", file_type=15))
    made = plan(M1_8GB, model)
    assert (made.fits, made.context, made.gpu_layers, made.advice) == (True, DEFAULT_CONTEXT, 29, "")
    assert made.total_bytes == made.weights_bytes + made.cache_bytes + made.compute_bytes
    assert plan(LINUX, model).gpu_layers == 0


def test_the_context_is_what_memory_allows(tmp_path: Path) -> None:
    """8B in Q4 on 8 GB with 5.5 free: no room for 32,768 tokens (4.3 GB), and no reason to refuse."""
    model = gguf(tmp_path, dense(*LLAMA_8B, form="Q4_K", file_type=15))
    machine = replace(M1_8GB, available_bytes=int(5.7 * 2**30))
    made = plan(machine, model)
    assert made.fits and 2048 <= made.context < 16384
    assert not plan(machine, model, made.context + 1024).fits  # it is the largest


def test_what_does_not_fit_says_what_would(tmp_path: Path) -> None:
    model = gguf(tmp_path, dense(*LLAMA_8B))  # 8.5 GB in Q8_0
    made = plan(replace(M1_8GB, available_bytes=int(6.2e9)), model, 4096)
    assert not made.fits and "the model in Q4_K_M (about 4.9 GB)" in made.advice

    tight = replace(LINUX, available_bytes=int(12.5e9))
    made = plan(tight, model, 32768)
    assert not made.fits
    assert "keys and values in Q8_0" in made.advice and "a context of" in made.advice and "closing other programs" in made.advice
    assert plan(tight, model, 32768, "q8_0").fits  # as advised

    small = replace(LINUX, total_bytes=2 * 10**9, available_bytes=10**9)
    assert plan(small, model, 2048).advice.endswith("take a smaller model")


def test_gpu_layers_are_those_that_fit(tmp_path: Path) -> None:
    model = gguf(tmp_path, dense(*QWEN_32B, form="Q4_K", file_type=15))  # 18.4 GB beside 11 GB of a GPU
    made = plan(CUDA, model, 8192)
    assert made.fits and 20 < made.gpu_layers < 64
    share = made.gpu_layers / 64 * (made.weights_bytes + made.cache_bytes) + made.compute_bytes
    assert share <= CUDA.gpus[0].free_bytes
    assert plan(CUDA, gguf(tmp_path, dense(*QWEN_15B)), 8192).gpu_layers == 29


def test_room_for_weights_is_what_a_plan_leaves(tmp_path: Path) -> None:
    model = gguf(tmp_path, dense(*LLAMA_8B))
    assert model.shape is not None
    room = room_for_weights(LINUX, model.shape, 8192)
    made = plan(LINUX, model, 8192)
    assert room == free_bytes(LINUX) - made.cache_bytes - made.compute_bytes
    assert plan(LINUX, replace(model, bytes=room), 8192).fits and not plan(LINUX, replace(model, bytes=room + 1), 8192).fits
    assert room_for_weights(replace(LINUX, available_bytes=10**8), model.shape, 8192) == 0
    assert largest_quantization(M3_PRO_36GB, model, 8192) == "Q6_K"  # smaller than what it is


def test_a_conversion_is_planned_before_it_is_made(tmp_path: Path) -> None:
    config = dict(
        model_type="llama", hidden_size=4096, intermediate_size=14336, max_position_embeddings=131072, num_attention_heads=32,
        num_hidden_layers=32, num_key_value_heads=8, vocab_size=128256,
    )  # fmt: skip
    folder = describe(write_folder(tmp_path / "8b", config, {"all.weight": ((8_030_261_248,), "BF16")}))
    assert converted(folder, "Q4_K_M").bytes == pytest.approx(4.92e9, rel=0.01)  # bartowski's file
    assert not plan(M1_8GB, folder, 2048).fits
