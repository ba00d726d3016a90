"""DeepSeek configs that cannot be, that programs read differently, or that llama.cpp computes otherwise: one clear line each."""

from __future__ import annotations

import math
from typing import Any

import pytest

from quantize.convert import convert
from quantize.errors import UnsupportedModel

YARN = dict(type="yarn", factor=40, original_max_position_embeddings=4096, mscale=1.0, mscale_all_dim=1.0)


def yarn(**changes: Any) -> dict[str, Any]:
    return dict(rope_scaling={key: value for key, value in (YARN | changes).items() if value is not None})


IMPOSSIBLE = [
    ("deepseek_v3", dict(kv_lora_rank=None), "kv_lora_rank is None, a positive whole number"),
    ("deepseek_v3", dict(qk_rope_head_dim=15), "qk_rope_head_dim 15 is odd"),
    ("deepseek_v3", dict(n_group=None), "n_group is None, a positive whole number"),
    ("deepseek_v3", dict(n_group=3), "4 of 16 experts cannot be chosen from 2 of 3 groups"),
    ("deepseek_v3", dict(topk_group=5), "from 5 of 4 groups"),
    ("deepseek_v3", dict(num_experts_per_tok=9), "9 of 16 experts cannot be chosen from 2 of 4 groups"),
    ("deepseek_v3", dict(n_group=16), "from 2 of 16 groups"),  # a group's two best experts have to be two
    ("deepseek_v3", dict(n_shared_experts=0), "n_shared_experts is 0"),
    ("deepseek_v3", dict(n_routed_experts=1000), "n_routed_experts is 1,000, the weights hold only"),
    ("deepseek_v3", dict(n_routed_experts=200), "n_routed_experts in all layers is 400, the weights hold only"),
    ("deepseek_v3", dict(num_nextn_predict_layers=10**6), "num_nextn_predict_layers is 1000000, a whole number from 0 to 16"),
    ("deepseek_v3", dict(first_k_dense_replace=-1), "first_k_dense_replace is -1, a whole number from 0"),
    ("deepseek_v3", dict(routed_scaling_factor=0), "routed_scaling_factor is 0, a number above 0"),
    ("deepseek_v3", dict(scoring_func="softmax"), "scoring_func is 'softmax'; this architecture has 'sigmoid'"),
    ("deepseek_v2", dict(scoring_func="sigmoid"), "scoring_func is 'sigmoid'; this architecture has 'softmax'"),
    ("deepseek_v3", dict(topk_method="greedy"), "topk_method is 'greedy'; this architecture has 'noaux_tc'"),
    ("deepseek_v2", dict(topk_method="noaux_tc"), "topk_method is 'noaux_tc'; this architecture has 'greedy' or 'group_limited_greedy'"),
    ("deepseek_v2", dict(norm_topk_prob=True), "norm_topk_prob is true, which programs compute differently"),
    ("deepseek_v3", dict(norm_topk_prob="yes"), "norm_topk_prob is 'yes', true or false is needed"),
    ("deepseek_v3", dict(moe_layer_freq=2), "moe_layer_freq is 2; DeepSeek models are supported with 1 only"),
    ("deepseek_v3", dict(attention_bias=True), "attention_bias is True; DeepSeek models are supported with False only"),
    ("deepseek_v3", dict(num_key_value_heads=2), "num_key_value_heads is 2; DeepSeek models are supported with 4 only"),
    ("deepseek_v3", dict(hidden_act="gelu"), "hidden_act 'gelu'"),
    ("deepseek_v3", yarn(type="linear"), "RoPE scaling 'linear' is not supported for DeepseekV3ForCausalLM; known are default, yarn"),
]  # fmt: skip

NOT_COMPUTED = [
    ("deepseek_v2", dict(), "topk_method is 'group_limited_greedy', which judges a group by its best expert"),  # as published
    ("deepseek_v3-mscale", dict(), "mscale is 1.0, which scales attention by 1.0857 where llama.cpp's YaRN computes 1.0000"),
    ("deepseek_v3", yarn(mscale=None), "mscale is None, which scales attention by 1.3689 "),
    ("deepseek_v3", yarn(mscale_all_dim=None), "mscale_all_dim is None, llama.cpp scales a DeepSeek model's attention right only with"),
    ("deepseek_v3", yarn(factor=0.5), "factor is 0.5, llama.cpp scales"),
    ("deepseek_v3", yarn(attention_factor=1.3), "attention_factor is 1.3, "),
    ("deepseek_v3", yarn(beta_fast=16), "beta_fast is 16, llama.cpp computes YaRN with 32"),
    ("deepseek_v3", yarn(truncate=False), "truncate is False"),
    ("deepseek_v3", dict(rope_interleave=False), "rope_interleave is False, llama.cpp rotates neighbouring pairs"),
    ("deepseek_v3", dict(num_hidden_layers=27), "q_lora_rank is 40, and llama.cpp takes a model of 27 layers for one without"),
    ("deepseek_v3", dict(n_routed_experts=2048), "n_routed_experts is 2048, llama.cpp takes 2 to 1024"),
    ("deepseek_v2-lite", dict(n_routed_experts=1, num_experts_per_tok=1), "n_routed_experts is 1, llama.cpp takes 2 to 1024"),
    ("deepseek_v3", dict(num_hidden_layers=513), "num_hidden_layers is 513, llama.cpp takes up to 512"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "changes", "message"), IMPOSSIBLE + NOT_COMPUTED)
def test_one_line_and_nothing_written(make_golden, edit, tmp_path, kind, changes, message):
    made = make_golden(kind)
    edit(made.folder / "config.json", **changes)
    with pytest.raises(UnsupportedModel) as raised:
        convert(made.folder, tmp_path / "m.gguf", "Q8_0")
    said = str(raised.value)
    assert message in said and "\n" not in said and len(said) < 300
    assert not list(tmp_path.glob("m.gguf*"))


SAME = [
    yarn(mscale=0.707, mscale_all_dim=0.707),
    yarn(attention_factor=1.0, mscale=None),
    yarn(factor=1, mscale=None, mscale_all_dim=None),
    dict(rope_scaling={}, rope_parameters=YARN | dict(rope_type="yarn", rope_theta=10000.0)),
    dict(scoring_func=None, topk_method=None, norm_topk_prob=None, moe_layer_freq=None, num_key_value_heads=None),
    dict(num_nextn_predict_layers=None, num_mtp_layers=1),  # as transformers 5 may spell it
]


@pytest.mark.parametrize("changes", SAME)
def test_what_llama_cpp_computes_is_converted(make_golden, edit, tmp_path, changes):
    made = make_golden("deepseek_v3")
    edit(made.folder / "config.json", **changes)
    convert(made.folder, tmp_path / "m.gguf", "Q8_0")


def test_the_numbers_above():
    """1.3689 is what transformers makes of factor 40 without mscale, 1.0857 of mscale 1 over mscale_all_dim 0.707."""
    assert f"{0.1 * math.log(40) + 1:.4f}" == "1.3689"
    assert f"{(0.1 * math.log(40) + 1) / (0.0707 * math.log(40) + 1):.4f}" == "1.0857"
