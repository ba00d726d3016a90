"""What this machine has for running models: chip, memory, cores, GPUs, the engines that are installed. Looking changes nothing."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.base import EngineError

_GPU, _INTEGRATED = 1, 2  # enum ggml_backend_dev_type; 0 is the CPU, 3 speeds it up
_BACKENDS = {"MTL": "Metal"}  # ggml's name -> people's


@dataclass(frozen=True, slots=True)
class Engine:
    """A library that runs models. `version` is "" and `missing` says why and what to do where it cannot be used; `device`: where it runs."""

    version: str
    device: str = ""
    missing: str = ""

    @property
    def here(self) -> bool:
        return not self.missing


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that llama.cpp can use; `backend`: CUDA, Metal, Vulkan... `shared`: its memory is the machine's."""

    name: str
    backend: str
    total_bytes: int
    free_bytes: int
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Machine:
    """`available_bytes`: memory that can be had without swapping; `disk_free_bytes`: where downloads and conversions go.

    `performance_cores` are all physical ones where a chip has but one kind.
    """

    system: str
    chip: str
    architecture: str
    unified_memory: bool
    total_bytes: int
    available_bytes: int
    physical_cores: int
    performance_cores: int
    gpus: tuple[Gpu, ...]
    disk_free_bytes: int
    llamacpp: Engine
    mlx: Engine

    @property
    def apple_gpu(self) -> bool:
        """Whether MLX runs on the GPU of an Apple chip: the fast path there."""
        return self.unified_memory and self.mlx.here and self.mlx.device == "gpu"


def look(folder: Path | None = None) -> Machine:
    """The machine as it is now; `folder`: where downloads and conversions go (default: the home folder). Loads no model.

    llama.cpp is asked for its GPUs only if it was built for one: that is what tells how much of their memory is free.
    """
    import psutil

    total, available = memory()
    system, architecture, chip = platform.system(), platform.machine(), chip_name()
    physical = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    llamacpp, gpus = _llamacpp()
    return Machine(
        system=system,
        chip=chip,
        architecture=architecture,
        unified_memory=system == "Darwin" and architecture == "arm64",
        total_bytes=total,
        available_bytes=available,
        physical_cores=physical,
        performance_cores=_sysctl_number("hw.perflevel0.physicalcpu") or physical,
        gpus=gpus,
        disk_free_bytes=disk_free(folder or Path.home()),
        llamacpp=llamacpp,
        mlx=_mlx(system, architecture, chip),
    )


# Of a group's folder: its limit, what is used, and the line of memory.stat that says how much of that are files, which give way.
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = ("memory.max", "memory.current", "inactive_file")


def memory(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> tuple[int, int]:
    """Bytes: in all, and those that can be had without swapping; within what a container allows. Source: Linux, cgroup-v2.rst and
    cgroup-v1/memory.rst."""
    import psutil

    found = psutil.virtual_memory()
    total, available = int(found.total), int(found.available)
    with suppress(OSError, ValueError):
        for limit, used in _limits(cgroups, own):
            if limit < found.total:  # without one, v1 says a number beyond all memory
                total, available = min(total, limit), min(available, max(0, limit - used))
    return total, available


def _limits(cgroups: Path, own: Path) -> Iterator[tuple[int, int]]:
    """Of each group of processes that this one is in: the most it may have, and what it uses, in bytes."""
    for line in own.read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top, (most, uses, cached) = (cgroups / "memory", _V1) if controllers else (cgroups, _V2)
        inner = top / group.strip("/")
        for folder in (inner, *inner.parents):
            if folder.is_relative_to(top) and (folder / most).exists() and (limit := (folder / most).read_text().strip()) != "max":
                stat = dict(row.split() for row in (folder / "memory.stat").read_text().splitlines())
                yield int(limit), int((folder / uses).read_text()) - int(stat.get(cached, 0))


def gpus() -> tuple[Gpu, ...]:
    """Those that llama.cpp can use here."""
    return _llamacpp()[1]


def chip_name() -> str:
    """Apple M3 Pro; AMD EPYC 7763; the architecture where the system does not say."""
    if sys.platform == "darwin":
        return _sysctl_text("machdep.cpu.brand_string") or platform.machine()
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), platform.machine())
    except OSError:
        return platform.processor() or platform.machine()


def disk_free(folder: Path) -> int:
    """Bytes a person may still write there, or where the folder would be made; 0 if that cannot be told."""
    there = next((place for place in (folder, *folder.parents) if os.path.exists(place)), None)  # noqa: PTH110 - Path's fails where one may not look
    try:
        return shutil.disk_usage(there).free if there else 0
    except OSError:
        return 0


def install_command(*packages: str) -> str:
    """What installs packages into this program's own environment, which may have no pip."""
    named = " ".join(f"'{p}'" if "[" in p else p for p in packages)
    if importlib.util.find_spec("pip") is not None:
        return f"{sys.executable} -m pip install {named}"
    return f"uv pip install --python {sys.executable} {named}"


# ----------------------------------------------------------------------------------------------- engines


def _llamacpp() -> tuple[Engine, tuple[Gpu, ...]]:
    if importlib.util.find_spec("llama_cpp") is None:
        return Engine("", missing=f"llama-cpp-python is not installed; {install_command('llama-cpp-python')}"), ()
    from backends.llamacpp_library import library

    try:
        c = library()
    except EngineError as error:
        why = str(error).partition("; ")[0]
        return Engine("", missing=f"{why}; {install_command('--force-reinstall', 'llama-cpp-python')}"), ()
    gpus = _gpus(c.llama_cpp._lib) if c.llama_supports_gpu_offload() else ()
    return Engine(version("llama-cpp-python") or "?", ", ".join(dict.fromkeys(gpu.backend for gpu in gpus)) or "CPU"), gpus


def _gpus(lib: Any) -> tuple[Gpu, ...]:
    """Through ggml's list of devices. Source: ggml-backend.h@ggml-org/ggml."""

    def call(name: str, result: Any, *arguments: Any) -> Any:
        function = getattr(lib, name)
        function.restype, function.argtypes = result, [kind for kind, _ in arguments]
        return function(*(value for _, value in arguments))

    found = []
    for i in range(call("ggml_backend_dev_count", ctypes.c_size_t)):
        device = (ctypes.c_void_p, call("ggml_backend_dev_get", ctypes.c_void_p, (ctypes.c_size_t, i)))
        kind = call("ggml_backend_dev_type", ctypes.c_int, device)
        if kind not in (_GPU, _INTEGRATED):
            continue
        free, total, pointer = ctypes.c_size_t(), ctypes.c_size_t(), ctypes.POINTER(ctypes.c_size_t)
        call("ggml_backend_dev_memory", None, device, (pointer, ctypes.byref(free)), (pointer, ctypes.byref(total)))
        name = call("ggml_backend_dev_description", ctypes.c_char_p, device)
        registry = (ctypes.c_void_p, call("ggml_backend_dev_backend_reg", ctypes.c_void_p, device))
        backend = call("ggml_backend_reg_name", ctypes.c_char_p, registry).decode()
        backend = _BACKENDS.get(backend, backend)
        shared = kind == _INTEGRATED or (backend == "Metal" and platform.machine() == "arm64")
        found.append(Gpu(name.decode("utf-8", "replace"), backend, total.value, free.value, shared))
    return tuple(found)


def _mlx(system: str, architecture: str, chip: str) -> Engine:
    if system == "Darwin" and architecture != "arm64":
        if chip.startswith("Apple"):
            return Engine("", missing="this Python is for Intel and runs under Rosetta; install one for arm64, then set localr1 up again")
        return Engine("", missing="MLX needs a Mac with an Apple chip; llama.cpp is the engine here")
    if system not in ("Darwin", "Linux"):
        return Engine("", missing=f"there is no MLX for {system}; llama.cpp is the engine here")
    lacking = [name for name in ("mlx", "mlx_lm") if importlib.util.find_spec(name) is None]
    if lacking:
        fix = install_command("mlx" if system == "Darwin" else "mlx[cpu]", "mlx-lm")
        return Engine("", missing=f"{' and '.join(lacking).replace('_', '-')} not installed; {fix}")
    try:
        import mlx.core as mx

        return Engine(version("mlx") or "?", "gpu" if "gpu" in str(mx.default_device()) else "cpu")
    except (ImportError, OSError, RuntimeError) as error:
        fix = install_command("mlx" if system == "Darwin" else "mlx[cpu]")
        return Engine("", missing=f"MLX cannot be loaded ({' '.join(str(error).split())[:120]}); {fix}")


def version(package: str) -> str:
    """Of an installed one; "" if it does not say, or is not there."""
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _sysctl_number(name: str) -> int:
    """0 where there is no such value."""
    if sys.platform != "darwin":
        return 0
    value, size = ctypes.c_int(0), ctypes.c_size_t(4)
    failed = ctypes.CDLL(None).sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, 0)
    return 0 if failed else value.value


def _sysctl_text(name: str) -> str:
    value, size = ctypes.create_string_buffer(256), ctypes.c_size_t(256)
    failed = ctypes.CDLL(None).sysctlbyname(name.encode(), value, ctypes.byref(size), None, 0)
    return "" if failed else value.value.decode("utf-8", "replace").strip()
