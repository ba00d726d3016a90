"""DeepSeek-V2, -V3 and R1 in GGUF: what is written is what the checkpoint says, and llama.cpp computes what transformers does."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from localr1 import paths
from quantize.convert import convert
from quantize.errors import UnsupportedModel
from quantize.gguf_reader import read_gguf_header

GOLDENS = paths.assets() / "goldens"


def floats(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a GGUF file in F32."""
    with path.open("rb") as f:
        raw = f.read()
    found = {}
    for tensor in read_gguf_header(path).tensors:
        assert tensor.nbytes is not None and tensor.format is not None and tensor.format.name == "F32"
        found[tensor.name] = np.frombuffer(raw, np.float32, tensor.nbytes // 4, tensor.begin).reshape(tensor.shape)
    return found


@pytest.mark.parametrize("kind", ["deepseek_v3", "deepseek_v3-fp8", "deepseek_v2-lite"])
def test_llama_cpp_computes_what_transformers_does(make_golden, exact_llama_cpp, tmp_path, kind):
    """Logits of size 10; measured: 4e-5. Biases below zero, groups, YaRN's mscale, MTP and FP8 are in it; each mistake shows above 0.1."""
    convert(make_golden(kind).folder, tmp_path / "m.gguf", "F32")
    with np.load(GOLDENS / f"{kind}.npz") as golden:
        for length in (22, 200):
            found = exact_llama_cpp(tmp_path / "m.gguf", golden[f"tokens_{length}"])
            np.testing.assert_allclose(found, golden[f"logits_{length}"], rtol=0, atol=5e-4)


VARIANTS = [
    ("deepseek_v2", dict(topk_method="greedy")),  # n_group 4 stands there and does not count
    ("deepseek_v2", dict(topk_group=4)),  # a limit to all groups is none; llama.cpp would end the program
    ("deepseek_v3", dict(norm_topk_prob=False, routed_scaling_factor=1.0, first_k_dense_replace=0, n_shared_experts=2)),
    ("deepseek_v3", dict(q_lora_rank=None, rope_scaling=None, rope_theta=50000.0, num_nextn_predict_layers=0)),
    ("deepseek_v3", dict(first_k_dense_replace=3, n_group=1, topk_group=1, num_nextn_predict_layers=0)),
]


@pytest.mark.parametrize(("kind", "changes"), VARIANTS)
def test_llama_cpp_computes_what_the_reference_does(make_golden, exact_llama_cpp, tmp_path, kind, changes):
    """Configurations that no golden has."""
    from backends.reference.backend import ReferenceBackend

    made = make_golden(kind, vocab_size=320, **changes)
    convert(made.folder, tmp_path / "m.gguf", "F32")
    tokens = np.random.default_rng(0).integers(0, 320, 100)
    with ReferenceBackend(made.folder, 512) as reference:
        np.testing.assert_allclose(exact_llama_cpp(tmp_path / "m.gguf", tokens), reference.logits(tokens.tolist()), rtol=0, atol=5e-4)


def test_tensors_by_their_definition(make_golden, tmp_path):
    made = make_golden("deepseek_v3")
    report = convert(made.folder, tmp_path / "m.gguf", "F32")
    found = floats(tmp_path / "m.gguf")
    plain = {
        "self_attn.q_a_proj": "attn_q_a", "self_attn.q_a_layernorm": "attn_q_a_norm", "self_attn.q_b_proj": "attn_q_b",
        "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa", "self_attn.kv_a_layernorm": "attn_kv_a_norm", "self_attn.o_proj": "attn_output",
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate": "ffn_gate_inp",
        "mlp.shared_experts.up_proj": "ffn_up_shexp", "mlp.shared_experts.down_proj": "ffn_down_shexp", "mlp.gate_proj": "ffn_gate",
    }  # fmt: skip
    wanted = {name: np.asarray(weights, np.float32) for name, weights in made.tensors.items()}
    for i in range(3):
        for source, name in plain.items():
            if f"model.layers.{i}.{source}.weight" in wanted:
                assert (found[f"blk.{i}.{name}.weight"] == wanted[f"model.layers.{i}.{source}.weight"]).all()
        kv_b = wanted[f"model.layers.{i}.self_attn.kv_b_proj.weight"]
        k_b, v_b = found[f"blk.{i}.attn_k_b.weight"], found[f"blk.{i}.attn_v_b.weight"]
        assert (k_b.shape, v_b.shape) == ((4, 32, 16), (4, 24, 32))  # heads, latents, keys; heads, values, latents
        for head in range(4):
            for j in range(16):
                assert (k_b[head, :, j] == kv_b[head * 40 + j]).all()
            for j in range(24):
                assert (v_b[head, j] == kv_b[head * 40 + 16 + j]).all()
    for i in (1, 2):
        assert (found[f"blk.{i}.exp_probs_b.bias"] == wanted[f"model.layers.{i}.mlp.gate.e_score_correction_bias"]).all()
        for expert in range(16):
            for part in ("gate", "up", "down"):
                source = wanted[f"model.layers.{i}.mlp.experts.{expert}.{part}_proj.weight"]
                assert (found[f"blk.{i}.ffn_{part}_exps.weight"][expert] == source).all()
    assert not any(name.startswith("blk.3") or "nextn" in name for name in found)  # the MTP layer
    assert report.parameters == sum(tensor.size for tensor in found.values())


def test_metadata(make_golden, tmp_path):
    made = make_golden("deepseek_v3")
    report = convert(made.folder, tmp_path / "m.gguf", "Q8_0")
    header = read_gguf_header(tmp_path / "m.gguf")
    found = {key.removeprefix("deepseek2."): value for key, value in header.metadata.items() if key.startswith("deepseek2.")}
    assert found.pop("attention.layer_norm_rms_epsilon") == pytest.approx(1e-6, rel=1e-6)  # stored as float32
    assert found.pop("rope.scaling.yarn_log_multiplier") == pytest.approx(0.1, rel=1e-6)
    assert found == {
        "block_count": 3, "context_length": 163840, "embedding_length": 64, "feed_forward_length": 96, "attention.head_count": 4,
        "attention.head_count_kv": 1, "rope.scaling.type": "yarn", "rope.scaling.factor": 40.0,
        "rope.scaling.original_context_length": 4096, "rope.scaling.yarn_beta_fast": 32.0, "rope.scaling.yarn_beta_slow": 1.0,
        "rope.freq_base": 10000.0, "expert_count": 16, "expert_used_count": 4, "expert_group_count": 4, "expert_group_used_count": 2,
        "expert_gating_func": 2, "attention.key_length": 48, "attention.value_length": 32, "leading_dense_block_count": 1,
        "vocab_size": 160, "attention.q_lora_rank": 40, "attention.kv_lora_rank": 32, "attention.key_length_mla": 32,
        "attention.value_length_mla": 24, "expert_feed_forward_length": 32, "expert_shared_count": 1, "expert_weights_scale": 2.5,
        "expert_weights_norm": True, "rope.dimension_count": 16,
    }  # fmt: skip
    experts = 2 * 16 * 3 * 64 * 32
    assert header.metadata["general.size_label"] == f"16x{(report.parameters - experts + experts // 16) / 1e3:.0f}K"
    formats = {t.name: t.format.name for t in header.tensors if t.format is not None}
    assert formats["blk.1.ffn_gate_inp.weight"] == "F32" and formats["blk.1.ffn_up_exps.weight"] == "Q8_0"
    assert ("blk.1.ffn_gate_inp.weight", "F32") not in report.fallbacks  # as llama.cpp wants it, not for lack of whole blocks


def test_metadata_of_v2_lite(make_golden, tmp_path):
    """llama.cpp reads q_lora_rank unless it takes the model for V2-Lite by its 27 layers: 0 says that there is none."""
    convert(make_golden("deepseek_v2-lite").folder, tmp_path / "m.gguf", "F16")
    found = read_gguf_header(tmp_path / "m.gguf").metadata
    assert (found["deepseek2.attention.q_lora_rank"], found["deepseek2.expert_gating_func"]) == (0, 1)
    assert "deepseek2.expert_weights_norm" not in found
    convert(make_golden("deepseek_v2-lite", "deep", num_hidden_layers=27).folder, tmp_path / "m.gguf", "F16", force=True)
    assert "deepseek2.attention.q_lora_rank" not in read_gguf_header(tmp_path / "m.gguf").metadata


@pytest.mark.parametrize("kind", ["deepseek_v3", "deepseek_v3-fp8"])
def test_pieces_are_put_together(make_golden, tmp_path, monkeypatch, kind):
    """Pieces that end inside a head, inside an FP8 block, and with a few rows too many."""
    made = make_golden(kind)
    for to in ("F32", "Q8_0"):
        convert(made.folder, tmp_path / "whole.gguf", to, force=True)
        with monkeypatch.context() as patch:
            patch.setattr("quantize.formats.PIECE_ELEMENTS", 700)
            convert(made.folder, tmp_path / "pieces.gguf", to, force=True)
        assert (tmp_path / "pieces.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()


def test_without_its_mtp_layer_the_file_is_the_same(make_golden, rewrite, tmp_path):
    made = make_golden("deepseek_v3")
    convert(made.folder, tmp_path / "with.gguf", "BF16")
    rewrite(made.folder, {name: w for name, w in made.tensors.items() if not name.startswith("model.layers.3.")})
    convert(made.folder, tmp_path / "without.gguf", "BF16")
    assert (tmp_path / "with.gguf").read_bytes() == (tmp_path / "without.gguf").read_bytes()


def test_unknown_and_missing_tensors(make_golden, rewrite, tmp_path):
    made = make_golden("deepseek_v3")
    odd = np.zeros((2, 2), ml_dtypes.bfloat16)
    expert = "model.layers.2.mlp.experts.15.up_proj.weight"
    for tensors, message in [
        (made.tensors | {"model.layers.3.extra.weight": odd}, r"'model\.layers\.3\.extra\.weight' is not part of a deepseek2 model"),
        (made.tensors | {"model.layers.4.enorm.weight": odd}, r"'model\.layers\.4\.enorm\.weight' is not part of"),
        (made.tensors | {"model.layers.2.mlp.experts.16.up_proj.weight": odd}, r"experts\.16\.up_proj\.weight' is not part of"),
        (made.tensors | {expert: odd}, r"experts\.15\.up_proj\.weight' has the shape \[2, 2\], config\.json calls for \[32, 64\]"),
        (
            {n: w for n, w in made.tensors.items() if n != expert},
            r"lacks tensor 'model\.layers\.2\.mlp\.experts\.15\.up_proj\.weight', which",
        ),
    ]:
        rewrite(made.folder, tensors)
        with pytest.raises(UnsupportedModel, match=message):
            convert(made.folder, tmp_path / "m.gguf", "F16")
    assert not list(tmp_path.glob("*.gguf*"))
