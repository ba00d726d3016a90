"""Opening a checkpoint folder: what is there is read as it is, what is damaged is named in one line."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from backends.base import ModelFileError
from backends.checkpoint import Checkpoint, read_header

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    return tmp_path


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def raw_file(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def refused(folder: Path) -> str:
    with pytest.raises(ModelFileError) as raised:
        Checkpoint.open(folder)
    message = str(raised.value)
    assert "\n" not in message and len(message) < 400 + len(str(folder))
    return message


def test_tensors_read_as_they_were_saved(folder):
    rng = np.random.default_rng(0)
    saved = {
        "a": rng.standard_normal((3, 5), np.float32).astype(ml_dtypes.bfloat16),
        "b": rng.standard_normal(7, np.float32),
        "c": rng.standard_normal((2, 2), np.float32).astype(np.float16),
        "d": rng.standard_normal((4, 4), np.float32).astype(ml_dtypes.float8_e4m3fn),
        "e": np.arange(6, dtype=np.int64).reshape(1, 2, 3),
    }
    save_file(saved, folder / "model.safetensors", {"format": "pt"})
    with Checkpoint.open(folder) as checkpoint:
        assert checkpoint.config == {"model_type": "qwen2"}
        assert checkpoint.names() == list("abcde")
        assert [checkpoint.dtype(n) for n in "abcde"] == ["BF16", "F32", "F16", "F8_E4M3", "I64"]
        assert checkpoint.bytes_total == sum(a.nbytes for a in saved.values())
        for name, array in saved.items():
            read = checkpoint.read(name)
            assert read.dtype == array.dtype and checkpoint.shape(name) == array.shape and not read.flags.writeable
            assert read.tobytes() == array.tobytes()
            checkpoint.release(name)
            assert read.tobytes() == array.tobytes()


def test_a_view_outlives_the_checkpoint(folder):
    save_file({"a": np.arange(4, dtype=np.float32)}, folder / "model.safetensors")
    with Checkpoint.open(folder) as checkpoint:
        view = checkpoint.read("a")
    assert view.tolist() == [0, 1, 2, 3]


def test_a_scalar(folder):
    raw_file(folder / "model.safetensors", {"a": entry("F32", [], 0, 4)}, struct.pack("<f", 2.5))
    assert Checkpoint.open(folder).read("a") == 2.5


def shards(folder: Path, where: dict[str, str]) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))


def test_shards(folder):
    save_file({"b": np.ones(2, np.float32)}, folder / "x-1.safetensors")
    save_file({"a": np.zeros(3, np.float32)}, folder / "x-2.safetensors")
    shards(folder, {"a": "x-2.safetensors", "b": "x-1.safetensors"})
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.names() == ["b", "a"] and checkpoint.read("a").shape == (3,)


@pytest.mark.parametrize(
    "file",
    [
        "a\nb.safetensors",
        "\ud800.safetensors",
        "x" * 300 + ".safetensors",
        "../x.safetensors",
        "/etc/x.safetensors",
        "sub/x.safetensors",
        "..\\x.safetensors",
        "x.bin",
        "",
        "..",
        "x\0.safetensors",
    ],
)
def test_an_index_cannot_point_outside_the_folder(folder, file):
    inside = folder / "inside"
    inside.mkdir()
    (inside / "config.json").write_text("{}")
    save_file({"a": np.ones(2, np.float32)}, folder / "x.safetensors")
    shards(inside, {"a": file})
    assert "only *.safetensors files in the same folder" in refused(inside)


def test_index_and_shards_must_agree(folder):
    save_file({"a": np.ones(2, np.float32)}, folder / "x-1.safetensors")
    shards(folder, {"a": "x-1.safetensors", "b": "x-2.safetensors"})
    assert "x-2.safetensors: missing" in refused(folder)
    save_file({"c": np.ones(2, np.float32)}, folder / "x-2.safetensors")
    assert "holds tensor 'c', which model.safetensors.index.json does not list" in refused(folder)
    shards(folder, {"a": "x-1.safetensors", "b": "x-2.safetensors", "c": "x-2.safetensors"})
    assert "x-2.safetensors: lacks tensor 'b'" in refused(folder)
    save_file({"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)}, folder / "x-2.safetensors")
    assert "holds tensor 'a', which x-1.safetensors holds too" in refused(folder)


@pytest.mark.parametrize("index", ["{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', '{"weight_map": {"a": "x", "a": "y"}}', "["])
def test_bad_indexes(folder, index):
    (folder / INDEX).write_text(index)
    assert INDEX in refused(folder)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": entry("F32", [2], 0, 4)}, "takes 4 bytes, but F32 [2] needs 8"),
        ({"a": entry("F32", [1], 4, 0)}, "offsets [4, 0]"),
        ({"a": entry("F32", [1], -4, 0)}, "offsets [-4, 0]"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}, "offsets [0]"),
        ({"a": {"dtype": "F32", "shape": [1]}}, "offsets None"),
        ({"a": entry("F33", [1], 0, 4)}, "unknown dtype 'F33'"),
        ({"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}, "unknown dtype ['F32']"),
        ({"a": entry("F32", [0], 0, 0)}, "shape [0]"),
        ({"a": entry("F32", [True], 0, 4)}, "shape [True]"),
        ({"a": entry("F32", [1.0], 0, 4)}, "shape [1.0]"),  # type: ignore[list-item]
        ({"a": entry("F32", [1 << 70], 0, 4)}, "shape [1180591620717411303424]"),
        ({"a": entry("U8", [1 << 62] * 8, 0, 4)}, "but U8"),
        ({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 2, 6)}, "tensor 'b' at byte"),
        ({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 0, 4)}, "overlaps"),
        ({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 8, 12)}, "leaves a hole after tensor 'a'"),
        ({"a": entry("F32", [1], 0, 4)}, "4 bytes follow the last tensor"),
        ({"a": entry("F32", [4], 0, 16)}, "truncated, the header promises"),
        ({"a": 5}, "is described by 5"),
        ({}, "8 bytes follow the last tensor"),
        (b"not json", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b"\xff\xfe", "not valid JSON"),
        (b'{"a": 1, "a": 2}', "names 'a' twice"),
    ],
)
def test_bad_headers(folder, header, message):
    raw_file(folder / "model.safetensors", header, bytes(8))
    assert message in refused(folder)


def test_every_truncation_is_noticed(folder):
    save_file({"a": np.ones((4, 4), np.float32), "b": np.ones(3, np.float32)}, folder / "model.safetensors")
    raw = (folder / "model.safetensors").read_bytes()
    for size in range(len(raw)):
        (folder / "model.safetensors").write_bytes(raw[:size])
        assert "truncated" in refused(folder)


@pytest.mark.parametrize("length", [1 << 63, (1 << 64) - 1, 1000])
def test_a_header_longer_than_the_file(folder, length):
    raw_file(folder / "model.safetensors", {}, length=length)
    assert "truncated, the header should take" in refused(folder)


def test_a_huge_header_is_not_read(folder):
    """The file is sparse: 40 MB that take no room, and that must not be turned into objects."""
    with (folder / "model.safetensors").open("wb") as f:
        f.write(struct.pack("<Q", 40 << 20) + b"{")
        f.truncate(48 << 20)
    assert "more than any checkpoint needs" in refused(folder)


def test_no_tensor_at_all(folder):
    raw_file(folder / "model.safetensors", {"__metadata__": {"format": "pt"}})
    assert "hold no tensor" in refused(folder)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickles_are_not_touched(folder, file):
    (folder / file).write_bytes(b"\x80\x02")
    message = refused(folder)
    assert file in message and "convert the model to safetensors first" in message


def test_missing_files(tmp_path):
    assert "not a folder" in refused(tmp_path / "none")
    assert "config.json: missing" in refused(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert "model.safetensors: missing" in refused(tmp_path)
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "model-00001-of-00002.safetensors")
    assert f"{INDEX}: missing, and the weights are in shards" in refused(tmp_path)


@pytest.mark.parametrize("config", ["", "{", "[]", "null", '{"a": 1, "a": 2}', "\x00"])
def test_bad_configs(folder, config):
    save_file({"a": np.ones(2, np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text(config)
    assert "config.json" in refused(folder)


def test_a_config_that_never_ends(folder, tmp_path):
    """A pipe, a device and a huge file (sparse: it takes no room): refused at once, none of them read to the end."""
    save_file({"a": np.ones(2, np.float32)}, folder / "model.safetensors")
    config = folder / "config.json"
    for special in (Path("/dev/zero"), tmp_path / "pipe"):
        config.unlink()
        config.symlink_to(special)
        if not special.exists():
            os.mkfifo(special)
        assert "is no regular file" in refused(folder)
    config.unlink()
    with config.open("wb") as f:
        f.truncate(1 << 40)
    assert "more than any config.json needs" in refused(folder)


def test_names_that_are_too_long(folder):
    assert "not a folder" in refused(folder / ("x" * 300)).replace("x" * 300, "")
    raw_file(folder / "model.safetensors", {"t" * 100_000: entry("F33", [1], 0, 4)}, bytes(4))
    assert "unknown dtype 'F33'" in refused(folder)


def test_what_safetensors_writes_is_never_refused(tmp_path):
    """Mixed dtypes and odd sizes, as the reference implementation lays them out: large dtypes first, then by name."""
    rng = np.random.default_rng(1)
    for i in range(20):
        kinds = rng.choice([np.float32, np.float16, np.int8, np.int64], 6)
        saved = {f"t{j}": np.ones(rng.integers(1, 9, rng.integers(0, 4)), kind) for j, kind in enumerate(kinds)}
        save_file(saved, tmp_path / f"{i}.safetensors")
        assert set(read_header(tmp_path / f"{i}.safetensors")) == set(saved)
