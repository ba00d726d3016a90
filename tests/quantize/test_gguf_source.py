"""A GGUF file written again in other formats, against llama.cpp's own quantizer on the same file."""

from __future__ import annotations

import numpy as np
import pytest
from llama_quantize import llama_quantize, same, tensors

from backends.base import ModelFileError
from localr1 import paths
from quantize.convert import convert
from quantize.errors import QuantizeError, UnsupportedModel
from quantize.formats import F32
from quantize.gguf_file import GgufWriter, Kind, TensorInfo, Value, text, uint
from quantize.gguf_reader import read_gguf_header
from quantize.recipe import MIXES


@pytest.mark.parametrize("unquantized", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("name", ["Q4_K_M", "Q8_0", "IQ4_XS", "F16"])
def test_the_same_file_as_llama_quantize_makes(unquantized, name, tmp_path):
    convert(paths.assets() / "r1-tiny", tmp_path / "plain.gguf", unquantized)
    report = convert(tmp_path / "plain.gguf", tmp_path / "ours.gguf", name)
    assert llama_quantize(tmp_path / "plain.gguf", tmp_path / "theirs.gguf", MIXES[name].file_type)
    same(tmp_path / "ours.gguf", tmp_path / "theirs.gguf")
    assert (report.warnings, report.architecture, report.format) == ((), "qwen2", name)


def test_from_the_checkpoint_or_from_its_gguf_is_the_same(make_golden, tmp_path):
    folder = make_golden("deepseek_v3").folder
    convert(folder, tmp_path / "plain.gguf", "F32")
    convert(folder, tmp_path / "direct.gguf", "Q5_0")
    convert(tmp_path / "plain.gguf", tmp_path / "again.gguf", "Q5_0")
    assert tensors(tmp_path / "direct.gguf") == tensors(tmp_path / "again.gguf")
    assert read_gguf_header(tmp_path / "direct.gguf").metadata == read_gguf_header(tmp_path / "again.gguf").metadata


def test_what_is_quantized_already_is_warned_of(make_checkpoint, tmp_path):
    convert(make_checkpoint("llama", hidden_size=256, intermediate_size=256, head_dim=64).folder, tmp_path / "q8.gguf", "Q8_0")
    report = convert(tmp_path / "q8.gguf", tmp_path / "q4.gguf", "Q4_0")
    assert len(report.warnings) == 1 and "quantized already (Q8_0)" in report.warnings[0] and "loses twice" in report.warnings[0]
    same_again = convert(tmp_path / "q8.gguf", tmp_path / "copy.gguf", "Q8_0")
    assert same_again.warnings == () and (tmp_path / "copy.gguf").read_bytes() == (tmp_path / "q8.gguf").read_bytes()


def test_text_that_is_no_utf8_stays_as_it_is(tmp_path):
    """Other converters write tokens with lone bytes."""
    metadata = {
        "general.architecture": text("llama"), "llama.block_count": uint(1), "llama.attention.head_count": uint(1),
        "tokenizer.ggml.tokens": Value(Kind.ARRAY, [b"a\xff", b"\xed\xa0\x80"], Kind.STRING),
    }  # fmt: skip
    with GgufWriter(tmp_path / "a.gguf", metadata, [TensorInfo("x.weight", (2, 32), F32)]) as writer:
        writer.write("x.weight", [np.ones(64, np.float32).data])
    convert(tmp_path / "a.gguf", tmp_path / "b.gguf", "Q8_0")
    assert b"a\xff" in (tmp_path / "b.gguf").read_bytes() and b"\xed\xa0\x80" in (tmp_path / "b.gguf").read_bytes()


def test_what_cannot_be_converted_is_told_in_one_line(make_checkpoint, tmp_path):
    convert(make_checkpoint("llama").folder, tmp_path / "a.gguf", "F32")
    for name in ("fp8", "mlx-4bit"):
        with pytest.raises(QuantizeError, match="is a GGUF file, which can become another one only"):
            convert(tmp_path / "a.gguf", tmp_path / "b", name)
    with GgufWriter(tmp_path / "gpt2.gguf", {"general.architecture": text("gpt2")}, [TensorInfo("x", (1,), F32)]) as writer:
        writer.write("x", [np.ones(1, np.float32).data])
    with pytest.raises(UnsupportedModel, match="'gpt2' model; supported are"):
        convert(tmp_path / "gpt2.gguf", tmp_path / "b.gguf", "Q8_0")
    (tmp_path / "cut.gguf").write_bytes((tmp_path / "a.gguf").read_bytes()[:-100])
    with pytest.raises(ModelFileError, match="truncated"):
        convert(tmp_path / "cut.gguf", tmp_path / "b.gguf", "Q8_0")
    (tmp_path / "no.gguf").write_text("text")
    with pytest.raises(ModelFileError, match="not a GGUF file"):
        convert(tmp_path / "no.gguf", tmp_path / "b.gguf", "Q8_0")
    assert not (tmp_path / "b.gguf").exists()


def test_a_weight_that_is_not_finite_is_named(make_checkpoint, tmp_path):
    made = make_checkpoint("llama", dtype=np.float32)
    convert(made.folder, tmp_path / "a.gguf", "F32")
    raw = bytearray((tmp_path / "a.gguf").read_bytes())
    tensor = next(t for t in read_gguf_header(tmp_path / "a.gguf").tensors if t.name == "blk.1.ffn_up.weight")
    raw[tensor.begin : tensor.begin + 4] = np.float32(np.nan).tobytes()
    (tmp_path / "a.gguf").write_bytes(raw)
    with pytest.raises(QuantizeError, match=r"tensor 'blk\.1\.ffn_up\.weight' holds"):
        convert(tmp_path / "a.gguf", tmp_path / "b.gguf", "Q8_0")
    assert not list(tmp_path.glob("b.gguf*"))
