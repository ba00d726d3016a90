"""The writer keeps its promises or leaves nothing; the reader takes no file's word for how large it is."""

from __future__ import annotations

import errno
import struct
from pathlib import Path

import pytest

from backends.base import ModelFileError
from quantize.errors import TargetError
from quantize.formats import FORMATS
from quantize.gguf_file import GgufWriter, Kind, TensorInfo, Value, flag, real, text, texts, uint
from quantize.gguf_reader import read_gguf_header

METADATA = {
    "general.architecture": text("qwen2"), "a.count": uint(3), "a.flag": flag(True), "a.real": real(0.5), "a.texts": texts(["x", "ü", ""]),
    "a.numbers": Value(Kind.ARRAY, [1, -2, 3], Kind.INT32),
}  # fmt: skip
TENSORS = [TensorInfo("first", (3, 2), FORMATS["F32"]), TensorInfo("second", (2, 64), FORMATS["Q8_0"])]


def write(path: Path) -> bytes:
    with GgufWriter(path, METADATA, TENSORS) as writer:
        writer.write("first", [bytes(range(8)), bytes(16)])
        writer.write("second", [b"\x07" * 136])
    return path.read_bytes()


def test_what_is_written_is_read(tmp_path):
    raw = write(tmp_path / "m.gguf")
    header = read_gguf_header(tmp_path / "m.gguf")
    assert header.metadata == {key: value.data for key, value in METADATA.items()}
    first, second = header.tensors
    assert (first.name, first.shape, first.nbytes, second.shape, second.nbytes) == ("first", (3, 2), 24, (2, 64), 136)
    assert first.begin % 32 == 0 and second.begin == first.begin + 32 and len(raw) == second.begin + 160
    assert raw[first.begin : first.begin + 8] == bytes(range(8)) and raw[second.begin] == 7


def test_the_layout_is_the_specifications(tmp_path):
    """The first bytes, put together by hand from the GGUF specification."""
    start = b"GGUF" + struct.pack("<IQQ", 3, 2, 6) + struct.pack("<Q", 20) + b"general.architecture" + struct.pack("<IQ", 8, 5) + b"qwen2"
    assert write(tmp_path / "m.gguf").startswith(start)


@pytest.mark.parametrize("mistake", ["wrong order", "too short", "missing"])
def test_a_broken_promise_leaves_nothing(tmp_path, mistake):
    with pytest.raises(ValueError, match=r"tensor '(first|second)'"):
        with GgufWriter(tmp_path / "m.gguf", METADATA, TENSORS) as writer:
            if mistake == "wrong order":
                writer.write("second", [b"\x07" * 136])
            writer.write("first", [bytes(23 if mistake == "too short" else 24)])
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    class Full:
        def write(self, _: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None: ...

    with pytest.raises(TargetError, match=r"m\.gguf: cannot be written \(No space left on device\)"):
        with GgufWriter(tmp_path / "m.gguf", METADATA, TENSORS) as writer:
            assert writer._file is not None
            writer._file.close()
            writer._file = Full()  # type: ignore[assignment]
            writer.write("first", [bytes(24)])
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_file_taken_for_stale_before_it_is_locked(tmp_path, monkeypatch):
    """Another process may come between creating and locking: then the file is made anew."""
    fcntl = pytest.importorskip("fcntl")
    lock, taken = fcntl.flock, []

    def late(handle: int, how: int) -> None:
        if not taken:
            taken.extend(tmp_path.iterdir())
            taken[0].unlink()
        lock(handle, how)

    monkeypatch.setattr("fcntl.flock", late)
    assert write(tmp_path / "m.gguf").startswith(b"GGUF")
    assert len(taken) == 1 and [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


def test_every_truncation_is_noticed(tmp_path):
    raw = write(tmp_path / "m.gguf")
    end = read_gguf_header(tmp_path / "m.gguf").tensors[-1].begin + 136
    for size in [*range(0, 400, 7), end - 1]:
        (tmp_path / "cut.gguf").write_bytes(raw[:size])
        with pytest.raises(ModelFileError, match=r"not a GGUF|truncated|damaged"):
            read_gguf_header(tmp_path / "cut.gguf")


def test_no_changed_byte_crashes_the_reader(tmp_path):
    """Whatever a header says, the answer is a header or one ModelFileError line; nothing is allocated on its word."""
    raw = write(tmp_path / "m.gguf")
    for at in range(4, read_gguf_header(tmp_path / "m.gguf").data_begin, 3):
        for value in (0x7F, 0xFF):
            (tmp_path / "bad.gguf").write_bytes(raw[:at] + bytes([value]) + raw[at + 1 :])
            try:
                read_gguf_header(tmp_path / "bad.gguf")
            except ModelFileError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not a GGUF file"),
        (b"PK\x03\x04", "not a GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "more than the file can hold"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<IQ", 8, 1 << 60), "truncated"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", 9, 4, 1 << 60), "announces"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<II", 9, 9) + bytes(8), "array of arrays"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + 2 * (struct.pack("<Q", 1) + b"k" + struct.pack("<IB", 7, 1)), "appears twice"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<II", 99, 0), "unknown type 99"),
    ],
)
def test_bad_files(tmp_path, raw, message):
    (tmp_path / "bad.gguf").write_bytes(raw)
    with pytest.raises(ModelFileError, match=message) as raised:
        read_gguf_header(tmp_path / "bad.gguf")
    assert "\n" not in str(raised.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(ModelFileError, match="no such file"):
        read_gguf_header(tmp_path / "none.gguf")
