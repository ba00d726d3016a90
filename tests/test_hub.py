"""`localr1 pull` with the real huggingface_hub against a hub on loopback (hub_server)."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_server import Hub, Repo, sha256

from localr1 import fetching, fitting, hub, hub_errors, library, paths, pulling
from localr1.aliases import FAMILY
from localr1.choosing import folder_files, gguf_models, preferred, quant_of

# the command line, with the commands in it whether or not cli has them already
PROGRAM = """
import signal, sys
from localr1 import cli
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has it ignored
sys.exit(cli.main(sys.argv[1:]))
"""
QWEN = "bartowski/DeepSeek-R1-Distill-Qwen-1.5B-GGUF"
STEM = "DeepSeek-R1-Distill-Qwen-1.5B"


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


# --- names and choices


def test_quantizations_are_read_from_names() -> None:
    for stem, quant in {
        "DeepSeek-R1-Distill-Qwen-7B-Q4_K_M": "Q4_K_M", "m.i1-IQ2_XXS": "IQ2_XXS", "DeepSeek-R1-0528-Qwen3-8B-UD-Q4_K_XL": "UD-Q4_K_XL",
        "model-f16": "F16", "model.fp16": "F16", "gpt-MXFP4": "MXFP4", "model-BF16": "BF16", "model-TQ1_0": "TQ1_0", "model": "", "Q": "",
        "DeepSeek-R1-Distill-Qwen-1.5B": "",
    }.items():  # fmt: skip
        assert quant_of(stem) == quant, stem


def test_parts_are_one_model_and_helpers_are_none() -> None:
    sizes = {f"Q8_0/big-Q8_0-0000{n}-of-00003.gguf": 10 for n in (1, 2, 3)} | {
        "big-Q4_K_M-00001-of-00002.gguf": 10, "mmproj-F16.gguf": 1, "big-imatrix.gguf": 1, "big.imatrix": 1,
    }  # fmt: skip
    half, whole = gguf_models(sizes)
    assert (half.quant, half.complete, half.nbytes) == ("Q4_K_M", False, 10)
    assert whole.files[0].endswith("00001-of-00003.gguf") and whole.complete and whole.nbytes == 30


def test_q4_k_m_is_taken_where_it_fits_else_the_largest_that_does() -> None:
    models = gguf_models({"m-Q2_K.gguf": 2, "m-Q3_K_M.gguf": 3, "m-Q4_K_M.gguf": 4, "m-Q8_0.gguf": 8, "m-BF16.gguf": 16})
    taken = [preferred(models, lambda n, memory=memory: n <= memory).quant for memory in (20, 8, 4, 3, 2, 1)]
    assert taken == ["Q4_K_M", "Q4_K_M", "Q4_K_M", "Q3_K_M", "Q2_K", "Q2_K"]
    assert preferred(gguf_models({"m-Q6_K.gguf": 6, "m-F16.gguf": 16}), lambda n: True).quant == "Q6_K"


def test_of_a_folder_only_what_is_needed_comes() -> None:
    names = [
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md", "LICENSE", "pytorch_model.bin",
        "original/params.json", "figures/a.png", "consolidated.safetensors", "model-Q4.gguf",
    ]  # fmt: skip
    assert folder_files(names) == ["LICENSE", "README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert folder_files(["model.safetensors"]) == folder_files(["config.json"]) == []


def test_short_names_lead_to_places_and_say_what_they_are() -> None:
    assert [alias.name for alias in FAMILY] == ["r1:1.5b", "r1:7b", "r1:8b", "r1:14b", "r1:32b", "r1:70b", "r1-0528:8b"]
    assert [p.repo for p in hub.wanted("R1:1.5B")] == [QWEN, f"unsloth/{STEM}-GGUF"]
    assert hub.wanted("r1:7b", source=True)[0].repo == "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"
    assert (
        hub.wanted("r1:7b", form="mlx")[0].repo
        == hub.wanted("r1:7b", quant="4bit")[0].repo
        == "mlx-community/DeepSeek-R1-Distill-Qwen-7B-4bit"
    )
    assert hub.wanted("https://huggingface.co/a/b:x.gguf")[0] == hub.wanted("hf.co/a/b:x.gguf")[0] == hub.Wanted("a/b", None, "x.gguf")
    assert all(alias.title.startswith(alias.family + ", base ") and alias.family != "R1" for alias in FAMILY)
    assert {alias.name for alias in FAMILY if not alias.mlx.checked} == {"r1:8b"}


def test_apple_silicon_takes_mlx_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "is_apple_silicon", lambda: True)
    assert [p.form for p in hub.wanted("r1:7b")] == ["mlx", "gguf", "gguf"]
    assert [p.form for p in hub.wanted("r1:7b", quant="Q4_K_M")] == ["gguf", "gguf"]


@pytest.mark.parametrize("ref", ["", "r1", "r1:9b", "a", "a/b/c", "../b", "a/..", "a b/c", "a/b:", "-/-\n"])
def test_what_is_no_name_is_told(ref: str) -> None:
    with pytest.raises(hub_errors.HubError, match=r"neither a short name \(r1:1.5b, .*nor owner/name"):
        hub.wanted(ref)


# --- downloads


def test_a_pull_fills_the_hubs_own_cache(near: Hub, weights: bytes) -> None:
    from huggingface_hub import constants, try_to_load_from_cache

    near.repos[QWEN] = gguf_repo(weights, "Q2_K", "Q4_K_M", "Q8_0")
    plan = hub.plan("r1:1.5b")
    assert plan.title == "R1-Distill, base Qwen2.5-Math-1.5B, Q4_K_M" and plan.quant == "Q4_K_M" and plan.fits
    assert plan.missing_bytes == plan.total_bytes == len(weights) + 32 and set(plan.others) == {"Q2_K", "Q8_0"}
    path = fetching.download(plan)
    assert path.read_bytes() == weights + bytes(32)
    # as huggingface_hub would have it, so that other tools find it; and nothing half-written
    assert try_to_load_from_cache(QWEN, f"{STEM}-Q4_K_M.gguf") == str(path)
    assert path.is_symlink() and path.resolve() == Path(constants.HF_HUB_CACHE) / path.parents[2].name / "blobs" / sha256(
        weights + bytes(32)
    )
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.incomplete")) and len(near.large_requests()) == 1
    assert hub.plan("r1:1.5b").missing_bytes == 0 and pull("r1:1.5b") == path and len(near.large_requests()) == 1


def test_a_quantization_or_a_file_can_be_named(near: Hub, weights: bytes) -> None:
    near.repos[QWEN] = gguf_repo(weights, "Q2_K", "Q4_K_M", "Q8_0")
    assert hub.plan("r1:1.5b", quant="q8_0").files[0].name == f"{STEM}-Q8_0.gguf"
    assert hub.plan(f"{QWEN}:Q2_K").quant == hub.plan(f"{QWEN}:{STEM}-Q2_K.gguf").quant == "Q2_K"
    with pytest.raises(hub_errors.HubError, match=r"has no 'Q5_0'; it has Q2_K, Q4_K_M, Q8_0"):
        hub.plan("r1:1.5b", quant="Q5_0")
    with pytest.raises(hub_errors.HubError, match="leave one of the two away"):
        hub.plan(f"{QWEN}:Q2_K", quant="Q8_0")


def test_what_fits_depends_on_the_machine(near: Hub, weights: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    near.repos[QWEN] = gguf_repo(weights, "Q2_K", "Q4_K_M")
    memory = int((fitting.REST_BYTES + len(weights) + 16) / fitting.SHARE)
    monkeypatch.setattr(fitting, "machine", lambda: (memory, memory))
    assert hub.plan("r1:1.5b").quant == "Q2_K"
    monkeypatch.setattr(fitting, "machine", lambda: (10**9, 10**9))
    assert not hub.plan("r1:1.5b").fits


def test_a_checkpoint_folder_comes_whole(near: Hub, folder: dict[str, bytes]) -> None:
    near.repos["deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"] = Repo({**folder, "figures/x.png": b"x", "pytorch_model.bin": b"x"})
    path = pull("r1:1.5b", source=True)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == folder
    near.repos["mlx-community/DeepSeek-R1-Distill-Qwen-1.5B-4bit"] = Repo(folder, tags=["mlx"])
    plan = hub.plan("r1:1.5b", form="mlx")
    assert (plan.form, plan.quant, plan.title) == ("mlx", "4bit", "R1-Distill, base Qwen2.5-Math-1.5B, 4bit")
    with pytest.raises(hub_errors.HubError, match="holds one checkpoint"):
        hub.plan("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B:Q4_K_M")
    with pytest.raises(hub_errors.HubError, match="has no mlx files, it holds safetensors, not made for MLX"):
        hub.plan("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", form="mlx")


def test_all_parts_of_a_split_file_come(near: Hub, weights: bytes) -> None:
    parts = {f"m-Q8_0-0000{n}-of-00002.gguf": weights + bytes(n) for n in (1, 2)}
    near.repos["some/m-GGUF"] = Repo(parts)
    path = pull("some/m-GGUF")
    assert path.name == "m-Q8_0-00001-of-00002.gguf" and {p.name for p in path.parent.iterdir()} == set(parts)
    near.repos["some/m-GGUF"] = Repo({"m-Q8_0-00002-of-00002.gguf": weights})
    with pytest.raises(hub_errors.HubError, match="parts of m-Q8_0 are missing there"):
        hub.plan("some/m-GGUF")


def test_a_second_place_is_tried(near: Hub, weights: bytes) -> None:
    near.repos[f"unsloth/{STEM}-GGUF"] = gguf_repo(weights, "Q4_K_M")
    assert hub.plan("r1:1.5b").repo == f"unsloth/{STEM}-GGUF"


def test_a_quantization_that_only_the_second_place_has(near: Hub, weights: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    near.repos[QWEN] = gguf_repo(weights, "Q4_K_M")
    near.repos[f"unsloth/{STEM}-GGUF"] = gguf_repo(weights, "UD-IQ1_M")
    assert hub.plan("r1:1.5b", quant="UD-IQ1_M").repo == f"unsloth/{STEM}-GGUF"
    with pytest.raises(hub_errors.NotThere, match=f"{QWEN} has no 'Q5_0'; it has Q4_K_M"):
        hub.plan("r1:1.5b", quant="Q5_0")
    monkeypatch.setattr(fitting, "machine", lambda: (10**9, 10**9))
    near.repos[f"unsloth/{STEM}-GGUF"] = Repo({"README.md": b"x"})
    assert hub.plan("r1:1.5b").repo == QWEN  # too large, and there is nothing smaller


def test_a_broken_connection_is_taken_up_where_it_broke(near: Hub, weights: bytes) -> None:
    near.repos[QWEN] = gguf_repo(weights, "Q4_K_M")
    near.cut, near.cut_at = 3, len(weights) // 5
    assert pull("r1:1.5b").read_bytes() == weights
    ranges = [r.headers.get("range") for r in near.large_requests()]
    assert ranges[0] is None and ranges[1:] == [f"bytes={n * near.cut_at}-" for n in (1, 2, 3)]


def test_after_a_few_tries_it_stops_and_the_next_run_goes_on(near: Hub, weights: bytes) -> None:
    near.repos[QWEN] = gguf_repo(weights, "Q4_K_M")
    near.cut, near.cut_at = 1, 100_000
    fails = iter([lambda: None])
    near.before_large = lambda: next(fails, lambda: setattr(near, "cut_at", 0) or setattr(near, "cut", 1))()
    with pytest.raises(hub_errors.HubError, match=r"broke at 0\.1 MB of 3\.\d MB .* kept, run the same command again to go on"):
        pull("r1:1.5b")
    assert len(near.large_requests()) == 1 + fetching.TRIES
    near.before_large, near.cut = lambda: None, 0
    plan = hub.plan("r1:1.5b")
    assert plan.missing_bytes == len(weights) - 100_000
    assert fetching.download(plan).read_bytes() == weights
    assert near.large_requests()[-1].headers["range"] == "bytes=100000-"


def test_a_server_without_ranges_starts_over(near: Hub, weights: bytes) -> None:
    near.repos[QWEN] = gguf_repo(weights, "Q4_K_M")
    near.cut, near.cut_at, near.ranges = 1, 100_000, False
    assert pull("r1:1.5b").read_bytes() == weights


def test_a_file_that_changed_between_tries_is_not_glued(near: Hub, weights: bytes) -> None:
    near.repos[QWEN] = gguf_repo(weights, "Q4_K_M")
    old, near.cut, near.cut_at = hub.plan("r1:1.5b"), fetching.TRIES + 1, 0
    part = hub.partial(old.folder, old.files[0].etag)
    part.parent.mkdir(parents=True)
    part.write_bytes(weights[:100_000])
    near.repos[QWEN].files[f"{STEM}-Q4_K_M.gguf"] = changed = weights + b"new"
    near.cut = 0
    with pytest.raises(hub_errors.NotThere, match="no longer on the hub, it has changed meanwhile; run the same command again"):
        fetching.download(old)
    assert part.exists()
    assert pull("r1:1.5b").read_bytes() == changed
    assert not part.exists()  # the hub no longer has what it is a part of


@pytest.mark.parametrize("served", ["longer", "other", "shorter"])
def test_wrong_bytes_are_removed_and_told(near: Hub, weights: bytes, served: str) -> None:
    near.repos[QWEN] = gguf_repo(weights, "Q4_K_M")
    other = {"longer": weights + b"x", "other": b"x" + weights[1:], "shorter": weights[:-1]}[served]
    near.served[sha256(weights)] = other
    plan = hub.plan("r1:1.5b")
    with pytest.raises(hub_errors.HubError, match=r"another hash than the hub says .* removed"):
        fetching.download(plan)
    assert not (plan.folder / "snapshots").exists() and not (plan.folder / "blobs" / sha256(weights)).exists()
    assert not hub.partial(plan.folder, sha256(weights)).exists()
    near.served.clear()
    assert pull("r1:1.5b").read_bytes() == weights


def test_a_damaged_part_is_found_by_its_hash(near: Hub, weights: bytes) -> None:
    near.repos[QWEN] = gguf_repo(weights, "Q4_K_M")
    plan = hub.plan("r1:1.5b")
    part = hub.partial(plan.folder, sha256(weights))
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(1000))
    with pytest.raises(hub_errors.HubError, match="another hash"):
        fetching.download(plan)
    part.write_bytes(bytes(len(weights) + 1))  # longer than the file can be: not to be used at all
    assert pull("r1:1.5b").read_bytes() == weights


def test_two_pulls_of_one_file_fetch_it_once(near: Hub, weights: bytes) -> None:
    near.repos[QWEN] = gguf_repo(weights, "Q4_K_M")
    arrived, go = threading.Event(), threading.Event()

    def hold() -> None:
        arrived.set()
        go.wait(20)

    near.before_large = hold
    plan, told, paths_ = hub.plan("r1:1.5b"), [], []
    one = threading.Thread(target=lambda: paths_.append(fetching.download(plan)))
    one.start()
    assert arrived.wait(20)
    waiting = threading.Event()

    def report(progress: fetching.Progress) -> None:
        told.append(progress.step)
        waiting.set()

    two = threading.Thread(target=lambda: paths_.append(fetching.download(plan, report)))
    two.start()
    assert waiting.wait(20)
    go.set()
    one.join(20), two.join(20)
    assert told == ["waiting"] and paths_[0] == paths_[1] and len(near.large_requests()) == 1
    assert paths_[0].read_bytes() == weights


# --- what the hub refuses


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


# --- the command


def test_pull_list_and_rm_from_the_command_line(server: Hub, weights: bytes, tmp_path: Path) -> None:
    server.repos[QWEN] = gguf_repo(weights, "Q4_K_M", "Q8_0")
    done = run(server, tmp_path, "pull", "r1:1.5b", "--json")
    assert done.returncode == 0 and not done.stderr, done.stderr
    made = json.loads(done.stdout)
    assert made["title"] == "R1-Distill, base Qwen2.5-Math-1.5B, Q4_K_M" and Path(made["path"]).read_bytes() == weights
    again = run(server, tmp_path, "pull", "r1:1.5b")
    assert again.returncode == 0 and "all of it is here" in again.stderr and again.stdout.endswith("is here: localr1 chat r1:1.5b\n")
    assert str(tmp_path / "hf") in again.stderr and len(server.large_requests()) == 1
    gone = run(server, tmp_path, "pull", "nobody/nothing")
    assert (
        gone.returncode == 1
        and gone.stderr.startswith("localr1: nobody/nothing: the hub knows no such model")
        and gone.stderr.count("\n") == 1
    )
    off = run(server, tmp_path, "pull", "r1:1.5b", env={"HF_HUB_OFFLINE": "1"})
    assert off.returncode == 1 and "HF_HUB_OFFLINE is set, and r1:1.5b is here already" in off.stderr
    listed = run(server, tmp_path, "list", "--json")
    assert {m["name"] for m in json.loads(listed.stdout)["models"]} == {"r1-tiny", f"{QWEN}:Q4_K_M"}
    asked = run(server, tmp_path, "rm", "r1:1.5b")
    assert asked.returncode == 1 and "nothing was removed" in asked.stderr and Path(made["path"]).exists()
    removed = run(server, tmp_path, "rm", "r1:1.5b", "--yes")
    assert removed.returncode == 0 and "are free" in removed.stdout and not Path(made["path"]).exists()


def test_an_interrupted_pull_goes_on(server: Hub, weights: bytes, tmp_path: Path) -> None:
    server.repos[QWEN] = gguf_repo(weights, "Q4_K_M")
    server.cut, server.cut_at = 1, 1_000_000
    stay = threading.Event()

    def stall() -> None:
        stay.wait(30)

    server.before_cut = stall
    command = [sys.executable, "-c", PROGRAM, "pull", "r1:1.5b"]
    with subprocess.Popen(command, env=environment(server, tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: any(part.stat().st_size for part in (tmp_path / "hf").rglob("*.incomplete")))
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stdout and not process.stdout.read() and process.stderr and "Traceback" not in process.stderr.read()
    stay.set()
    (part,) = (tmp_path / "hf").rglob("*.incomplete")
    have = part.stat().st_size
    assert 0 < have <= 1_000_000
    done = run(server, tmp_path, "pull", "r1:1.5b")
    assert done.returncode == 0 and "still to come" in done.stderr
    assert server.large_requests()[-1].headers["range"] == f"bytes={have}-"


def test_two_processes_pull_one_file(server: Hub, weights: bytes, tmp_path: Path) -> None:
    server.repos[QWEN] = gguf_repo(weights, "Q4_K_M")
    server.before_large = lambda: time.sleep(1.0)
    command = [sys.executable, "-c", PROGRAM, "pull", "r1:1.5b", "--json"]
    both = [subprocess.Popen(command, env=environment(server, tmp_path), stdout=subprocess.PIPE, text=True) for _ in range(2)]
    made = [json.loads(process.communicate(timeout=30)[0]) for process in both]
    assert made[0]["path"] == made[1]["path"] and Path(made[0]["path"]).read_bytes() == weights
    assert len(server.large_requests()) == 1 and [process.returncode for process in both] == [0, 0]


def test_what_does_not_fit_is_asked_for(
    near: Hub, weights: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    near.repos[QWEN] = gguf_repo(weights, "Q4_K_M", "Q8_0")
    for module in (fitting, pulling):
        monkeypatch.setattr(module, "machine", lambda: (10**9, 5 * 10**8))
    order = {"quant": "", "source": False, "form": None, "as_json": False}
    with pytest.raises(hub_errors.HubError, match=r"Qwen2\.5-Math-1\.5B, Q4_K_M does not fit this machine's memory; .* or pass --force"):
        pulling.pull("r1:1.5b", sure=False, **order)
    assert "does not fit: needs about 1.00 GB of 1.00 GB, 500.0 MB are free now" in capsys.readouterr().err and not near.large_requests()
    monkeypatch.setattr(pulling, "asked", lambda question: True)
    pulling.pull("r1:1.5b", sure=False, **order)
    pulling.pull("r1:1.5b", sure=True, **(order | {"quant": "Q8_0"}))
    assert f"Q8_0 is here: localr1 chat {QWEN}:Q8_0" in capsys.readouterr().out
    assert library.find(f"{QWEN}:Q8_0")


def test_damage_of_what_is_here_is_told(near: Hub, weights: bytes) -> None:
    near.repos[QWEN] = gguf_repo(weights, "Q4_K_M")
    path = pull("r1:1.5b")
    path.write_bytes(bytes(len(weights)))
    with pytest.raises(hub_errors.HubError, match=f"damaged .* localr1 rm {QWEN}:Q4_K_M, then pull it again"):
        pulling.pull("r1:1.5b", quant="", source=False, form=None, sure=False, as_json=True)
    library.remove(library.named_model(f"{QWEN}:Q4_K_M"))
    assert pull("r1:1.5b").read_bytes() == weights


def test_what_is_no_model_is_told(near: Hub, folder: dict[str, bytes]) -> None:
    near.repos["a/m"] = Repo({"m-Q4_K_M.gguf": folder["model.safetensors"]})
    with pytest.raises(hub_errors.BackendError, match="not a GGUF file"):
        pulling.pull("a/m", quant="", source=False, form=None, sure=False, as_json=True)


def test_beyond_50_gb_huggingface_hub_does_it_all(near: Hub, weights: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "HTTP_LIMIT_BYTES", 1000)
    near.repos[QWEN] = gguf_repo(weights, "Q4_K_M")
    near.served[sha256(weights)] = b"x" + weights[1:]
    with pytest.raises(hub_errors.HubError, match="another hash"):
        pull("r1:1.5b")
    near.served.clear()
    assert pull("r1:1.5b").read_bytes() == weights


def test_wrong_usage_and_the_family(server: Hub, tmp_path: Path) -> None:
    assert run(server, tmp_path, "pull", "r1:7b", "--source", "--quant", "Q4_K_M").returncode == 2
    family = run(server, tmp_path, "pull", "--json", env={"HF_HUB_OFFLINE": "1"})
    told = json.loads(family.stdout)
    assert [m["name"] for m in told["models"]] == [alias.name for alias in FAMILY] and told["bandwidth_known"]
    assert all(m["tokens_per_s"] > 0 for m in told["models"]) and not server.requests
