"""tokenizer.json and tokenizer_config.json -> GGUF's tokenizer.ggml.* values, for byte-level BPE.

Source: conversion/base.py and gguf-py/gguf/vocab.py @ggml-org/llama.cpp (what is written); llama-vocab.cpp (how it is read).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backends.base import ModelFileError
from backends.checkpoint import read_json, read_small, short
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
    if not (folder / "tokenizer.json").is_file():
        others = [n for n in ("tokenizer.model", "vocab.json", "vocab.txt") if (folder / n).is_file()]
        found = f"; {', '.join(others)} alone is not supported" if others else "; download it"
        raise ModelFileError(f"{folder / 'tokenizer.json'}: missing{found}")
    tokenizer = read_json(folder / "tokenizer.json")
    settings = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    model = tokenizer.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE":
        kind = model.get("type") if isinstance(model, dict) else model
        raise UnsupportedModel(f"{folder / 'tokenizer.json'}: tokenizer of type {short(kind)}; byte-level BPE is supported")
    added = _added_tokens(tokenizer)
    tokens, types = _vocabulary(folder, model, added, vocabulary)
    ids = _special_ids(settings, config, added, vocabulary)
    add = _added_automatically(tokenizer, settings)

    out: Metadata = {}
    prefix = settings.get("add_prefix_space")
    if architecture == "llama" and isinstance(prefix, bool):
        out["tokenizer.ggml.add_space_prefix"] = flag(prefix)
    out["tokenizer.ggml.model"] = text("gpt2")
    out["tokenizer.ggml.pre"] = text(pre_tokenizer(folder, tokenizer, adds_bos=add.get("bos", False)))
    out["tokenizer.ggml.tokens"] = texts(tokens)
    out["tokenizer.ggml.token_type"] = Value(Kind.ARRAY, types, Kind.INT32)
    out["tokenizer.ggml.merges"] = texts(_merges(folder, model))
    out |= {f"tokenizer.ggml.{_ID_KEYS[kind]}": uint(token) for kind, token in ids.items()}
    out |= {f"tokenizer.ggml.add_{kind}_token": flag(value) for kind, value in add.items()}
    template = _chat_template(folder, settings)
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
    if not _leaves_text(normalizer):
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


def _leaves_text(normalizer: Any) -> bool:
    """No normalizer, or NFC, which leaves nearly all text typed today as it is: llama.cpp does without it."""
    if isinstance(normalizer, dict) and normalizer.get("type") == "Sequence":
        steps = normalizer.get("normalizers")
        return isinstance(steps, list) and all(_leaves_text(step) for step in steps)
    return normalizer is None or normalizer == {"type": "NFC"}


def _split_steps(pre: Any) -> list[tuple[str, str | None]]:
    """The pre-tokenizer as (type, regex) steps; anything that would change how a regex acts becomes part of the type."""
    if not isinstance(pre, dict):
        return []
    if pre.get("type") == "Sequence":
        parts = pre.get("pretokenizers")
        return [step for part in parts for step in _split_steps(part)] if isinstance(parts, list) else []
    if pre.get("type") == "Split":
        pattern = pre.get("pattern")
        regex = pattern.get("Regex") if isinstance(pattern, dict) else None
        plain = pre.get("behavior") == "Isolated" and not pre.get("invert")
        return [("Split" if plain else f"Split {pre.get('behavior')} invert={pre.get('invert')}", regex)]
    if pre.get("type") == "ByteLevel":
        plain = not pre.get("add_prefix_space") and pre.get("use_regex") is False
        return [("ByteLevel" if plain else "ByteLevel with its own regex or prefix", None)]
    return [(str(pre.get("type")), None)]


def _added_tokens(tokenizer: dict[str, Any]) -> list[dict[str, Any]]:
    added: Any = tokenizer.get("added_tokens", [])
    good = isinstance(added, list) and all(
        isinstance(t, dict) and type(t.get("id")) is int and isinstance(t.get("content"), str) for t in added
    )
    if not good:
        raise UnsupportedModel("tokenizer.json: added_tokens is no list of tokens with an id and a content")
    return list(added)


def _vocabulary(folder: Path, model: dict[str, Any], added: list[dict[str, Any]], size: int) -> tuple[list[str], list[int]]:
    """Token texts and types by id; ids that no token has become [PAD<id>]."""
    where = folder / "tokenizer.json"
    plain = model.get("vocab")
    if not isinstance(plain, dict) or not all(type(i) is int for i in plain.values()):
        raise UnsupportedModel(f"{where}: the vocabulary is no map from tokens to ids")
    by_id: dict[int, tuple[str, int]] = {i: (token, NORMAL) for token, i in plain.items()}
    if len(by_id) != len(plain):
        raise UnsupportedModel(f"{where}: two tokens of the vocabulary share an id")
    for token in added:
        content = token["content"]
        if token.get("special") or _looks_special(content):
            by_id[token["id"]] = (content, CONTROL)
        else:
            by_id[token["id"]] = (content.replace("\u2581", " "), USER_DEFINED)
    outside = [i for i in by_id if not 0 <= i < size]
    if outside:
        raise UnsupportedModel(f"{where}: token id {short(max(outside, key=abs))} is outside config.json's vocab_size {size}")
    entries = [by_id.get(i, (f"[PAD{i}]", UNUSED)) for i in range(size)]
    _check_unique(where, [token for token, _ in entries])
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


def _looks_special(token: str) -> bool:
    """Tokens that tokenizers forget to mark as special, by their shape."""
    framed = [("<|", "|>"), ("<\uff5c", "\uff5c>"), ("<unused", ">")]
    return token in ("<pad>", "<mask>", "<2mass>", "[@BOS@]") or any(token.startswith(a) and token.endswith(b) for a, b in framed)


def _merges(folder: Path, model: dict[str, Any]) -> list[str]:
    merges = model.get("merges")
    if not isinstance(merges, list) or not merges:
        raise UnsupportedModel(f"{folder / 'tokenizer.json'}: no merges; llama.cpp needs at least one in a byte-level vocabulary")
    if all(isinstance(m, str) for m in merges):
        return merges
    if all(isinstance(m, list) and len(m) == 2 and all(isinstance(part, str) for part in m) for m in merges):
        return [" ".join(part.replace(" ", "\u0120") for part in m) for m in merges]
    raise UnsupportedModel(f"{folder / 'tokenizer.json'}: merges are neither texts nor pairs of texts")


def _special_ids(settings: dict[str, Any], config: dict[str, Any], added: list[dict[str, Any]], size: int) -> dict[str, int]:
    """Ids of bos, eos... by name: the tokenizer's word first (R1's distills: config.json has another BOS), then config.json's."""
    ids: dict[str, int] = {}
    for kind in _ID_KEYS:
        entry = settings.get(f"{kind}_token")
        content = entry.get("content") if isinstance(entry, dict) else entry
        found = next((t["id"] for t in added if t["content"] == content), None)
        if found is not None:
            ids[kind] = found
    for kind in _ID_KEYS:
        number = config.get(f"{kind}_token_id")
        if kind not in ids and type(number) is int:
            ids[kind] = number
    for kind, number in ids.items():
        if not 0 <= number < size:
            raise UnsupportedModel(f"config.json: {kind}_token_id {short(number)} is outside vocab_size {size}")
    return ids


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
            _read_post_template(step, _content(settings.get("bos_token")), _content(settings.get("eos_token")), add)
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


def _content(entry: Any) -> str | None:
    content = entry.get("content") if isinstance(entry, dict) else entry
    return content if isinstance(content, str) else None


def _chat_template(folder: Path, settings: dict[str, Any]) -> str | None:
    """The default chat template: in tokenizer_config.json (a text, or a list of named ones) or in a file of its own."""
    template = settings.get("chat_template")
    if isinstance(template, list):
        template = next((t.get("template") for t in template if isinstance(t, dict) and t.get("name") == "default"), None)
    if template is None and (folder / "chat_template.jinja").is_file():
        try:
            template = read_small(folder / "chat_template.jinja").decode("utf-8").replace("\r\n", "\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelFileError(f"{folder / 'chat_template.jinja'}: cannot be read ({error}); download it again") from None
    if isinstance(template, str) and "\0" in template:
        raise UnsupportedModel(
            "the chat template holds a NUL character, where llama.cpp would cut it; download the tokenizer's files again"
        )
    return template if isinstance(template, str) else None
