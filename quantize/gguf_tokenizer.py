"""tokenizer.json and tokenizer_config.json -> GGUF's tokenizer.ggml.* values, for byte-level BPE.

Source: conversion/base.py and gguf-py/gguf/vocab.py @ggml-org/llama.cpp (what is written); llama-vocab.cpp (how it is read).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backends.checkpoint import short
from backends.tokenizer_files import (
    AddedToken,
    UnsupportedTokenizer,
    added_tokens,
    bpe_model,
    chat_template,
    content,
    leaves_text,
    merges,
    plain_vocabulary,
    read_tokenizer,
    special_ids,
    steps,
)
from quantize.errors import UnsupportedModel
from quantize.gguf_file import Kind, Metadata, Value, flag, text, texts, uint

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5

_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3_SPLIT = _QWEN2_SPLIT.replace(r"|\p{N}|", r"|\p{N}{1,3}|")

_ID_KEYS = {
    "bos": "bos_token_id",
    "eos": "eos_token_id",
    "unk": "unknown_token_id",
    "sep": "seperator_token_id",  # spelled so in GGUF
    "pad": "padding_token_id",
    "mask": "mask_token_id",
}


def tokenizer_metadata(folder: Path, config: dict[str, Any], architecture: str, vocabulary: int) -> Metadata:
    """All tokenizer values; the vocabulary is padded to `vocabulary`, the embedding's rows.

    Raises UnsupportedModel if the tokenizer is no byte-level BPE, splits text in a way llama.cpp has no name for, or does not
    fit the vocabulary; ModelFileError if a file is missing or damaged.
    """
    tokenizer, settings = read_tokenizer(folder)
    try:
        model = bpe_model(folder, tokenizer)
        added = added_tokens(folder, tokenizer)
        tokens, types = _vocabulary(folder, plain_vocabulary(folder, model, added, vocabulary), added, vocabulary)
        ids = special_ids(settings, config, added, vocabulary)
        pairs = merges(folder, model)
    except UnsupportedTokenizer as error:
        raise UnsupportedModel(str(error)) from None
    if not pairs:
        raise UnsupportedModel(f"{folder / 'tokenizer.json'}: no merges; llama.cpp needs at least one in a byte-level vocabulary")
    add = _added_automatically(tokenizer, settings)

    out: Metadata = {}
    prefix = settings.get("add_prefix_space")
    if architecture == "llama" and isinstance(prefix, bool):
        out["tokenizer.ggml.add_space_prefix"] = flag(prefix)
    out["tokenizer.ggml.model"] = text("gpt2")
    out["tokenizer.ggml.pre"] = text(pre_tokenizer(folder, tokenizer, adds_bos=add.get("bos", False)))
    out["tokenizer.ggml.tokens"] = texts(tokens)
    out["tokenizer.ggml.token_type"] = Value(Kind.ARRAY, types, Kind.INT32)
    out["tokenizer.ggml.merges"] = texts([" ".join(part.replace(" ", "\u0120") for part in pair) for pair in pairs])
    out |= {f"tokenizer.ggml.{_ID_KEYS[kind]}": uint(token) for kind, token in ids.items()}
    out |= {f"tokenizer.ggml.add_{kind}_token": flag(value) for kind, value in add.items()}
    template = chat_template(folder, settings)
    if template and "\0" in template:
        raise UnsupportedModel(
            "the chat template holds a NUL character, where llama.cpp would cut it; download the tokenizer's files again"
        )
    if template:
        out["tokenizer.chat_template"] = text(template)
    return out


def pre_tokenizer(folder: Path, tokenizer: dict[str, Any], *, adds_bos: bool) -> str:
    """llama.cpp's name for the way this tokenizer splits text before merging, recognised from the split regex itself.

    llama.cpp's converter hashes the tokens of a test string, BOS included, so that Qwen2's regex has two names that split alike:
    `deepseek-r1-qwen` where BOS is put in front, `qwen2` where it is not. Raises UnsupportedModel for any other way.
    """
    where = folder / "tokenizer.json"
    normalizer = tokenizer.get("normalizer")
    if not leaves_text(normalizer):
        raise UnsupportedModel(
            f"{where}: normalizer {short(normalizer, 120)} has no counterpart in llama.cpp; only NFC or none is supported"
        )
    splits = _split_steps(tokenizer.get("pre_tokenizer"))
    whole_words = tokenizer["model"].get("ignore_merges", False)  # Llama 3: a word that is a token is taken whole
    if splits == [("Split", _QWEN2_SPLIT), ("ByteLevel", None)] and not whole_words:
        return "deepseek-r1-qwen" if adds_bos else "qwen2"
    if splits == [("Split", _LLAMA3_SPLIT), ("ByteLevel", None)] and whole_words:
        return "llama-bpe"
    raise UnsupportedModel(
        f"{where}: splits text by {short(splits, 300)} with ignore_merges {short(whole_words)}, "
        "which is neither Qwen2's nor Llama 3's way; no other is supported"
    )


def _split_steps(pre: Any) -> list[tuple[str, str | None]]:
    """The pre-tokenizer as (type, regex) steps; anything that would change how a regex acts becomes part of the type."""
    found: list[tuple[str, str | None]] = []
    for step in steps(pre, "pretokenizers"):
        kind, regex = step.get("type") if isinstance(step, dict) else step, None
        if kind == "Split":
            pattern = step.get("pattern")
            regex = pattern.get("Regex") if isinstance(pattern, dict) else None
            if step.get("behavior") != "Isolated" or step.get("invert"):
                kind = f"Split {step.get('behavior')} invert={step.get('invert')}"
        elif kind == "ByteLevel" and (step.get("add_prefix_space") or step.get("use_regex") is not False):
            kind = "ByteLevel with its own regex or prefix"
        found.append((str(kind), regex))
    return found


def _vocabulary(folder: Path, plain: dict[str, int], added: list[AddedToken], size: int) -> tuple[list[str], list[int]]:
    """Token texts and types by id; ids that no token has become [PAD<id>]."""
    by_id: dict[int, tuple[str, int]] = {i: (token, NORMAL) for token, i in plain.items()}
    by_id |= {token.id: (token.text, CONTROL if token.control else USER_DEFINED) for token in added}
    entries = [by_id.get(i, (f"[PAD{i}]", UNUSED)) for i in range(size)]
    _check_unique(folder / "tokenizer.json", [token for token, _ in entries])
    return [token for token, _ in entries], [kind for _, kind in entries]


def _check_unique(where: Path, tokens: list[str]) -> None:
    """llama.cpp ends the whole program on loading two tokens of one text.

    Texts are compared as they stand in the file, where added tokens and the byte-level spelling of others share one space:
    an added "é" meets the byte 0xE9, which is spelled so. An empty text becomes [EMPTY_<id>], a NUL character ends a text.
    """
    ids: dict[str, int] = {}
    for i, token in enumerate(tokens):
        if "\0" in token:
            raise UnsupportedModel(f"{where}: token {i} is {short(token)}, and llama.cpp cuts texts at a NUL character; take the token out")
        first = ids.setdefault(token or f"[EMPTY_{i}]", i)
        if first != i:
            raise UnsupportedModel(f"{where}: tokens {first} and {i} are both {short(token)}, llama.cpp cannot load that; take one out")


def _added_automatically(tokenizer: dict[str, Any], settings: dict[str, Any]) -> dict[str, bool]:
    """Which of bos, eos, sep the tokenizer puts around a text: its post-processor decides, tokenizer_config.json fills in."""
    add: dict[str, bool] = {}
    post = tokenizer.get("post_processor")
    steps = post.get("processors", [post]) if isinstance(post, dict) else []
    for step in steps if isinstance(steps, list) else []:
        kind = step.get("type") if isinstance(step, dict) else step
        if kind == "ByteLevel":
            add.setdefault("bos", False)
            add.setdefault("eos", False)
        elif kind == "TemplateProcessing":
            _read_post_template(step, content(settings.get("bos_token")), content(settings.get("eos_token")), add)
        else:
            raise UnsupportedModel(f"tokenizer.json: post-processor {short(kind)}; ByteLevel and TemplateProcessing are supported")
    for kind in ("bos", "eos", "sep"):
        value = settings.get(f"add_{kind}_token")
        if isinstance(value, bool):
            add.setdefault(kind, value)
    return add


def _read_post_template(step: dict[str, Any], bos: str | None, eos: str | None, add: dict[str, bool]) -> None:
    """TemplateProcessing, e.g. `BOS A` and `BOS A BOS B`: what stands first, last, and between two texts."""
    single, pair = _template_items(step.get("single")), _template_items(step.get("pair"))
    first = single[0] if len(single) > 1 and single[0] != "A" else None
    last = single[-1] if len(single) > 1 and single[-1] != "A" else None
    if first is not None:
        add["bos"] = bos is None or first == bos
    if last is not None:
        add["eos"] = eos is None or last == eos
    if first is not None and pair[:1] == [first]:
        pair = pair[1:]
    if last is not None and pair[-1:] == [last]:
        pair = pair[:-1]
    if len(pair) > 2 and pair[0] == "A" and pair[-1] == "B":
        add["sep"] = eos in pair[1:-1] and last is None


def _template_items(items: Any) -> list[str]:
    """Special tokens by their text, sequences as "A" and "B"."""
    entries = [entry for item in items if isinstance(item, dict) for entry in item.values()] if isinstance(items, list) else []
    return [str(entry.get("id")) for entry in entries if isinstance(entry, dict)]
