"""The `Backend` protocol on the bundled student, beside llama.cpp on the same weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from backends.base import Backend, Cancel, End, EngineError, ModelFileError, PromptTooLong, Sampling, Text, Token
from backends.llamacpp import LlamaCppBackend
from backends.reference.backend import ReferenceBackend
from backends.reference.sampling import draw, log_softmax
from localr1 import paths
from tests.backends.asked import ASK

GREEDY = Sampling(temperature=0)


@pytest.fixture(scope="module")
def opened() -> Iterator[ReferenceBackend]:
    with ReferenceBackend(paths.assets() / "r1-tiny") as backend:
        yield backend


def run(backend: Backend, ids: list[int], sampling: Sampling = GREEDY, cancel: Cancel | None = None) -> tuple[list[Token], End]:
    *tokens, end = backend.stream(ids, sampling, cancel or Cancel())
    assert isinstance(end, End)
    return [t for t in tokens if isinstance(t, Token)], end


def test_it_answers_as_llama_cpp_does(opened, tmp_path):
    from quantize.convert import convert

    convert(paths.assets() / "r1-tiny", tmp_path / "student.gguf", "F32")
    with LlamaCppBackend(tmp_path / "student.gguf") as engine:
        ids = opened.encode(ASK)
        assert ids == engine.encode(ASK) and opened.chat_format == engine.chat_format
        ours, end = run(opened, ids)
        theirs, their_end = run(engine, ids)
        assert [t.id for t in ours] == [t.id for t in theirs] and [t.text for t in ours] == [t.text for t in theirs]
        assert (end.reason, end.prompt_tokens, end.new_tokens) == (their_end.reason, their_end.prompt_tokens, their_end.new_tokens)
        assert "".join(t.text for t in ours).endswith("There are **3** r's in strawberry.")
        np.testing.assert_allclose([t.logprob for t in ours], [t.logprob for t in theirs], atol=5e-3)  # its cache is in F16


def test_a_second_turn_reuses_the_first(opened):
    ids = opened.encode(ASK)
    tokens, _ = run(opened, ids, Sampling(temperature=0, max_tokens=12))
    longer = ids + [t.id for t in tokens] + opened.encode([Text(" more")])
    again, end = run(opened, longer, Sampling(temperature=0, max_tokens=5))
    assert end.reused_tokens == len(ids) + 11  # the twelfth was never computed
    with ReferenceBackend(paths.assets() / "r1-tiny") as fresh:
        assert [t.id for t in run(fresh, longer, Sampling(temperature=0, max_tokens=5))[0]] == [t.id for t in again]


def test_prefill_is_kept_and_logits_leaves_it_alone(opened):
    ids = opened.encode(ASK)
    assert opened.prefill(ids, Cancel()) == len(ids)
    logits = opened.logits(ids)
    assert logits.shape == (len(ids), 320) and logits.dtype == np.float32
    tokens, end = run(opened, ids, Sampling(temperature=0, max_tokens=1))
    assert end.reused_tokens == len(ids) - 1 and tokens[0].id == int(logits[-1].argmax())
    assert tokens[0].logprob == pytest.approx(float(log_softmax(logits[-1]).max()), abs=1e-4)


def test_why_it_ended(opened):
    ids = opened.encode(ASK)
    assert run(opened, ids)[1].reason == "stop"
    assert run(opened, ids, Sampling(max_tokens=3))[1].reason == "length"
    with ReferenceBackend(paths.assets() / "r1-tiny", context=len(ids) + 4) as small:
        assert run(small, ids)[1] == End("context", len(ids), 0, 4, *[pytest.approx(0, abs=60)] * 2)
        with pytest.raises(PromptTooLong):
            run(small, ids + ids)
        with pytest.raises(PromptTooLong):
            small.logits(ids + ids)


def test_cancel_before_and_between_tokens(opened):
    ids = opened.encode(ASK)
    cancel = Cancel()
    cancel.set()
    assert run(opened, ids, cancel=cancel)[1].reason == "cancelled"
    cancel, seen = Cancel(), []
    for event in opened.stream(ids, GREEDY, cancel):
        seen.append(event)
        if len(seen) == 3:
            cancel.set()
    assert [type(e) for e in seen] == [Token] * 3 + [End] and seen[-1].reason == "cancelled"
    assert run(opened, ids)[1].reason == "stop"  # and it goes on as before


def test_a_seed_repeats_a_run(opened):
    ids = opened.encode(ASK)
    hot = Sampling(temperature=1.5, top_p=1, seed=7, max_tokens=40)
    first = [t.id for t in run(opened, ids, hot)[0]]
    assert first == [t.id for t in run(opened, ids, hot)[0]]
    assert any(first != [t.id for t in run(opened, ids, Sampling(temperature=1.5, top_p=1, seed=s, max_tokens=40))[0]] for s in (8, 9))


def test_a_character_of_several_tokens_is_whole(opened):
    ids = opened.encode([Text("ü€😀")])
    assert len(ids) == 9 and opened.decode(ids) == "ü€😀" and opened.decode(ids[:3]) == "ü\ufffd"


def test_wrong_use_is_told(opened, tmp_path):
    with pytest.raises(EngineError, match="token list is empty"):
        run(opened, [])
    with pytest.raises(EngineError, match="token 320 is outside the vocabulary"):
        run(opened, [320])
    with pytest.raises(EngineError, match="a context of 99,999,999"):
        ReferenceBackend(paths.assets() / "r1-tiny", context=99_999_999)
    with pytest.raises(ModelFileError):
        ReferenceBackend(tmp_path)
    closed = ReferenceBackend(paths.assets() / "r1-tiny")
    closed.close()
    closed.close()
    with pytest.raises(EngineError, match="closed"):
        run(closed, [1])


LOGITS = np.log(np.array([0.1, 0.4, 0.2, 0.3], np.float32))


def shares(sampling: Sampling) -> np.ndarray:
    random = np.random.default_rng(0)
    return np.bincount([draw(LOGITS, sampling, random) for _ in range(20_000)], minlength=4) / 20_000


@pytest.mark.parametrize(
    "sampling, wanted",
    [
        (Sampling(temperature=1, top_p=1), [0.1, 0.4, 0.2, 0.3]),
        (Sampling(temperature=0.5, top_p=1), np.array([1, 16, 4, 9]) / 30),
        (Sampling(temperature=1, top_p=0.75), np.array([0, 4, 2, 3]) / 9),  # 0.4, 0.3 fall short of 0.75: the next is kept too
        (Sampling(temperature=1, top_p=0.65), np.array([0, 4, 0, 3]) / 7),
        (Sampling(temperature=1, top_p=0), [0, 1, 0, 0]),
        (Sampling(temperature=1, top_p=1, top_k=3), np.array([0, 4, 2, 3]) / 9),
        (Sampling(temperature=1, top_p=1, min_p=0.6), np.array([0, 4, 0, 3]) / 7),
        (Sampling(temperature=0), [0, 1, 0, 0]),
    ],
)
def test_sampling(sampling, wanted):
    assert shares(sampling) == pytest.approx(np.array(wanted), abs=0.015)  # 4 standard deviations of 20,000 draws
