"""The tokenizer of a checkpoint folder: it must do what llama.cpp does with the GGUF file made of the same folder."""

from __future__ import annotations

import codecs
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from backends.base import EngineError, ModelFileError, Special, Text
from backends.llamacpp import LlamaCppBackend
from backends.tokenizer import Tokenizer
from localr1 import paths

VOCABULARIES = Path(__file__).resolve().parents[3] / "shared" / "data" / "vocab"

BOS, EOS, USER, ASSISTANT = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"
ADDED = [BOS, EOS, USER, ASSISTANT, "<think>", "</think>", "<｜▁pad▁｜>"]
TEXTS = [
    "", " ", "  ", "\n", "\n\n\n", " \n \t \r\n", "Hello, world!", "hello  world   ", "we'll they'RE I'M it's 'TIS '\u017f", "3.14 9.11 v2 1000000",
    "naïve café Ünïcödé", "ﬁ ﬂ Ⅷ ½ ②", "日本語のテキスト 中文", "កាន់តែពិសេស", "🚀 😶‍🌫️ 👩‍👩‍👧", "a\u0301 e\u0308 \u1e9b\u0323", "\u202e\u200b\u00a0\u3000x\u0085\u2028\ufeff",
    "\x00\x01\x7f\x1b[31m\x1c\x1f", "for (int i = 0; i < n; ++i) {\n\t\tx += y[i];\n}", "....!!!???", "'''\"\"\"```", " s t r a w", "+1 -2 = 3", "end ",
    "<<think>", "</think</think>>", "<think", "｜", "\U0010ffff\ufffe", "a\ud800b", "\udfff\ud800<think>",
]  # fmt: skip


def read(folder: Path, name: str = "config.json") -> Any:
    return json.loads((folder / name).read_text(encoding="utf-8"))


def opened(folder: Path, **changes: Any) -> Tokenizer:
    config = read(folder) | changes
    return Tokenizer.open(folder, config, config["vocab_size"])


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return opened(paths.assets() / "r1-tiny")


@pytest.fixture(scope="module")
def engine(student_gguf: Path) -> Iterator[LlamaCppBackend]:
    with LlamaCppBackend(student_gguf) as backend:
        yield backend


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The student's files but its weights, to be changed."""
    made = tmp_path / "tiny"
    made.mkdir()
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(paths.assets() / "r1-tiny" / name, made)
    return made


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None removes one."""
    value = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({k: v for k, v in value.items() if v is not None}))


def edit_model(folder: Path, **changes: Any) -> None:
    edit(folder / "tokenizer.json", model=read(folder, "tokenizer.json")["model"] | changes)


def add(folder: Path, *tokens: tuple[int, str, bool]) -> None:
    listed = read(folder, "tokenizer.json")["added_tokens"]
    edit(folder / "tokenizer.json", added_tokens=[*listed, *(dict(id=i, content=t, special=s) for i, t, s in tokens)])


def gguf_of(folder: Path, vocab_size: int) -> Path:
    """The folder's GGUF, with the smallest weights that do."""
    from quantize.convert import convert

    width = 32
    edit(folder / "config.json", vocab_size=vocab_size, hidden_size=width, intermediate_size=width, num_hidden_layers=1)
    edit(folder / "config.json", num_attention_heads=1, num_key_value_heads=1)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab_size, width), "lm_head.weight": (vocab_size, width)}
    shapes |= {"model.norm.weight": (width,)}
    layer = "model.layers.0."
    shapes |= {layer + f"{norm}_layernorm.weight": (width,) for norm in ("input", "post_attention")}
    shapes |= {layer + f"self_attn.{part}_proj.weight": (width, width) for part in "qkvo"}
    shapes |= {layer + f"self_attn.{part}_proj.bias": (width,) for part in "qkv"}
    shapes |= {layer + f"mlp.{part}_proj.weight": (width, width) for part in ("gate", "up", "down")}
    save_file({name: np.zeros(shape, ml_dtypes.bfloat16) for name, shape in shapes.items()}, folder / "model.safetensors", {"format": "pt"})
    convert(folder, folder / "m.gguf", "Q8_0")
    return folder / "m.gguf"


def agree_on(tokenizer: Tokenizer, engine: LlamaCppBackend, text: str) -> None:
    """Both give the same ids, none of them an added token's, and read them back alike."""
    ids = tokenizer.encode([Text(text)])
    assert ids == engine.encode([Text(text)]), ascii(text)
    assert {i[0] for i in (tokenizer.encode([Special(t)]) for t in tokenizer.chat_format.added_tokens)}.isdisjoint(ids), ascii(text)
    assert tokenizer.decode(ids) == engine.decode(ids) == text.encode("utf-8", "replace").decode(), ascii(text)


def agree_on_tokens(tokenizer: Tokenizer, engine: LlamaCppBackend) -> None:
    """The same format, and token by token the same bytes and ends."""
    assert tokenizer.chat_format == engine.chat_format
    for i in range(tokenizer.vocab_size):
        assert tokenizer.piece(i).decode("utf-8", "replace") == engine.decode([i]), i
        assert tokenizer.is_end(i) == engine._c.llama_vocab_is_eog(engine._vocab, i), i
    for text in tokenizer.chat_format.added_tokens:
        assert tokenizer.encode([Special(text)]) == engine.encode([Special(text)])


# ------------------------------------------------------------------------------------------- the student


@pytest.mark.parametrize("text", TEXTS)
def test_text_becomes_the_ids_that_llama_cpp_gives(tokenizer: Tokenizer, engine: LlamaCppBackend, text: str) -> None:
    agree_on(tokenizer, engine, text)


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=30)  # with half surrogate pairs
PARTS = st.sampled_from(
    [*ADDED, *(t[:k] for t in ADDED for k in range(1, len(t))), *(t[k:] for t in ADDED for k in range(1, len(t))), *TEXTS]
)


@settings(deadline=None, max_examples=300)
@given(st.lists(ANY_TEXT | PARTS, max_size=6).map("".join))
@example("<think>" * 3)
def test_any_text_becomes_the_ids_that_llama_cpp_gives(tokenizer: Tokenizer, engine: LlamaCppBackend, text: str) -> None:
    agree_on(tokenizer, engine, text)


@pytest.mark.parametrize("token", ADDED)
def test_no_spelling_of_an_added_token_yields_it(tokenizer: Tokenizer, engine: LlamaCppBackend, token: str) -> None:
    for text in (token, token * 2, f"<{token}", f"{token}>", f"a{token}b {token}\n"):
        agree_on(tokenizer, engine, text)
    for cut in range(1, len(token)):
        for text in (token[:cut] + token, token + token[cut:], token[:cut] + token + token[cut:], token[:cut] + " " + token[cut:]):
            agree_on(tokenizer, engine, text)
        halves = [Text(token[:cut]), Text(token[cut:])]
        assert tokenizer.encode(halves) == engine.encode(halves)


def test_tokens_ends_and_chat_format_are_llama_cpps(tokenizer: Tokenizer, engine: LlamaCppBackend) -> None:
    agree_on_tokens(tokenizer, engine)
    assert tokenizer.chat_format.added_tokens == set(ADDED)
    assert (tokenizer.chat_format.bos_token, tokenizer.chat_format.eos_token) == (BOS, EOS)
    assert [i for i in range(320) if tokenizer.is_end(i)] == tokenizer.encode([Special(EOS)]) == [313]


def test_a_prompt_is_specials_and_texts(tokenizer: Tokenizer, engine: LlamaCppBackend) -> None:
    prompt = [Special(BOS), Special(USER), Text("What is 907 + 195? <think>"), Special(ASSISTANT), Special("<think>"), Text("\n")]
    assert tokenizer.encode(prompt) == engine.encode(prompt)
    assert tokenizer.encode([]) == tokenizer.encode([Text("")]) == []
    for wrong in ("<tool>", "", "a", "<think>\n"):
        with pytest.raises(EngineError, match="no single token of r1-tiny"):
            tokenizer.encode([Special(wrong)])


def test_pieces_join_to_text_whatever_they_are_cut_into(tokenizer: Tokenizer) -> None:
    utf8 = codecs.getincrementaldecoder("utf-8")("replace")
    ids = tokenizer.encode([Text("é你"), Special("</think>")])
    assert [utf8.decode(tokenizer.piece(i)) for i in ids] == ["", "é", "", "", "你", "</think>"]
    assert tokenizer.decode(ids[1:-1]) == "\ufffd你"
    assert tokenizer.piece(319) == b""  # an id that only pads
    assert tokenizer.decode([319, *tokenizer.encode([Text("x")])]) == "x"


def test_ids_outside_the_vocabulary_are_refused(tokenizer: Tokenizer) -> None:
    for wrong in (-1, 320):
        with pytest.raises(EngineError, match="out of range, the vocabulary has 0 to 319"):
            tokenizer.decode([5, wrong])
        with pytest.raises(EngineError, match="out of range"):
            tokenizer.piece(wrong)
        assert not tokenizer.is_end(wrong)


def test_importing_loads_no_library() -> None:
    code = "import sys, backends.tokenizer; sys.exit('tokenizers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---------------------------------------------------------------------------------------- other vocabularies


def test_tokens_that_llama_cpp_knows_by_their_text(folder: Path) -> None:
    """It takes them for control tokens even where the vocabulary has them as plain ones, as Qwen's has `</s>`."""
    edit_model(folder, vocab=read(folder, "tokenizer.json")["model"]["vocab"] | {"</s>": 319, "<|file_sep|>": 320, "<|im_start|>": 321})
    add(folder, (330, "<|im_end|>", False), (331, "<|fim_pad|>", True), (340, "<|fim_prefix|>", True), (341, "<|eot|>", True))
    add(folder, (342, "<tool_call>", False), (343, "x\u2581y", False))
    with LlamaCppBackend(gguf_of(folder, 352)) as engine:
        tokenizer = opened(folder)
        agree_on_tokens(tokenizer, engine)
        for text in ("<s>a</s>", "<|im_end|><|im_start|>", "x y x\u2581y", "<|fim_prefix|>", "<|file_sep|>", "<tool_call>\n</tool_call>"):
            agree_on(tokenizer, engine, text)
    assert [i for i in range(352) if tokenizer.is_end(i)] == [313, 319, 320, 330, 331]
    assert {"</s>", "x y", "<tool_call>"} < tokenizer.chat_format.added_tokens


def test_ends_come_from_every_file_that_names_one(folder: Path) -> None:
    edit(folder / "generation_config.json", eos_token_id=[20, 21])
    ends = [i for i in range(320) if opened(folder, eos_token_id=[22, 312]).is_end(i)]
    assert ends == [20, 21, 22, 312, 313]
    edit(folder / "tokenizer_config.json", eos_token=None)
    chat = opened(folder, eos_token_id=318, bos_token_id=7).chat_format
    assert (chat.bos_token, chat.eos_token) == (BOS, "<｜▁pad▁｜>")  # config.json's word counts where the tokenizer has none


def test_gpt_oss_goes_on_after_a_message(folder: Path) -> None:
    add(folder, (319, "<|end|>", True), (320, "<|call|>", True), (321, "<|return|>", True))
    tokenizer = opened(folder, vocab_size=322)
    assert [tokenizer.is_end(i) for i in (319, 320, 321)] == [False, True, True]


def test_added_tokens_keep_the_ids_that_the_file_gives(folder: Path) -> None:
    """The library numbers them anew where there are gaps; so does nobody else."""
    listed = [t | {"id": t["id"] + 1000 * (t["content"] == "</think>")} for t in read(folder, "tokenizer.json")["added_tokens"]]
    edit(folder / "tokenizer.json", added_tokens=listed)
    tokenizer = opened(folder, vocab_size=2000)
    assert tokenizer.encode([Special("</think>"), Special("<think>")]) == [1317, 316]
    assert tokenizer.decode([1317]) == "</think>"


def test_text_is_left_as_it_was_written(folder: Path, tokenizer: Tokenizer) -> None:
    """NFC would join a letter and its accent; llama.cpp does not, and the two must agree."""
    edit(folder / "tokenizer.json", normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}]})
    composing = opened(folder)
    for text in ("e\u0301", "\u1e9b\u0323", "\u212b", "가"):
        assert composing.encode([Text(text)]) == tokenizer.encode([Text(text)])
        assert composing.decode(composing.encode([Text(text)])) == text


def test_a_post_processor_and_truncation_are_not_applied(folder: Path, tokenizer: Tokenizer) -> None:
    single = [{"SpecialToken": {"id": BOS, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    special = {BOS: {"id": BOS, "ids": [312], "tokens": [BOS]}}
    post = {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": special}
    truncation = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    edit(folder / "tokenizer.json", post_processor=post, truncation=truncation)
    assert opened(folder).encode([Text("Hello")]) == tokenizer.encode([Text("Hello")])


def test_merges_as_texts_and_as_pairs(folder: Path, tokenizer: Tokenizer) -> None:
    edit_model(folder, merges=[m.split(" ") for m in read(folder, "tokenizer.json")["model"]["merges"]])
    assert opened(folder).encode([Text("a b + c\n\n")]) == tokenizer.encode([Text("a b + c\n\n")])


def test_a_token_of_one_character_is_left_to_text(folder: Path) -> None:
    """A byte that is listed as an added token only; another sign that has bytes of its own to be spelled with."""
    vocab = read(folder, "tokenizer.json")["model"]["vocab"]
    tilde = vocab.pop("~")
    edit_model(folder, vocab=vocab)
    add(folder, (tilde, "~", True), (319, "€", True))
    tokenizer = opened(folder)
    ids = tokenizer.encode([Text("~€")])
    assert ids == [tilde, *"€".encode()] and tokenizer.decode(ids) == "~€"
    assert tokenizer.encode([Special("~"), Special("€")]) == [tilde, 319]


def split(pattern: Any, **changes: Any) -> dict[str, Any]:
    return {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False} | changes


def sequence(*steps: dict[str, Any], **byte_level: Any) -> dict[str, Any]:
    last = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False} | byte_level
    return {"type": "Sequence", "pretokenizers": [*steps, last]}


@pytest.mark.parametrize(
    "pre",
    [
        sequence(use_regex=True),  # GPT-2
        sequence(
            split({"Regex": r"\p{N}{1,3}"}), split({"Regex": "[一-龥]+"}), split({"Regex": r"[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|\s+"})
        ),  # V3
        sequence({"type": "Digits", "individual_digits": True}, split({"String": " "}, behavior="MergedWithNext")),
    ],
)
def test_other_ways_of_splitting_keep_the_text(folder: Path, pre: dict[str, Any]) -> None:
    edit(folder / "tokenizer.json", pre_tokenizer=pre)
    tokenizer = opened(folder)
    for text in TEXTS[:-2]:
        assert tokenizer.decode(tokenizer.encode([Text(text)])) == text


# ------------------------------------------------------------------------------------------ damaged files


def vocabulary(**changes: Any) -> Callable[[Path], None]:
    """A change to the plain vocabulary; None removes a token."""

    def apply(folder: Path) -> None:
        vocab = read(folder, "tokenizer.json")["model"]["vocab"] | changes
        edit_model(folder, vocab={token: i for token, i in vocab.items() if i is not None})

    return apply


def key(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "tokenizer.json", **changes)


def cut(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:1000])


def endless(folder: Path) -> None:
    with (folder / "tokenizer.json").open("r+b") as f:
        f.truncate(1 << 40)  # sparse: takes no room until it is read


def sentencepiece_only(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder / "tokenizer.model")


def unknown_part(folder: Path) -> None:
    vocabulary(**{"☃a": 319})(folder)
    edit_model(folder, merges=["☃ a"])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), r"tokenizer\.json: missing; download it"),
        (sentencepiece_only, r"missing; tokenizer\.model alone is not supported"),
        (cut, r"tokenizer\.json is not valid JSON .*; download it again"),
        (endless, r"tokenizer\.json: over 33,554,432 bytes, .*; download it again"),
        (lambda folder: (folder / "tokenizer.json").write_text("[]"), r"tokenizer\.json is not a JSON object"),
        (lambda folder: (folder / "tokenizer_config.json").write_text("{"), r"tokenizer_config\.json is not valid JSON"),
        (lambda folder: (folder / "generation_config.json").write_text("{"), r"generation_config\.json is not valid JSON"),
        (key(model=None), "of type None; byte-level BPE"),
        (key(model=[]), r"of type \[\]; byte-level BPE"),
        (key(model={"type": "Unigram"}), "of type 'Unigram'; byte-level BPE"),
        (lambda folder: edit_model(folder, vocab=["a"]), "no map from tokens to ids"),
        (lambda folder: edit_model(folder, vocab=None), "no map from tokens to ids"),
        (vocabulary(x="1"), "no map from tokens to ids"),
        (vocabulary(x=True), "no map from tokens to ids"),
        (vocabulary(x=1.5), "no map from tokens to ids"),
        (vocabulary(zz=5), "share an id"),
        (vocabulary(zz=320), "token id 320 is outside .* vocab_size 320"),
        (vocabulary(zz=-1), "token id -1 is outside"),
        (vocabulary(zz=1 << 70), "is outside"),
        (vocabulary(**{"\ud800": 319}), "the tokenizers library refuses it .*; download it again"),
        (vocabulary(é=None), "no token for byte 0xE9"),
        (lambda folder: add(folder, (320, "<x>", True)), "token id 320 is outside"),
        (key(added_tokens={}), "added_tokens is no list"),
        (key(added_tokens=[dict(id="1", content="<x>")]), "added_tokens is no list"),
        (lambda folder: add(folder, (319, "<think>", False)), "tokens 316 and 319 are both '<think>'"),
        (lambda folder: add(folder, (319, "a", False)), "tokens 97 and 319 are both 'a'"),
        (lambda folder: add(folder, (97, "<x>", False)), "token 97 is both 'a' and '<x>'"),
        (lambda folder: add(folder, (312, "<x>", False)), "token 312 is both '<｜begin▁of▁sentence｜>' and '<x>'"),
        (lambda folder: edit_model(folder, merges="a b"), "merges are neither"),
        (lambda folder: edit_model(folder, merges=["a b c"]), "merges are neither"),
        (lambda folder: edit_model(folder, merges=[["a", 1]]), "merges are neither"),
        (lambda folder: edit_model(folder, merges=["a b"]), r"merges \('a', 'b'\), and the vocabulary lacks"),
        (unknown_part, "the tokenizers library refuses it .*out of vocabulary"),
        (lambda folder: edit_model(folder, continuing_subword_prefix="##"), "continuing_subword_prefix is '##'"),
        (key(normalizer={"type": "Lowercase"}), "normalizer .*Lowercase"),
        (key(normalizer="a\nb"), "normalizer 'a.*b' is unknown"),
        (key(pre_tokenizer=None), r"splits text by \[None\]"),
        (key(pre_tokenizer={"type": "Sequence", "pretokenizers": []}), r"splits text by \[\]"),
        (key(pre_tokenizer={"type": "Metaspace", "replacement": "▁"}), "splits text by .*Metaspace"),
        (key(pre_tokenizer=sequence({"type": "WhitespaceSplit"})), "splits text by"),
        (key(pre_tokenizer=sequence(split({"Regex": " "}, behavior="Removed"))), "splits text by"),
        (key(pre_tokenizer=sequence(add_prefix_space=True)), "splits text by"),
        (key(pre_tokenizer=sequence(split({"Regex": "((("}))), "the tokenizers library refuses it .*; download it again"),
        (key(pre_tokenizer=sequence(split({"Regex": "\ud800"}))), "the tokenizers library refuses it"),
        (key(pre_tokenizer=sequence(split(None))), "the tokenizers library refuses it"),
        (lambda folder: edit(folder / "generation_config.json", eos_token_id=[320]), r"generation_config\.json: eos_token_id 320 is no id"),
        (lambda folder: edit(folder / "generation_config.json", eos_token_id="x"), r"generation_config\.json: eos_token_id 'x' is no id"),
    ],
)
def test_a_damaged_folder_is_one_clear_error(folder: Path, damage: Callable[[Path], Any], message: str) -> None:
    damage(folder)
    with pytest.raises(ModelFileError, match=message) as caught:
        opened(folder)
    assert "\n" not in str(caught.value) and str(caught.value).isprintable()


def test_an_unusable_config_is_one_clear_error(folder: Path) -> None:
    with pytest.raises(ModelFileError, match=r"config\.json: eos_token_id -1 is no id"):
        opened(folder, eos_token_id=-1)
    with pytest.raises(ModelFileError, match=r"config\.json: unk_token_id 320 is outside vocab_size 320"):
        opened(folder, unk_token_id=320)


class Panic(BaseException):
    """As pyo3's: no Exception."""


@pytest.mark.parametrize("failure", [Panic("index out of range\nat bpe.rs"), RuntimeError("two\nlines"), Exception()])
def test_whatever_the_library_raises_is_one_clear_error(folder: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException) -> None:
    import tokenizers.models

    def fail(*_: Any, **__: Any) -> None:
        raise failure

    monkeypatch.setattr(tokenizers.models, "BPE", fail)
    with pytest.raises(ModelFileError, match=r"tokenizer\.json: the tokenizers library refuses it") as caught:
        opened(folder)
    assert "\n" not in str(caught.value)
    failure = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        opened(folder)


def test_a_regex_that_runs_wild_is_one_clear_error(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The library panics; what its runtime then prints is not ours."""
    edit(folder / "tokenizer.json", pre_tokenizer=sequence(split({"Regex": "(a+)+$"})))
    tokenizer = opened(folder)
    with pytest.raises(EngineError, match=r"tiny cannot encode 'aaa.*retry-limit.*; shorten") as caught:
        tokenizer.encode([Text("a" * 40 + "b")])
    assert "\n" not in str(caught.value)
    assert tokenizer.decode(tokenizer.encode([Text("fine")])) == "fine"
    capfd.readouterr()


# --------------------------------------------------------------------------------------- real vocabularies

SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyz", "ABC dEF'sS'Tt're'VE'll'd ", "0123456789", "  \t\n\r  ", "éèüñçßøåÅÆſKΩİıǅ", "你好世界日本語テキスト한국어", "🎉🚀👩‍🌫️🏳️‍🌈",
    "\u00a0\u2003\u3000\u200b\u0085\u2028\u2029\x0b\x0c\x1c\x1f\u180e\ufeff\u1680", "<>|/think｜▁", "!?.,;:-_+=*/\\()[]{}\"`~@#$%^&",
    "\u0301\u0308\u0323aeou", "½²³¹①Ⅷ१२३৪௫", "ابتثجحעבריתไทยភាសាខ្មែរ",
]  # fmt: skip
WORDS = [
    "the",
    " quick",
    "don't",
    "I'VE",
    " 3.14",
    "1234567",
    "def f(x):",
    "\n\n\t",
    "   ",
    "  return x",
    "Straße",
    "e\u0301",
    "\r\n",
    "http://a.b/c?d",
    "\\boxed{42}",
]


def varied(number: int) -> Iterator[str]:
    rng = random.Random(number)
    for _ in range(number):
        kind = rng.randrange(3)
        if kind == 0:
            yield "".join(rng.choice(rng.choice(ALPHABETS)) for _ in range(rng.randint(1, 40)))
        elif kind == 1:
            yield rng.choice(["", " "]).join(rng.choice([*WORDS, *ADDED]) for _ in range(rng.randint(1, 20)))
        else:
            yield "".join(chr(rng.choice([rng.randrange(0x800), rng.randrange(0xD800)])) for _ in range(rng.randint(1, 20)))


@pytest.mark.slow
@pytest.mark.skipif(not VOCABULARIES.is_dir(), reason="the real vocabularies are not here")
@pytest.mark.parametrize(("name", "digits", "gap"), [("qwen2", r"\p{N}", 0), ("llama-bpe", r"\p{N}{1,3}", 10)])
def test_real_vocabularies(folder: Path, name: str, digits: str, gap: int) -> None:
    from quantize.gguf_reader import read_gguf_header

    real = read_gguf_header(VOCABULARIES / f"ggml-vocab-{name}.gguf").metadata
    tokens, types = real["tokenizer.ggml.tokens"], real["tokenizer.ggml.token_type"]
    plain = {t: i for i, (t, kind) in enumerate(zip(tokens, types, strict=True)) if kind == 1}
    ids = [len(plain) + i + gap * (i > 1) for i in range(len(ADDED))]
    specials = [dict(id=i, content=t, special="think" not in t) for i, t in zip(ids, ADDED, strict=True)]
    model = {"type": "BPE", "vocab": plain, "merges": real["tokenizer.ggml.merges"], "ignore_merges": name == "llama-bpe"}
    pre = sequence(split({"Regex": SPLIT.replace(r"|\p{N}|", f"|{digits}|")}))
    edit(folder / "tokenizer.json", added_tokens=specials, model=model, pre_tokenizer=pre)
    edit(folder / "config.json", bos_token_id=ids[1], eos_token_id=ids[1])  # config.json's BOS is another one, as published
    edit(folder / "generation_config.json", eos_token_id=ids[1])
    with LlamaCppBackend(gguf_of(folder, len(tokens) + 64)) as engine:
        tokenizer = opened(folder)
        assert tokenizer.chat_format == engine.chat_format
        for i in range(tokenizer.vocab_size):
            assert tokenizer.piece(i) == engine._piece(i)
            assert tokenizer.is_end(i) == engine._c.llama_vocab_is_eog(engine._vocab, i)
        for text in [*TEXTS, *varied(2000)]:
            agree_on(tokenizer, engine, text)
