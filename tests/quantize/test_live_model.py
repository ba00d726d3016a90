"""Weights that are overwritten in llama.cpp's memory: the model is then the one whose file holds them, and afterwards the old one."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from backends.base import ModelFileError
from backends.compare import divergence, log_softmax
from localr1 import paths
from quantize.convert import convert
from quantize.fit_targets import GgufTarget
from quantize.formats import F32, FORMATS
from quantize.gguf_reader import read_gguf_header
from quantize.gguf_source import GgufSource
from quantize.live_model import LiveModel
from quantize.recipe import Mix
from quantize.sensitivity import Weight, changed, ggml_round_trip

TOKENS = list(range(40, 104))
POOL = ThreadPoolExecutor(2)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "student.gguf"
    convert(paths.assets() / "r1-tiny", path, "F32")
    return path


@pytest.fixture(scope="module")
def live(plain: Path) -> Iterator[LiveModel]:
    with LiveModel(plain, 64) as model:
        yield model


def weight(path: Path, name: str) -> Weight:
    return next(w for w in GgufTarget(GgufSource(path)).weights(None) if w.name == name)


def scores(path: Path) -> np.ndarray:
    with LiveModel(path, 64) as live:
        return live.scores(TOKENS)


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float(divergence(log_softmax(p), log_softmax(q)).mean())


@pytest.mark.parametrize("name", ["token_embd.weight", "blk.0.attn_k.weight", "output.weight"])
def test_as_a_file_that_holds_the_same_values(name, plain, live, tmp_path):
    new = list(changed(weight(plain, name), ggml_round_trip(FORMATS["Q3_K"], POOL), F32, POOL))
    with live.overwritten(name, new):
        found = live.scores(TOKENS)
    data = bytearray(plain.read_bytes())
    begin = next(t.begin for t in read_gguf_header(plain).tensors if t.name == name)
    raw = np.concatenate(new).tobytes()
    data[begin : begin + len(raw)] = raw
    (tmp_path / "patched.gguf").write_bytes(data)
    np.testing.assert_array_equal(found, scores(tmp_path / "patched.gguf"))


@pytest.mark.parametrize("name", ["blk.0.attn_k.weight", "blk.3.ffn_down.weight"])
def test_as_a_file_that_is_quantized(name, plain, live, tmp_path):
    """Within what llama.cpp changes by rounding a quantized matrix's inputs to 8 bits: up to 3% of what 3 bits in the weights do."""
    formats = {t.name: FORMATS["Q3_K"] if t.name == name else F32 for t in read_gguf_header(plain).tensors}
    convert(plain, tmp_path / "quantized.gguf", Mix("one", F32, 0, formats=formats))
    before, after = live.scores(TOKENS), scores(tmp_path / "quantized.gguf")
    with live.overwritten(name, changed(weight(plain, name), ggml_round_trip(FORMATS["Q3_K"], POOL), F32, POOL)):
        found = live.scores(TOKENS)
    assert kl(before, after) > 1e-4
    assert kl(after, found) < 0.06 * kl(before, after)


def test_restored_to_the_bit_whatever_happens(live):
    before = live.scores(TOKENS)
    with pytest.raises(RuntimeError), live.overwritten("blk.1.attn_q.weight", [np.zeros(4 * 256 * 256, np.uint8)]):
        assert kl(before, live.scores(TOKENS)) > 1e-3
        raise RuntimeError
    np.testing.assert_array_equal(live.scores(TOKENS), before)
    for wrong in (4 * 256 * 256 - 4, 4 * 256 * 256 + 4):
        with pytest.raises(ValueError, match="262,144 bytes"), live.overwritten("blk.1.attn_q.weight", [np.ones(wrong, np.uint8)]):
            pass
    np.testing.assert_array_equal(live.scores(TOKENS), before)


def test_every_matrix_is_found(plain, make_checkpoint, make_golden, tmp_path):
    made = {
        "tied": make_checkpoint("qwen2", name="tied", tie_word_embeddings=True, drop=("lm_head.weight",)).folder,
        "experts": make_golden("deepseek_v3", num_nextn_predict_layers=0).folder,
    }
    paths = {"plain": plain} | {name: tmp_path / f"{name}.gguf" for name in made}
    for name, folder in made.items():
        convert(folder, paths[name], "F16")
    for name, path in paths.items():
        with LiveModel(path, 64) as live:
            names = GgufTarget(GgufSource(path)).names
            assert [n for n in names if n not in live] == [], name
            assert {live.format(n).name for n in names} <= {"F32" if name == "plain" else "F16"}


def test_an_embedding_that_is_the_output_counts_as_both(make_checkpoint, tmp_path):
    folder = make_checkpoint("qwen2", tie_word_embeddings=True, drop=("lm_head.weight",)).folder
    convert(folder, tmp_path / "tied.gguf", "F32")
    with LiveModel(tmp_path / "tied.gguf", 64) as live:
        before = live.scores(TOKENS)
        (embedding,) = [rows[:] for rows, _ in weight(tmp_path / "tied.gguf", "token_embd.weight").matrices()]
        unread = embedding.copy()
        unread[0] *= -1  # token 0 is not in the text: as an embedding it changes nothing
        with live.overwritten("token_embd.weight", [unread.view(np.uint8).reshape(-1)]):
            after = live.scores(TOKENS)
    np.testing.assert_array_equal(after[:, 1:], before[:, 1:])
    np.testing.assert_array_equal(after[:, 0], -before[:, 0])


def test_what_is_no_model(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(64))
    with pytest.raises(ModelFileError, match="cannot be loaded"):
        LiveModel(tmp_path / "x.gguf", 64)
