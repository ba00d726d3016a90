"""The whole proof of the bundle: briefly here, as it is behind `slow`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from localr1 import cli
from localr1.verifying import bundle, engines
from localr1.verifying.lines import Check, Line

LIMIT_S = 120


def test_the_bundle_briefly(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(bundle, "golden_checks", lambda tiny, real=bundle.golden_checks: real(tiny)[:3])
    monkeypatch.setattr(engines, "QUANTIZATIONS", {"Q8_0": engines.QUANTIZATIONS["Q8_0"]})
    monkeypatch.setattr("localr1.verifying.subject.WINDOW_TOKENS", 64)
    monkeypatch.setattr("localr1.verifying.subject.WINDOWS", 2)
    monkeypatch.setattr("localr1.verifying.checkpoint.NEW_TOKENS", 16)
    assert cli.main(["verify", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    names = [line["name"] for line in found["lines"]]
    assert found["model"] == "the bundle" and names[:2] == ["checksums of the bundle", "E4M3 codes decoded"] and "student: Q8_0" in names
    assert {line["status"] for line in found["lines"]} <= {"PASS", "skipped"}
    assert any(name.startswith("teacher") for name in names)


def test_ctrl_c_leaves_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    folders: list[Path] = []

    def interrupted(assets: Path, scratch: Path) -> list[Check]:
        def run() -> list[Line]:
            (scratch / "half.gguf").write_bytes(b"half")
            folders.append(scratch)
            raise KeyboardInterrupt

        return [Check("conversion", run)]

    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("localr1.verifying.command.bundle_checks", interrupted)
    assert cli.main(["verify"]) == 130
    assert capsys.readouterr() == ("", "") and not folders[0].exists()


@pytest.mark.slow
def test_the_whole_bundle_in_two_minutes() -> None:
    command = [sys.executable, "-m", "localr1.cli", "verify", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "") and found["seconds"] < LIMIT_S
    assert [line for line in found["lines"] if line["status"] not in ("PASS", "skipped")] == []
