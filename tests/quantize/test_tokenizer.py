"""The vocabulary in the GGUF file: llama.cpp must cut text into the ids that the checkpoint's own tokenizer gives."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backends.base import Cancel, ModelFileError
from backends.llamacpp import LlamaCppBackend
from backends.llamacpp_library import library, model_params
from quantize.convert import convert
from quantize.errors import QuantizeError, UnsupportedModel
from quantize.gguf_reader import read_gguf_header
from quantize.gguf_tokenizer import pre_tokenizer

VOCABULARIES = Path(__file__).resolve().parents[3] / "shared" / "data" / "vocab"

AWKWARD = [
    "", " ", "  ", "\n", "\n\n\n", " \n \t \r\n", "Hello, world!", "hello  world   ", "we'll they'RE I'M it's 'TIS", "3.14 9.11 v2 1000000",
    "naïve café Ünïcödé", "ﬁ ﬂ Ⅷ ½", "日本語のテキスト 中文", "កាន់តែពិសេស", "🚀 😶‍🌫️ 👩‍👩‍👧", "a\u0301 e\u0308", "\u200b\u00a0\u3000x", "\x00\x01\x7f",
    "for (int i = 0; i < n; ++i) {\n\t\tx += y[i];\n}", "....!!!???", "'''\"\"\"```", " s t r a w", "+1 -2 = 3", "end ",
]  # fmt: skip


@contextmanager
def vocabulary(path: Path) -> Iterator[tuple[Any, Any]]:
    """llama.cpp's vocabulary of a GGUF file, without the weights."""
    llama_cpp, params = library(), model_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    assert model, "llama.cpp does not load the file"
    try:
        yield llama_cpp, llama_cpp.llama_model_get_vocab(model)
    finally:
        llama_cpp.llama_model_free(model)


def encode(llama_cpp: Any, vocab: Any, text: str) -> list[int]:
    raw = text.encode()
    ids = (ctypes.c_int32 * (len(raw) + 8))()
    count = llama_cpp.llama_tokenize(vocab, raw, len(raw), ids, len(ids), False, False)
    assert count >= 0
    return list(ids[:count])


def decode(llama_cpp: Any, vocab: Any, ids: list[int]) -> str:
    out = ctypes.create_string_buffer(16 + 64 * len(ids))
    given = (ctypes.c_int32 * len(ids))(*ids)
    count = llama_cpp.llama_detokenize(vocab, given, len(ids), out, len(out), False, True)
    assert count >= 0
    return out.raw[:count].decode()


def test_llama_cpp_gives_the_ids_of_the_checkpoints_tokenizer(make_checkpoint, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    made = make_checkpoint()
    convert(made.folder, tmp_path / "m.gguf", "Q8_0")
    own = tokenizers.Tokenizer.from_file(str(made.folder / "tokenizer.json"))
    with vocabulary(tmp_path / "m.gguf") as (llama_cpp, vocab):
        for text in AWKWARD:
            ids = encode(llama_cpp, vocab, text)
            assert ids == own.encode(text, add_special_tokens=False).ids, text
            assert decode(llama_cpp, vocab, ids) == text


@pytest.mark.parametrize("architecture", ["qwen2", "llama", "qwen3"])
def test_llama_cpp_loads_the_weights_and_runs(make_checkpoint, tmp_path, architecture):
    convert(make_checkpoint(architecture).folder, tmp_path / "m.gguf", "Q8_0")
    with LlamaCppBackend(tmp_path / "m.gguf", context=64) as backend:
        assert backend.prefill([1, 2, 3], Cancel()) == 3


def test_special_tokens(make_checkpoint, tmp_path):
    """Ids come from the tokenizer, not from config.json, whose BOS is another token (as in the published Qwen distills)."""
    made = make_checkpoint()
    convert(made.folder, tmp_path / "m.gguf", "Q8_0")
    added = {t["content"]: t["id"] for t in json.loads((made.folder / "tokenizer.json").read_text())["added_tokens"]}
    found = read_gguf_header(tmp_path / "m.gguf").metadata
    assert found["tokenizer.ggml.bos_token_id"] == added["<｜begin▁of▁sentence｜>"] != made.config["bos_token_id"]
    assert found["tokenizer.ggml.eos_token_id"] == added["<｜end▁of▁sentence｜>"]
    assert found["tokenizer.ggml.padding_token_id"] == added["<｜▁pad▁｜>"]
    tokens, types = found["tokenizer.ggml.tokens"], found["tokenizer.ggml.token_type"]
    assert {tokens[i]: types[i] for i in added.values()} == {t: 4 if t in ("<think>", "</think>") else 3 for t in added}
    assert len(tokens) == len(types) == made.config["vocab_size"]
    assert (tokens[-1], types[-1]) == ("[PAD329]", 5)
    assert found["tokenizer.chat_template"] == json.loads((made.folder / "tokenizer_config.json").read_text())["chat_template"]


def test_merges_as_pairs(make_checkpoint, edit, tmp_path):
    """transformers 4.45 and later write merges as pairs; the file must not differ."""
    made = make_checkpoint()
    convert(made.folder, tmp_path / "a.gguf", "Q8_0")
    model = json.loads((made.folder / "tokenizer.json").read_text())["model"]
    edit(made.folder / "tokenizer.json", model=model | {"merges": [m.split(" ") for m in model["merges"]]})
    convert(made.folder, tmp_path / "b.gguf", "Q8_0")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_chat_template_in_its_own_file(make_checkpoint, edit, tmp_path):
    made = make_checkpoint()
    edit(made.folder / "tokenizer_config.json", chat_template=None)
    (made.folder / "chat_template.jinja").write_text("{{ messages }}\n")
    convert(made.folder, tmp_path / "m.gguf", "Q8_0")
    assert read_gguf_header(tmp_path / "m.gguf").metadata["tokenizer.chat_template"] == "{{ messages }}\n"


def splitting(regex: str, **changes: Any) -> dict[str, Any]:
    step = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False} | changes
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [step, byte_level]}, "model": {}}


QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def test_pre_tokenizer_is_recognised_by_its_regex():
    whole_words = {"model": {"ignore_merges": True}}
    nfc = {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}]}}
    assert pre_tokenizer(Path(), splitting(QWEN2), adds_bos=True) == "deepseek-r1-qwen"
    assert pre_tokenizer(Path(), splitting(QWEN2) | nfc, adds_bos=False) == "qwen2"
    assert pre_tokenizer(Path(), splitting(LLAMA3) | whole_words, adds_bos=True) == "llama-bpe"


@pytest.mark.parametrize(
    "tokenizer",
    [
        splitting(QWEN2.replace(r"\p{N}|", r"\p{N}{2}|")),
        splitting(QWEN2, invert=True),
        splitting(QWEN2, behavior="Removed"),
        splitting(QWEN2) | {"normalizer": {"type": "Lowercase"}},
        splitting(LLAMA3),  # without ignore_merges llama.cpp's `llama-bpe` would cut words differently
        {"pre_tokenizer": {"type": "Metaspace"}, "model": {}},
        {"pre_tokenizer": None, "model": {}},
    ],
)
def test_an_unknown_way_of_splitting_is_never_guessed(tokenizer):
    with pytest.raises(UnsupportedModel, match="supported") as raised:
        pre_tokenizer(Path("folder"), tokenizer, adds_bos=True)
    assert "\n" not in str(raised.value)


def damaged(folder: Path, edit: Any, what: str) -> None:
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    if what == "missing":
        path.unlink()
        (folder / "tokenizer.model").write_bytes(b"x")
    elif what == "cut":
        path.write_text(path.read_text()[:1000])
    elif what == "unigram":
        edit(path, model={"type": "Unigram"})
    elif what == "no merges":
        edit(path, model=tokenizer["model"] | {"merges": []})
    elif what == "id outside":
        edit(path, added_tokens=[*tokenizer["added_tokens"], dict(id=330, content="<x>", special=True)])
    elif what == "shared id":
        edit(path, model=tokenizer["model"] | {"vocab": tokenizer["model"]["vocab"] | {"zz": 5}})
    elif what == "half a character":
        edit(folder / "tokenizer_config.json", chat_template="\ud800")
    elif what == "template with NUL":
        edit(folder / "tokenizer_config.json", chat_template="a\0b")
    elif what == "endless template":
        edit(folder / "tokenizer_config.json", chat_template=None)
        (folder / "chat_template.jinja").write_bytes(bytes(1))
        with (folder / "chat_template.jinja").open("r+b") as f:
            f.truncate(1 << 40)  # sparse: takes no room until it is read
    elif what == "normalizer of lines":
        edit(path, normalizer="a\nb")
    elif what == "post-processor":
        edit(path, post_processor={"type": "RobertaProcessing"})


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("missing", ModelFileError, "missing; tokenizer.model alone is not supported"),
        ("cut", ModelFileError, "not valid JSON"),
        ("unigram", UnsupportedModel, "'Unigram'; byte-level BPE"),
        ("no merges", UnsupportedModel, "needs at least one"),
        ("id outside", UnsupportedModel, "token id 330 is outside config.json's vocab_size 330"),
        ("shared id", UnsupportedModel, "share an id"),
        ("half a character", QuantizeError, "no valid Unicode"),
        ("template with NUL", UnsupportedModel, "NUL character"),
        ("endless template", ModelFileError, "more than any chat_template.jinja needs"),
        ("normalizer of lines", UnsupportedModel, "normalizer 'a.*b' has no counterpart"),
        ("post-processor", UnsupportedModel, "'RobertaProcessing'"),
    ],
)
def test_tokenizers_that_are_refused(make_checkpoint, edit, tmp_path, what, error, message):
    made = make_checkpoint()
    damaged(made.folder, edit, what)
    with pytest.raises(error, match=message) as raised:
        convert(made.folder, tmp_path / "m.gguf", "Q8_0")
    assert "\n" not in str(raised.value)
    assert [p.name for p in tmp_path.iterdir()] == [made.folder.name]


def added(content: str, id: int = 325) -> dict[str, Any]:
    return dict(id=id, content=content, special=False)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([added("<think>")], r"tokens 3\d\d and 325 are both '<think>'"),
        ([added("a")], r"tokens \d+ and 325 are both 'a'"),
        ([added("\xe9")], r"tokens \d+ and 325 are both '\xe9'"),  # the byte 0xE9 is spelled so
        ([added("x\u2581y"), added("x y", 326)], "tokens 325 and 326 are both 'x y'"),  # as they are written
        ([added("[PAD329]")], r"tokens 325 and 329 are both '\[PAD329\]'"),
        ([added(""), added("[EMPTY_325]", 326)], r"tokens 325 and 326 are both '\[EMPTY_325\]'"),
        ([added("a\0b")], r"token 325 is 'a\\x00b', and llama\.cpp cuts texts at a NUL"),
        ([added("new\n" * 1000), added("new\n" * 1000, 326)], r"tokens 325 and 326 are both '(new\\n)+.*\.\.\."),
    ],
)
def test_two_tokens_of_one_text_are_refused(make_checkpoint, edit, tmp_path, tokens, message):
    """llama.cpp checks with an assertion that ends the whole program, so such a file must not be written."""
    path = make_checkpoint().folder / "tokenizer.json"
    edit(path, added_tokens=json.loads(path.read_text())["added_tokens"] + tokens)
    with pytest.raises(UnsupportedModel, match=message) as raised:
        convert(path.parent, tmp_path / "m.gguf", "Q8_0")
    assert "\n" not in str(raised.value) and not list(tmp_path.glob("m.gguf*"))


def test_odd_tokens_that_llama_cpp_loads(make_checkpoint, edit, tmp_path):
    """One id listed twice with its text is one token; an empty text gets one of its own."""
    path = make_checkpoint().folder / "tokenizer.json"
    listed = json.loads(path.read_text())["added_tokens"]
    edit(path, added_tokens=[*listed, listed[-1], added(""), added("[PAD329]", 329)])
    convert(path.parent, tmp_path / "m.gguf", "Q8_0")
    with vocabulary(tmp_path / "m.gguf") as (llama_cpp, vocab):
        assert llama_cpp.llama_vocab_n_tokens(vocab) == 330


@pytest.mark.skipif(not VOCABULARIES.is_dir(), reason="the real vocabularies are not here")
@pytest.mark.parametrize(
    ("name", "regex", "whole_words"), [("qwen2", QWEN2, False), pytest.param("llama-bpe", LLAMA3, True, marks=pytest.mark.slow)]
)
def test_real_vocabularies_give_their_reference_ids(make_checkpoint, edit, tmp_path, name, regex, whole_words):
    """A published vocabulary, written as tokenizer.json and converted: llama.cpp gives the ids its own test vectors hold."""
    real = read_gguf_header(VOCABULARIES / f"ggml-vocab-{name}.gguf").metadata
    tokens, types = real["tokenizer.ggml.tokens"], real["tokenizer.ggml.token_type"]
    made = make_checkpoint(vocab_size=len(tokens), hidden_size=32, num_attention_heads=2, num_hidden_layers=1)
    edit(
        made.folder / "tokenizer.json",
        added_tokens=[dict(id=i, content=t, special=True) for i, (t, kind) in enumerate(zip(tokens, types, strict=True)) if kind == 3],
        pre_tokenizer=splitting(regex)["pre_tokenizer"],
        model={
            "type": "BPE",
            "vocab": {t: i for i, (t, kind) in enumerate(zip(tokens, types, strict=True)) if kind == 1},
            "merges": real["tokenizer.ggml.merges"],
            "ignore_merges": whole_words,
        },
    )
    convert(made.folder, tmp_path / "m.gguf", "Q8_0")
    texts = (VOCABULARIES / f"ggml-vocab-{name}.gguf.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    wanted = (VOCABULARIES / f"ggml-vocab-{name}.gguf.out").read_text().splitlines()
    with vocabulary(tmp_path / "m.gguf") as (llama_cpp, vocab):
        for text, ids in zip(texts, wanted, strict=False):
            assert encode(llama_cpp, vocab, text) == [int(i) for i in ids.split()], text
