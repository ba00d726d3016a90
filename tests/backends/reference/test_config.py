"""config.json -> Config: nothing that changes the numbers is guessed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from goldens.checkpoints import KINDS
from make_r1_layer import CONFIG

from backends.base import ModelFileError
from backends.reference.config import parse_config
from backends.reference.rope import Rope, angles, inverse_frequencies
from backends.reference.shapes import tensor_shapes

R1 = CONFIG | {"vocab_size": 129280, "num_hidden_layers": 61, "first_k_dense_replace": 3, "num_nextn_predict_layers": 1}
V3, V2, LLAMA, QWEN3 = (KINDS[kind].config for kind in ("deepseek_v3", "deepseek_v2", "llama", "qwen3"))


@pytest.mark.parametrize("kind", KINDS)
def test_published_keys_are_understood(kind):
    assert parse_config(KINDS[kind].config).model_type == KINDS[kind].config["model_type"]


def test_the_real_r1_has_as_many_parameters_as_its_makers_say():
    """README_WEIGHTS.md@deepseek-ai/DeepSeek-V3: 671B in the main model; an MTP module that repeats the 0.9B embedding and head."""
    size = {name: math.prod(shape) for name, shape in tensor_shapes(parse_config(R1)).items()}
    mtp = sum(n for name, n in size.items() if name.startswith("model.layers.61."))
    assert sum(size.values()) - mtp == 671_026_419_200
    assert mtp - 2 * 129280 * 7168 == 11_610_068_224


@pytest.mark.parametrize(
    "base, change, named",
    [
        (V3, {"model_type": "gpt2"}, "model_type"),
        (V3, {"model_type": None}, "model_type"),
        (V3, {"attn_logit_softcapping": 30.0}, "attn_logit_softcapping"),
        (V3, {"index_topk": 2048}, "index_topk"),
        (LLAMA, {"kv_lora_rank": 8}, "kv_lora_rank"),
        (V3, {"hidden_size": None}, "hidden_size"),
        (V3, {"hidden_size": -4}, "hidden_size"),
        (V3, {"hidden_size": "64"}, "hidden_size"),
        (V3, {"rms_norm_eps": 0}, "rms_norm_eps"),
        (V3, {"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        (V3, {"hidden_act": "gelu"}, "hidden_act"),
        (V3, {"scoring_func": "softmax"}, "scoring_func"),
        (V3, {"topk_method": "greedy"}, "topk_method"),
        (V2, {"scoring_func": "sigmoid"}, "scoring_func"),
        (V2, {"norm_topk_prob": True}, "norm_topk_prob"),
        (V3, {"n_group": 3}, "n_group"),
        (V3, {"n_group": 16}, "n_group"),  # groups of one expert have no second best
        (V3, {"topk_group": 5}, "topk_group"),
        (V3, {"num_experts_per_tok": 9}, "num_experts_per_tok"),
        (V3, {"moe_layer_freq": 2}, "moe_layer_freq"),
        (V3, {"first_k_dense_replace": None}, "first_k_dense_replace"),
        (V3, {"num_key_value_heads": 1}, "num_key_value_heads"),
        (V3, {"qk_rope_head_dim": 7}, "7"),
        (V3, {"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        (V3, {"quantization_config": {"quant_method": "gptq"}}, "quant_method"),
        (V3, {"quantization_config": {"quant_method": "fp8", "fmt": "e5m2", "weight_block_size": [128, 128]}}, "fmt"),
        (V3, {"quantization_config": {"quant_method": "fp8", "weight_block_size": [64, 64]}}, "weight_block_size"),
        (
            V3,
            {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "static"}},
            "activation",
        ),
        (LLAMA, {"num_key_value_heads": 3}, "num_key_value_heads"),
        (LLAMA, {"num_attention_heads": 5, "num_key_value_heads": 5}, "num_attention_heads"),
        (LLAMA, {"rope_scaling": {"rope_type": "longrope", "factor": 4}}, "longrope"),
        (LLAMA, {"rope_scaling": {"type": "dynamic", "factor": 4}}, "dynamic"),
        (LLAMA, {"rope_scaling": "yarn"}, "rope_scaling"),
        (LLAMA, {"rope_scaling": LLAMA["rope_scaling"] | {"high_freq_factor": 1.0}}, "high_freq_factor"),
        (LLAMA, {"rope_scaling": LLAMA["rope_scaling"] | {"factor": None}}, "factor"),
        (LLAMA, {"rope_scaling": LLAMA["rope_scaling"] | {"beta_fast": 3}}, "beta_fast"),
        (LLAMA, {"rope_parameters": LLAMA["rope_scaling"] | {"factor": 2.0}}, "factor"),
        (LLAMA, {"rope_parameters": LLAMA["rope_scaling"] | {"rope_theta": 3.0}}, "rope_theta"),
        (LLAMA, {"rope_scaling": LLAMA["rope_scaling"] | {"rope_type": ["llama3"]}}, "RoPE scaling ['llama3']"),
        (V3, {"rope_scaling": V3["rope_scaling"] | {"beta_fast": -1}}, "beta_fast"),
        (V3, {"rope_scaling": V3["rope_scaling"] | {"factor": 1e-300}}, "factor"),
        (QWEN3, {"use_sliding_window": True, "max_window_layers": 2}, "sliding"),
        (QWEN3, {"layer_types": ["chunked_attention"] * 3}, "layer_types"),
        (V2, {"rope_interleave": False}, "rope_interleave"),
        (V3, {"num_mtp_layers": 2}, "num_mtp_layers"),
        (V3, {"rope_scaling": V3["rope_scaling"] | {"mscale": None}}, "mscale"),
        (V3, {"rope_scaling": V3["rope_scaling"] | {"mscale_all_dim": -2.7}}, "mscale"),
        (V3, {"rope_scaling": V3["rope_scaling"] | {"truncate": None}}, "truncate"),
        (LLAMA, {"rope_scaling": None, "rope_parameters": {"full_attention": LLAMA["rope_scaling"]}}, "full_attention"),
        (QWEN3, {"layer_types": ["full_attention", "sliding_attention"]}, "sliding"),
    ],
)
def test_what_changes_the_numbers_and_is_not_known_is_refused_by_name(base, change, named):
    with pytest.raises(ModelFileError, match=r"config\.json") as error:
        parse_config(base | change)
    assert named in str(error.value)


@pytest.mark.parametrize("change", [{"use_mrope": False}, {"new_feature": None}, {"_name_or_path": "x"}, {"router_aux_loss_coef": 0.1}])
def test_what_changes_nothing_is_let_through(change):
    assert parse_config(QWEN3 | change) == parse_config(QWEN3)


def test_the_spelling_of_transformers_5_means_the_same():
    old = {k: v for k, v in V3.items() if k not in ("rope_scaling", "rope_theta", "num_nextn_predict_layers")}
    scaling = {("rope_type" if k == "type" else k): v for k, v in V3["rope_scaling"].items()}
    new = old | {"rope_parameters": scaling | {"rope_theta": V3["rope_theta"]}, "num_mtp_layers": 1, "dtype": "bfloat16", "qk_head_dim": 24}
    assert parse_config(new) == parse_config(V3)


def test_yarn_follows_deepseeks_formulas_for_r1():
    config = parse_config(R1)
    assert config.mla is not None
    mscale = 0.1 * math.log(40) + 1
    assert config.mla.softmax_scale == pytest.approx(192**-0.5 * mscale**2)
    assert config.rope.attention_factor == 1
    frequencies, plain = inverse_frequencies(config.rope), 10000.0 ** -(np.arange(0, 64, 2) / 64)
    ratio = frequencies / plain
    assert (ratio[:11] == pytest.approx(1)) and ratio[11] < 1  # low = floor(10.24...) for beta_fast 32
    assert ratio[23:] == pytest.approx(1 / 40) and ratio[22] > 1 / 40 * 1.01  # high = ceil(22.5...) for beta_slow 1


def test_frequencies_are_rounded_as_in_the_published_code(golden):
    """Else logits differ by 5e-3 at position 130,000. One value in 32 may round the other way: torch's power is its own."""
    for key, wanted in golden("rope").items():
        theta, dim = map(int, key.split("_"))
        assert (inverse_frequencies(Rope("default", float(theta), dim, True)) != wanted).mean() <= 1 / 32


def test_a_window_that_slides_nowhere_changes_nothing():
    assert parse_config(QWEN3 | {"use_sliding_window": True, "max_window_layers": 3}) == parse_config(QWEN3)


def test_yarn_holds_at_position_0_and_far_away():
    config = parse_config(R1)
    cos, sin = angles(config.rope, 163_000, 3)
    phase = np.arange(163_000, 163_003)[:, None] * inverse_frequencies(config.rope).astype(np.float64)
    np.testing.assert_allclose(cos, np.cos(phase), atol=0.02)  # float32 phases of up to 163,000 radians
    np.testing.assert_allclose(sin**2 + cos**2, 1, atol=1e-6)
    assert (angles(config.rope, 0, 1)[0] == 1).all()
