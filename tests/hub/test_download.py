"""Downloads with the real huggingface_hub against a hub on loopback: whole, broken off, damaged, two at once."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hub.pulls import QWEN, STEM, gguf_repo, pull
from hub_server import Hub, Repo, sha256

from localr1 import fetching, hub, hub_errors


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
