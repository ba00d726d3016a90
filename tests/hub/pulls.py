"""Repositories to pull from, and pulling in this process or with the program itself."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from hub_server import Hub, Repo

from localr1 import fetching, hub

# the command line, with the commands in it whether or not cli has them already
PROGRAM = """
import signal, sys
from localr1 import cli
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has it ignored
sys.exit(cli.main(sys.argv[1:]))
"""
QWEN = "bartowski/DeepSeek-R1-Distill-Qwen-1.5B-GGUF"
STEM = "DeepSeek-R1-Distill-Qwen-1.5B"


def gguf_repo(weights: bytes, *quants: str) -> Repo:
    """Files of different sizes, as quantizations have; all of them are the student."""
    files = {f"{STEM}-{quant}.gguf": weights + bytes(32 * i) for i, quant in enumerate(quants)}
    return Repo({"README.md": b"# card", **files})


def pull(ref: str, **options: object) -> Path:
    return fetching.download(hub.plan(ref, **options))  # type: ignore[arg-type]


def environment(server: Hub, home: Path) -> dict[str, str]:
    own = {
        "HF_ENDPOINT": server.url, "HF_HOME": str(home / "hf"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
        "XDG_DATA_HOME": str(home / "data"), "XDG_CACHE_HOME": str(home / "cache"),
    }  # fmt: skip
    return {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))} | own


def run(server: Hub, home: Path, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment(server, home) | (env or {}), timeout=60)


def wait_for(come: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not come():
        assert time.monotonic() < until
        time.sleep(0.02)
