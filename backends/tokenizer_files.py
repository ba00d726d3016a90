"""What the tokenizer files of a checkpoint folder say: tokenizer.json, tokenizer_config.json, chat_template.jinja.

`backends.tokenizer` encodes with it, `quantize.gguf_tokenizer` writes it into GGUF; what only one of them needs is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backends.base import ModelFileError
from backends.checkpoint import AGAIN, read_json, read_small, short

TOKENIZER, SETTINGS, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
SPECIAL_KINDS = ("bos", "eos", "unk", "sep", "pad", "mask")


class UnsupportedTokenizer(ModelFileError):
    """The files can be read, but what they describe is of a kind, or has values, that cannot be used."""


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that is no product of merges: `control` if it steers the model, else defined by the model's makers."""

    id: int
    content: str
    control: bool

    @property
    def text(self) -> str:
        """As llama.cpp's converter writes it: in what is not control, SentencePiece's sign for a space becomes one."""
        return self.content if self.control else self.content.replace("\u2581", " ")


def read_tokenizer(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """tokenizer.json, and tokenizer_config.json or {}. Raises ModelFileError: missing, too large, no JSON object."""
    if not (folder / TOKENIZER).is_file():
        others = [n for n in ("tokenizer.model", "vocab.json", "vocab.txt") if (folder / n).is_file()]
        found = f"; {', '.join(others)} alone is not supported" if others else "; download it"
        raise ModelFileError(f"{folder / TOKENIZER}: missing{found}")
    return read_json(folder / TOKENIZER), read_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}


def bpe_model(folder: Path, tokenizer: dict[str, Any]) -> dict[str, Any]:
    """The `model` of tokenizer.json. Raises UnsupportedTokenizer if it is no BPE or marks the parts of words."""
    model = tokenizer.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE":
        kind = model.get("type") if isinstance(model, dict) else model
        raise UnsupportedTokenizer(f"{folder / TOKENIZER}: tokenizer of type {short(kind)}; byte-level BPE is supported")
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise UnsupportedTokenizer(f"{folder / TOKENIZER}: {key} is {short(model[key])}; byte-level BPE without it is supported")
    return model


def added_tokens(folder: Path, tokenizer: dict[str, Any]) -> list[AddedToken]:
    """Raises UnsupportedTokenizer if they are no list of tokens with an id and a content."""
    added: Any = tokenizer.get("added_tokens", [])
    good = isinstance(added, list) and all(
        isinstance(t, dict) and type(t.get("id")) is int and isinstance(t.get("content"), str) for t in added
    )
    if not good:
        raise UnsupportedTokenizer(f"{folder / TOKENIZER}: added_tokens is no list of tokens with an id and a content; {AGAIN}")
    return [AddedToken(t["id"], t["content"], bool(t.get("special")) or _looks_special(t["content"])) for t in added]


def _looks_special(token: str) -> bool:
    """Tokens that tokenizers forget to mark as special, by their shape. Source: conversion/base.py@ggml-org/llama.cpp."""
    framed = [("<|", "|>"), ("<\uff5c", "\uff5c>"), ("<unused", ">")]
    return token in ("<pad>", "<mask>", "<2mass>", "[@BOS@]") or any(token.startswith(a) and token.endswith(b) for a, b in framed)


def plain_vocabulary(folder: Path, model: dict[str, Any], added: list[AddedToken], size: int) -> dict[str, int]:
    """The model's own tokens, spelled in the byte-level alphabet, and their ids.

    Raises UnsupportedTokenizer: no map to whole numbers, an id given twice, an id (of added tokens too) outside 0 to `size` - 1.
    """
    where = folder / TOKENIZER
    plain = model.get("vocab")
    if not isinstance(plain, dict) or not all(type(i) is int for i in plain.values()):
        raise UnsupportedTokenizer(f"{where}: the vocabulary is no map from tokens to ids; {AGAIN}")
    ids = set(plain.values())
    if len(ids) != len(plain):
        raise UnsupportedTokenizer(f"{where}: two tokens of the vocabulary share an id; {AGAIN}")
    outside = [i for i in ids.union(t.id for t in added) if not 0 <= i < size]
    if outside:
        raise UnsupportedTokenizer(
            f"{where}: token id {short(max(outside, key=abs))} is outside config.json's vocab_size {size}; get both of one model"
        )
    return plain


def merges(folder: Path, model: dict[str, Any]) -> list[tuple[str, str]]:
    """In order of rank; "a b" in older files, ["a", "b"] in newer ones. Raises UnsupportedTokenizer."""
    entries = model.get("merges", [])
    pairs = [m.split(" ") if isinstance(m, str) else m for m in entries] if isinstance(entries, list) else [entries]
    good = all(isinstance(p, list) and len(p) == 2 and isinstance(p[0], str) and isinstance(p[1], str) for p in pairs)
    if not good:
        raise UnsupportedTokenizer(f"{folder / TOKENIZER}: merges are neither texts nor pairs of texts; {AGAIN}")
    return [(a, b) for a, b in pairs]


def steps(sequence: Any, parts: str) -> list[Any]:
    """A normalizer or pre-tokenizer step by step: nested sequences taken apart; `parts` is the key their members stand under."""
    left, found = [sequence], []  # the last one is next
    while left:
        step = left.pop()
        if isinstance(step, dict) and step.get("type") == "Sequence" and isinstance(step.get(parts), list):
            left += reversed(step[parts])
        else:
            found.append(step)
    return found


def leaves_text(normalizer: Any) -> bool:
    """No normalizer, or NFC, which leaves nearly all text typed today as it is: llama.cpp does without it, and so do we."""
    return all(step is None or step == {"type": "NFC"} for step in steps(normalizer, "normalizers"))


def special_ids(settings: dict[str, Any], config: dict[str, Any], added: list[AddedToken], size: int) -> dict[str, int]:
    """Ids of bos, eos... by name: the tokenizer's word first (R1's distills: config.json has another BOS), then config.json's.

    Raises UnsupportedTokenizer if one is outside 0 to `size` - 1.
    """
    ids: dict[str, int] = {}
    for kind in SPECIAL_KINDS:
        named = content(settings.get(f"{kind}_token"))
        found = next((t.id for t in added if t.content == named), None)
        if found is not None:
            ids[kind] = found
    for kind in SPECIAL_KINDS:
        number = config.get(f"{kind}_token_id")
        if kind not in ids and type(number) is int:
            ids[kind] = number
    for kind, number in ids.items():
        if not 0 <= number < size:
            raise UnsupportedTokenizer(f"config.json: {kind}_token_id {short(number)} is outside vocab_size {size}; correct or remove it")
    return ids


def content(entry: Any) -> str | None:
    """A token in tokenizer_config.json: a text, or an object that holds it."""
    text = entry.get("content") if isinstance(entry, dict) else entry
    return text if isinstance(text, str) else None


def chat_template(folder: Path, settings: dict[str, Any]) -> str | None:
    """The default chat template: in tokenizer_config.json (a text, or a list of named ones) or in a file of its own.

    Raises ModelFileError if that file cannot be read.
    """
    template = settings.get("chat_template")
    if isinstance(template, list):
        template = next((t.get("template") for t in template if isinstance(t, dict) and t.get("name") == "default"), None)
    if template is None and (folder / TEMPLATE).is_file():
        try:
            template = read_small(folder / TEMPLATE).decode("utf-8").replace("\r\n", "\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelFileError(f"{folder / TEMPLATE}: cannot be read ({error}); {AGAIN}") from None
    return template if isinstance(template, str) else None
