"""Where a conversion is written: what is never replaced, and that nothing half-written bears the target's name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backends.base import ModelFileError
from localr1 import paths
from quantize.convert import Progress, convert
from quantize.errors import TargetError
from quantize.gguf_reader import read_gguf_header
from tests.quantize.refusals import contents, leftovers, refused

STUDENT = paths.assets() / "r1-tiny"


def test_targets_that_are_refused(make_checkpoint, tmp_path, monkeypatch):
    made = make_checkpoint()
    target = tmp_path / "m.gguf"
    weights = made.folder / "model.safetensors"
    with pytest.raises(TargetError, match="no such folder"):
        convert(made.folder, tmp_path / "none" / "m.gguf", "F16")
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, Path(), Path("/"), Path("..")):
        with pytest.raises(TargetError, match="is a folder"):
            convert(made.folder, folder, "F16")
    with pytest.raises(TargetError, match="cannot be used \\(File name too long"):
        convert(made.folder, tmp_path / ("x" * 300), "F16")
    os.mkfifo(tmp_path / "pipe")
    for special in (tmp_path / "pipe", Path("/dev/null")):  # opening the pipe would wait for ever
        for force in (False, True):
            with pytest.raises(TargetError, match="is a pipe or a device"):
                convert(made.folder, special, "F16", force=force)
    with pytest.raises(TargetError, match="not a GGUF file"):
        convert(made.folder, weights, "F16", force=True)
    convert(made.folder, target, "F16")
    with pytest.raises(TargetError, match="exists already"):
        convert(made.folder, target, "F16")
    convert(made.folder, tmp_path / "real.gguf", "F16")
    (tmp_path / "link.gguf").symlink_to("real.gguf")
    convert(made.folder, tmp_path / "link.gguf", "F32", force=True)
    assert (tmp_path / "link.gguf").is_symlink() and (tmp_path / "real.gguf").stat().st_size > target.stat().st_size
    for path in (target, tmp_path / "link.gguf", tmp_path / "real.gguf"):
        path.unlink()
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(TargetError, match="1,000 are free"):
        convert(made.folder, target, "F16")
    assert leftovers(tmp_path) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from quantize.convert import convert
convert(Path(sys.argv[1]), Path(sys.argv[2]), "Q8_0", on_progress=lambda _: os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_what_a_killed_conversion_left_is_removed(make_checkpoint, tmp_path):
    """By the next conversion to the same file, and only what no process holds: other files' leavings and live work stay."""
    made, target, other = make_checkpoint(), tmp_path / "m.gguf", tmp_path / "m.gguf.x.gguf"
    for to in (target, target, other):
        done = subprocess.run([sys.executable, "-c", KILLED, made.folder, to], cwd=Path(__file__).parents[2], check=False)
        assert done.returncode == -9
    left = set(tmp_path.glob("*.part"))
    assert len(left) == 2  # the second conversion has removed what the first one left
    (tmp_path / "m.gguf.localr1-0123abcd.part").symlink_to(target)
    (tmp_path / "m.gguf.backup.part").write_text("mine")
    inner: list[Progress] = []

    def convert_again(_: Progress) -> None:
        """In the middle of one conversion another one to the same file runs from start to end."""
        if not inner:
            convert(made.folder, target, "Q8_0", on_progress=inner.append)

    convert(made.folder, target, "F16", on_progress=convert_again, force=True)
    assert inner and read_gguf_header(target).metadata["general.file_type"] == 1  # the outer one ended last
    parts = sorted(p.name for p in tmp_path.glob("*.part"))
    stay = [next(p.name for p in left if p.name.startswith(other.name)), "m.gguf.localr1-0123abcd.part", "m.gguf.backup.part"]
    assert parts == sorted(stay)


def test_room_is_counted_after_stale_files_are_gone(make_checkpoint, tmp_path, monkeypatch):
    stale = tmp_path / "m.gguf.localr1-0123abcd.part"
    stale.write_bytes(b"GGUF")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 0 if stale.exists() else 1 << 40}))
    convert(make_checkpoint().folder, tmp_path / "m.gguf", "Q8_0")
    assert leftovers(tmp_path) == ["m.gguf"]


def test_the_source_is_never_replaced(make_checkpoint, tmp_path):
    made = make_checkpoint()
    convert(made.folder, tmp_path / "m.gguf", "F16")
    before = (tmp_path / "m.gguf").read_bytes()
    (tmp_path / "link.gguf").symlink_to("m.gguf")
    for source, target in (("m.gguf", "m.gguf"), ("link.gguf", "m.gguf"), ("m.gguf", "link.gguf")):
        assert "is what is converted" in refused(tmp_path / source, tmp_path / target, force=True)
    assert (tmp_path / "m.gguf").read_bytes() == before and (tmp_path / "link.gguf").is_symlink()
    convert(made.folder, tmp_path / "fp8", "fp8")
    before_folder = contents(tmp_path / "fp8")
    pytest.importorskip("mlx.core")
    assert "is what is converted" in refused(tmp_path / "fp8", tmp_path / "fp8", "mlx-4bit-g32", force=True)
    assert contents(tmp_path / "fp8") == before_folder


def test_a_link_to_nothing_is_not_replaced(make_checkpoint, tmp_path):
    (tmp_path / "m.gguf").symlink_to("gone.gguf")
    for force in (False, True):
        assert "is a link to what is not there" in refused(make_checkpoint(name=f"m{force}").folder, tmp_path / "m.gguf", force=force)


def test_a_replaced_folder_comes_back_if_the_process_is_killed_between_two_renames(make_checkpoint, tmp_path):
    made, target = make_checkpoint(), tmp_path / "out"
    convert(made.folder, target, "fp8")
    before = contents(target)
    target.rename(tmp_path / "out.localr1-0123abcd.old")
    (tmp_path / "out.localr1-0123abcd.part").mkdir()
    with pytest.raises(TargetError, match="exists already"):
        convert(made.folder, target, "fp8")
    assert contents(target) == before and sorted(p.name for p in tmp_path.iterdir()) == [made.folder.name, "out"]
    (tmp_path / "out.localr1-0123abcd.old").mkdir()  # killed a moment later
    convert(made.folder, target, "fp8", force=True)
    assert contents(target) == before and sorted(p.name for p in tmp_path.iterdir()) == [made.folder.name, "out"]


@pytest.mark.parametrize(("how", "to"), [("written in place", "Q8_0"), ("replaced", "fp8"), ("cut short", "Q8_0")])
def test_a_source_that_is_written_meanwhile_makes_no_target(make_checkpoint, tmp_path, how, to):
    made, target, done = make_checkpoint(), tmp_path / "out", []
    weights = made.folder / "model.safetensors"

    def write(_: Progress) -> None:
        if done:
            return
        done.append(how)
        data = weights.read_bytes()
        if how == "replaced":
            weights.unlink()
        with weights.open("r+b" if weights.exists() else "wb") as file:
            file.truncate(len(data) - 1) if how == "cut short" else file.write(data[:-64] + bytes(64))

    with pytest.raises(ModelFileError, match=r"model\.safetensors: was written while it was read"):
        convert(made.folder, target, to, on_progress=write)
    assert sorted(p.name for p in tmp_path.iterdir()) == [made.folder.name]


def test_a_gguf_source_that_is_written_meanwhile_makes_no_target(make_checkpoint, tmp_path):
    source = tmp_path / "source.gguf"
    convert(make_checkpoint().folder, source, "F16")
    with pytest.raises(ModelFileError, match=r"source\.gguf: was written while it was read"):
        convert(source, tmp_path / "out.gguf", "Q8_0", on_progress=lambda _: os.utime(source, ns=(1, 1)))
    assert not (tmp_path / "out.gguf").exists()


def test_every_file_is_on_disk_before_the_name(make_checkpoint, tmp_path, monkeypatch):
    synced: list[str] = []
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").resolve().name)
        real(handle)

    monkeypatch.setattr("os.fsync", fsync)
    convert(make_checkpoint().folder, tmp_path / "out", "fp8")
    if Path("/proc/self/fd").exists():
        assert {path.name for path in (tmp_path / "out").iterdir()} <= set(synced)


@pytest.mark.parametrize("to", ["Q4_K_M", "fp8"])
def test_the_same_bytes_twice(tmp_path, to):
    for name in ("a", "b"):
        convert(STUDENT, tmp_path / name, to)
    a, b = ((tmp_path / name) for name in ("a", "b"))
    assert (contents(a) == contents(b)) if to == "fp8" else (a.read_bytes() == b.read_bytes())


@pytest.mark.parametrize(("to", "force"), [("Q8_0", False), ("Q8_0", True), ("fp8", False), ("fp8", True)])
def test_what_somebody_else_puts_at_the_target_meanwhile_stays(make_checkpoint, tmp_path, to, force):
    made, target = make_checkpoint(), tmp_path / "out"

    def write(_: Progress) -> None:
        if to == "fp8":
            target.mkdir(exist_ok=True)
        (target / "thesis.txt" if to == "fp8" else target).write_text("mine")

    with pytest.raises(TargetError, match=r"is not replaced|exists already"):
        convert(made.folder, target, to, on_progress=write, force=force)
    assert (target / "thesis.txt" if to == "fp8" else target).read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == [made.folder.name, "out"]
