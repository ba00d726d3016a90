"""The memory plan, before anything is loaded: weights, keys and values, compute buffers, against what is free.

The sizes are llama.cpp's, for one sequence with flash attention (its default wherever the device can); its own accounting of the
published shapes is what tests/backends/test_memory.py compares with. MLX takes about as much. Not counted: the rearranged copies of some
matrices (Q4_0, Q4_K...) that llama.cpp makes for a processor, because the system may then drop their pages of the mapped file.
Source: llama-kv-cache.cpp, llama-context.cpp (graph_reserve) and ggml-alloc.c @ggml-org/llama.cpp.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from backends.base import DEFAULT_CONTEXT
from backends.hardware import Machine, memory
from backends.model_file import ModelFile, Shape

CacheType = Literal["f16", "q8_0", "q4_0"]
CACHE_BYTES = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}  # of one value
UBATCH_TOKENS = 512  # computed at once: llama.cpp's n_ubatch
CONTEXT_STEP = 256  # llama.cpp rounds a context up to a multiple
LEAST_CONTEXT = 2048  # with less, a reasoning model cannot finish a thought
HEADROOM_BYTES = 256 << 20  # the program itself, and what the system wants in the next minute
UNIFIED_SHARE = 0.75  # of all memory, what Metal keeps resident for its GPU at most
GPU_SHARE = 0.95  # of a GPU's free memory: the driver's own buffers, fragments

# Bits per weight of llama.cpp's mixes in an 8B model, embeddings included. Source: sizes of bartowski/DeepSeek-R1-Distill-Llama-8B-GGUF
QUANTIZATIONS = {"Q8_0": 8.5, "Q6_K": 6.6, "Q5_K_M": 5.7, "Q4_K_M": 4.9, "Q3_K_M": 4.0, "Q2_K": 3.2}


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What opening a model takes, in bytes. `context`: tokens, as asked or as chosen; `gpu_layers`: of llama.cpp, counting the output.

    `total_bytes` is compared with `free_bytes`, or where a GPU has its own memory, both together. `advice`: what would fit instead; "" if
    it fits.
    """

    weights_bytes: int
    cache_bytes: int
    compute_bytes: int
    total_bytes: int
    free_bytes: int
    fits: bool
    context: int
    gpu_layers: int
    kv: str
    advice: str


def plan(machine: Machine, model: ModelFile, context: int | None = None, kv: CacheType = "f16") -> MemoryPlan:
    """`context` None: up to 32,768 tokens, as many as fit beside the weights (2,048 at least). A model without a shape is judged by its
    weights alone."""
    wanted = context
    if wanted is None:
        trained = model.shape.context if model.shape else DEFAULT_CONTEXT
        wanted = min(trained, DEFAULT_CONTEXT)
        most = _most_context(machine, model, kv)
        if most < wanted:
            wanted = max(min(LEAST_CONTEXT, trained), most)
    made = _sized(machine, model, wanted, kv)
    return made if made.fits else replace(made, advice=_advice(machine, model, made))


def cache_bytes(shape: Shape, context: int, kv: CacheType = "f16") -> int:
    """Keys and values of so many tokens; of latent attention the latent with the rotated key, once."""
    width = shape.kv_heads * (shape.key + shape.value)
    if shape.latent is not None:
        width = shape.latent.rank + shape.latent.rotated
    cells = -(-context // CONTEXT_STEP) * CONTEXT_STEP
    return int(shape.layers * cells * width * CACHE_BYTES[kv])


def compute_bytes(shape: Shape, context: int, kv: CacheType = "f16") -> int:
    """The graph's buffer: of a batch of 512 tokens, the busiest moment; and one row of scores.

    In floats a token: at the output, scores beside two hidden states; in a layer, four hidden states beside gate, up and their product
    (or beside queries and what attention gives, or beside what each expert takes), and the mask: a 16-bit number for each token of context.
    """
    batch = min(UBATCH_TOKENS, context)
    hidden, mask = shape.hidden, context / 2
    output = shape.vocabulary + (2 if kv == "f16" else 3) * hidden
    dense = 3 * shape.feed_forward
    attention = 2 * shape.heads * shape.key
    experts = 0
    if shape.latent is not None:
        attention = 2 * shape.heads * (shape.latent.rank + shape.latent.rotated + shape.latent.nope)
    if shape.experts_used:
        value = shape.latent.value if shape.latent else shape.value
        experts = shape.experts_used * (hidden + 3 * shape.expert_feed_forward) + shape.heads * value
    layer = 4 * hidden + max(dense, attention, experts) + mask
    return int(4 * batch * max(output, layer)) + 4 * shape.vocabulary


def context_within(trained: int, bytes_per_token: int) -> int:
    """The context that a model gets if nobody asks for one: half of the memory that is free now holds it."""
    return min(trained, max(512, min(DEFAULT_CONTEXT, memory()[1] // 2 // bytes_per_token)))


def free_bytes(machine: Machine) -> int:
    """What a model may take now: of the machine's memory, and of GPUs that have their own."""
    main = machine.available_bytes
    if machine.unified_memory:
        main = min(main, int(UNIFIED_SHARE * machine.total_bytes))
    return max(0, main - HEADROOM_BYTES) + _gpu_free(machine)


def room_for_weights(machine: Machine, shape: Shape, context: int, kv: CacheType = "f16") -> int:
    """What is left for weights beside a context; 0 if that alone does not fit."""
    return max(0, free_bytes(machine) - cache_bytes(shape, context, kv) - compute_bytes(shape, context, kv))


def quantized_bytes(model: ModelFile, quantization: str) -> int:
    """About what the weights take in another format."""
    return int(model.parameters * QUANTIZATIONS[quantization] / 8)


def converted(model: ModelFile, quantization: str) -> ModelFile:
    """What a conversion to GGUF will make of it, to plan before that."""
    return replace(model, kind="gguf", quantization=quantization, bytes=quantized_bytes(model, quantization))


def largest_quantization(machine: Machine, model: ModelFile, context: int, kv: CacheType = "f16") -> str | None:
    """Of llama.cpp's mixes that are smaller than the model is, the largest that fits beside a context; None if none does."""
    room = room_for_weights(machine, model.shape, context, kv) if model.shape else free_bytes(machine)
    sizes = {name: quantized_bytes(model, name) for name in QUANTIZATIONS} if model.parameters else {}
    return next((name for name, size in sizes.items() if size <= room and size < 0.97 * model.bytes), None)


# ------------------------------------------------------------------------------------------------ parts


def _gpu_free(machine: Machine) -> int:
    """Of GPUs with memory of their own."""
    return int(sum(GPU_SHARE * gpu.free_bytes for gpu in machine.gpus if not gpu.shared))


def _sized(machine: Machine, model: ModelFile, context: int, kv: CacheType) -> MemoryPlan:
    shape = model.shape
    if shape and model.kind == "mlx" and model.architecture == "deepseek_v2":
        shape = replace(shape, latent=None)  # mlx-lm caches every head's keys and values
    cache = cache_bytes(shape, context, kv) if shape else 0
    compute = compute_bytes(shape, context, kv) if shape else 0
    total, free = _loaded_bytes(model) + cache + compute, free_bytes(machine)
    layers = _gpu_layers(machine, model, cache, compute)
    return MemoryPlan(_loaded_bytes(model), cache, compute, total, free, total <= free, context, layers, kv, "")


def _loaded_bytes(model: ModelFile) -> int:
    """Engines that run safetensors folders decode FP8 to 16 bits."""
    return model.bytes * (2 if model.kind == "safetensors" and model.quantization == "FP8" else 1)


def _gpu_layers(machine: Machine, model: ModelFile, cache: int, compute: int) -> int:
    """All (with the output) where a GPU shares the machine's memory or holds everything; else as many as it holds, each with its share of the cache."""
    layers = model.shape.layers if model.shape else 0
    if not machine.gpus or not layers:
        return -1 if machine.gpus else 0  # of an unknown model, llama.cpp's own default: all
    room = _gpu_free(machine) - compute
    if any(gpu.shared for gpu in machine.gpus) or model.bytes + cache <= room:
        return layers + 1
    return max(0, min(layers, int(room / ((model.bytes + cache) / layers))))


def _most_context(machine: Machine, model: ModelFile, kv: CacheType) -> int:
    """The largest context that fits beside the weights; 0 if none does."""
    if model.shape is None:
        return DEFAULT_CONTEXT
    low, high = 0, -(-model.shape.context // CONTEXT_STEP)
    while low < high:
        middle = (low + high + 1) // 2
        fits = _sized(machine, model, middle * CONTEXT_STEP, kv).fits
        low, high = (middle, high) if fits else (low, middle - 1)
    return min(low * CONTEXT_STEP, model.shape.context)


def _advice(machine: Machine, model: ModelFile, made: MemoryPlan) -> str:
    """What would fit instead, the least loss first; at the end, what always helps."""
    ways = []
    context = made.context
    if made.kv == "f16":
        small: CacheType
        for small in ("q8_0", "q4_0"):
            if _sized(machine, model, context, small).fits:
                ways.append(f"keys and values in {small.upper()} ({size_text(_sized(machine, model, context, small).cache_bytes)})")
                break
    most = _most_context(machine, model, "f16")
    if LEAST_CONTEXT <= most < context:
        ways.append(f"a context of {most:,} tokens")
    for tokens in (context, min(context, 8192)):
        if smaller := largest_quantization(machine, model, tokens):
            beside = "" if tokens == context else f" with a context of {tokens:,} tokens"
            ways.append(f"the model in {smaller} (about {size_text(quantized_bytes(model, smaller))}){beside}")
            break
    if made.total_bytes <= machine.total_bytes * (UNIFIED_SHARE if machine.unified_memory else 0.9):
        ways.append("closing other programs")
    needs = f"it needs {size_text(made.total_bytes)} and {size_text(made.free_bytes)} are free"
    return f"{needs}; what fits: {', or '.join(ways)}" if ways else f"{needs}; take a smaller model"


def size_text(nbytes: int) -> str:
    return f"{nbytes / 1e9:,.1f} GB" if nbytes >= 10**9 else f"{nbytes / 1e6:,.0f} MB"
