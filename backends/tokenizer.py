"""Text <-> ids for a checkpoint folder, for backends whose engine brings no tokenizer: as llama.cpp does it for the same model.

The `tokenizers` library only splits text and merges its bytes. Added tokens stay out of its hands: it matches them in any
text, and numbers them anew where their ids leave gaps. NFC, which some checkpoints ask for and llama.cpp does not do, is left
out: the model reads what was written, and the same on every backend.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from backends.base import BackendError, ChatFormat, EngineError, ModelFileError, Segment, Special
from backends.checkpoint import AGAIN, model_name, read_json, short
from backends.plain_text import guard, harmless
from backends.tokenizer_files import (
    TOKENIZER,
    AddedToken,
    UnsupportedTokenizer,
    added_tokens,
    bpe_model,
    chat_template,
    leaves_text,
    merges,
    plain_vocabulary,
    read_tokenizer,
    special_ids,
    steps,
)

if TYPE_CHECKING:
    import tokenizers

GENERATION = "generation_config.json"

# Source: llama-vocab.cpp@ggml-org/llama.cpp, for these and `_well_known`. Tokens that end a reply, by their text alone:
_ENDS = (
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>", "<|endoftext|>", "</s>",
    "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>",
    "<｜end▁of▁sentence｜>", "[e~[",
)  # fmt: skip
# ... and those for filling in the middle of code that do, the first that is there of each line (llama.cpp: any one of it),
_CODE_ENDS = (
    ("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    ("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    ("<|file_sep|>",),
)
# ... and those that do not end one, but are no text of people either.
_CODE = (
    ("<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>", "<|code_prefix|>", "<|prefix|>"),
    ("<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>", "<|code_suffix|>", "<|suffix|>"),
    ("<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>", "<|code_middle|>", "<|middle|>"),
    ("<|channel|>",), ("<|message|>",), ("<|start|>",), ("<|constrain|>",),
)  # fmt: skip


def _byte_level() -> dict[str, int]:
    """The printable character that stands for each byte, and that byte. Source: `bytes_to_unicode` in encoder.py@openai/gpt-2."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [b for b in range(256) if b not in shown]
    return {chr(b): b for b in shown} | {chr(256 + i): b for i, b in enumerate(hidden)}


_BYTES = _byte_level()
_NEVER_IN_UTF8 = (0xC0, 0xC1, *range(0xF5, 0x100))


class Tokenizer:
    """An opened tokenizer. `chat_format`: what rendering a prompt needs; `vocab_size`: ids go from 0 to one less; `ends`: tokens that end a reply."""

    def __init__(
        self, name: str, engine: tokenizers.Tokenizer, added: dict[str, int], ends: Iterable[int], chat: ChatFormat, vocab_size: int
    ) -> None:
        self.name = name
        self.chat_format = chat
        self.vocab_size = vocab_size
        self._engine = engine
        self._added = added
        self._added_text = {i: text for text, i in added.items()}
        self.ends = frozenset(ends)
        self._guard = guard(added)
        self._guarded_ids = frozenset(i for text, i in added.items() if len(text) > 1)

    @classmethod
    def open(cls, folder: Path, config: dict[str, Any], vocab_size: int) -> Self:
        """Read the tokenizer's files in `folder`; `config` is its config.json, `vocab_size` the rows of the embedding.

        Raises ModelFileError, one line naming the file and the remedy: a file is missing or damaged, the tokenizer is no
        byte-level BPE, an id is outside the vocabulary, two tokens are in each other's way. EngineError: no `tokenizers`.
        """
        where = folder / TOKENIZER
        tokenizer, settings = read_tokenizer(folder)
        model = bpe_model(folder, tokenizer)
        listed = [t for t in added_tokens(folder, tokenizer) if t.text]
        plain = plain_vocabulary(folder, model, listed, vocab_size)
        added = _by_text(where, listed, plain)
        ids = special_ids(settings, config, listed, vocab_size)
        own_ends = {ids["eos"]} if "eos" in ids else set()
        own_ends |= _end_ids("config.json", config, vocab_size) | _end_ids(GENERATION, _generation(folder), vocab_size)
        known, known_ends = _well_known(added, plain)
        added |= known
        engine = _engine(where, tokenizer, model, _spellable(where, plain, added), merges(folder, model))

        text = {i: t for t, i in added.items()}
        bos, eos = (text.get(ids[kind]) or engine.id_to_token(ids[kind]) or "" if kind in ids else "" for kind in ("bos", "eos"))
        chat = ChatFormat(chat_template(folder, settings) or "", bos, eos, frozenset(added))
        return cls(model_name(folder), engine, added, own_ends | known_ends, chat, vocab_size)

    def encode(self, segments: Sequence[Segment]) -> list[int]:
        """Token ids; no BOS is added (the template writes it). Raises EngineError if a Special is no single token."""
        ids: list[int] = []
        for segment in segments:
            if isinstance(segment, Special):
                if segment.text not in self._added:
                    raise EngineError(f"{segment.text!r} is no single token of {self.name}; its chat template does not fit its vocabulary")
                ids.append(self._added[segment.text])
            else:
                # Half a surrogate pair is no text: it becomes "?", before added tokens are looked for.
                for part in harmless(segment.text.encode("utf-8", "replace").decode("utf-8"), self._guard):
                    ids += self._tokenize(part)
        return ids

    def _tokenize(self, text: str) -> list[int]:
        with _failing_as(lambda why: EngineError(f"{self.name} cannot encode {text[:40]!r}: {why}; shorten the message or change it")):
            ids: list[int] = self._engine.encode(text, add_special_tokens=False).ids
        if not self._guarded_ids.isdisjoint(ids):
            raise EngineError(f"{self.name} cannot encode {text[:40]!r} as plain text; remove it from the message")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, special tokens included, invalid UTF-8 replaced. Raises EngineError for ids outside the vocabulary."""
        return b"".join(map(self.piece, ids)).decode("utf-8", "replace")

    def piece(self, token: int) -> bytes:
        """The bytes of one token, maybe a part of a character; none for an id that only pads the vocabulary.

        Raises EngineError for an id outside it.
        """
        if not 0 <= token < self.vocab_size:
            raise EngineError(f"token id {token} is out of range, the vocabulary has 0 to {self.vocab_size - 1}")
        if (added := self._added_text.get(token)) is not None:
            return added.encode("utf-8", "replace")
        spelled = self._engine.id_to_token(int(token)) or ""
        return b"".join(c.encode() if (byte := _BYTES.get(c)) is None else bytes((byte,)) for c in spelled)

    def is_end(self, token: int) -> bool:
        """Does the model end its reply with this token?"""
        return token in self.ends


def _by_text(where: Path, listed: list[AddedToken], plain: dict[str, int]) -> dict[str, int]:
    """Added tokens' texts and ids. Raises UnsupportedTokenizer where one text has two ids or one id two texts."""
    spelled = {i: text for text, i in plain.items()} if listed else {}
    added: dict[str, int] = {}
    for token in listed:
        other = added.setdefault(token.text, plain.get(token.text, token.id))
        if other != token.id:
            raise UnsupportedTokenizer(f"{where}: tokens {other} and {token.id} are both {short(token.text)}; take one out")
        taken = spelled.setdefault(token.id, token.content)
        if taken not in (token.content, token.text):
            raise UnsupportedTokenizer(f"{where}: token {token.id} is both {short(taken)} and {short(token.content)}; take one out")
    return added


def _well_known(added: dict[str, int], plain: dict[str, int]) -> tuple[dict[str, int], set[int]]:
    """Tokens that llama.cpp takes for control tokens by their text alone, wherever they stand, and the ids that end a reply."""
    there = plain | added
    first = [next((name for name in names if name in there), None) for names in (*_CODE_ENDS, *_CODE)]
    named = {name: there[name] for name in (*first, *_ENDS) if name in there}
    ends = {name for name in (*first[: len(_CODE_ENDS)], *_ENDS) if name in there}
    if {"<|return|>", "<|call|>"} <= ends or ("<|flush|>" in ends and not ends.isdisjoint(("<|call|>", "<|calls|>"))):
        ends.discard("<|end|>")  # in gpt-oss and Solar it closes a message, and the reply goes on
    if "<|tool_response>" in ends:
        ends.discard("</s>")  # HTML, in Gemma 4
    return named, {there[name] for name in ends}


def _end_ids(file: str, values: dict[str, Any], vocab_size: int) -> set[int]:
    """eos_token_id, an id or a list of them. Raises UnsupportedTokenizer for anything else."""
    entry = values.get("eos_token_id")
    ids = [] if entry is None else entry if isinstance(entry, list) else [entry]
    for i in ids:
        if type(i) is not int or not 0 <= i < vocab_size:
            raise UnsupportedTokenizer(f"{file}: eos_token_id {short(i)} is no id from 0 to {vocab_size - 1}; correct or remove it")
    return set(ids)


def _generation(folder: Path) -> dict[str, Any]:
    return read_json(folder / GENERATION) if (folder / GENERATION).is_file() else {}


def _spellable(where: Path, plain: dict[str, int], added: dict[str, int]) -> dict[str, int]:
    """The vocabulary to merge with: it must have every byte. Raises UnsupportedTokenizer: text would get lost.

    Some list a plain byte, as an ASCII sign, among the added tokens only.
    """
    vocabulary = {text: i for text, i in added.items() if len(text) == 1 and text.isascii() and text in _BYTES} | plain
    missing = [byte for c, byte in _BYTES.items() if c not in vocabulary and byte not in _NEVER_IN_UTF8]
    if missing:
        raise UnsupportedTokenizer(f"{where}: no token for byte 0x{missing[0]:02X}; only a byte-level vocabulary that has all is supported")
    return vocabulary


def _engine(
    where: Path, tokenizer: dict[str, Any], model: dict[str, Any], vocabulary: dict[str, int], pairs: list[tuple[str, str]]
) -> tokenizers.Tokenizer:
    """The library's tokenizer: pre-tokenizer and merges of the file, and nothing else of it.

    Raises UnsupportedTokenizer: normalizer or pre-tokenizer change the text or are no byte-level ones. ModelFileError: the
    library refuses the values. EngineError: it is not installed.
    """
    if not leaves_text(tokenizer.get("normalizer")):
        raise UnsupportedTokenizer(
            f"{where}: normalizer {short(tokenizer.get('normalizer'), 120)} is unknown; only NFC or none is supported"
        )
    pre = steps(tokenizer.get("pre_tokenizer"), "pretokenizers")
    if not _keeps_text(pre):
        raise UnsupportedTokenizer(f"{where}: splits text by {short(pre, 120)}; splitting at a regex, then into bytes, is supported")
    # The library would panic, and its runtime print that.
    if not all(map(vocabulary.__contains__, map("".join, pairs))):
        stray = next(pair for pair in pairs if "".join(pair) not in vocabulary)
        raise ModelFileError(f"{where}: merges {short(stray, 120)}, and the vocabulary lacks what that makes; {AGAIN}")
    try:
        from tokenizers import Tokenizer as Engine
        from tokenizers.models import BPE
    except ImportError as error:
        raise EngineError(f"the tokenizers library cannot be loaded ({error}); install it: pip install tokenizers") from None
    frame: dict[str, Any] = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "post_processor": None,
        "decoder": None, "pre_tokenizer": {"type": "Sequence", "pretokenizers": pre}, "model": {"type": "BPE", "vocab": {}, "merges": []},
    }  # fmt: skip
    with _failing_as(lambda why: ModelFileError(f"{where}: the tokenizers library refuses it ({why}); {AGAIN}")):
        engine: tokenizers.Tokenizer = Engine.from_str(json.dumps(frame))
        engine.model = BPE(vocabulary, pairs, ignore_merges=model.get("ignore_merges") is True)
        return engine


def _keeps_text(pre: list[Any]) -> bool:
    """Any number of steps that cut and drop nothing, then one that spells bytes and adds no space."""
    if not all(isinstance(step, dict) for step in pre):
        return False
    cuts_only = all(step.get("type") in ("Split", "Digits") and step.get("behavior") != "Removed" for step in pre[:-1])
    return cuts_only and pre[-1:] != [] and pre[-1].get("type") == "ByteLevel" and not pre[-1].get("add_prefix_space")


@contextmanager
def _failing_as(made: Callable[[str], BackendError]) -> Iterator[None]:
    """The library's failures as our own. A panic in it arrives as a BaseException, of a class that has no public name."""
    try:
        yield
    except (BackendError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise made(short(str(error), 120)) from None
