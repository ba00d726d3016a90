"""What a stranger can put into a checkpoint, a GGUF file or a name: one clear line, nothing left behind, the source untouched."""

from __future__ import annotations

import json
import os
import struct
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localr1 import paths
from quantize.convert import convert, open_source
from quantize.errors import QuantizeError
from quantize.formats import F32, FORMATS, encode
from quantize.gguf_file import GgufWriter, Kind, TensorInfo, Value, pack_header, text, texts, uint
from quantize.gguf_reader import HEADER_LIMIT_BYTES
from quantize.loss import Loss
from tests.quantize.refusals import REFUSED, refused

STUDENT = paths.assets() / "r1-tiny"


# ------------------------------------------------------------------------------------------------------------- weights


QUICK = ("Q8_0", "Q4_0", "Q5_1", "Q2_K", "Q4_K", "Q6_K", "IQ4_XS", "IQ3_S")  # ggml makes long tables for the smaller ones first
EXTREMES = [(name, scale, importance) for name in QUICK for scale, importance in ((1e7, 1.0), (1e8, 1e10), (1e-40, 1e-45), (1.0, 0.0))]
REFUSED_AT_ONCE = [(1e14, 1.0), (1e38, 1.0), (1.0, 3e38), (1e8, 1e20)]


@pytest.mark.parametrize(("name", "scale", "importance"), EXTREMES)
def test_extreme_weights_and_importances_become_finite_weights_or_an_error(name, scale, importance):
    """ggml writes infinite scales for some of them."""
    try:
        lost = encoded(name, scale, importance)
    except QuantizeError as error:
        assert scale > 1 and "beyond what" in str(error) and "choose BF16 or F32" in str(error)
    else:
        assert np.isfinite(lost.squared_error)


@pytest.mark.parametrize("name", [*QUICK, "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS"])
@pytest.mark.parametrize(("scale", "importance"), REFUSED_AT_ONCE)
def test_what_ends_the_program_in_ggml_does_not_reach_it(name, scale, importance):
    with pytest.raises(QuantizeError, match=f"of importance up to .*, beyond what {name} can hold"):
        encoded(name, scale, importance)


def encoded(name: str, scale: float, importance: float) -> Loss:
    rng = np.random.default_rng(0)
    weights = np.clip(rng.standard_normal((2, 256)), -3, 3).astype(np.float32) * np.float32(scale)
    loss = Loss()
    with ThreadPoolExecutor(1) as pool:
        list(encode(weights, FORMATS[name], pool, loss, np.full((1, 256), importance, np.float32)))
    return loss


def test_a_float32_that_bf16_rounds_to_infinity(make_checkpoint, rewrite, tmp_path):
    made = make_checkpoint(dtype=np.float32)
    made.tensors["lm_head.weight"][1, 1] = np.finfo(np.float32).max
    rewrite(made.folder, made.tensors)
    assert refused(made.folder, tmp_path / "m.gguf", "BF16").endswith(
        "holds weights up to 3.403e+38, beyond what BF16 can hold; choose F32"
    )


# ------------------------------------------------------------------------------------------------------------- GGUF sources

KEYS = {"general.architecture": text("llama"), "llama.block_count": uint(1), "llama.attention.head_count": uint(1)}


ONE = (TensorInfo("x.weight", (2, 32), F32),)


def write_source(path: Path, keys=KEYS, infos=ONE) -> Path:
    path.write_bytes(pack_header(keys, infos) + bytes(sum(info.nbytes + 32 for info in infos)))
    return path


@pytest.mark.parametrize("name", ["I32", "F64", "Q8_1", "Q8_K", "I8"])
def test_a_matrix_of_a_type_that_ggml_cannot_decode(tmp_path, name):
    """It has no function to call."""
    source = write_source(tmp_path / "a.gguf", infos=[TensorInfo("x.weight", (2, 256), FORMATS[name])])
    assert f"tensor 'x.weight' is {name}, which ggml cannot decode" in refused(source, tmp_path / "b.gguf", "F16")


def test_overlapping_tensors(tmp_path):
    source = write_source(tmp_path / "a.gguf", infos=[TensorInfo("x.weight", (2, 32), F32), TensorInfo("y.weight", (2, 32), F32)])
    raw = source.read_bytes().replace(struct.pack("<IQ", 0, 256), struct.pack("<IQ", 0, 32))
    source.write_bytes(raw)
    assert "its tensors overlap, 'x.weight' and 'y.weight'" in refused(source, tmp_path / "b.gguf")


def test_no_tensor(tmp_path):
    assert "holds no tensor" in refused(write_source(tmp_path / "a.gguf", infos=[]), tmp_path / "b.gguf")


@pytest.mark.parametrize("name", ["x\x1b[31m.weight", "a\nb.weight", "x\0.weight"])
def test_names_that_are_no_text(tmp_path, name):
    assert "the name" in refused(write_source(tmp_path / "a.gguf", infos=[TensorInfo(name, (2, 32), F32)]), tmp_path / "b.gguf")
    assert "the name" in refused(write_source(tmp_path / "a.gguf", keys=KEYS | {name: uint(1)}), tmp_path / "b.gguf")


def test_names_that_are_no_utf8(tmp_path):
    source = write_source(tmp_path / "a.gguf")
    whole = source.read_bytes()
    for one in (b"x.weight", b"llama.block_count"):
        source.write_bytes(whole.replace(one, b"\xff" + one[1:]))
        assert r"\udcff" in refused(source, tmp_path / "b.gguf")


def test_a_damaged_header_is_named_in_a_short_line(tmp_path):
    """A key of 60,000 bytes, with control characters in it, and a value that goes beyond the end."""
    source = write_source(tmp_path / "a.gguf", keys={"\x1b[2J\n" * 10_000: text("x")}, infos=[])
    raw = source.read_bytes().replace(struct.pack("<IQ", Kind.STRING, 1), struct.pack("<IQ", Kind.STRING, 1 << 60))
    source.write_bytes(raw)
    assert len(refused(source, tmp_path / "b.gguf")) < 400


def test_metadata_without_end(tmp_path):
    """Values take many times their size in memory: a file full of them is refused by its length."""
    source = tmp_path / "a.gguf"
    count = HEADER_LIMIT_BYTES + 1
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k" + struct.pack("<IIQ", Kind.ARRAY, Kind.UINT8, count)
    with source.open("wb") as f:
        f.write(head)
        f.truncate(len(head) + count + 64)
    tracemalloc.start()
    assert "no header takes more than" in refused(source, tmp_path / "b.gguf")
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_tokens_and_embedding_must_agree(tmp_path):
    keys = KEYS | {"tokenizer.ggml.tokens": texts(["a", "b", "c"])}
    source = write_source(tmp_path / "a.gguf", keys, [TensorInfo("token_embd.weight", (2, 32), F32)])
    assert "3 tokens and an embedding of 2" in refused(source, tmp_path / "b.gguf")
    for key in ("context_length", "embedding_length"):
        keys = KEYS | {"tokenizer.ggml.tokens": texts(["a", "b"]), "llama.context_length": uint(9), f"llama.{key}": uint(0)}
        source = write_source(tmp_path / "a.gguf", keys, [TensorInfo("token_embd.weight", (2, 32), F32)])
        assert f"llama.{key} is 0" in refused(source, tmp_path / "b.gguf")


def test_sources_that_are_not_there(tmp_path):
    assert "no such file" in refused(tmp_path / "none.gguf", tmp_path / "m.gguf")
    assert "cannot be read (File name too long)" in refused(tmp_path / ("x" * 300 + ".gguf"), tmp_path / "m.gguf").replace("x" * 300, "")
    assert "not a folder" in refused(tmp_path / "none", tmp_path / "m.gguf")


@pytest.fixture(scope="module")
def gguf(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    metadata = KEYS | {
        "n": uint(7),
        "tokens": Value(Kind.ARRAY, ["a", "bc"], Kind.STRING),
        "f": Value(Kind.ARRAY, [1.0, 2.0], Kind.FLOAT32),
    }
    infos = [
        TensorInfo("x.weight", (3, 32), F32),
        TensorInfo("y.weight", (2, 256), FORMATS["Q4_K"]),
        TensorInfo("z_norm.weight", (32,), F32),
    ]
    with GgufWriter(path, metadata, infos) as writer:
        for info in infos:
            writer.write(info.name, [bytes(info.nbytes)])
    return path.read_bytes()


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_change_of_a_gguf_file_is_a_crash(tmp_path, gguf, data):
    raw = bytearray(gguf)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 8))
        value = data.draw(st.sampled_from([0, 1, 31, 1 << 31, 1 << 60, (1 << 64) - 1]) | st.integers(0, (1 << 64) - 1))
        width = data.draw(st.sampled_from([1, 4, 8]))
        raw[at : at + width] = value.to_bytes(8, "little")[:width]
    (tmp_path / "a.gguf").write_bytes(raw[: data.draw(st.sampled_from([len(raw), len(raw) - 1, len(raw) // 2]))])
    try:
        report = convert(tmp_path / "a.gguf", tmp_path / "b.gguf", "Q8_0")
    except REFUSED as error:
        assert str(error).isprintable() and sorted(p.name for p in tmp_path.iterdir()) == ["a.gguf"]
    else:
        assert all(np.isfinite(loss.squared_error) for loss in report.losses)
        (tmp_path / "b.gguf").unlink()


# ------------------------------------------------------------------------------------------------------------- checkpoints

ODD = [
    None,
    True,
    0,
    -1,
    1,
    3,
    2**31 - 1,
    2**63,
    10**40,
    1e-45,
    1e37,
    float("nan"),
    float("inf"),
    "",
    "x",
    "\ud800",
    "\0",
    [],
    {},
    [None],
    {"a": 1},
]


@given(data=st.data())
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_change_of_a_json_file_is_a_crash(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "odd"
    folder.mkdir(exist_ok=True)
    file = data.draw(st.sampled_from(["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"]))
    for path in STUDENT.iterdir():
        if path.name == "model.safetensors" and not (folder / path.name).exists():
            os.link(path, folder / path.name) if path.stat().st_dev == folder.stat().st_dev else (folder / path.name).write_bytes(
                path.read_bytes()
            )
        elif path.suffix == ".json":
            (folder / path.name).write_bytes(path.read_bytes())
    value = json.loads((folder / file).read_text())
    place = value if data.draw(st.booleans()) or "model" not in value else value["model"]
    more = ["head_dim", "rope_scaling", "partial_rotary_factor", "quantization_config", "attention_bias", "_name_or_path", "torch_dtype"]
    place[data.draw(st.sampled_from([*place, *more]))] = data.draw(st.sampled_from(ODD))
    (folder / file).write_text(json.dumps(value))
    target = folder.parent / "odd.out"
    to = data.draw(st.sampled_from(["BF16", "fp8"]))
    stop = RuntimeError("planned and begun")

    def begun(_: object) -> None:
        raise stop

    try:
        convert(folder, target, to, on_progress=begun)
    except REFUSED as error:
        assert str(error).isprintable()
    except RuntimeError as error:
        assert error is stop
    assert not list(folder.parent.glob("odd.out*"))


def test_sizes_are_compared_with_the_weights_before_anything_is_computed(make_checkpoint, edit, tmp_path):
    made = make_checkpoint("llama")
    edit(made.folder / "config.json", head_dim=1 << 28)
    tracemalloc.start()
    assert "config.json calls for" in refused(made.folder, tmp_path / "m.gguf")
    assert tracemalloc.get_traced_memory()[1] < 50_000_000  # of which 32 MiB to read config.json
    tracemalloc.stop()


def test_a_config_that_cannot_be_written_is_told_before_the_work(make_checkpoint, edit, tmp_path):
    made = make_checkpoint()
    edit(made.folder / "config.json", note="\ud800")
    assert "config.json: holds text that is no valid Unicode" in refused(made.folder, tmp_path / "out", "fp8")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "model.pkl"])
def test_pickles_are_refused_by_name(tmp_path, name):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / name).write_bytes(b"\x80\x02.")
    for source in (folder, folder / name):
        message = refused(source, tmp_path / "m.gguf")
        assert str(folder / name) in message and "convert the model to safetensors first" in message


def test_links_out_of_the_folder(make_checkpoint, tmp_path):
    made = make_checkpoint(shards=2)
    shard, outside = made.folder / "model-00002-of-00002.safetensors", tmp_path / "elsewhere"
    inside = made.folder / "moved.bin"
    shard.rename(inside)
    shard.symlink_to("moved.bin")
    open_source(made.folder)
    inside.rename(outside)
    shard.unlink()
    shard.symlink_to(outside)
    assert "is a link out of the folder" in refused(made.folder, tmp_path / "m.gguf")
    shard.unlink()
    outside.rename(shard)
    (tmp_path / "secret").write_text("mine")
    (made.folder / "notes.txt").symlink_to(tmp_path / "secret")
    assert "notes.txt: is a link out of the folder" in refused(made.folder, tmp_path / "out", "fp8")


def test_the_links_of_hugging_faces_cache(make_checkpoint, tmp_path):
    made = make_checkpoint(shards=2)
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "0123"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for i, path in enumerate(sorted(made.folder.iterdir())):
        path.rename(blobs / str(i))
        (snapshot / path.name).symlink_to(f"../../blobs/{i}")
    convert(snapshot, tmp_path / "out", "fp8")
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())


@pytest.mark.parametrize("to", ["Q8_0", "fp8", "mlx-4bit"])
def test_tied_embeddings_beside_another_output_matrix(make_checkpoint, tmp_path, to):
    """llama.cpp takes the one, mlx-lm the other: two models of one checkpoint."""
    assert "lm_head.weight is not the embedding" in refused(make_checkpoint("qwen2", tie_word_embeddings=True).folder, tmp_path / "out", to)
