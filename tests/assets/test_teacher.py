"""The bundled teacher: DeepSeek-V3's architecture in the published format, and it reasons."""

import json

import pytest

from backends.checkpoint import Checkpoint
from backends.reference.config import parse_config
from backends.reference.weights import check_tensors
from localr1 import paths
from localr1.models import BUNDLED

TEACHER = paths.assets() / "r1-tiny-teacher"
MIB = 1 << 20


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return Checkpoint.open(TEACHER)


def test_the_whole_architecture_is_there(checkpoint: Checkpoint) -> None:
    config = parse_config(checkpoint.config)
    check_tensors(checkpoint, config)
    assert (
        config.model_type == "deepseek_v3"
        and config.rope.kind == "yarn"
        and config.rope.interleaved
        and config.num_nextn_predict_layers == 1
    )
    assert config.mla is not None and config.mla.q_lora_rank
    moe = config.moe
    assert moe is not None and (moe.first_k_dense_replace, moe.n_shared_experts, moe.scoring_func) == (1, 1, "sigmoid")
    assert moe.n_routed_experts >= 8 and moe.num_experts_per_tok >= 2 and 1 < moe.topk_group < moe.n_group


def test_large_matrices_are_in_fp8_blocks(checkpoint: Checkpoint) -> None:
    codes = [name for name in checkpoint.names() if checkpoint.dtype(name) == "F8_E4M3"]
    assert len(codes) > 100 and all(f"{name}_scale_inv" in checkpoint.names() for name in codes)
    assert {".".join(name.split(".")[-2:]) for name in codes} >= {
        "q_a_proj.weight",
        "kv_b_proj.weight",
        "o_proj.weight",
        "down_proj.weight",
    }
    assert not any("norm" in name or "embed" in name or "mlp.gate." in name for name in codes)
    assert sum(file.stat().st_size for file in TEACHER.iterdir()) < 16 * MIB


def test_every_routers_bias_was_moved(checkpoint: Checkpoint) -> None:
    for layer in range(1, 5):
        bias = checkpoint.read(f"model.layers.{layer}.mlp.gate.e_score_correction_bias")
        assert bias.dtype == "float32" and bias.any()


def test_tokens_and_template_are_the_students() -> None:
    for file in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert json.loads((TEACHER / file).read_text()) == json.loads((paths.assets() / BUNDLED / file).read_text())
