"""A converted file, read back, says what the checkpoint said: every tensor, every key, and llama.cpp agrees to load it."""

from __future__ import annotations

import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from backends.base import ModelFileError
from quantize.convert import Progress, convert
from quantize.errors import QuantizeError, UnsupportedModel
from quantize.formats import FORMATS, decode, encode
from quantize.gguf_reader import GgufTensor, read_gguf_header
from tests.quantize.refusals import leftovers

NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(name: str) -> str:
    stem, kind = name.rsplit(".", 1)
    if stem in OUTSIDE:
        return f"{OUTSIDE[stem]}.{kind}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{NAMES[part]}.{kind}"


def as_llama_cpp_wants(name: str, weights: np.ndarray, config: dict) -> np.ndarray:
    """Llama's q and k: row j of a head's first half goes to 2j, row j of its second half to 2j + 1 (written out, row by row)."""
    if config["model_type"] != "llama" or not name.endswith(("q_proj.weight", "k_proj.weight")):
        return weights
    heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
    size = len(weights) // heads
    out = np.empty_like(weights)
    for head in range(heads):
        for j in range(size // 2):
            out[head * size + 2 * j] = weights[head * size + j]
            out[head * size + 2 * j + 1] = weights[head * size + size // 2 + j]
    return out


def q8_0(weights: np.ndarray) -> bytes:
    """ggml's block_q8_0 in numpy: a float16 scale of the largest magnitude over 127, then 32 codes rounded half away from zero."""
    blocks = weights.astype(np.float32).reshape(-1, 32)
    scale = np.abs(blocks).max(1, keepdims=True) / np.float32(127)
    inverse = np.divide(np.float32(1), scale, where=scale != 0, out=np.zeros_like(scale))
    scaled = blocks * inverse
    codes = (np.sign(scaled) * np.floor(np.abs(scaled) + np.float32(0.5))).astype(np.int8)
    return np.concatenate([scale.astype(np.float16).view(np.uint8), codes.view(np.uint8)], 1).tobytes()


ENCODERS = {
    "F32": lambda w: w.astype(np.float32).tobytes(),
    "F16": lambda w: w.astype(np.float32).astype(np.float16).tobytes(),
    "BF16": lambda w: w.astype(np.float32).astype(ml_dtypes.bfloat16).tobytes(),
    "Q8_0": q8_0,
}


def stored(path: Path, tensor: GgufTensor) -> bytes:
    assert tensor.nbytes is not None
    with path.open("rb") as f:
        f.seek(tensor.begin)
        return f.read(tensor.nbytes)


@pytest.mark.parametrize("to", ["F32", "F16", "BF16", "Q8_0"])
@pytest.mark.parametrize("architecture", ["qwen2", "llama", "qwen3"])
def test_every_tensor_reads_back(make_checkpoint, tmp_path, architecture, to):
    """Exact bytes: the formats leave no freedom, so no tolerance is needed."""
    made = make_checkpoint(architecture)
    report = convert(made.folder, tmp_path / "m.gguf", to.lower())
    header = read_gguf_header(tmp_path / "m.gguf")
    found = {t.name: t for t in header.tensors}
    assert set(found) - {"rope_freqs.weight"} == {gguf_name(name) for name in made.tensors}
    for name, weights in made.tensors.items():
        tensor = found[gguf_name(name)]
        wanted = "F32" if weights.ndim == 1 else to
        assert tensor.format is not None and tensor.format.name == wanted and tensor.shape == weights.shape
        assert stored(tmp_path / "m.gguf", tensor) == ENCODERS[wanted](as_llama_cpp_wants(name, weights, made.config)), name
    assert report.target_bytes == (tmp_path / "m.gguf").stat().st_size
    assert (report.tensors, report.format, report.fallbacks) == (len(header.tensors), to, ())
    assert leftovers(tmp_path) == ["m.gguf"]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_other_source_types(make_checkpoint, tmp_path, dtype):
    made = make_checkpoint("qwen2", dtype=dtype)
    for to in ("F32", "F16", "BF16", "Q8_0"):
        convert(made.folder, tmp_path / "m.gguf", to, force=True)
        tensor = next(t for t in read_gguf_header(tmp_path / "m.gguf").tensors if t.name == "blk.1.ffn_down.weight")
        assert stored(tmp_path / "m.gguf", tensor) == ENCODERS[to](made.tensors["model.layers.1.mlp.down_proj.weight"])


def test_shards_give_the_same_tensors(make_checkpoint, tmp_path):
    convert(make_checkpoint(name="whole").folder, tmp_path / "a.gguf", "Q8_0")
    convert(make_checkpoint(name="cut", shards=3).folder, tmp_path / "b.gguf", "Q8_0")
    a, b = (read_gguf_header(tmp_path / f) for f in ("a.gguf", "b.gguf"))
    whole = {t.name: stored(tmp_path / "a.gguf", t) for t in a.tensors}
    assert {t.name: stored(tmp_path / "b.gguf", t) for t in b.tensors} == whole


def test_metadata(make_checkpoint, tmp_path):
    convert(make_checkpoint("qwen3").folder, tmp_path / "m.gguf", "Q8_0")
    found = read_gguf_header(tmp_path / "m.gguf").metadata
    wanted = {
        "general.architecture": "qwen3", "general.type": "model", "general.name": "Tiny R1 330K", "general.file_type": 7,
        "general.quantization_version": 2, "qwen3.block_count": 2, "qwen3.context_length": 512, "qwen3.embedding_length": 64,
        "qwen3.feed_forward_length": 96, "qwen3.attention.head_count": 4, "qwen3.attention.head_count_kv": 2,
        "qwen3.attention.key_length": 32, "qwen3.attention.value_length": 32, "qwen3.rope.freq_base": 10000.0,
        "qwen3.rope.scaling.type": "yarn", "qwen3.rope.scaling.factor": 4.0, "qwen3.rope.scaling.original_context_length": 128,
        "qwen3.rope.scaling.yarn_attn_factor": 0.875, "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "deepseek-r1-qwen",
        "tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": False,
    }  # fmt: skip
    assert {key: found.get(key) for key in wanted} == wanted
    assert found["general.sampling.temp"] == pytest.approx(0.6, rel=1e-6)  # stored as float32
    assert found["qwen3.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6, rel=1e-6)


def test_llama3_scaling_divides_long_wavelengths_only(make_checkpoint, tmp_path):
    """Written out one frequency at a time in float64; the tensor is float32, hence 1e-6."""
    made = make_checkpoint("llama")
    convert(made.folder, tmp_path / "m.gguf", "F16")
    tensor = read_gguf_header(tmp_path / "m.gguf").tensors[0]
    assert tensor.name == "rope_freqs.weight"
    found = np.frombuffer(stored(tmp_path / "m.gguf", tensor), np.float32)
    wanted = []
    for i in range(8):  # head_dim 16
        wavelength = 2 * np.pi * 500000.0 ** (2 * i / 16)
        if wavelength < 128 / 4:
            wanted.append(1.0)
        elif wavelength > 128 / 1:
            wanted.append(8.0)
        else:
            blend = (128 / wavelength - 1) / (4 - 1)
            wanted.append(1 / ((1 - blend) / 8 + blend))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert 1.0 in wanted and 8.0 in wanted


def test_rows_that_are_no_whole_blocks_become_f16(make_checkpoint, tmp_path):
    """A feed-forward size of 80 leaves ffn_down with rows of 80, which Q8_0's blocks of 32 do not divide."""
    report = convert(make_checkpoint("qwen2", intermediate_size=80).folder, tmp_path / "m.gguf", "Q8_0")
    assert report.fallbacks == (("blk.0.ffn_down.weight", "F16"), ("blk.1.ffn_down.weight", "F16"))


def test_tied_embeddings_need_no_output_tensor(make_checkpoint, tmp_path):
    made = make_checkpoint("qwen2", tie_word_embeddings=True, drop=("lm_head.weight",))
    convert(made.folder, tmp_path / "m.gguf", "Q8_0")
    assert "output.weight" not in [t.name for t in read_gguf_header(tmp_path / "m.gguf").tensors]


def test_many_pieces_and_an_odd_end(make_checkpoint, tmp_path, monkeypatch):
    """Tensors larger than a piece: the pieces are put together in order."""
    monkeypatch.setattr("quantize.formats.PIECE_ELEMENTS", 300)
    monkeypatch.setattr("quantize.formats.PIECES_AHEAD", 2)
    made = make_checkpoint("llama")
    convert(made.folder, tmp_path / "m.gguf", "Q8_0")
    for tensor in read_gguf_header(tmp_path / "m.gguf").tensors:
        if tensor.name == "blk.0.attn_q.weight":
            name = "model.layers.0.self_attn.q_proj.weight"
            assert stored(tmp_path / "m.gguf", tensor) == q8_0(as_llama_cpp_wants(name, made.tensors[name], made.config))


def test_progress_counts_up_to_the_whole_file(make_checkpoint, tmp_path):
    seen: list[Progress] = []
    convert(make_checkpoint().folder, tmp_path / "m.gguf", "F16", on_progress=seen.append)
    assert [p.done_tensors for p in seen] == list(range(1, seen[-1].total_tensors + 1))
    assert seen[-1].done_bytes == seen[-1].total_bytes


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_a_stop_in_the_middle_leaves_nothing(make_checkpoint, tmp_path, failure):
    made = make_checkpoint()
    before = {p.name: p.read_bytes() for p in made.folder.iterdir()}

    def stop(progress: Progress) -> None:
        if progress.done_tensors == 5:
            raise failure

    with pytest.raises(failure):
        convert(made.folder, tmp_path / "m.gguf", "Q8_0", on_progress=stop)
    assert leftovers(tmp_path) == []
    assert {p.name: p.read_bytes() for p in made.folder.iterdir()} == before


def test_a_stop_keeps_the_file_that_was_to_be_replaced(make_checkpoint, tmp_path):
    made = make_checkpoint()
    convert(made.folder, tmp_path / "m.gguf", "Q8_0")
    before = (tmp_path / "m.gguf").read_bytes()

    def stop(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(made.folder, tmp_path / "m.gguf", "F16", on_progress=stop, force=True)
    assert leftovers(tmp_path) == ["m.gguf"] and (tmp_path / "m.gguf").read_bytes() == before


BAD_CONFIGS = [
    (dict(architectures=["MambaForCausalLM"]), "'MambaForCausalLM' cannot be converted; supported are Qwen2ForCausalLM"),
    (dict(architectures=None, model_type=None), "architecture None"),
    (dict(hidden_size="64"), "hidden_size is '64'"),
    (dict(num_attention_heads=0), "num_attention_heads is 0"),
    (dict(num_hidden_layers=10**9), "num_hidden_layers is 1,000,000,000"),
    (dict(num_hidden_layers=1), "'model.layers.1.input_layernorm.weight' is not part of"),
    (dict(num_hidden_layers=3), "lacks tensor 'model.layers.2.input_layernorm.weight' and 11 more"),
    (dict(intermediate_size=97), r"\[64, 96\], config.json calls for \[64, 97\]"),
    (dict(hidden_act="gelu"), "hidden_act 'gelu'"),
    (dict(rope_scaling=dict(rope_type="dynamic", factor=2.0)), "RoPE scaling 'dynamic'"),
    (dict(rope_scaling=dict(rope_type="yarn", factor=2.0)), "original_max_position_embeddings"),
    (dict(rope_theta=float("nan")), "rope_theta is nan"),
    (dict(rope_theta=0), "rope_theta is 0"),
    (dict(rms_norm_eps=-1e-6), "rms_norm_eps is -1e-06"),
    (dict(hidden_act="x" * 10_000), r"hidden_act 'x{59}\.\.\.; llama\.cpp runs"),
    (dict(hidden_size="6\n4" * 10_000), r"hidden_size is '(6\\n4)+.{0,3}\.\.\., a positive"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_CONFIGS)
def test_configs_that_do_not_fit(make_checkpoint, edit, tmp_path, changes, message):
    made = make_checkpoint()
    edit(made.folder / "config.json", **changes)
    with pytest.raises(UnsupportedModel, match=message) as raised:
        convert(made.folder, tmp_path / "m.gguf", "Q8_0")
    assert "\n" not in str(raised.value) and leftovers(tmp_path) == []


def test_a_missing_tensor_fails_before_a_byte_is_written(make_checkpoint, tmp_path):
    made = make_checkpoint(drop=("model.layers.1.mlp.up_proj.weight",))
    with pytest.raises(UnsupportedModel, match=r"lacks tensor 'model\.layers\.1\.mlp\.up_proj\.weight', which"):
        convert(made.folder, tmp_path / "m.gguf", "Q8_0")
    assert leftovers(tmp_path) == []


def test_a_truncated_source_is_named(make_checkpoint, tmp_path):
    made = make_checkpoint(shards=2)
    shard = made.folder / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(ModelFileError, match=r"model-00002-of-00002\.safetensors: truncated"):
        convert(made.folder, tmp_path / "m.gguf", "Q8_0")
    assert leftovers(tmp_path) == []


def test_unknown_format(make_checkpoint, tmp_path):
    with pytest.raises(QuantizeError, match="unknown format 'Q9'; choose one of F32, F16, BF16, Q8_0"):
        convert(make_checkpoint().folder, tmp_path / "m.gguf", "Q9")


@pytest.mark.parametrize(
    ("dtype", "value", "to", "message"),
    [
        (np.float32, np.nan, "Q8_0", "not a number"),
        (np.float32, np.inf, "BF16", "infinite"),
        (np.float32, 1e6, "F16", "65504"),
        (ml_dtypes.bfloat16, np.nan, "BF16", "not a number"),  # the bits could be copied as they are
        (np.float16, -np.inf, "F16", "infinite"),
        (np.float32, -np.nan, "F32", "not a number"),
    ],
)
def test_weights_a_format_cannot_hold(make_checkpoint, tmp_path, dtype, value, to, message):
    from safetensors.numpy import save_file

    made = make_checkpoint(dtype=dtype)
    made.tensors["model.layers.0.mlp.up_proj.weight"][3, 5] = value
    save_file(made.tensors, made.folder / "model.safetensors")
    with pytest.raises(QuantizeError, match=rf"tensor 'model\.layers\.0\.mlp\.up_proj\.weight' holds .*{message}"):
        convert(made.folder, tmp_path / "m.gguf", to)
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("to", ["BF16", "Q8_0"])
def test_weights_at_odd_addresses(make_checkpoint, tmp_path, to):
    """A header need not end at a multiple of 8 bytes; then no tensor lies where numpy wants it."""
    made = make_checkpoint()
    convert(made.folder, tmp_path / "a.gguf", to)
    weights = made.folder / "model.safetensors"
    raw = weights.read_bytes()
    (length,) = struct.unpack_from("<Q", raw)
    header = raw[8 : 8 + length].rstrip()
    header += b" " * (1 - len(header) % 2)
    weights.write_bytes(struct.pack("<Q", len(header)) + header + raw[8 + length :])
    convert(made.folder, tmp_path / "b.gguf", to)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are Unicode")
def test_a_folder_whose_name_is_no_unicode(make_checkpoint, tmp_path):
    made = make_checkpoint(name="m\udce9-7B")
    convert(made.folder, tmp_path / "m\udce9.gguf", "Q8_0")
    assert read_gguf_header(tmp_path / "m\udce9.gguf").metadata["general.name"] == "M\ufffd 7B"


def test_importing_costs_nothing():
    """No numpy, no engine, nothing of the app: `quantize` alone is imported by the app's first paint."""
    code = "import sys, quantize, quantize.errors; print([m for m in ('numpy', 'llama_cpp', 'localr1', 'rich', 'textual') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True)
    assert done.stdout.strip() == "[]"
    code = "import sys, quantize.convert; print([m for m in ('llama_cpp', 'localr1', 'rich', 'textual') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("to", ["F32", "F16", "BF16", "Q8_0"])
def test_decode_undoes_encode(to):
    """What decode gives is what the format's definition says the bytes stand for: computed here from `ENCODERS`' bytes."""
    weights = np.random.default_rng(2).standard_normal((5, 64), np.float32)
    with ThreadPoolExecutor(2) as pool:
        encoded = np.concatenate(list(encode(weights, FORMATS[to], pool)))
    assert encoded.tobytes() == ENCODERS[to](weights)
    assert encoded.nbytes == FORMATS[to].nbytes(weights.shape)
    decoded = decode(encoded, FORMATS[to], weights.shape)
    if to == "Q8_0":
        blocks = [encoded[i : i + 34] for i in range(0, len(encoded), 34)]
        wanted = [np.float32(b[:2].view(np.float16)[0]) * np.float32(code) for b in blocks for code in b[2:].view(np.int8)]
        assert decoded.reshape(-1).tolist() == wanted
    else:
        kind = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}[to]
        assert decoded.tolist() == weights.astype(kind).astype(np.float32).tolist()
    assert decoded.dtype == np.float32
