"""Machines as `backends.hardware.look` would describe them."""

from __future__ import annotations

from dataclasses import replace

from backends.hardware import Engine, Gpu, Machine

LLAMACPP = Engine("0.3.36", "CPU")
NO_LLAMACPP = Engine("", missing="llama-cpp-python is not installed; python -m pip install llama-cpp-python")
NO_MLX = Engine("", missing="mlx and mlx-lm not installed; python -m pip install 'mlx[cpu]' mlx-lm")


def mac(chip: str, total_gb: float, free_gb: float, cores: int) -> Machine:
    total, free = int(total_gb * 2**30), int(free_gb * 2**30)
    gpu = Gpu(chip, "Metal", int(total * 0.75), int(total * 0.75), shared=True)
    return Machine(
        "Darwin", chip, "arm64", True, total, free, cores, cores // 2, (gpu,), 200 * 10**9, replace(LLAMACPP, device="Metal"),
        Engine("0.32.4", "gpu"),
    )  # fmt: skip


M1_8GB = mac("Apple M1", 8, 4.5, 8)
M3_PRO_36GB = mac("Apple M3 Pro", 36, 25, 12)
INTEL_MAC = replace(
    M1_8GB, chip="Intel(R) Core(TM) i7-9750H", architecture="x86_64", unified_memory=False, gpus=(), llamacpp=LLAMACPP,
    total_bytes=16 * 2**30, available_bytes=9 * 2**30,
    mlx=Engine("", missing="MLX needs a Mac with an Apple chip; llama.cpp is the engine here"),
)  # fmt: skip
LINUX = Machine("Linux", "AMD EPYC", "x86_64", False, 25 * 10**9, 22 * 10**9, 2, 2, (), 50 * 10**9, LLAMACPP, NO_MLX)
CUDA = replace(
    LINUX, total_bytes=64 * 10**9, available_bytes=60 * 10**9, llamacpp=replace(LLAMACPP, device="CUDA"),
    gpus=(Gpu("NVIDIA GeForce RTX 4070", "CUDA", 12 * 10**9, 11 * 10**9),),
)  # fmt: skip
