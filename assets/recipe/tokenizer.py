"""The bundled models' tokenizer: bytes, a few merges, and R1's special tokens.

Letters must stay visible one by one (the model counts them), so the only merges are a space with the sign or letter
after it - " s" is one token, as in "s t r a w" - and the blank line. Split regex and added tokens are Qwen2's and R1's.
"""

from __future__ import annotations

import json
import string
from pathlib import Path

BOS, EOS, USER, ASSISTANT = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"
THINK, END_THINK, PAD = "<think>", "</think>", "<｜▁pad▁｜>"
ADDED = [BOS, EOS, USER, ASSISTANT, THINK, END_THINK, PAD]
VOCAB_SIZE = 320

# Qwen2's pre-tokenizer (tokenizer.json of the published checkpoints); llama.cpp knows it as `deepseek-r1-qwen`.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Thoughts of earlier turns are dropped; the generation prompt opens the thought, so replies start inside it.
TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}"
    "{% elif message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '<｜Assistant｜>' + message['content'].split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}"
    "{% else %}{{ raise_exception('unknown role ' + message['role']) }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\\n' }}{% endif %}"
)


def byte_characters() -> list[str]:
    """The printable character that stands for each byte (GPT-2's table: printable Latin-1 as is, the rest from U+0100)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {b: chr(b) for b in shown}
    rest = [b for b in range(256) if b not in table]
    table.update({b: chr(256 + i) for i, b in enumerate(rest)})
    return [table[b] for b in range(256)]


def tokenizer_json() -> dict:
    space, newline = byte_characters()[32], byte_characters()[10]
    merges = [(newline, newline)] + [(space, c) for c in "+=-" + string.ascii_letters]
    tokens = byte_characters() + [a + b for a, b in merges]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            dict(id=len(tokens) + i, content=text, single_word=False, lstrip=False, rstrip=False, normalized=False,
                 special=text not in (THINK, END_THINK))
            for i, text in enumerate(ADDED)
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {t: i for i, t in enumerate(tokens)}, "merges": [f"{a} {b}" for a, b in merges],
        },
    }  # fmt: skip


def write_tokenizer(folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(), ensure_ascii=False, indent=1) + "\n")
    config = dict(
        add_bos_token=True, add_eos_token=False, bos_token=BOS, eos_token=EOS, pad_token=PAD, unk_token=None,
        clean_up_tokenization_spaces=False, model_max_length=4096, tokenizer_class="LlamaTokenizerFast", chat_template=TEMPLATE,
    )  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n")
