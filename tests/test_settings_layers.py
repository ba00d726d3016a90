"""Which setting holds, where it comes from, and changing it from the chat."""

from __future__ import annotations

from pathlib import Path

import pytest

from localr1 import paths
from localr1.cli import parser
from localr1.flags import given
from localr1.models import resolve
from localr1.settings import Settings, rows
from localr1.settings_file import parse
from localr1.settings_layers import Layers, layers_for

FILE = parse(
    '[sampling]\ntemperature = 1.0\ntop_p = 0.9\n[keys]\nquit = "ctrl+q"\n[models."r1:7b"]\nsampling.temperature = 0.7\nsampling.seed = 4\n',
    Path("config.toml"),
)


def test_flags_win_over_a_models_own_values_over_the_file_over_defaults() -> None:
    layers = Layers(FILE, {"sampling.seed": 9})
    layers.open("r1:7b")
    settings = layers.settings
    assert (settings.sampling.temperature, settings.sampling.top_p, settings.sampling.min_p, settings.sampling.seed) == (0.7, 0.9, 0.0, 9)
    assert layers.origins == {
        "sampling.temperature": "[models.r1:7b] config.toml:7", "sampling.top_p": "config.toml:3", "sampling.seed": "flag",
        "keys.quit": "config.toml:5",
    }  # fmt: skip
    layers = Layers(FILE)
    sampling = layers.settings.sampling
    assert (sampling.temperature, sampling.seed, layers.origins["sampling.temperature"]) == (1.0, None, "config.toml:2")
    assert Layers(parse("", Path("x"))).settings == Layers().settings == Settings()


def test_a_model_is_known_by_its_name_and_by_its_files(tmp_path: Path) -> None:
    layers = Layers(parse('[models."Tiny-Q8"]\nsampling.seed = 4', tmp_path / "config.toml"))
    layers.open("tiny", tmp_path / "Tiny-Q8.gguf")
    assert layers.settings.sampling.seed == 4
    layers.open("tiny", tmp_path / "Tiny-Q4.gguf")
    assert layers.settings.sampling.seed is None


def test_flags_leave_what_is_not_given_to_the_file() -> None:
    for command in (["chat"], ["ask", "x"], ["trace", "compare", "x", "--against", "@mlx"]):
        assert given(parser().parse_args(command)) == {}
    args = ["ask", "x", "-m", "r1:7b", "--temperature", "0.7", "--no-history", "--system", "", "--think-budget", "none"]
    assert given(parser().parse_args(args)) == {
        "model.name": "r1:7b", "sampling.temperature": 0.7, "chat.history": False, "chat.system": "", "thinking.budget": None,
    }  # fmt: skip
    assert given(parser().parse_args(["chat", "--theme", "dark", "--no-latex", "--key", "quit=ctrl+q", "--key", "fold=f2,f3"])) == {
        "look.theme": "dark", "look.latex": False, "keys.quit": "ctrl+q", "keys.fold": "f2,f3",
    }  # fmt: skip


def test_every_setting_has_a_flag_of_the_chat() -> None:
    for row in rows().values():
        value = row.choices[-1] if row.choices else {int: "3", float: "0.5", str: "x", bool: ""}[row.kind]
        args = ["chat", value] if row.key == "model.name" else ["chat", row.flag, *([value] if value else [])]
        assert list(given(parser().parse_args(args))) == [row.key]


@pytest.mark.parametrize(
    "flags", [["--temperature", "70"], ["--when-full", "explode"], ["--key", "quit"], ["--key", "quit="], ["--price", "-1"]]
)
def test_flags_are_checked_as_the_file_is(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parser().parse_args(["chat", *flags])
    assert stopped.value.code == 2 and flags[0] in capsys.readouterr().err


def test_the_model_and_what_it_is_opened_with_come_from_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[model]\nname = "r1-tiny"\nbackend = "reference"\n[models.r1-tiny]\nmodel.context = 256\n')
    monkeypatch.setenv("LOCALR1_CONFIG", str(config))
    layers, spec = layers_for({"model.kv": "q8_0"})
    assert spec == resolve("r1-tiny")
    model = layers.settings.model
    assert (model.name, model.backend, model.context, model.kv) == ("r1-tiny", "reference", 256, "q8_0")


def test_a_wrong_file_is_told_in_one_line_and_blocks_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    from localr1.cli import main

    config = tmp_path / "config.toml"
    config.write_text("[sampling]\ntemperature = 70\n")
    monkeypatch.setenv("LOCALR1_CONFIG", str(config))
    assert main(["ask", "Hello?"]) == 1
    assert capsys.readouterr().err == f"localr1: {config}:2: sampling.temperature is 70, a number from 0 to 10 is needed\n"
    assert main(["list"]) == 0 and paths.assets().is_dir()
