"""`localr1 bench`: what counts as reading and writing, what is told, and the real thing on the bundled model."""

from __future__ import annotations

import json

import pytest

from backends.base import EngineError
from localr1 import benching, cli
from localr1.benching import Measured, Speed, Work, show, speeds
from localr1.models import ModelSpec
from scripted import ScriptedBackend


def test_every_round_writes_as_much() -> None:
    """A model that ends its reply is given the text's next token and goes on; reading is timed once."""
    backend = ScriptedBackend(["a"] * 4, ["b"] * 9, ["c"] * 2, [], ["d"] * 9)
    reading, writing = speeds(backend, 10, Work((10,), new=6, rounds=1))
    assert [len(ids) for ids in backend.seen] == [10, 10 + 4 + 1, 10, 10 + 2 + 1, 10 + 2 + 1 + 1]
    assert [s.max_tokens for s in backend.samplings] == [7, 3, 7, 5, 5]  # the first token comes of reading
    assert backend.seen[0] == backend.seen[2]  # and each begins anew
    assert len(backend.prefilled) == 2 and backend.prefilled[0][0] != backend.seen[0][0]
    assert reading.middle == pytest.approx(10 / 0.01) and writing.middle == pytest.approx(6 / 0.07)  # the script's own seconds


def test_a_model_that_writes_nothing_is_no_division_by_zero() -> None:
    with pytest.raises(EngineError, match="scripted writes nothing behind running text"):
        speeds(ScriptedBackend(*[[]] * 20), 10, Work((10,), new=6, rounds=1))


def measured(model: str, prompt: int, read: float, write: float) -> Measured:
    return Measured(model, "gguf", "Q4_K_M", 4_700_000_000, 2.5, prompt, Speed(read, read, read), Speed(write, write * 0.9, write * 1.08))


def test_what_was_measured_is_told_when_the_next_model_fails(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def one(spec: ModelSpec, backend: str, *rest: object) -> list[Measured]:
        if backend == "reference":
            raise EngineError("a name with \x1b]0;an escape\x07 does not fit")
        return [measured(spec.name, 512, 100, 10)]

    monkeypatch.setattr(benching, "_of_one", one)
    assert cli.main(["bench", "r1-tiny", "@reference"]) == 1
    said = capsys.readouterr()
    assert "r1-tiny  gguf" in said.out and "␛]0;an escape" in said.err and "\x1b" not in said.err


def test_what_is_told_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    show([measured("r1:7b", 512, 150.0, 9.5)])
    assert capsys.readouterr().out.splitlines() == [
        "model  engine       prompt  reads/s  writes/s",
        "r1:7b  gguf Q4_K_M     512      150       9.5",
        "a second, in tokens",
        "r1:7b (gguf Q4_K_M, 4.70 GB) opened in 2.5 s; 2,000 tokens of thought: 4 min",
        "  its rounds differ by 20%: something else was running, or heat slowed it",
    ]


def test_several_are_compared_behind_the_same_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    show([measured("a", 64, 100, 10), measured("a", 512, 50, 8), measured("b\x1b[2J", 64, 150, 5), measured("b", 512, 100, 2)])
    out = capsys.readouterr().out
    assert [line.split()[-2:] for line in out.splitlines()[1:5]] == [["1.00", "1.00"], ["1.00", "1.00"], ["1.50", "0.50"], ["2.00", "0.25"]]
    assert "\x1b" not in out


def test_the_bundled_model_on_two_engines(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "r1-tiny", "r1-tiny@reference", "--prompt", "48,16", "--new", "4", "--rounds", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rounds"], found["new_tokens"]) == (1, 4)
    assert [(m["backend"], m["prompt_tokens"]) for m in found["models"]] == [
        ("gguf", 16),
        ("gguf", 48),
        ("reference", 16),
        ("reference", 48),
    ]
    for model in found["models"]:
        assert all(0 < m["least"] <= m["median"] <= m["most"] for m in (model["prefill_tokens_per_s"], model["decode_tokens_per_s"]))


@pytest.mark.parametrize("words", [["--prompt", "0"], ["--prompt", "4,x"], ["--prompt", ""], ["--new", "0"], ["--rounds", "-1"], [""]])
def test_wrong_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["bench", *words])
    assert "localr1 bench: error: argument" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "remedy"), [(["--prompt", "100000"], "choose --prompt 3968 or less"), (["--new", "5000"], "choose fewer of both")]
)
def test_more_than_the_model_was_trained_for(words: list[str], remedy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "r1-tiny", *words]) == 1
    told = capsys.readouterr().err
    assert "r1-tiny was trained for 4,096 tokens" in told and remedy in told and "context" not in told


def test_a_name_that_means_nothing_is_told_before_anything_is_opened(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "r1-tiny", "no-such-model"]) == 1
    captured = capsys.readouterr()
    assert "no model called 'no-such-model'" in captured.err and not captured.out
