"""`localr1 doctor`: what it looks at, what it tells, and that it tells of no person."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from machines import CUDA, LINUX, M1_8GB, NO_LLAMACPP

from backends.hardware import Engine, Machine
from localr1 import cli, doctor
from localr1.doctor import Place, Report, Terminal, as_json, place, without_home
from localr1.self_test import SelfTest, self_test

WORKS = SelfTest((1, 2, 3), "abc", 0.1, 50.0)


def report(machine: Machine = LINUX, tests: dict[str, SelfTest] | None = None, places: dict[str, Place] | None = None) -> Report:
    """As `examine` makes it, of described things."""
    engines = {"gguf": machine.llamacpp, "mlx": machine.mlx, "reference": Engine("numpy 2.0", "CPU")}
    tests = {name: WORKS for name, engine in engines.items() if engine.here} if tests is None else tests
    places = places or {name: Place(f"{Path.home()}/.{name}", True, 10**11) for name in ("cache", "data", "models")}
    worked = {test.tokens for test in tests.values() if not test.error}
    same = len(worked) == 1 if sum(not test.error for test in tests.values()) > 1 else None
    needed, advised = doctor._todo(machine, engines, tests, same, places)
    terminal = Terminal("xterm-256color", "256", False, "iTerm.app", 80, 24, "utf-8", True)
    return Report({"localr1": "0.1.0", "mlx": ""}, machine, engines, 10**10, tests, same, places, terminal, needed, advised)


def command(*words: str) -> argparse.Namespace:
    return cli.parser().parse_args(["doctor", *words])


def test_this_machine_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    """The real thing: every engine that is here writes the same tokens."""
    args = command("--json")
    assert args.run(args) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] and found["same_tokens"] is True
    assert found["backends"]["gguf"]["device"] and found["versions"]["llama-cpp-python"]
    here = [name for name, engine in found["backends"].items() if not engine["missing"]]
    assert list(found["self_tests"]) == here and {"gguf", "reference"} <= set(here)
    assert all(len(test["tokens"].split()) == 24 for test in found["self_tests"].values())
    assert found["memory"]["for_models_bytes"] <= found["memory"]["total_bytes"]
    documented = {line.split()[0] for line in (doctor.__doc__ or "").splitlines() if line.startswith("    ")}
    assert set(found) - {"todo"} <= documented | {"ok"}


def test_what_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    doctor.show(report())
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\xa0" not in out  # a pipe
    for line in (
        "Versions",
        "  localr1 0.1.0, mlx missing",
        "  ok   llama.cpp     0.3.36 on the CPU",
        "  ok   data          ~/.data (100.0 GB free)",
    ):
        assert line in out.splitlines()
    assert "  note MLX           optional here: mlx and mlx-lm not installed; python -m pip install 'mlx[cpu]' mlx-lm" in out
    assert out.endswith("\nAll well.\n")


def test_a_narrow_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """80 columns: long texts go on below where they began; marks are words, with and without colour."""
    from rich.console import Console

    from localr1 import output

    monkeypatch.setattr(
        output, "console", lambda: Console(file=sys.stdout, force_terminal=True, width=80, color_system="standard", highlight=False)
    )
    doctor.show(report(replace(M1_8GB, llamacpp=NO_LLAMACPP, mlx=Engine("", missing="word " * 40))))
    lines = capsys.readouterr().out.splitlines()
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    assert max(map(len, plain)) <= 80
    at = next(i for i, line in enumerate(plain) if "BAD  MLX" in line)
    assert plain[at + 1].startswith(" " * 21 + "word")
    assert "\x1b[1;31mBAD\x1b[0m" in lines[at]


@pytest.mark.parametrize(
    ("machine", "needed"),
    [
        (LINUX, []),  # MLX is optional there
        (M1_8GB, []),
        (replace(M1_8GB, mlx=Engine("", missing="mlx not installed; install it")), ["MLX: mlx not installed; install it"]),
        (replace(LINUX, llamacpp=NO_LLAMACPP), [f"llama.cpp: {NO_LLAMACPP.missing}"]),
    ],
)
def test_what_is_needed(machine: Machine, needed: list[str]) -> None:
    made = report(machine)
    assert made.needed == needed and made.ok == (not needed)


def test_failures_are_told() -> None:
    tests = {"gguf": WORKS, "mlx": SelfTest(error="no Metal"), "reference": replace(WORKS, tokens=(1, 2, 4))}
    made = report(M1_8GB, tests)
    assert made.needed[0] == "MLX fails its self-test: no Metal" and "do not agree" in made.needed[1]
    assert as_json(made)["same_tokens"] is False
    broken = {"cache": Place("/c", True, 1), "data": Place("/d", False, 1), "models": Place("/m", True, 10**9)}
    made = report(LINUX, places=broken)
    assert made.needed == ["/d cannot be written; change its permissions, or set XDG_DATA_HOME to another folder"]
    assert "make room" in made.advised[0]


def test_a_gpu_that_lies_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert "make setup ENGINE=cuda" in report(LINUX).advised[0] and report(LINUX).ok
    assert report(CUDA).advised == []
    assert "ENGINE=metal" in report(replace(M1_8GB, gpus=())).advised[0]


def test_no_person_is_named() -> None:
    home = str(Path.home())
    made = report(replace(LINUX, llamacpp=Engine("", missing=f"gone; {home}/x/python -m pip install it")))
    assert home not in json.dumps(as_json(made)) and "~/x/python -m pip" in json.dumps(as_json(made))
    assert without_home({"a": [f"{home}, {home}/b", 3], "c": f"{home}longer"}) == {"a": ["~, ~/b", 3], "c": f"{home}longer"}


def test_folders(tmp_path: Path) -> None:
    found = place(tmp_path / "new" / "one")
    assert found.writable and found.free_bytes > 0 and list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    assert not place(tmp_path / "file").writable
    if hasattr(os, "geteuid") and os.geteuid() != 0:
        (tmp_path / "shut").mkdir(mode=0o500)
        assert not place(tmp_path / "shut").writable


def test_a_folder_that_cannot_be_looked_for(tmp_path: Path) -> None:
    assert place(tmp_path / ("x" * 300)).writable  # its parent, where it would be made


def test_an_engine_that_ends_its_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As one built for another processor does."""
    from localr1 import self_test as module

    def instead(code: str) -> None:
        real: Any = module.subprocess.Popen.__init__

        def start(self: Any, command: list[str], *args: Any, **more: Any) -> None:
            real(self, [sys.executable, "-c", code], *args, **more)

        monkeypatch.setattr(module.subprocess.Popen, "__init__", start)

    with monkeypatch.context():
        instead("import os; os.kill(os.getpid(), 4)")
        assert self_test("gguf").error == f"its process was ended by {signal.Signals(4).name}"
        monkeypatch.undo()
        instead("raise SystemError('no Metal device')")
        assert self_test("gguf").error == "SystemError: no Metal device"
        monkeypatch.undo()
        instead("import time; time.sleep(9)")
        assert self_test("gguf", timeout_s=0.3).error == "no answer within 0.3 seconds"
        monkeypatch.undo()
