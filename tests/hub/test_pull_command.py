"""`localr1 pull` with the real huggingface_hub against a hub on loopback (hub_server)."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hub.pulls import PROGRAM, QWEN, environment, gguf_repo, pull, run, wait_for
from hub_server import Hub, Repo, sha256

from localr1 import fetching, fitting, hub_errors, library, pulling
from localr1.aliases import FAMILY


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


@pytest.mark.parametrize(("quant", "told"), [("Q8_0", f"{QWEN}:Q8_0"), ("8bit", "mlx-community/DeepSeek-R1-Distill-Qwen-1.5B-8bit")])
def test_the_command_that_is_told_finds_what_was_pulled(
    near: Hub, weights: bytes, folder: dict[str, bytes], capsys: pytest.CaptureFixture[str], quant: str, told: str
) -> None:
    near.repos[QWEN] = gguf_repo(weights, "Q4_K_M", "Q8_0")
    near.repos["mlx-community/DeepSeek-R1-Distill-Qwen-1.5B-8bit"] = Repo(folder, tags=["mlx"])
    pulling.pull("r1:1.5b", quant=quant, source=False, form=None, sure=True, as_json=False)
    assert capsys.readouterr().out.endswith(f"is here: localr1 chat {told}\n")
    assert library.find(told) is not None


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
