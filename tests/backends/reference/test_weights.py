"""Damaged and odd checkpoints: one clear line that names the tensor, before anything is computed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from goldens.checkpoints import KINDS

from backends.base import EngineError, ModelFileError
from backends.checkpoint import Checkpoint
from backends.reference.fp8 import dequantize_blocks, quantize_blocks
from backends.reference.model import Model
from backends.reference.mtp import MtpModule
from backends.reference.weights import Weights

NAMES = {
    "F32": np.dtype(np.float32), "BF16": np.dtype(ml_dtypes.bfloat16), "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu), "I32": np.dtype(np.int32),
}  # fmt: skip
Tensors = dict[str, np.ndarray]


def write(folder: Path, tensors: Tensors, config: dict) -> Path:
    """A checkpoint folder of one file."""
    dtypes = {dtype: name for name, dtype in NAMES.items()}
    header, at = {}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": dtypes[tensor.dtype], "shape": tensor.shape, "data_offsets": [at, at + tensor.nbytes]}
        at += tensor.nbytes
    raw = json.dumps(header).encode()
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + b"".join(t.tobytes() for t in tensors.values()))
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def changed(checkpoint, tmp_path) -> Callable[..., Path]:
    """A copy of a kind's checkpoint after `change(tensors, config)`."""

    def copy(kind: str, change: Callable[[Tensors, dict], object]) -> Path:
        with Checkpoint.open(checkpoint(kind)) as source:
            tensors = {name: source.read(name).copy() for name in source.names()}
            config = dict(source.config)
        change(tensors, config)
        return write(tmp_path / "changed", tensors, config)

    return copy


GATE = "model.layers.1.mlp.experts.3.gate_proj.weight"


def put(name: str, value: np.ndarray) -> Callable[[Tensors, dict], object]:
    return lambda tensors, config: tensors.__setitem__(name, value)


def poke(name: str, value: float) -> Callable[[Tensors, dict], object]:
    return lambda tensors, config: tensors[name].reshape(-1).__setitem__(-1, value)


@pytest.mark.parametrize(
    "change, named",
    [
        (lambda t, c: t.pop("model.norm.weight"), "model.norm.weight"),
        (lambda t, c: t.pop(GATE), GATE + "_scale_inv"),
        (lambda t, c: t.pop(GATE + "_scale_inv"), GATE + "_scale_inv"),
        (lambda t, c: [t.pop(GATE), t.pop(GATE + "_scale_inv")], GATE),
        (lambda t, c: t.pop("model.layers.3.enorm.weight"), "model.layers.3.enorm.weight"),
        (lambda t, c: t.pop("lm_head.weight"), "lm_head.weight"),
        (put("model.layers.0.self_attn.extra.weight", np.zeros(3, np.float32)), "self_attn.extra"),
        (put("model.layers.7.input_layernorm.weight", np.ones(192, np.float32)), "layers.7"),
        (put("model.norm.weight", np.ones(191, np.float32)), "model.norm.weight"),
        (put("model.norm.weight", np.ones(192, np.int32)), "model.norm.weight"),
        (put("model.norm.weight", np.ones(192, ml_dtypes.float8_e4m3fn)), "model.norm.weight"),
        (put("lm_head.weight", np.ones((160, 192), ml_dtypes.float8_e4m3fn)), "lm_head.weight"),
        (put(GATE, np.ones((160, 192), np.float32)), GATE + "_scale_inv"),
        (put(GATE + "_scale_inv", np.ones((1, 2), np.float32)), GATE + "_scale_inv"),
        (put(GATE + "_scale_inv", np.ones((2, 2), np.int32)), GATE + "_scale_inv"),
        (lambda t, c: c.pop("quantization_config"), "quantization_config"),
        (poke(GATE, np.nan), GATE),
        (poke(GATE + "_scale_inv", np.inf), GATE + "_scale_inv"),
        (poke("model.embed_tokens.weight", np.nan), "model.embed_tokens.weight"),
        (poke("model.layers.3.eh_proj.weight", np.nan), "model.layers.3.eh_proj.weight"),
        (poke("model.layers.1.mlp.gate.e_score_correction_bias", np.nan), "e_score_correction_bias"),
        (lambda t, c: c.update(num_hidden_layers=10**9), "num_hidden_layers"),
        (lambda t, c: c.update(n_routed_experts=10**9, n_group=1, topk_group=1), "n_routed_experts"),
        (lambda t, c: c.update(num_hidden_layers=2), "layers.3"),
    ],
)
def test_a_wrong_tensor_is_named(changed, change, named):
    with pytest.raises(ModelFileError) as error:
        Model.open(changed("deepseek_v3-fp8", change))
    assert named in str(error.value) and "\n" not in str(error.value)


def test_nan_in_a_large_checkpoint_is_found_when_the_weight_is_used(changed, monkeypatch):
    monkeypatch.setattr("backends.reference.weights.SCAN_BYTES", 0)
    for mode in ("off", "weights", "full"):
        with pytest.raises(ModelFileError, match=r"layers\.2\.self_attn\.o_proj\.weight' holds NaN"):
            Model.open(changed("deepseek_v3-fp8", poke("model.layers.2.self_attn.o_proj.weight", np.nan)), mode).logits([1, 2])


def test_full_mode_needs_fp8_weights(checkpoint):
    with pytest.raises(ModelFileError, match=r"--fp8 full.*localr1 quantize"):
        Model.open(checkpoint("deepseek_v3"), "full")


def test_a_token_outside_the_vocabulary_is_named(checkpoint):
    model = Model.open(checkpoint("qwen2"))
    for token in (-1, 160):
        with pytest.raises(EngineError, match=f"token {token} is outside the vocabulary"):
            model.logits([1, token])


def test_a_copy_without_mtp_layers_runs(changed, golden):
    def drop(tensors: Tensors, config: dict) -> None:
        for name in [n for n in tensors if n.startswith("model.layers.3.")]:
            del tensors[name]

    model = Model.open(changed("deepseek_v3", drop))
    expected = golden("deepseek_v3")
    np.testing.assert_allclose(model.logits(expected["tokens_22"].tolist()), expected["logits_22"], atol=2e-4)
    with pytest.raises(ModelFileError, match=r"no MTP layer \(model.layers.3\)"):
        MtpModule(model)


def test_an_mtp_layer_without_its_copies_uses_the_main_models(changed, golden):
    def share(tensors: Tensors, config: dict) -> None:
        tensors["model.embed_tokens.weight"] = tensors.pop("model.layers.3.embed_tokens.weight")
        tensors["lm_head.weight"] = tensors.pop("model.layers.3.shared_head.head.weight")

    ids = golden("deepseek_v3")["tokens_22"].tolist()
    shared = changed("deepseek_v3", share)

    def copied(tensors: Tensors, config: dict) -> None:
        share(tensors, config)
        tensors["model.layers.3.embed_tokens.weight"] = tensors["model.embed_tokens.weight"]
        tensors["model.layers.3.shared_head.head.weight"] = tensors["lm_head.weight"]

    logits = MtpModule(Model.open(shared)).logits(ids)
    np.testing.assert_array_equal(logits, MtpModule(Model.open(changed("deepseek_v3", copied))).logits(ids))


def test_scales_as_powers_of_two_bytes_are_read(changed):
    """DeepSeek-V3.1 stores scales that are powers of two; F8_E8M0 holds exactly those."""

    def powers(tensors: Tensors, config: dict) -> None:
        for name in tensors:
            if name.endswith("_scale_inv"):
                tensors[name] = np.exp2(np.ceil(np.log2(tensors[name]))).astype(np.float32)
        config["quantization_config"] = config["quantization_config"] | {"scale_fmt": "ue8m0"}

    def bytes_(tensors: Tensors, config: dict) -> None:
        powers(tensors, config)
        for name in tensors:
            if name.endswith("_scale_inv"):
                tensors[name] = tensors[name].astype(ml_dtypes.float8_e8m0fnu)

    def plain(tensors: Tensors, config: dict) -> None:
        powers(tensors, config)
        del config["quantization_config"]["scale_fmt"]

    ids = list(range(30))
    wide = Model.open(changed("deepseek_v3-fp8", powers), "full").logits(ids)
    np.testing.assert_array_equal(Model.open(changed("deepseek_v3-fp8", bytes_), "full").logits(ids), wide)
    # scale_fmt also rounds the scales of activations
    assert np.abs(Model.open(changed("deepseek_v3-fp8", plain), "full").logits(ids) - wide).max() > 1e-3


def test_eh_proj_is_no_fp8_linear_however_it_is_stored(changed, golden):
    name, ids = "model.layers.3.eh_proj.weight", golden("deepseek_v3-fp8")["tokens_22"].tolist()

    def stored(tensors: Tensors, config: dict) -> None:
        codes, tensors[name + "_scale_inv"] = quantize_blocks(tensors[name].astype(np.float32))
        tensors[name] = codes.view(ml_dtypes.float8_e4m3fn)

    def dequantized(tensors: Tensors, config: dict) -> None:
        tensors[name] = dequantize_blocks(*quantize_blocks(tensors[name].astype(np.float32)))

    logits = [MtpModule(Model.open(changed("deepseek_v3-fp8", change), "full")).logits(ids) for change in (stored, dequantized)]
    np.testing.assert_allclose(*logits, atol=1e-4)


@pytest.mark.parametrize("kind", ["qwen2", "deepseek_v3", "deepseek_v3-fp8"])
def test_weights_that_do_not_fit_are_read_anew_and_give_the_same_numbers(kind, checkpoint, golden, monkeypatch):
    monkeypatch.setattr("backends.reference.weights._fits", lambda checkpoint: False)
    monkeypatch.setattr("backends.reference.weights.PIECE_ELEMENTS", 1000)
    expected, model = golden(kind), Model.open(checkpoint(kind))
    np.testing.assert_allclose(model.logits(expected["tokens_22"].tolist()), expected["logits_22"], atol=2e-4)
    kept = model.weights._kept
    assert all(array.ndim == 1 or name.endswith("mlp.gate.weight") for name, array in kept.items())


def test_fp8_weights_are_never_held_dequantized(checkpoint):
    for mode in ("weights", "full"):
        model = Model.open(checkpoint("deepseek_v3-fp8"), mode)
        model.logits(list(range(100)))
        with Checkpoint.open(checkpoint("deepseek_v3-fp8")) as source:
            assert not [name for name in model.weights._kept if source.dtype(name) == "F8_E4M3"]


def test_only_the_chosen_experts_are_read(checkpoint, monkeypatch):
    from backends.reference.model import Record

    monkeypatch.setattr("backends.reference.weights.SCAN_BYTES", 0)
    model, record = Model.open(checkpoint("deepseek_v3-fp8"), "weights"), Record()
    read: set[str] = set()
    real = Checkpoint.read
    monkeypatch.setattr(Checkpoint, "read", lambda self, name: (read.add(name), real(self, name))[1])
    model.forward([7], model.new_cache(), record)
    experts = {(int(n.split(".")[2]), int(n.split(".")[5])) for n in read if ".experts." in n}
    assert experts == {(layer, int(e)) for layer, r in record.routing.items() for e in r.experts[0]}


def test_tied_embeddings_may_be_stored_twice(changed, checkpoint):
    ids = list(range(20))
    plain = Model.open(checkpoint("qwen2-tied")).logits(ids)
    twice = changed("qwen2-tied", lambda t, c: t.__setitem__("lm_head.weight", t["model.embed_tokens.weight"]))
    np.testing.assert_array_equal(Model.open(twice).logits(ids), plain)
    assert KINDS["qwen2-tied"].config["tie_word_embeddings"] is True
    other = changed("qwen2-tied", lambda t, c: t.__setitem__("lm_head.weight", t["model.embed_tokens.weight"] * 2))
    with pytest.raises(ModelFileError, match=r"tie_word_embeddings is true, and lm_head\.weight is not the embedding"):
        Model.open(other)


def test_overflow_is_an_error_and_not_a_result(changed):
    huge = changed("qwen2", lambda t, c: t.update({n: t[n] * 1e25 for n in t if n.endswith("down_proj.weight")}))
    with pytest.raises(EngineError, match="left float32's range"):
        Model.open(huge).logits([1, 2, 3])
    with pytest.raises(EngineError, match="no tokens"):
        Model.open(huge).logits([])


def test_weights_keep_nothing_open_after_the_folder_is_gone(checkpoint, tmp_path):
    folder = tmp_path / "gone"
    shutil.copytree(checkpoint("qwen2"), folder)
    checkpoint_ = Checkpoint.open(folder)
    shutil.rmtree(folder)
    from backends.reference.config import parse_config

    with pytest.raises(ModelFileError, match="cannot be read"):
        Weights(checkpoint_, parse_config(checkpoint_.config), "off")
