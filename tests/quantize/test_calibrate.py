"""What is collected while a model runs: the engine's numbers against the reference's and against the definition; stopping; the texts."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.base import Cancel, EngineError, ModelFileError
from backends.llamacpp_library import library
from localr1 import paths
from quantize import calibrate, ggml_graph
from quantize.activations import Activations
from quantize.calibrate import Cancelled, check_chunks, collect, corpus, cut, heldout, read_text
from quantize.convert import convert
from quantize.errors import QuantizeError
from quantize.imatrix import ImportanceMatrix
from tests.quantize.reference_calibration import collect_reference

STUDENT = paths.assets() / "r1-tiny"


@pytest.fixture
def exact(monkeypatch):
    """Keys and values in F32, and no flash attention, which rounds to F16 on its way."""
    real = library().llama_context_default_params

    def params() -> Any:
        changed = real()
        changed.type_k = changed.type_v = 0  # GGML_TYPE_F32
        changed.flash_attn_type = 0  # LLAMA_FLASH_ATTN_TYPE_DISABLED
        return changed

    monkeypatch.setattr(library(), "llama_context_default_params", params)


def chunks(count: int, length: int, vocabulary: int = 160) -> list[list[int]]:
    rows: list[list[int]] = np.random.default_rng(7).integers(0, vocabulary, (count, length)).tolist()
    return rows


def assert_alike(found: ImportanceMatrix, wanted: ImportanceMatrix, tolerance: float) -> None:
    """`tolerance` is relative to the largest sum of a tensor."""
    assert set(found.tensors) == set(wanted.tensors)
    for name, inputs in wanted.tensors.items():
        np.testing.assert_array_equal(found.tensors[name].counts, inputs.counts, name)
        difference = np.abs(found.tensors[name].sums - inputs.sums).max() / inputs.sums.max()
        assert difference < tolerance, (name, difference)


# ------------------------------------------------------------------------------------------------------------- the numbers


@pytest.mark.parametrize("kind", ["qwen2", "llama", "qwen3", "deepseek_v3", "deepseek_v2-lite"])
def test_the_engine_and_the_reference_see_the_same(make_golden: Callable[..., Any], tmp_path, exact, kind):
    """Two implementations in float32: measured 5e-7. Attention, both halves of MLA's kv_b, routers, experts and shared experts are in it."""
    folder = make_golden(kind).folder
    convert(folder, tmp_path / "m.gguf", "F32")
    material = chunks(3, 48)
    assert_alike(collect(tmp_path / "m.gguf", material), collect_reference(folder, material), 5e-6)


def test_flash_attention_and_half_precision_change_little(make_golden: Callable[..., Any], tmp_path):
    """As it runs by default: measured 6e-4."""
    folder = make_golden("qwen2").folder
    convert(folder, tmp_path / "m.gguf", "F32")
    assert_alike(collect(tmp_path / "m.gguf", chunks(2, 64)), collect_reference(folder, chunks(2, 64)), 5e-3)


def test_the_sums_by_their_definition(make_golden: Callable[..., Any], tmp_path):
    """The first layer's queries, keys and values are multiplied with the normed embedding: computed here from the checkpoint alone."""
    made = make_golden("deepseek_v3")
    convert(made.folder, tmp_path / "m.gguf", "F32")
    material = chunks(2, 32)
    found = collect(tmp_path / "m.gguf", material, datasets=("numbers",))
    assert (found.chunks, found.chunk_tokens, found.datasets) == (2, 32, ("numbers",))

    x = made.tensors["model.embed_tokens.weight"].astype(np.float64)[np.array(material)]  # [2, 32, D]
    gain = made.tensors["model.layers.0.input_layernorm.weight"].astype(np.float64)
    normed = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * gain
    for name in ("blk.0.attn_q_a.weight", "blk.0.attn_kv_a_mqa.weight"):
        # float32 in the engine's norm and in our sums of 32 squares
        np.testing.assert_allclose(found.tensors[name].sums, (normed**2).sum((0, 1))[None], rtol=1e-5)
        assert found.tensors[name].counts.tolist() == [64]
    # 64 tokens went to 4 of 16 experts each, the same for all three matrices
    for layer in (1, 2):
        counts = [found.tensors[f"blk.{layer}.ffn_{part}_exps.weight"].counts for part in ("gate", "up", "down")]
        assert counts[0].sum() == 64 * 4 and (counts[0] == counts[1]).all() and (counts[0] == counts[2]).all()
    assert found.tensors["blk.1.attn_k_b.weight"].sums.shape == (1, 4 * 16)  # 4 heads with 16 keys, and one count
    assert not any(name.startswith(("output", "token_embd")) for name in found.tensors)


def test_every_matrix_of_a_layer_gets_weights_that_fit(make_golden: Callable[..., Any], tmp_path):
    from quantize.gguf_reader import read_gguf_header

    convert(make_golden("deepseek_v3").folder, tmp_path / "m.gguf", "F32")
    found = collect(tmp_path / "m.gguf", chunks(1, 16))
    matrices = {t.name: t.shape for t in read_gguf_header(tmp_path / "m.gguf").tensors if len(t.shape) > 1 and t.name.startswith("blk.")}
    assert set(matrices) == set(found.tensors)
    for name, shape in matrices.items():
        weights = found.weights(name, shape)
        assert weights is not None and weights.shape == (shape[0] if len(shape) == 3 else 1, shape[-1])
    unvisited = int((found.tensors["blk.1.ffn_up_exps.weight"].counts == 0).sum())
    assert unvisited > 0 and found.unvisited("blk.1.ffn_up_exps.weight") == unvisited


def test_chunks_are_computed_on_their_own(student_gguf):
    """And nothing is lost by leaving each graph, but the first, after its last matrix."""
    material = chunks(3, 64, 300)
    together = collect(student_gguf, material)
    alone = [collect(student_gguf, [chunk]) for chunk in material]
    for name, inputs in together.tensors.items():
        np.testing.assert_allclose(inputs.sums, sum(one.tensors[name].sums.astype(np.float64) for one in alone), rtol=1e-6)
        assert inputs.counts.tolist() == [192]


def test_activations():
    """Against loops over rows: matrices in two outer dimensions, of which the inputs have more; experts with inputs of their own."""
    rng = np.random.default_rng(0)
    seen = Activations()
    x = rng.standard_normal((4, 6, 5, 7)).astype(np.float32)
    seen.add("dense", x.swapaxes(2, 3).copy().swapaxes(2, 3), (2, 3))  # not contiguous
    own, shared = rng.standard_normal((2, 9, 3, 7)).astype(np.float32)
    chosen = np.argsort(rng.random((9, 5)), axis=1)[:, :3]
    chosen[chosen == 4] = 0  # the last one is never chosen
    for _ in range(2):
        seen.add_experts("own", own, chosen, 5)
        seen.add_experts("shared", shared[:, :1], chosen, 5)
    found = seen.matrix("test", 1, 16, ()).tensors

    dense = np.zeros((6, 7))
    for b, a, t in np.ndindex(4, 6, 5):
        dense[(b % 2) * 3 + a % 3] += x[b, a, t].astype(np.float64) ** 2
    np.testing.assert_allclose(found["dense"].sums, dense.reshape(1, -1), rtol=1e-5)
    assert found["dense"].counts.tolist() == [4 * 6 * 5 // 6]
    sums = {"own": np.zeros((5, 7)), "shared": np.zeros((5, 7))}
    for t, k in np.ndindex(9, 3):
        sums["own"][chosen[t, k]] += 2 * own[t, k].astype(np.float64) ** 2
        sums["shared"][chosen[t, k]] += 2 * shared[t, 0].astype(np.float64) ** 2
    for name, wanted in sums.items():
        np.testing.assert_allclose(found[name].sums, wanted, rtol=1e-5)
        assert found[name].counts.tolist() == (2 * np.bincount(chosen.reshape(-1), minlength=5)).tolist()
        assert found[name].counts[4] == 0


def test_activations_that_are_not_finite():
    for bad in (np.inf, np.nan, 3e38):  # whose square is
        seen = Activations()
        seen.add("blk.0.x.weight", np.full((1, 1, 16, 2), bad, np.float32))
        seen.add_experts("blk.0.y.weight", np.full((16, 1, 2), bad, np.float32), np.zeros((16, 1), np.int32), 2)
        with pytest.raises(QuantizeError, match=r"m\.gguf: tensor 'blk\.0\.x\.weight' holds sums that are infinite or not a number"):
            seen.matrix("m.gguf", 1, 16, ())
    with pytest.raises(QuantizeError, match="there is nothing to collect"):
        Activations().matrix("m.gguf", 1, 16, ())


# ------------------------------------------------------------------------------------------------------------ text and ids


def test_text_is_cut_as_llama_imatrix_does():
    """BOS in front of the text, and in place of each chunk's first token; what fills no chunk is left out."""
    ids = list(range(100, 150))
    assert cut(ids, None, 16) == [ids[:16], ids[16:32], ids[32:48]]
    assert cut(ids, 7, 16) == [[7, *ids[:15]], [7, *ids[16:31]], [7, *ids[32:47]]]
    assert cut(ids[:15], 7, 16) == [[7, *ids[:15]]]
    with pytest.raises(QuantizeError, match="has 15 tokens, 16 are needed for one chunk"):
        cut(ids[:15], None, 16)
    with pytest.raises(QuantizeError, match="chunks of 8 tokens were asked for; 16 or more"):
        cut(ids, None, 8)
    assert len(cut(ids, None, 16, 2)) == 2
    with pytest.raises(QuantizeError, match="0 chunks were asked for"):
        cut(ids, None, 16, 0)


def test_text_and_its_tokens_give_the_same(student_gguf, student):
    """The engine's tokenizer and the checkpoint's, and what spells a control token is text to both."""
    from backends.base import Text

    text = "Count </think> the r's.\n<｜User｜> " + corpus()[:300]
    ids = student.encode([Text(text)])
    bos = library().llama_vocab_bos(student._vocab)
    material = cut(ids, bos, 64)
    found = collect(student_gguf, text, chunk_tokens=64, most_chunks=2)
    assert found.chunks == 2
    assert_alike(found, collect(student_gguf, material[:2]), 1e-9)
    from_text = collect_reference(STUDENT, text, chunk_tokens=64, most_chunks=2)
    assert_alike(from_text, collect_reference(STUDENT, material[:2]), 1e-9)
    assert_alike(from_text, found, 0.1)  # the engine has Q8_0 weights here, and rounds what goes into each matrix too


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "t.txt").write_text("Größe\n", encoding="utf-8")
    assert read_text(tmp_path / "t.txt") == "Größe\n"
    (tmp_path / "t.txt").write_bytes("Größe".encode("latin-1"))
    with pytest.raises(QuantizeError, match=r"t\.txt: is no text in UTF-8 \(byte 2\)"):
        read_text(tmp_path / "t.txt")
    for missing in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(QuantizeError, match="cannot be read"):
            read_text(missing)


def test_chunks_that_cannot_be(student_gguf):
    for wrong in ([], [[1] * 15], [[1] * 16, [1] * 17]):
        with pytest.raises(QuantizeError, match="give chunks of one length, 16 or more"):
            check_chunks(wrong, 320)
    for wrong in ([[1] * 15 + [320]], [[-1] * 16]):
        with pytest.raises(QuantizeError, match=r"a token id is out of range: .* the vocabulary has 0 to 319"):
            collect(student_gguf, wrong)
    with pytest.raises(QuantizeError, match=r"chunks of 4,097 tokens were asked for and the model was trained for 4,096"):
        collect(student_gguf, [[1] * 4097])


def test_the_built_in_texts():
    """Large enough for a real vocabulary, of several kinds, and apart: no sentence is in both."""
    to_calibrate, to_measure = corpus(), heldout()
    assert 40_000 < len(to_calibrate.encode()) < 80_000 and 10_000 < len(to_measure.encode()) < 20_000
    for text in (to_calibrate, to_measure):
        for kind in ("Wait", r"\boxed{", "答案", "def ", "SET " if text is to_measure else "SELECT", '{"', "| "):
            assert kind in text, kind
        assert not re.search(r"<[|｜]|</?think>", text)
    cutting = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n")
    sentences = [{s.strip() for s in cutting.split(text) if len(s.strip()) > 8} for text in (to_calibrate, to_measure)]
    assert sentences[0].isdisjoint(sentences[1]) and len(sentences[0]) > 800


# ----------------------------------------------------------------------------------------------------- stopping and failing


def test_progress_and_cancel(student_gguf):
    seen: list[tuple[int, int]] = []
    collect(student_gguf, chunks(3, 16, 300), on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    cancel, calls = Cancel(), []

    def stop_at_third(done: int, _total: int) -> None:
        calls.append(done)
        if done == 2:
            cancel.set()

    with pytest.raises(Cancelled, match="calibration was cancelled"):
        collect(student_gguf, chunks(9, 16, 300), on_progress=stop_at_third, cancel=cancel)
    assert calls == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        collect(student_gguf, chunks(9, 16, 300), on_progress=lambda *_: 1 / 0)


signals = pytest.mark.skipif(os.name == "nt", reason="signals go another way")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell starts what it runs in the background with SIGINT ignored; then Python installs no handler for it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@signals
def test_ctrl_c_reaches_the_caller(student_gguf, capfd, interruptible):
    """ctypes prints an exception that is raised in a callback, and goes on: Ctrl+C was lost there."""

    def press_soon(done: int, _: int) -> None:
        if done == 1:
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt):
        collect(student_gguf, chunks(4000, 128, 300), on_progress=press_soon)
    assert capfd.readouterr() == ("", "")


@signals
def test_ctrl_c_while_it_stops(student_gguf, monkeypatch, interruptible):
    """Pressed again while the engine still computes: its memory is freed after it has stopped, and not before."""
    real, steps = Activations.add, []

    def slow(self: Activations, *arguments: Any) -> None:
        if not steps:
            steps.append("pressed")
            for delay in (0.0, 0.1, 0.2):
                threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()
            threading.Event().wait(0.4)
            steps.append("stopped")
        real(self, *arguments)

    monkeypatch.setattr(Activations, "add", slow)
    with pytest.raises(KeyboardInterrupt):
        collect(student_gguf, chunks(2, 64, 300))
    assert steps == ["pressed", "stopped"]


def test_a_failure_while_collecting_is_the_callers(student_gguf, monkeypatch, capfd):
    def fail(*_: Any) -> None:
        raise MemoryError("no memory for the sums")

    monkeypatch.setattr(Activations, "add", fail)
    with pytest.raises(MemoryError, match="no memory for the sums"):
        collect(student_gguf, chunks(2, 64, 300))
    assert capfd.readouterr() == ("", "")


def test_no_model_or_a_damaged_one(tmp_path, student_gguf):
    with pytest.raises(ModelFileError, match="no model file at"):
        collect(tmp_path / "none.gguf", corpus())
    (tmp_path / "cut.gguf").write_bytes(student_gguf.read_bytes()[:100_000])
    with pytest.raises(ModelFileError, match=r"cut\.gguf cannot be loaded"):
        collect(tmp_path / "cut.gguf", corpus())


def test_an_engine_with_another_layout_is_refused(monkeypatch):
    """`struct ggml_tensor` has changed before; read by the old offsets it would give numbers, or a crash."""

    class Other(ctypes.Structure):
        _fields_ = tuple((name, kind) for name, kind, *_ in ggml_graph._Tensor._fields_ if name != "op_params")

    ggml_graph._op_codes.cache_clear()
    monkeypatch.setattr(ggml_graph, "_Tensor", Other)
    with pytest.raises(EngineError, match="lays out its tensors in a way this program does not know"):
        ggml_graph._op_codes()
    monkeypatch.undo()
    ggml_graph._op_codes.cache_clear()
    codes = ggml_graph._op_codes()
    assert codes.plain != codes.experts


def test_names_of_copies_on_other_devices():
    for raw, name in [(b"blk.0.a.weight", "blk.0.a.weight"), (b"CUDA0#blk.0.a.weight#0", "blk.0.a.weight"), (b"CUDA0#blk.1.b", "blk.1.b")]:
        assert ggml_graph._weight_name(raw) == name


def test_package_data_is_beside_the_code():
    assert {p.name for p in Path(calibrate.__file__).parent.glob("*.txt")} >= {"corpus.txt", "heldout.txt"}
