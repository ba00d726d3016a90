"""A hub on loopback (hub_server), huggingface_hub sent there, and what it has to give."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import Hub

from localr1 import fetching, fitting, hub, paths


@pytest.fixture
def server() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture
def near(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """huggingface_hub in this process, with this hub and a cache of its own."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    for name, value in (
        ("ENDPOINT", server.url), ("HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"), ("HF_HUB_CACHE", str(tmp_path / "hub")), ("HF_HUB_OFFLINE", False), ("HF_HUB_DISABLE_XET", True),
        ("HF_HUB_DISABLE_TELEMETRY", True), ("HF_TOKEN_PATH", str(tmp_path / "token")),
        ("AGENT_HARNESSES_PATH", str(tmp_path / "harnesses.json")),
    ):  # fmt: skip
        monkeypatch.setattr(constants, name, value)
    real = socket.getaddrinfo

    def at_home(host: str, *rest: object, **options: object) -> object:
        assert host == "127.0.0.1", f"a test asked for {host}"
        return real(host, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", at_home)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fetching, "PAUSE_S", 0.0)
    monkeypatch.setattr(fitting, "is_apple_silicon", lambda: False)
    monkeypatch.setattr(hub, "is_apple_silicon", lambda: False)
    monkeypatch.setattr(fitting, "machine", lambda: (8 * 10**9, 6 * 10**9))
    yield server
    close_session()


@pytest.fixture(scope="session")
def weights(student_gguf: Path) -> bytes:
    return student_gguf.read_bytes()


@pytest.fixture(scope="session")
def folder() -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (paths.assets() / "r1-tiny").iterdir() if file.is_file()}
