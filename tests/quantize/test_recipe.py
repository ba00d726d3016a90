"""Named mixes: our single pass over the checkpoint against llama.cpp's own quantizer over our unquantized GGUF, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_quantize import llama_quantize, same

from quantize.convert import convert
from quantize.errors import QuantizeError
from quantize.formats import FORMATS
from quantize.gguf_reader import read_gguf_header
from quantize.imatrix import ImportanceMatrix, Inputs
from quantize.recipe import MIXES, choose, fitting, mix

QUANTIZED = [name for name, m in MIXES.items() if m.default.block > 1]
TINY = [name for name in QUANTIZED if MIXES[name].needs_imatrix]  # a second of searching for every hundred thousand weights
FREE = [name for name in QUANTIZED if not MIXES[name].needs_imatrix]
# Nine layers: an eighth of them is one. Rows of o_proj are no whole blocks of 256, but of 32.
DEEP = dict(num_hidden_layers=9, hidden_size=256, intermediate_size=256, num_attention_heads=4, head_dim=24, dtype=np.float32)


def importance(path: Path, seed: int = 1) -> ImportanceMatrix:
    """Random, of every tensor of the layers."""
    random, found = np.random.default_rng(seed), {}
    for tensor in read_gguf_header(path).tensors:
        if tensor.name.startswith("blk.") and len(tensor.shape) > 1:
            matrices = int(np.prod(tensor.shape[:-2]))
            sums = random.exponential(1, (matrices, tensor.shape[-1])).astype(np.float32) * 40
            found[tensor.name] = Inputs(sums, np.full(matrices, 40))
    return ImportanceMatrix(found, 1, 512)


@pytest.fixture
def compare(tmp_path) -> Callable[..., None]:
    def run(folder: Path, names: list[str], unquantized: str = "F32", with_imatrix: bool = False) -> None:
        plain = tmp_path / "plain.gguf"
        convert(folder, plain, unquantized)
        matrix = importance(plain) if with_imatrix else None
        for name in names:
            convert(folder, tmp_path / "ours.gguf", name, imatrix=matrix, force=True)
            assert llama_quantize(plain, tmp_path / "theirs.gguf", MIXES[name].file_type, matrix), name
            same(tmp_path / "ours.gguf", tmp_path / "theirs.gguf")

    return run


def slow(names: Iterable[str], *which: str) -> list[Any]:
    return [pytest.param(name, marks=pytest.mark.slow) if name in which else name for name in names]


@pytest.mark.parametrize("name", slow(FREE, "IQ3_S", "IQ3_M"))
def test_every_mix_of_the_bundled_student(name, compare):
    from localr1 import paths

    compare(paths.assets() / "r1-tiny", [name], "BF16")


@pytest.mark.parametrize("kv_heads", [1, 2], ids=["many heads share", "few heads share"])
@pytest.mark.parametrize("name", slow(QUANTIZED, *TINY, "IQ3_S", "IQ3_M"))
def test_every_mix_in_every_layer(name, kv_heads, make_checkpoint, compare):
    made = make_checkpoint("llama", num_key_value_heads=kv_heads, **DEEP)
    compare(made.folder, [name], with_imatrix=MIXES[name].needs_imatrix)


@pytest.mark.parametrize("name", slow([n for n in FREE if n.startswith(("IQ", "Q4_0", "Q5_0", "Q3_K_S", "Q2"))], "IQ3_S", "IQ3_M"))
def test_an_importance_matrix_changes_the_mix_too(name, make_checkpoint, compare):
    compare(make_checkpoint("qwen3", num_key_value_heads=2, **DEEP).folder, [name], with_imatrix=True)


@pytest.mark.parametrize("experts", [8, 16])
@pytest.mark.parametrize(
    "names", [["Q4_K_M", "Q2_K", "Q3_K_M"], pytest.param(["IQ4_XS", "IQ3_M", "IQ2_M", "IQ1_S"], marks=pytest.mark.slow)], ids=str
)
def test_mixtures_of_experts(names, experts, make_golden, compare):
    changes = dict(hidden_size=256, moe_intermediate_size=256, intermediate_size=256, n_routed_experts=experts, vocab_size=320)
    made = make_golden("deepseek_v3", num_nextn_predict_layers=0, num_hidden_layers=2, **changes)
    compare(made.folder, names, with_imatrix="IQ2_M" in names)


def test_two_bits(make_checkpoint, compare):
    compare(make_checkpoint("qwen3", num_key_value_heads=2, **DEEP | dict(num_hidden_layers=1)).folder, ["IQ2_XXS"], with_imatrix=True)


def test_tied_embeddings_count_as_the_output(make_checkpoint, compare):
    made = make_checkpoint("qwen2", **DEEP | dict(num_hidden_layers=1, head_dim=64), tie_word_embeddings=True, drop=("lm_head.weight",))
    compare(made.folder, ["Q4_K_M", "Q4_0", "IQ4_NL", "Q8_0"])


def test_rows_that_no_block_fits_become_f16(make_checkpoint, compare):
    compare(make_checkpoint("llama", hidden_size=64, intermediate_size=100).folder, ["Q4_K_M", "Q4_0", "IQ3_M"])


def test_too_few_bits_without_an_importance_matrix(make_checkpoint, tmp_path):
    made = make_checkpoint("llama", **DEEP)
    with pytest.raises(QuantizeError, match=r"IQ2_XS needs an importance matrix; give one with --imatrix"):
        convert(made.folder, tmp_path / "x.gguf", "IQ2_XS")
    convert(made.folder, tmp_path / "plain.gguf", "F32")
    matrix = importance(tmp_path / "plain.gguf")
    lacking = ImportanceMatrix({n: v for n, v in matrix.tensors.items() if n != "blk.3.ffn_up.weight"}, 1, 512)
    with pytest.raises(QuantizeError, match=r"needs importances of blk\.3\.ffn_up\.weight"):
        convert(made.folder, tmp_path / "x.gguf", "IQ2_XS", imatrix=lacking)
    assert not (tmp_path / "x.gguf").exists()


def test_names():
    assert mix("q4_k_m") is MIXES["Q4_K_M"]
    with pytest.raises(QuantizeError, match=r"unknown format 'Q4_K_X'.*Q4_K_M"):
        mix("Q4_K_X")
    assert fitting(FORMATS["Q4_K"], (3, 96)).format.name == "Q5_0" and fitting(FORMATS["Q4_K"], (3, 100)).format.name == "F16"


def test_keys_and_values_in_one_matrix_count_as_values():
    """Of DeepSeek's models, in files made before llama.cpp took the two apart; with 8 experts, as llama_model_quantize has it."""
    from quantize.recipe import Traits

    names = [(f"blk.{i}.attn_kv_b.weight", (512, 256)) for i in range(8)]
    assert {choice.format.name for choice in choose(MIXES["Q4_K_M"], names, Traits(8, 1, 8, False))} == {"Q8_0"}


def test_the_order_of_tensors_does_not_matter():
    from quantize.recipe import Traits

    names = [(f"blk.{i}.{part}.weight", (256, 256)) for i in range(12) for part in ("attn_v", "ffn_down", "attn_q")]
    names += [("output.weight", (330, 256)), ("token_embd.weight", (330, 256))]
    traits = Traits(12, 2, 0, False)
    for m in MIXES.values():
        forward = dict(zip(names, choose(m, names, traits), strict=True))
        assert forward == dict(zip(names[::-1], choose(m, names[::-1], traits), strict=True))
