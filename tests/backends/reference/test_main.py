"""python -m backends.reference: other programs call it with these names and flags."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from backends.reference.__main__ import main


def test_logits(checkpoint, golden, tmp_path, capsys):
    expected, out = golden("deepseek_v3"), tmp_path / "logits"
    tokens = " ".join(map(str, expected["tokens_22"]))
    for flags in ([], ["--prefill", "7"], ["--prefill", "0"], ["--prefill", "99"], ["--fp8", "off"]):
        assert main(["logits", str(checkpoint("deepseek_v3")), "--tokens", tokens, "--out", str(out), *flags]) == 0
        found = np.load(out)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected["logits_22"], atol=2e-4)
    assert capsys.readouterr() == ("", "") and list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("mode", ["off", "weights", "full"])
def test_logits_of_fp8(mode, checkpoint, golden, tmp_path):
    expected, out = golden("deepseek_v3-fp8"), tmp_path / "logits.npy"
    tokens = ",".join(map(str, expected["tokens_22"]))
    assert main(["logits", str(checkpoint("deepseek_v3-fp8")), "--tokens", tokens, "--fp8", mode, "--out", str(out)]) == 0
    assert np.abs(np.load(out) - expected["logits_22"]).max() < (2e-4 if mode != "full" else 10)


def test_mtp(checkpoint, golden, tmp_path):
    expected, out = golden("deepseek_v3"), tmp_path / "mtp.npy"
    tokens = " ".join(map(str, expected["tokens_22"]))
    assert main(["mtp", str(checkpoint("deepseek_v3")), "--tokens", tokens, "--out", str(out)]) == 0
    np.testing.assert_allclose(np.load(out), expected["mtp_logits_22"], atol=2e-4)


def test_route(checkpoint, golden, tmp_path, capsys):
    expected = golden("deepseek_v2")
    command = ["route", str(checkpoint("deepseek_v2")), "--tokens", " ".join(map(str, expected["tokens_22"]))]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["tokens"] == expected["tokens_22"].tolist() and [layer["layer"] for layer in found["layers"]] == [1, 2]
    assert [np.sort(layer["experts"], -1).tolist() for layer in found["layers"]] == expected["experts_22"].tolist()
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * 22 and lines[0].startswith(f"layer 1  token {expected['tokens_22'][0]}  ")
    assert main([*command, "--plot", str(tmp_path / "route.svg")]) == 0
    svg = (tmp_path / "route.svg").read_text()
    assert svg.startswith("<svg") and svg.count("<title>") == 2 * 16 and "layer 2, expert 15" in svg


def test_route_of_families(checkpoint, golden, tmp_path, capsys):
    """Texts of a family are read one by one and counted together."""
    folder, ids = str(checkpoint("deepseek_v2")), golden("deepseek_v2")["tokens_22"].tolist()
    texts = [" ".join(map(str, part)) for part in (ids[:10], ids[10:])]
    for part in texts:
        assert main(["route", folder, "--tokens", part, "--json"]) == 0
    alone = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    command = ["route", folder, "--tokens", f"add: {texts[0]}", "--tokens", f"a<b:{texts[1]}", "--tokens", f"add:{texts[1]}"]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["add", "a<b"] and found["a<b"] == alone[1] and found["add"]["tokens"] == ids
    assert found["add"]["layers"][1]["experts"] == alone[0]["layers"][1]["experts"] + alone[1]["layers"][1]["experts"]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "add:" and lines[45] == "a<b:" and len(lines) == 2 + 2 * 22 + 2 * 12
    assert main([*command, "--plot", str(tmp_path / "route.svg")]) == 0
    svg = (tmp_path / "route.svg").read_text()
    assert svg.count("<title>") == 2 * 2 * 16 and "layer 2, a&lt;b, expert 15" in svg and svg.count("bold") == 2


def test_inspect(checkpoint, capsys):
    assert main(["inspect", str(checkpoint("deepseek_v3-fp8"))]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in out.splitlines()[1:]}
    assert "latent attention, block FP8" in out
    assert rows["layers.0"][1:] == ["dense", "320,920", "320,920", "321,744", "608"]
    # 16 experts of 3 x 160 x 192, of which 4 are visited
    assert int(rows["layers.1"][5].replace(",", "")) - int(rows["layers.1"][6].replace(",", "")) == 12 * 3 * 160 * 192
    assert rows["total"][1:3] == ["without", "mtp"] and rows["layers.3"][1:3] == ["mtp", "moe"]
    assert int(rows["layers.3"][4].replace(",", "")) < int(rows["layers.3"][3].replace(",", "")) - 160 * 191  # one row of its embedding
    assert main(["inspect", str(checkpoint("qwen2-tied"))]) == 0
    tied = capsys.readouterr().out.splitlines()[3].split()  # the embedding is looked up, and is the head
    assert int(tied[3].replace(",", "")) == int(tied[2].replace(",", "")) + 64
    assert main(["inspect", str(checkpoint("llama"))]) == 0
    assert "grouped-query attention" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["logits", "{nowhere}", "--tokens", "1"], "not a folder"),
        (["logits", "{qwen2}", "--tokens", "160"], "token 160 is outside the vocabulary"),
        (["logits", "{qwen2}", "--tokens", "-1"], "token -1 is outside the vocabulary"),
        (["logits", "{qwen2}", "--tokens", "1", "--fp8", "full"], "holds no FP8 weights"),
        (["mtp", "{qwen2}", "--tokens", "1 2"], "no MTP layer"),
        (["mtp", "{deepseek_v3}", "--tokens", "1"], "at least two"),
        (["route", "{qwen2}", "--tokens", "1"], "no experts"),
    ],
)
def test_failures_are_one_line_and_leave_no_file(arguments, said, checkpoint, tmp_path, capsys):
    kinds = {kind: checkpoint(kind) for kind in ("qwen2", "deepseek_v3")}
    filled = [a.format(nowhere=tmp_path / "nowhere", **kinds) for a in arguments]
    out = [] if arguments[0] == "route" else ["--out", str(tmp_path / "out.npy")]
    assert main([*filled, *out]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and said in captured.err
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(checkpoint, tmp_path, capsys):
    out = tmp_path / "missing" / "out.npy"
    assert main(["logits", str(checkpoint("qwen2")), "--tokens", "1", "--out", str(out)]) == 1
    assert str(out) in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["logits", "x"], ["logits", "x", "--tokens", "one", "--out", "y"], ["logits", "x", "--tokens", "", "--out", "y"], []]
)
def test_wrong_usage(arguments):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2


def test_as_a_program(checkpoint, tmp_path):
    command = [sys.executable, "-m", "backends.reference", "logits", str(checkpoint("qwen2")), "--tokens", "1 2", "--out", "out.npy"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "") and np.load(tmp_path / "out.npy").shape == (2, 160)
