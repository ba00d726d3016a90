"""`localr1 settings`: what holds, where it comes from, the file's place, a first file, one value written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from localr1 import paths
from localr1.cli import main
from localr1.settings import rows
from localr1.settings_file import read, template
from localr1.settings_layers import layers_for


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    file = tmp_path / "config.toml"
    monkeypatch.setenv("LOCALR1_CONFIG", str(file))
    return file


def test_every_setting_is_shown_with_its_origin(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text('[sampling]\ntop_p = 0.9\n[keys]\nfold = "f9"\n[models.r1-tiny]\nsampling.temperature = 0.65\n')
    assert main(["settings", "--seed", "7"]) == 0
    head, _, *lines = capsys.readouterr().out.splitlines()
    assert head == f"For r1-tiny; the file is {config}"
    shown = {line.split(None, 1)[0]: line.split(None, 1)[1].split("  ") for line in lines}
    assert shown.keys() == rows().keys() | {"keys.fold"}
    where = {key: (words[0], words[-1].strip()) for key, words in shown.items()}
    assert where["sampling.temperature"] == ("0.65", "[models.r1-tiny] config.toml:6")
    assert where["sampling.top_p"] == ("0.9", "config.toml:2") and where["sampling.seed"] == ("7", "flag")
    assert where["keys.fold"] == ("f9", "config.toml:4") and where["sampling.min_p"] == ("0", "default")
    assert main(["settings", "-m", "no-such-model"]) == 0  # which is no reason to keep silent
    assert "For no-such-model" in capsys.readouterr().out


def test_as_json(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "--json", "--no-latex"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["file"], shown["exists"], shown["model"]) == (str(config), False, "r1-tiny")
    assert shown["settings"]["look.latex"] == {"value": False, "origin": "flag"}
    assert shown["settings"]["sampling.seed"] == {"value": None, "origin": "default"}


def test_the_file_and_its_place(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "--path"]) == 0
    assert capsys.readouterr().out == f"{config}\n" and not config.exists()
    assert main(["settings", "--init"]) == 0
    assert capsys.readouterr().out == f"Written: {config}\n" and config.read_text() == template()
    config.write_text("# mine")
    assert main(["settings", "--init"]) == 1
    assert "is there already" in capsys.readouterr().err and config.read_text() == "# mine"


def test_one_value_is_written(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["temperature", "0.7", "-m", "r1:7b"], ["look.latex", "off"], ["keys.fold", "f9"]):
        assert main(["settings", "set", *arguments]) == 0
    assert read(config).general.values == {"look.latex": False, "keys.fold": "f9"}
    assert read(config).models["r1:7b"].values == {"sampling.temperature": 0.7}
    assert main(["settings", "set", "latex", "none"]) == 0
    assert "look.latex" not in read(config).general.values
    before = config.read_text()
    for arguments, said in ((["latex", "maybe"], "true or false"), (["latx", "on"], "did you mean look.latex?"), (["mouse", "off", "-m", "x"], "leave -m away"), (["keys.fold", "a"], "needed for typing")):  # fmt: skip
        capsys.readouterr()
        assert main(["settings", "set", *arguments]) == 1
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1 and config.read_text() == before


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_value_for_a_model_that_is_named_by_its_path_is_in_force(
    kind: str, config: Path, tmp_path: Path, student_gguf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / ("a.b-Q8.gguf" if kind == "file" else "R1-1.5B")
    model.symlink_to(student_gguf if kind == "file" else paths.assets() / "r1-tiny")
    assert main(["settings", "set", "temperature", "0.33", "-m", str(model)]) == 0
    layers, spec = layers_for({"model.name": str(model)})
    assert layers.settings.sampling.temperature == 0.33 and list(read(config).models) == [spec.name]
    capsys.readouterr()
    assert main(["settings", "-m", str(model)]) == 0
    assert "0.33" in capsys.readouterr().out


def test_keys_that_clash_are_told_with_their_line(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text('[keys]\nfold = "ctrl+t"\n')
    assert main(["settings"]) == 1
    assert capsys.readouterr().err.startswith(f"localr1: {config}:2: keys.fold: Ctrl+T is the key of trace")
