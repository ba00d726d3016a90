"""What this machine holds and how fast it can be: memory, the bandwidth of it. Here, so that it can be had from elsewhere."""

from __future__ import annotations

import platform
import time
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

REST_BYTES = 10**9  # a context of a few thousand tokens, compute buffers, the program
SHARE = 0.8  # of all memory, for a model: the system and other programs need the rest
SHARE_APPLE = 0.75  # Metal's own limit for what is resident
REACHED = 0.9  # of the bandwidth, by decoding; a model that llama.cpp is tuned for reaches all of it (1.12 GB at 39.5 tokens/s, 44 GB/s)

# GB/s of unified memory, Apple's own figures; the smaller one where a chip has two
_APPLE = {
    "M1": 68, "M1 Pro": 200, "M1 Max": 400, "M1 Ultra": 800, "M2": 100, "M2 Pro": 200, "M2 Max": 400, "M2 Ultra": 800,
    "M3": 100, "M3 Pro": 150, "M3 Max": 300, "M3 Ultra": 819, "M4": 120, "M4 Pro": 273, "M4 Max": 410, "M5": 153,
}  # fmt: skip


class Bandwidth(NamedTuple):
    """Bytes that memory gives in a second, and how that is known."""

    bytes_per_s: float
    known: str


def machine() -> tuple[int, int]:
    """Bytes of memory: in all, and free now."""
    from backends.hardware import memory

    return memory()


def is_apple_silicon() -> bool:
    return platform.system() == "Darwin" and platform.machine() == "arm64"


def needs(weight_bytes: float) -> int:
    """Bytes of memory a model takes while it runs."""
    return int(weight_bytes) + REST_BYTES


def fits(weight_bytes: float) -> bool:
    """In this machine's memory and its GPUs', whatever is open now: a download outlives that."""
    if is_apple_silicon():
        return needs(weight_bytes) <= machine()[0] * SHARE_APPLE
    return needs(weight_bytes) <= machine()[0] * SHARE + _gpu_bytes()


@cache
def _gpu_bytes() -> int:
    """What models may take of GPUs with memory of their own. The engine is asked only if it was built for one."""
    engine = find_spec("llama_cpp")
    built = (Path(engine.origin).parent / "lib").glob("*ggml-*") if engine is not None and engine.origin else ()
    if not any(kind in file.name for file in built for kind in ("cuda", "vulkan", "hip", "sycl")):
        return 0
    from backends.hardware import gpus
    from backends.memory import GPU_SHARE

    return int(sum(GPU_SHARE * gpu.total_bytes for gpu in gpus() if not gpu.shared))


def tokens_per_s(weight_bytes: float, bandwidth: Bandwidth) -> float:
    """Of a dense model, which reads all of its weights for each token."""
    return REACHED * bandwidth.bytes_per_s / max(1.0, weight_bytes)


def bandwidth() -> Bandwidth:
    """Apple's figure where the chip is known, else measured: about half a second."""
    from backends.hardware import chip_name

    chip = chip_name().removeprefix("Apple ") if is_apple_silicon() else ""
    if chip in _APPLE:
        return Bandwidth(_APPLE[chip] * 1e9, f"assumed: Apple's figure for the {chip}")
    return Bandwidth(_measured(), "measured on the processor just now")


def _measured(nbytes: int = 256 << 20, rounds: int = 3) -> float:
    """All threads read an array that no cache holds; the best of a few rounds."""
    import os
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np

    threads = min(os.cpu_count() or 1, 16)
    rows = np.ones((threads, nbytes // 4 // threads), np.float32)
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            begun = time.perf_counter()
            list(pool.map(np.max, rows))
            best = max(best, rows.nbytes / (time.perf_counter() - begun))
    return best
