"""Importance matrices on disk: llama.cpp's two forms by their bytes, and what is made of them; no file, however damaged, is a crash."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantize.errors import QuantizeError, TargetError
from quantize.formats import FORMATS
from quantize.gguf_file import GgufWriter, TensorInfo, text, texts, uint
from quantize.imatrix import ImportanceMatrix, Inputs
from quantize.recipe import misfits

DENSE, EXPERTS, HEADS = "blk.0.attn_q.weight", "blk.1.ffn_up_exps.weight", "blk.0.attn_k_b.weight"


def example() -> ImportanceMatrix:
    rng = np.random.default_rng(0)
    return ImportanceMatrix(
        {
            EXPERTS: Inputs(rng.random((3, 4), np.float32), np.array([5, 0, 1024])),
            DENSE: Inputs(rng.random((1, 6), np.float32) * 1e9, np.array([1024])),
            HEADS: Inputs(rng.random((1, 8), np.float32), np.array([1024])),  # two matrices, one count
        },
        chunks=2,
        chunk_tokens=512,
        datasets=("built-in", "notes – ü.txt"),
    )


def write_gguf(path: Path, tensors: dict[str, np.ndarray], **changes: object) -> Path:
    """A file in the GGUF form; a value of None leaves the key out."""
    values = {
        "general.type": text("imatrix"), "imatrix.datasets": texts(["t"]), "imatrix.chunk_count": uint(1), "imatrix.chunk_size": uint(16),
    }  # fmt: skip
    metadata = {k: v for k, v in (values | changes).items() if v is not None}
    form = {"float32": "F32", "float16": "F16"}
    infos = [TensorInfo(name, array.shape, FORMATS[form[array.dtype.name]]) for name, array in tensors.items()]
    with GgufWriter(path, metadata, infos, force=True) as writer:
        for name, array in tensors.items():
            writer.write(name, [array.tobytes()])
    return path


def pair(sums: list[float], counts: list[float], name: str = "blk.0.x.weight") -> dict[str, np.ndarray]:
    return {name + ".in_sum2": np.array(sums, np.float32), name + ".counts": np.array(counts, np.float32)}


def legacy(tensors: list[tuple[bytes, int, list[float]]], end: bytes = b"") -> bytes:
    """The .dat form, field by field as IMatrixCollector::save_imatrix_legacy writes it."""
    out = struct.pack("<i", len(tensors))
    for name, chunks, values in tensors:
        out += struct.pack("<i", len(name)) + name + struct.pack("<ii", chunks, len(values)) + struct.pack(f"<{len(values)}f", *values)
    return out + end


# ------------------------------------------------------------------------------------------------------------ what is right


def test_what_is_written_is_read(tmp_path):
    made = example()
    made.write(tmp_path / "m.gguf")
    found = ImportanceMatrix.read(tmp_path / "m.gguf")
    assert (found.chunks, found.chunk_tokens, found.datasets) == (2, 512, made.datasets)
    assert list(found.tensors) == [HEADS, DENSE, EXPERTS]  # in the order of their names
    for name, inputs in made.tensors.items():
        np.testing.assert_array_equal(found.tensors[name].sums, inputs.sums)
        np.testing.assert_array_equal(found.tensors[name].counts, inputs.counts)
        assert found.tensors[name].counts.dtype == np.int64
    found.write(tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "m.gguf").read_bytes()


def test_the_bytes_are_llama_imatrix_s(tmp_path):
    """Put together by hand from gguf.md and IMatrixCollector::save_imatrix: ggml lists dimensions the other way, without ones at the end."""

    def string(value: bytes) -> bytes:
        return struct.pack("<Q", len(value)) + value

    wanted = b"GGUF" + struct.pack("<IQQ", 3, 4, 4)
    wanted += string(b"general.type") + struct.pack("<I", 8) + string(b"imatrix")
    wanted += string(b"imatrix.datasets") + struct.pack("<IIQ", 9, 8, 1) + string(b"wiki.txt")
    wanted += string(b"imatrix.chunk_count") + struct.pack("<II", 4, 7)
    wanted += string(b"imatrix.chunk_size") + struct.pack("<II", 4, 512)
    wanted += string(b"blk.0.a.weight.in_sum2") + struct.pack("<IQIQ", 1, 3, 0, 0)
    wanted += string(b"blk.0.a.weight.counts") + struct.pack("<IQIQ", 1, 1, 0, 32)
    wanted += string(b"blk.0.b.weight.in_sum2") + struct.pack("<IQQIQ", 2, 3, 2, 0, 64)
    wanted += string(b"blk.0.b.weight.counts") + struct.pack("<IQQIQ", 2, 1, 2, 0, 96)
    wanted += bytes(-len(wanted) % 32)
    for values in ([1.0, 2.0, 3.0], [3584.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.0, 9.0]):
        wanted += struct.pack(f"<{len(values)}f", *values).ljust(32, b"\0")
    matrix = ImportanceMatrix(
        {
            "blk.0.b.weight": Inputs(np.arange(1, 7, dtype=np.float32).reshape(2, 3), np.array([0, 9])),
            "blk.0.a.weight": Inputs(np.array([[1, 2, 3]], np.float32), np.array([3584])),
        },
        7,
        512,
        ("wiki.txt",),
    )
    matrix.write(tmp_path / "m.gguf")
    assert (tmp_path / "m.gguf").read_bytes() == wanted


def test_the_older_form(tmp_path):
    """Values are means times the tensor's own chunks: dividing gives the means back, to the last bit."""
    values = [0.3, 1e-20, 7.0, 3e30]
    end = struct.pack("<ii", 40, 8) + b"wiki.txt"
    (tmp_path / "m.dat").write_bytes(legacy([(b"blk.0.a.weight", 39, values), (b"blk.0.b.weight\0junk", 0, values)], end))
    found = ImportanceMatrix.read(tmp_path / "m.dat")
    assert (found.chunks, found.chunk_tokens, found.datasets) == (40, 512, ("wiki.txt",))
    assert found.tensors["blk.0.a.weight"].counts.tolist() == [39 * 512]
    stored = np.array([values], np.float32)
    np.testing.assert_array_equal(found.weights("blk.0.a.weight", (5, 4)), stored / np.float32(39))
    np.testing.assert_array_equal(found.weights("blk.0.b.weight", (5, 4)), stored)  # no chunks counted: the means themselves
    np.testing.assert_array_equal(found.weights("blk.0.a.weight", (2, 5, 2)), (stored / np.float32(39)).reshape(2, 2))
    found.write(tmp_path / "new.gguf")
    np.testing.assert_array_equal(ImportanceMatrix.read(tmp_path / "new.gguf").weights("blk.0.a.weight", (5, 4)), stored / np.float32(39))


@pytest.mark.parametrize(
    ("end", "chunks", "datasets"),
    [
        (b"", 0, ()),
        (struct.pack("<i", 9), 9, ()),
        (struct.pack("<ii", 9, 0), 9, ()),
        (struct.pack("<ii", -9, -1), 0, ()),
        (struct.pack("<ii", 9, 1 << 30) + b"abc", 9, ()),
        (struct.pack("<ii", 9, 3) + b"abc and more", 9, ("abc",)),
    ],
)
def test_the_end_of_the_older_form_may_be_missing(tmp_path, end, chunks, datasets):
    (tmp_path / "m.dat").write_bytes(legacy([(b"blk.0.a.weight", 9, [1.0])], end))
    found = ImportanceMatrix.read(tmp_path / "m.dat")
    assert (found.chunks, found.datasets) == (chunks, datasets)


def test_weights():
    """Means of squares; 1 for an expert no token went to; where matrices share a count, each has its own row."""
    matrix = example()
    sums = {name: inputs.sums for name, inputs in matrix.tensors.items()}
    np.testing.assert_array_equal(matrix.weights(DENSE, (11, 6)), sums[DENSE] / np.float32(1024))
    experts = matrix.weights(EXPERTS, (3, 9, 4))
    assert experts is not None and experts.dtype == np.float32
    np.testing.assert_array_equal(experts, [sums[EXPERTS][0] / np.float32(5), [1, 1, 1, 1], sums[EXPERTS][2] / np.float32(1024)])
    np.testing.assert_array_equal(matrix.weights(HEADS, (2, 9, 4)), sums[HEADS].reshape(2, 4) / np.float32(1024))
    assert matrix.weights("blk.9.attn_q.weight", (11, 6)) is None
    assert (matrix.unvisited(EXPERTS), matrix.unvisited(DENSE), matrix.unvisited("other")) == (1, 0, 0)


def test_weights_for_another_model():
    for name, shape in [(DENSE, (11, 7)), (DENSE, (2, 11, 6)), (EXPERTS, (4, 9, 4)), (EXPERTS, (9, 4))]:
        with pytest.raises(QuantizeError, match=rf"values for tensor '{name}', its shape .* it belongs to another model"):
            example().weights(name, shape)
    embedding = ImportanceMatrix({"token_embd.weight": example().tensors[DENSE]}, 1, 512)
    assert embedding.weights("token_embd.weight", (320, 8)) is None  # as llama-quantize does, and it is told
    kinds = [((320, 8), "Q8_0"), ((320, 6), "Q8_0"), ((320, 8), "F16")]
    infos = [TensorInfo("token_embd.weight", shape, FORMATS[form]) for shape, form in kinds]
    assert [len(misfits([info], embedding)) for info in infos] == [1, 0, 0]
    assert "does not fit token_embd.weight" in misfits(infos, embedding)[0]


def test_only_a_gguf_file_is_replaced(tmp_path):
    example().write(tmp_path / "m.gguf")
    with pytest.raises(TargetError, match="exists already"):
        example().write(tmp_path / "m.gguf")
    example().write(tmp_path / "m.gguf", force=True)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TargetError, match="is not a GGUF file"):
        example().write(tmp_path / "notes.txt", force=True)


# ------------------------------------------------------------------------------------------------------------ what is wrong

NAN, INF = float("nan"), float("inf")
GGUF_MISTAKES = {
    "a model": (pair([1], [1]), {"general.type": text("model")}, "holds no importance matrix"),
    "no pairs": ({"blk.0.x.weight": np.ones(3, np.float32)}, {}, "holds no importance matrix"),
    "no counts": ({"a.in_sum2": np.ones(3, np.float32)}, {}, "'a' lacks its .in_sum2 or its .counts"),
    "no sums": ({"a.counts": np.ones(1, np.float32)}, {}, "'a' lacks its .in_sum2 or its .counts"),
    "half floats": (pair([1], [1]) | {"a.in_sum2": np.ones(2, np.float16), "a.counts": np.ones(1, np.float32)}, {}, "is not F32"),
    "sums not a number": (pair([1, NAN], [1]), {}, "infinite or not a number"),
    "infinite sums": (pair([1, INF], [1]), {}, "infinite or not a number"),
    "negative sums": (pair([1, -2], [1]), {}, "a negative sum of squares, -2"),
    "negative counts": (pair([1, 2], [-1]), {}, "a count that cannot be, -1.0"),
    "counts not a number": (pair([1, 2], [NAN]), {}, "a count that cannot be, nan"),
    "infinite counts": (pair([1, 2], [INF]), {}, "a count that cannot be, inf"),
    "counts that do not divide": (pair([1, 2, 3], [1, 1]), {}, "3 sums and 2 counts, which do not fit together"),
    "more counts than sums": (pair([1], [1, 1]), {}, "1 sums and 2 counts"),
    "no chunk count": (pair([1], [1]), {"imatrix.chunk_count": None}, "imatrix.chunk_count is None, a number is needed"),
    "chunk size as text": (pair([1], [1]), {"imatrix.chunk_size": text("512")}, "imatrix.chunk_size is '512', a number is needed"),
    "no datasets": (pair([1], [1]), {"imatrix.datasets": None}, "imatrix.datasets is None, a list of names"),
    "datasets as a number": (pair([1], [1]), {"imatrix.datasets": uint(3)}, "imatrix.datasets is 3, a list of names"),
}


@pytest.mark.parametrize("mistake", GGUF_MISTAKES)
def test_a_damaged_gguf_is_one_line(tmp_path, mistake):
    tensors, changes, message = GGUF_MISTAKES[mistake]
    path = write_gguf(tmp_path / "m.gguf", tensors, **changes)
    with pytest.raises(QuantizeError, match=message) as caught:
        ImportanceMatrix.read(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


BIG = 1 << 30
LEGACY_MISTAKES = {
    "empty": (b"", "is no importance matrix, neither in GGUF nor in the older .dat form"),
    "text": (b"This is a text and not a matrix.\n" * 9, "is no importance matrix"),
    "no tensors": (struct.pack("<i", 0) + bytes(99), "is no importance matrix"),
    "more tensors than bytes": (struct.pack("<i", BIG) + bytes(99), "is no importance matrix"),
    "fewer tensors than said": (struct.pack("<i", 2) + legacy([(b"blk.0.a.weight", 1, [1.0] * 9)])[4:], "truncated at byte"),
    "no name": (legacy([(b"", 1, [1.0] * 9)]), "the name of tensor 1 has 0 bytes"),
    "endless name": (struct.pack("<ii", 1, BIG) + bytes(99), "the name of tensor 1 has 1,073,741,824 bytes"),
    "negative name": (struct.pack("<ii", 1, -5) + bytes(99), "the name of tensor 1 has -5 bytes"),
    "name of bytes": (legacy([(b"\xff\xfe", 1, [1.0] * 9)]), "the name of tensor 1 is .* no text"),
    "a name twice": (legacy([(b"a", 1, [1.0] * 9), (b"a", 1, [1.0])]), "'a' is there twice"),
    "no values": (legacy([(b"a", 1, []), (b"b", 1, [1.0] * 9)]), "announces 0 values"),
    "endless values": (struct.pack("<ii", 1, 1) + b"a" + struct.pack("<ii", 1, BIG) + bytes(99), "announces 1,073,741,824 values"),
    "negative values": (struct.pack("<ii", 1, 1) + b"a" + struct.pack("<ii", 1, -1) + bytes(99), "announces -1 values"),
    "negative chunks": (legacy([(b"a", -3, [1.0])]), "a count that cannot be, -1536"),
    "not a number": (legacy([(b"a", 3, [1.0, NAN])]), "infinite or not a number"),
    "a signalling NaN": (legacy([(b"a", 3, [1.0])])[:-4] + b"\1\0\x80\x7f", "infinite or not a number"),
    "nearly infinite": (legacy([(b"a", 3, [1.0, 3e38])]), "infinite or not a number"),
    "below zero": (legacy([(b"a", 3, [1.0, -1.0])]), "a negative sum of squares"),
}


@pytest.mark.parametrize("mistake", LEGACY_MISTAKES)
def test_a_damaged_dat_is_one_line(tmp_path, mistake):
    raw, message = LEGACY_MISTAKES[mistake]
    (tmp_path / "m.dat").write_bytes(raw)
    with pytest.raises(QuantizeError, match=message) as caught:
        ImportanceMatrix.read(tmp_path / "m.dat")
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path):
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(QuantizeError, match="no such file"):
            ImportanceMatrix.read(path)


def test_tensors_on_one_place_are_not_read_again_and_again(tmp_path):
    """A thousand tensors that all point at the same million numbers: a small file that would take gigabytes."""
    count, n = 500, 1 << 18
    infos = [TensorInfo(f"{i}.in_sum2", (n,), FORMATS["F32"]) for i in range(count)]
    infos += [TensorInfo(f"{i}.counts", (1,), FORMATS["F32"]) for i in range(count)]
    path = write_gguf(tmp_path / "m.gguf", pair([1.0] * n, [1.0], "0"))
    raw = bytearray(path.read_bytes())
    begin = len(raw) - 4 * n - 32
    entries = b""
    for info in infos:
        name = info.name.encode()
        offset = 0 if info.name.endswith("sum2") else 4 * n
        entries += struct.pack("<Q", len(name)) + name + struct.pack("<IQIQ", 1, info.shape[0], 0, offset)
    first = raw.index(struct.pack("<Q", 9) + b"0.in_sum2")
    head = bytes(raw[:8]) + struct.pack("<Q", len(infos)) + bytes(raw[16:first]) + entries
    path.write_bytes(head + bytes(-len(head) % 32) + bytes(raw[begin:]))
    with pytest.raises(QuantizeError, match="its tensors overlap"):
        ImportanceMatrix.read(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> list[bytes]:
    """One file in each form."""
    target = tmp_path_factory.mktemp("whole") / "m.gguf"
    example().write(target)
    older = legacy([(DENSE.encode(), 3, [1.0] * 6), (EXPERTS.encode(), 3, [2.0] * 12)], struct.pack("<ii", 3, 2) + b"ab")
    return [target.read_bytes(), older]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_mutation_is_a_crash(tmp_path, whole, data):
    """Whatever is read, is fit to be used: finite weights of the shape asked for."""
    target = tmp_path / "m"
    raw = bytearray(data.draw(st.sampled_from(whole)))
    odd = st.sampled_from([b"\0" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\x01\0\0\0", b"\0\0\x80\x7f", b"\xff" * 8])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        match data.draw(st.sampled_from(["byte", "word", "cut", "drop"])):
            case "byte":
                raw[at] = data.draw(st.integers(0, 255))
            case "word":
                word = data.draw(odd)
                raw[at : at + len(word)] = word
            case "cut":
                del raw[max(1, at) :]
            case "drop":
                del raw[at : at + data.draw(st.integers(1, 8))]
        if not raw:
            return
    target.write_bytes(raw)
    try:
        found = ImportanceMatrix.read(target)
    except QuantizeError as error:
        assert "\n" not in str(error)
        return
    for name, inputs in found.tensors.items():
        weights = found.weights(name, (3, inputs.sums.size))
        assert weights is not None and weights.shape == (1, inputs.sums.size) and np.isfinite(weights).all() and (weights >= 0).all()
