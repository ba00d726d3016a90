"""What the hub, the machine or the files refuse, and what is said of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hub.pulls import QWEN, gguf_repo, pull
from hub_server import Hub, Repo

from localr1 import fetching, hub, hub_errors, library


def test_a_missing_repository_lists_others(near: Hub, weights: bytes) -> None:
    near.repos["other/DeepSeek-R1-Distill-Qwen-1.5B-GGUF"] = gguf_repo(weights, "Q4_K_M")
    with pytest.raises(
        hub_errors.NotThere, match=r"bartowski/.* knows no such model .*; there are other/DeepSeek-R1-Distill-Qwen-1.5B-GGUF$"
    ):
        hub.plan("r1:1.5b")
    with pytest.raises(hub_errors.NotThere, match="there are other/"):
        hub.plan("nobody/DeepSeek-R1-Distill-Qwen-9.9B-GGUF".replace("9.9B", "1.5B-gguf"))


def test_gated_repositories_say_what_to_do(near: Hub, weights: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    near.repos["a/m"] = Repo({"m-Q4_K_M.gguf": weights}, gated="token")
    gated = rf"a/m is gated: accept its terms at {near.url}/a/m, then set HF_TOKEN"
    with pytest.raises(hub_errors.HubError, match=gated):
        pull("a/m")
    monkeypatch.setenv("HF_TOKEN", Hub.TOKEN)
    assert pull("a/m").read_bytes() == weights
    assert {r.headers.get("authorization") for r in near.large_requests()} == {None}  # the token stays with the hub
    near.repos["a/n"] = Repo({"m-Q4_K_M.gguf": weights + b"n"}, gated="terms")
    with pytest.raises(hub_errors.HubError, match="a/n is gated"):
        pull("a/n")
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    with pytest.raises(hub_errors.HubError, match="does not accept the token; set HF_TOKEN to a valid one"):
        hub.plan("a/m")


@pytest.mark.parametrize(
    ("status", "headers", "message"),
    [
        (429, {"Retry-After": "90"}, "too many requests; try again in 90 s"),
        (429, {"ratelimit": '"api";r=0;t=250'}, "try again in 5 minutes"),
        (429, {}, "try again in a few minutes"),
        (403, {}, "access is forbidden"),
        (503, {}, "answers 503; try again later"),
        (200, {}, "does not answer as a hub does"),
    ],
)
def test_refusals(near: Hub, status: int, headers: dict[str, str], message: str) -> None:
    near.refuse = (status, headers)
    with pytest.raises(hub_errors.HubError, match=message) as caught:
        hub.plan("a/m")
    assert "\n" not in str(caught.value)


def test_a_refusal_half_way(near: Hub, weights: bytes) -> None:
    near.repos["a/m"] = Repo({"m-Q4_K_M.gguf": weights})
    plan = hub.plan("a/m")
    near.refuse = (429, {"Retry-After": "7"})
    with pytest.raises(hub_errors.HubError, match="try again in 7 s"):
        fetching.download(plan)
    near.refuse = (502, {})
    with pytest.raises(hub_errors.HubError, match="run the same command again"):
        fetching.download(plan)


def test_offline(near: Hub, weights: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    near.repos[QWEN] = gguf_repo(weights, "Q4_K_M")
    path = pull("r1:1.5b")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(hub_errors.HubError, match="HF_HUB_OFFLINE is set; unset it to download"):
        hub.plan("r1:7b")
    assert library.find("r1:1.5b") == path  # what is here needs no network
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(hub_errors.HubError, match=r"cannot be reached at http://127.0.0.1:9 .*check the connection"):
        hub.plan("r1:7b")


def test_repositories_without_usable_files(near: Hub) -> None:
    near.repos |= {"a/pickle": Repo({"config.json": b"{}", "pytorch_model.bin": b"x"}), "a/none": Repo({"README.md": b"x"})}
    with pytest.raises(hub_errors.HubError, match=r"as pickle only \(pytorch_model.bin\), which can run code"):
        hub.plan("a/pickle")
    with pytest.raises(hub_errors.HubError, match="a/none has no usable files, it holds no model files"):
        hub.plan("a/none")


def test_no_room_is_told_before_a_byte_comes(near: Hub, weights: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    near.repos["a/m"] = Repo({"m-Q4_K_M.gguf": weights})
    real = fetching.shutil.disk_usage
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: real(path)._replace(free=10_000_000))
    with pytest.raises(hub_errors.HubError, match=r"3\.\d MB are missing and 10\.0 MB are free"):
        pull("a/m")
    assert not near.large_requests()


def test_a_cache_that_cannot_be_used(near: Hub, weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    near.repos["a/m"] = Repo({"m-Q4_K_M.gguf": weights})
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file"))
    with pytest.raises(hub_errors.HubError, match=r"cache cannot be used: .*set HF_HOME to another place"):
        pull("a/m")


def test_names_and_hashes_from_the_hub_are_not_trusted(near: Hub, weights: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    near.repos["a/m"] = Repo({"../../m-Q4_K_M.gguf": weights})
    with pytest.raises(hub_errors.HubError):
        pull("a/m")
    near.repos["a/m"] = Repo({"m-Q4_K_M.gguf": weights})
    monkeypatch.setattr("hub_server.sha256", lambda data: "../../../x" if data == weights else hashlib.sha256(data).hexdigest())
    with pytest.raises(hub_errors.HubError, match="gives no hash"):
        pull("a/m")
