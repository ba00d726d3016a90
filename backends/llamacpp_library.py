"""The llama.cpp library in this process: loaded once, silent, interruptible, and how many threads it should use."""

from __future__ import annotations

import ctypes
import os
import sys
from collections import deque
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from backends.base import EngineError

# Threads wait for each other after every node of the graph. In a smaller model that takes longer than the nodes, and on a busy machine,
# where the one that is waited for may not be running, a hundred times longer.
TINY_PARAMETERS = 20_000_000

_log: deque[str] = deque(maxlen=200)


@lru_cache(maxsize=1)
def library() -> ModuleType:
    """llama_cpp, initialized once, its log kept in memory: a line on stdout or stderr would tear the screen."""
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineError(
            f"llama-cpp-python cannot be loaded ({error}); reinstall it: pip install --force-reinstall llama-cpp-python"
        ) from error

    @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator, unused-ignore]
    def keep(level: int, text: bytes, _: ctypes.c_void_p) -> None:
        if level >= 3:  # warnings, errors and what continues them
            _log.append(text.decode("utf-8", "replace"))

    llama_cpp.llama_log_set(keep, ctypes.c_void_p(0))
    llama_cpp._localr1_log = keep  # C keeps no reference of its own
    llama_cpp.llama_backend_init()
    return cast(ModuleType, llama_cpp)


def model_params() -> Any:
    """The library's defaults, but without its kernels for Intel's AMX, which end the process with a general protection fault: with any
    model on a Xeon here, and as told in ggml-org/llama.cpp#20824. Repacking for other kernels goes with them; `make` builds without AMX."""
    library_ = library()
    params = library_.llama_model_default_params()
    if b"AMX_INT8 = 1" in library_.llama_print_system_info():
        params.use_extra_bufts = False
    return params


def load_model(path: Path, params: Any, gpu_layers: int | None = None) -> Any:
    """The model in a file, or None; `logged_reason` says why. `gpu_layers`: None for all, or none where a GPU is too small for them."""
    c = library()
    forget_log()
    if gpu_layers is not None:
        params.n_gpu_layers = gpu_layers
    model = c.llama_model_load_from_file(os.fsencode(path), params)
    if not model and gpu_layers is None and c.llama_supports_gpu_offload():
        params.n_gpu_layers = 0
        model = c.llama_model_load_from_file(os.fsencode(path), params)
    return model


def abort_callback() -> Any:
    """Tells the engine whether to stop, between the nodes of its graph: libc's strlen on `Cancel.address`.

    It has the wanted signature (pointer -> non-zero when set) and needs no interpreter lock, which a Python callback
    would take a thousand times a token.
    """
    libc = ctypes.CDLL(None if sys.platform != "win32" else "msvcrt")
    return library().ggml_abort_callback(ctypes.cast(libc.strlen, ctypes.c_void_p).value)


def threads(model: Any) -> int:
    """Cores that help to run a loaded model: performance cores on Apple silicon, physical cores elsewhere; for a tiny one, a single
    core, because the engine's threads wait for each other by spinning."""
    import psutil

    if library().llama_model_n_params(model) < TINY_PARAMETERS:
        return 1
    if sys.platform == "darwin":
        libc = ctypes.CDLL(None)
        count, size = ctypes.c_int(0), ctypes.c_size_t(4)
        if libc.sysctlbyname(b"hw.perflevel0.physicalcpu", ctypes.byref(count), ctypes.byref(size), None, 0) == 0 and count.value:
            return count.value
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(psutil.cpu_count(logical=False) or usable, usable))


def logged_reason() -> str:
    """What the engine's log says went wrong, in one line."""
    lines = [line.strip() for line in "".join(_log).splitlines() if line.strip(" .")]  # dots: how far loading is
    told = [line.split(": ", 1)[-1] for line in lines if "error" in line.lower() or "fail" in line.lower()]
    return (told or lines or ["the engine gave no reason"])[0].rstrip(".")


def forget_log() -> None:
    """What is logged from now on belongs to a new attempt."""
    _log.clear()
