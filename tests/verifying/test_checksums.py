"""The bundle is as it was made."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from localr1 import paths
from localr1.verifying import checksums
from localr1.verifying.checksums import SUMS, covered, listed, main


def test_the_sums_hold() -> None:
    """After changing a bundled file: make sums."""
    (line,) = checksums.checksums(paths.assets())
    assert line.status == "PASS", line.note
    assert sum(file.stat().st_size for file in (paths.assets() / "goldens").iterdir() if file.is_file()) < 4e6


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    (tmp_path / "goldens").mkdir()
    for name in ("checkpoints.py", "e4m3.npz", "rope.npz"):
        shutil.copy(paths.assets() / "goldens" / name, tmp_path / "goldens")
    return tmp_path


@pytest.fixture
def written(assets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    monkeypatch.setattr(checksums.paths, "assets", lambda: assets)
    main()
    assert "3 files" in capsys.readouterr().out
    return assets


def test_a_changed_a_missing_and_a_foreign_file(written: Path) -> None:
    (line,) = checksums.checksums(written)
    assert (line.status, line.figure) == ("PASS", 0) and listed(written).keys() == covered(written).keys()
    file = written / "goldens" / "e4m3.npz"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    (line,) = checksums.checksums(written)
    assert (line.status, line.figure) == ("FAIL", 1) and line.note.startswith("goldens/e4m3.npz differs from SHA256SUMS")
    (written / "goldens" / "rope.npz").unlink()
    (written / "goldens" / "more.json").write_text("{}")
    (written / "goldens" / "card.md").write_text("")  # not covered
    (line,) = checksums.checksums(written)
    assert line.figure == 3 and "and 2 more differ" in line.note


def test_the_list_is_sha256sums_own(written: Path) -> None:
    digest, name = (written / SUMS).read_text().splitlines()[0].split("  ")
    assert len(digest) == 64 and name == "goldens/checkpoints.py"
