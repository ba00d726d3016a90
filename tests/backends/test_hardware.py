"""What is found on this machine, and what is said of machines that lack something."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backends import hardware
from backends.base import EngineError
from backends.hardware import disk_free, install_command, look, memory


def test_this_machine(tmp_path: Path) -> None:
    machine = look(tmp_path / "not" / "made" / "yet")
    assert 0 < machine.available_bytes <= machine.total_bytes
    assert 1 <= machine.performance_cores <= machine.physical_cores
    assert machine.chip and machine.llamacpp.here and machine.llamacpp.version
    assert machine.disk_free_bytes > 0 and not (tmp_path / "not").exists()
    assert machine.mlx.here == (machine.mlx.missing == "")
    if sys.platform == "linux":
        assert not machine.unified_memory and not machine.apple_gpu


def test_memory_within_a_container(tmp_path: Path) -> None:
    """As Linux tells it of a group of processes and those around it."""
    whole, _ = memory(tmp_path / "none", tmp_path / "none")
    inner = tmp_path / "docker" / "1234"
    inner.mkdir(parents=True)
    (tmp_path / "own").write_text("0::/docker/1234\n")
    for folder, most in ((tmp_path / "docker", "500000000"), (inner, "max")):
        (folder / "memory.max").write_text(f"{most}\n")
        (folder / "memory.current").write_text("300000000\n")
        (folder / "memory.stat").write_text("anon 100000000\ninactive_file 150000000\n")
    assert memory(tmp_path, tmp_path / "own") == (500_000_000, 350_000_000)
    (tmp_path / "docker" / "memory.max").write_text("max\n")
    assert memory(tmp_path, tmp_path / "own")[0] == whole > 500_000_000


def test_memory_within_an_older_container(tmp_path: Path) -> None:
    """As Linux tells it where each kind of limit has groups of its own; a container sees its own as the outermost one."""
    whole, _ = memory(tmp_path / "none", tmp_path / "none")
    (tmp_path / "memory").mkdir()
    (tmp_path / "own").write_text("9:name=systemd:/docker/1234\n4:memory:/docker/1234\n3:cpuset:/\n0::/\n")
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("500000000\n")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("300000000\n")
    (tmp_path / "memory" / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 150000000\n")
    assert memory(tmp_path, tmp_path / "own") == (500_000_000, 350_000_000)
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert memory(tmp_path, tmp_path / "own")[0] == whole > 500_000_000


def test_importing_and_looking_is_cheap() -> None:
    """No engine is imported before it is looked for, and mlx-lm (2 s) and the tokenizers never."""
    code = (
        "import sys, backends.hardware, backends.dispatch, backends.memory\n"
        "assert not {'llama_cpp', 'mlx', 'psutil'} & set(sys.modules)\n"
        "backends.hardware.look()\n"
        "assert not {'mlx_lm', 'transformers', 'tokenizers', 'mlx.nn'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_librarys_own_list_of_devices() -> None:
    """The functions are there under these names; on a build for the CPU none of its devices is a GPU."""
    from backends.llamacpp_library import library

    c = library()
    gpus = hardware._gpus(c.llama_cpp._lib)
    assert bool(gpus) == bool(c.llama_supports_gpu_offload())


def test_gpus_are_described(monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        """ggml with the CPU, a graphics card and a GPU in the processor."""

        def __init__(self) -> None:
            def memory(device: int, free: Any, total: Any) -> None:
                free._obj.value, total._obj.value = device * 10, device * 100

            answers = {
                "ggml_backend_dev_count": lambda: 3,
                "ggml_backend_dev_get": lambda i: i + 1,
                "ggml_backend_dev_type": lambda device: device - 1,
                "ggml_backend_dev_memory": memory,
                "ggml_backend_dev_description": lambda device: b"card %d" % device,
                "ggml_backend_dev_backend_reg": lambda device: device,
                "ggml_backend_reg_name": lambda registry: {2: b"CUDA", 3: b"Vulkan"}[registry],
            }
            for name, answer in answers.items():
                setattr(self, name, answer)

    card, inside = hardware._gpus(Library())
    assert (card.name, card.backend, card.total_bytes, card.free_bytes, card.shared) == ("card 2", "CUDA", 200, 20, False)
    assert (inside.backend, inside.shared) == ("Vulkan", True)


@pytest.mark.parametrize(
    ("system", "architecture", "chip", "said"),
    [
        ("Darwin", "x86_64", "Intel(R) Core(TM) i7", "MLX needs a Mac with an Apple chip"),
        ("Darwin", "x86_64", "Apple M2", "runs under Rosetta; install one for arm64"),
        ("Windows", "AMD64", "", "there is no MLX for Windows"),
        ("Linux", "x86_64", "", "mlx and mlx-lm not installed; "),
        ("Darwin", "arm64", "Apple M2", "mlx and mlx-lm not installed; "),
    ],
)
def test_why_mlx_is_not_here(system: str, architecture: str, chip: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name.startswith("mlx") else find(name, *rest))
    engine = hardware._mlx(system, architecture, chip)
    assert not engine.here and said in engine.missing
    if "not installed" in said:
        assert ("'mlx[cpu]' mlx-lm" if system == "Linux" else "mlx mlx-lm") in engine.missing and sys.executable in engine.missing


def test_an_mlx_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its package is there, its library is not: mlx without mlx[cpu] on Linux."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: find("json" if name.startswith("mlx") else name, *rest))
    monkeypatch.setitem(sys.modules, "mlx.core", None)
    engine = hardware._mlx("Linux", "x86_64", "")
    assert engine.missing.startswith("MLX cannot be loaded") and "'mlx[cpu]'" in engine.missing


def test_why_llamacpp_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    engine, gpus = hardware._llamacpp()
    assert engine.missing == f"llama-cpp-python is not installed; uv pip install --python {sys.executable} llama-cpp-python"
    assert gpus == ()


def test_a_llamacpp_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    from backends import llamacpp_library

    def library() -> None:
        raise EngineError("llama-cpp-python cannot be loaded (no libcudart.so.12); reinstall it: pip install something")

    monkeypatch.setattr(llamacpp_library, "library", library)
    engine, _ = hardware._llamacpp()
    assert engine.missing.startswith("llama-cpp-python cannot be loaded (no libcudart.so.12); ")
    assert engine.missing.endswith("--force-reinstall llama-cpp-python")


def test_the_command_that_installs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: object())
    assert install_command("mlx[cpu]", "numpy") == f"{sys.executable} -m pip install 'mlx[cpu]' numpy"


def test_disk_of_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert disk_free(tmp_path / "a" / "b") == pytest.approx(disk_free(tmp_path), rel=0.05)
