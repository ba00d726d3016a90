"""`localr1 verify --against`: engines and quantizations that say the same, and ones that do not."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from backends.base import Token
from backends.compare import first_difference
from localr1 import cli, paths
from localr1.verifying import against
from quantize.convert import convert

STUDENT = str(paths.assets() / "r1-tiny")


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(against, "WINDOWS", 2)
    monkeypatch.setattr(against, "GREEDY_TOKENS", 24)


def test_the_bundled_model_says_the_same_in_llama_cpp(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", "@reference", "--against", "@gguf", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    first, *others = found["sides"]
    assert (found["version"], found["agree"], found["tolerance"]) == (1, True, against.TOLERANCE)
    assert (first["backend"], first["comparison"], first["greedy_difference"]) == ("reference", None, None)
    assert others[0]["backend"] == "gguf" and others[0]["format"] == "F16"
    for side in others:
        assert side["comparison"]["kl_mean"] < against.TOLERANCE and side["greedy_difference"] is None


def test_a_quantization_beyond_the_tolerance_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(Path(STUDENT), tmp_path / "q.gguf", "Q2_K")
    command = ["verify", "r1-tiny", "--against", str(tmp_path / "q.gguf"), "--svg", str(tmp_path / "v.svg")]
    assert cli.main(command) == 1
    out = capsys.readouterr().out
    assert "they DIFFER: mean KL divergence above 0.001 nats" in out and "greedy, token" in out and "(the baseline)" in out
    assert cli.main([*command, "--tolerance", "5"]) == 0
    assert "they agree: mean KL divergence at most 5 nats" in capsys.readouterr().out
    picture = ET.parse(tmp_path / "v.svg").getroot()
    assert len(picture.findall(".//{http://www.w3.org/2000/svg}circle")) == 1


def test_what_was_measured_is_told_though_its_picture_cannot_be_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(against, "WINDOWS", 1)
    command = ["verify", "@gguf", "--against", "@gguf", "--tolerance", "0", "--svg"]
    assert cli.main([*command, str(tmp_path / "none" / "v.svg")]) == 1
    told = capsys.readouterr()
    assert "they agree" in told.out and "No such file" in told.err
    assert cli.main([*command, str(tmp_path / "v.svg")]) == 0
    assert "circle" in (tmp_path / "v.svg").read_text()


def test_what_cannot_be_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(Path(STUDENT), tmp_path / "q.gguf", "Q8_0")
    assert cli.main(["verify", str(tmp_path / "q.gguf")]) == 1
    assert "give what to compare it with: --against" in capsys.readouterr().err
    assert cli.main(["verify", "--against", "nosuch"]) == 1
    assert "no model called 'nosuch'" in capsys.readouterr().err
    for wrong in (
        ["--tolerance", "-1"],
        ["--tolerance", "1"],
        ["--svg", "x.svg"],
        ["r1-tiny@gguf"],
        ["--against", "x", "--markdown"],
        ["--against", "x", "--tolerance", "inf"],
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(["verify", *wrong])
        assert ended.value.code == 2


def test_where_continuations_part() -> None:
    a, b = [[Token(i, "", 0.0) for i in ids] for ids in ([1, 2, 3], [1, 2, 4])]
    assert (first_difference(a, a), first_difference(a, b), first_difference(a, a[:2]), first_difference([], [])) == (None, 2, 2, None)
