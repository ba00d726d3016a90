"""What is pulled: names, quantizations, formats and places, chosen for the machine."""

from __future__ import annotations

import pytest
from hub.pulls import QWEN, STEM, gguf_repo
from hub_server import Hub, Repo

from localr1 import fitting, hub, hub_errors
from localr1.aliases import FAMILY
from localr1.choosing import folder_files, gguf_models, preferred, quant_of


def test_quantizations_are_read_from_names() -> None:
    for stem, quant in {
        "DeepSeek-R1-Distill-Qwen-7B-Q4_K_M": "Q4_K_M", "m.i1-IQ2_XXS": "IQ2_XXS", "DeepSeek-R1-0528-Qwen3-8B-UD-Q4_K_XL": "UD-Q4_K_XL",
        "model-f16": "F16", "model.fp16": "F16", "gpt-MXFP4": "MXFP4", "model-BF16": "BF16", "model-TQ1_0": "TQ1_0", "model": "", "Q": "",
        "DeepSeek-R1-Distill-Qwen-1.5B": "",
    }.items():  # fmt: skip
        assert quant_of(stem) == quant, stem


def test_parts_are_one_model_and_helpers_are_none() -> None:
    sizes = {f"Q8_0/big-Q8_0-0000{n}-of-00003.gguf": 10 for n in (1, 2, 3)} | {
        "big-Q4_K_M-00001-of-00002.gguf": 10, "mmproj-F16.gguf": 1, "big-imatrix.gguf": 1, "big.imatrix": 1,
    }  # fmt: skip
    half, whole = gguf_models(sizes)
    assert (half.quant, half.complete, half.nbytes) == ("Q4_K_M", False, 10)
    assert whole.files[0].endswith("00001-of-00003.gguf") and whole.complete and whole.nbytes == 30


def test_q4_k_m_is_taken_where_it_fits_else_the_largest_that_does() -> None:
    models = gguf_models({"m-Q2_K.gguf": 2, "m-Q3_K_M.gguf": 3, "m-Q4_K_M.gguf": 4, "m-Q8_0.gguf": 8, "m-BF16.gguf": 16})
    taken = [preferred(models, lambda n, memory=memory: n <= memory).quant for memory in (20, 8, 4, 3, 2, 1)]
    assert taken == ["Q4_K_M", "Q4_K_M", "Q4_K_M", "Q3_K_M", "Q2_K", "Q2_K"]
    assert preferred(gguf_models({"m-Q6_K.gguf": 6, "m-F16.gguf": 16}), lambda n: True).quant == "Q6_K"


def test_of_a_folder_only_what_is_needed_comes() -> None:
    names = [
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md", "LICENSE", "pytorch_model.bin",
        "original/params.json", "figures/a.png", "consolidated.safetensors", "model-Q4.gguf",
    ]  # fmt: skip
    assert folder_files(names) == ["LICENSE", "README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    assert folder_files(["model.safetensors"]) == folder_files(["config.json"]) == []


def test_short_names_lead_to_places_and_say_what_they_are() -> None:
    assert [alias.name for alias in FAMILY] == ["r1:1.5b", "r1:7b", "r1:8b", "r1:14b", "r1:32b", "r1:70b", "r1-0528:8b"]
    assert [p.repo for p in hub.wanted("R1:1.5B")] == [QWEN, f"unsloth/{STEM}-GGUF"]
    assert hub.wanted("r1:7b", source=True)[0].repo == "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"
    assert (
        hub.wanted("r1:7b", form="mlx")[0].repo
        == hub.wanted("r1:7b", quant="4bit")[0].repo
        == "mlx-community/DeepSeek-R1-Distill-Qwen-7B-4bit"
    )
    assert hub.wanted("https://huggingface.co/a/b:x.gguf")[0] == hub.wanted("hf.co/a/b:x.gguf")[0] == hub.Wanted("a/b", None, "x.gguf")
    assert all(alias.title.startswith(alias.family + ", base ") and alias.family != "R1" for alias in FAMILY)
    assert {alias.name for alias in FAMILY if not alias.mlx.checked} == {"r1:8b"}


def test_apple_silicon_takes_mlx_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "is_apple_silicon", lambda: True)
    assert [p.form for p in hub.wanted("r1:7b")] == ["mlx", "gguf", "gguf"]
    assert [p.form for p in hub.wanted("r1:7b", quant="Q4_K_M")] == ["gguf", "gguf"]


@pytest.mark.parametrize("ref", ["", "r1", "r1:9b", "a", "a/b/c", "../b", "a/..", "a b/c", "a/b:", "-/-\n"])
def test_what_is_no_name_is_told(ref: str) -> None:
    with pytest.raises(hub_errors.HubError, match=r"neither a short name \(r1:1.5b, .*nor owner/name"):
        hub.wanted(ref)


def test_a_quantization_or_a_file_can_be_named(near: Hub, weights: bytes) -> None:
    near.repos[QWEN] = gguf_repo(weights, "Q2_K", "Q4_K_M", "Q8_0")
    assert hub.plan("r1:1.5b", quant="q8_0").files[0].name == f"{STEM}-Q8_0.gguf"
    assert hub.plan(f"{QWEN}:Q2_K").quant == hub.plan(f"{QWEN}:{STEM}-Q2_K.gguf").quant == "Q2_K"
    with pytest.raises(hub_errors.HubError, match=r"has no 'Q5_0'; it has Q2_K, Q4_K_M, Q8_0"):
        hub.plan("r1:1.5b", quant="Q5_0")
    with pytest.raises(hub_errors.HubError, match="leave one of the two away"):
        hub.plan(f"{QWEN}:Q2_K", quant="Q8_0")


def test_what_fits_depends_on_the_machine(near: Hub, weights: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    near.repos[QWEN] = gguf_repo(weights, "Q2_K", "Q4_K_M")
    memory = int((fitting.REST_BYTES + len(weights) + 16) / fitting.SHARE)
    monkeypatch.setattr(fitting, "machine", lambda: (memory, memory))
    assert hub.plan("r1:1.5b").quant == "Q2_K"
    monkeypatch.setattr(fitting, "machine", lambda: (10**9, 10**9))
    assert not hub.plan("r1:1.5b").fits
    monkeypatch.setattr(fitting, "_gpu_bytes", lambda: 10**9)  # beside it, a GPU with memory of its own
    assert hub.plan("r1:1.5b").fits


def test_mlx_folders_have_quantizations_of_their_own() -> None:
    with pytest.raises(hub_errors.HubError, match="Q6_K is no quantization of MLX folders; give 4bit"):
        hub.wanted("r1:7b", quant="Q6_K", form="mlx")
    assert hub.wanted("r1:7b", quant="8bit", form="mlx")[0].repo.endswith("-8bit")


def test_a_second_place_is_tried(near: Hub, weights: bytes) -> None:
    near.repos[f"unsloth/{STEM}-GGUF"] = gguf_repo(weights, "Q4_K_M")
    assert hub.plan("r1:1.5b").repo == f"unsloth/{STEM}-GGUF"


def test_a_quantization_that_only_the_second_place_has(near: Hub, weights: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    near.repos[QWEN] = gguf_repo(weights, "Q4_K_M")
    near.repos[f"unsloth/{STEM}-GGUF"] = gguf_repo(weights, "UD-IQ1_M")
    assert hub.plan("r1:1.5b", quant="UD-IQ1_M").repo == f"unsloth/{STEM}-GGUF"
    with pytest.raises(hub_errors.NotThere, match=f"{QWEN} has no 'Q5_0'; it has Q4_K_M"):
        hub.plan("r1:1.5b", quant="Q5_0")
    monkeypatch.setattr(fitting, "machine", lambda: (10**9, 10**9))
    near.repos[f"unsloth/{STEM}-GGUF"] = Repo({"README.md": b"x"})
    assert hub.plan("r1:1.5b").repo == QWEN  # too large, and there is nothing smaller
