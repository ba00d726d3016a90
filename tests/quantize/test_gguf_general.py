"""What general.* says of a model. The expected values are what llama.cpp's converter writes for these names."""

from __future__ import annotations

import os

import pytest

from backends.base import ModelFileError
from quantize.convert import convert
from quantize.errors import UnsupportedModel
from quantize.gguf_general import ModelName, size_label, split_name
from quantize.gguf_reader import read_gguf_header

CARD = """---
license: mit
library_name: transformers
tags:
- reasoning
- "tiny"
  # a comment
pipeline_tag: text-generation
language: [en, zh]
base_model: deepseek-ai/DeepSeek-R1
datasets:
  - org/My-set-v2
  - https://example.org/x
model-index:
- name: x
  results:
  - task:
      type: text
---
# A card
license: other
"""


@pytest.mark.parametrize(
    ("model_id", "parameters", "parts"),
    [
        (
            "DeepSeek-R1-Distill-Qwen-1.5B",
            1_777_088_000,
            ModelName("DeepSeek-R1-Distill-Qwen-1.5B", basename="DeepSeek-R1-Distill-Qwen", size_label="1.5B"),
        ),
        ("deepseek-ai/DeepSeek-R1", 0, ModelName("DeepSeek-R1", "deepseek-ai")),
        ("Phi-3-mini-128k-instruct", 4_000_000_000,
         ModelName("Phi-3-mini-128k-instruct", basename="Phi-3", finetune="128k-instruct", size_label="mini")),
        ("model-v2", 0, ModelName("model-v2", basename="model", version="v2")),
        ("bloom-7b1", 0, ModelName("bloom-7b1", basename="bloom", size_label="7.1B")),
        ("My own model", 0, ModelName("My own model")),
        ("", 0, ModelName("")),
    ],
)  # fmt: skip
def test_names_are_taken_apart(model_id, parameters, parts):
    assert split_name(model_id, parameters) == parts


@pytest.mark.parametrize(
    ("parameters", "label"), [(1_777_088_000, "1.8B"), (3_313_920, "3.3M"), (671_026_419_200, "671B"), (12_345, "12K"), (500, "0.50K")]
)
def test_size_labels(parameters, label):
    assert size_label(parameters) == label


def test_the_model_card(make_checkpoint, tmp_path):
    made = make_checkpoint()
    (made.folder / "README.md").write_text(CARD)
    convert(made.folder, tmp_path / "m.gguf", "Q8_0")
    found = read_gguf_header(tmp_path / "m.gguf").metadata
    wanted = {
        "general.license": "mit", "general.tags": ["reasoning", "tiny", "text-generation"], "general.languages": ["en", "zh"],
        "general.base_model.count": 1, "general.base_model.0.name": "DeepSeek R1", "general.base_model.0.organization": "Deepseek Ai",
        "general.base_model.0.repo_url": "https://huggingface.co/deepseek-ai/DeepSeek-R1", "general.dataset.count": 2,
        "general.dataset.0.name": "My Set v2", "general.dataset.0.version": "v2", "general.dataset.1.repo_url": "https://example.org/x",
    }  # fmt: skip
    assert {key: found.get(key) for key in wanted} == wanted


@pytest.mark.parametrize("card", ["", "---\n", "no front matter", "---\n: :\n- - -\n---\n", "---\n\ttags: [\n---"])
def test_odd_cards_are_no_obstacle(make_checkpoint, tmp_path, card):
    made = make_checkpoint()
    (made.folder / "README.md").write_text(card)
    convert(made.folder, tmp_path / "m.gguf", "Q8_0")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders")
def test_a_card_that_is_a_pipe_is_not_waited_for(make_checkpoint, tmp_path):
    made = make_checkpoint()
    os.mkfifo(made.folder / "README.md")
    convert(made.folder, tmp_path / "m.gguf", "Q8_0")


@pytest.mark.parametrize(
    ("advice", "message"),
    [
        ("[]", "not a JSON object"),
        ('{"top_k": "x"}', "top_k is 'x', a number is needed"),
        ('{"top_k": NaN}', "top_k is nan"),
        ('{"temperature": {}}', "temperature is {}"),
        ('{"temperature": 1e39}', "temperature is 1e.39"),
        ('{"repetition_penalty": [1]}', r"penalty_repeat is \[1\]"),
        ('{"top_p": true}', "top_p is True"),
    ],
)
def test_odd_sampling_advice_is_named(make_checkpoint, tmp_path, advice, message):
    made = make_checkpoint()
    (made.folder / "generation_config.json").write_text(advice)
    with pytest.raises((UnsupportedModel, ModelFileError), match=rf"generation_config\.json.* {message}") as raised:
        convert(made.folder, tmp_path / "m.gguf", "Q8_0")
    assert "\n" not in str(raised.value)
