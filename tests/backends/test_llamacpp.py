"""The llama.cpp backend on the bundled student: the real engine, a real file."""

import math
import os
import struct
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import psutil
import pytest

from backends import llamacpp_library
from backends.base import Cancel, End, EngineError, ModelFileError, PromptTooLong, Sampling, Special, Text, Token
from backends.llamacpp import PREFILTER, LlamaCppBackend
from backends.llamacpp_library import library, logged_reason
from quantize.gguf_reader import read_gguf_header

GREEDY = Sampling(temperature=0, max_tokens=48)
PROMPT = [
    Special("<｜begin▁of▁sentence｜>"),
    Special("<｜User｜>"),
    Text("What is 907 + 195?"),
    Special("<｜Assistant｜>"),
    Special("<think>"),
    Text("\n"),
]
LONG = Text("How often does the letter e occur in these words? " * 40)


def run(backend: LlamaCppBackend, ids: Sequence[int], sampling: Sampling = GREEDY, cancel: Cancel | None = None) -> tuple[list[Token], End]:
    *tokens, end = backend.stream(ids, sampling, cancel or Cancel())
    assert isinstance(end, End)
    assert end.new_tokens == len(tokens)
    return tokens, end  # type: ignore[return-value]


def split_tolerance(backend: LlamaCppBackend, ids: list[int]) -> float:
    """How far log-probabilities move when the same tokens are merely batched differently, with a margin of 4."""
    whole = [t.logprob for t in run(backend, ids)[0]]
    moved = 0.0
    for cut in (1, 7, len(ids) // 2):
        backend.prefill([0], Cancel())  # drop what is cached
        backend.prefill(ids[:cut], Cancel())
        moved = max(moved, max(abs(a - t.logprob) for a, t in zip(whole, run(backend, ids)[0], strict=True)))
    return 4 * max(moved, 1e-5)


@pytest.mark.parametrize("edit", ["the same", "longer", "other end", "shorter"])
def test_a_reused_prefix_gives_what_a_fresh_context_gives(student: LlamaCppBackend, student_gguf: Path, edit: str) -> None:
    first = student.encode([*PROMPT, Text("ones: 7 + 5 = 12, carry 1, so far 2\ntens:")])
    then = {
        "the same": first,
        "longer": [*first, *student.encode([Text(" 0 + 9")])],
        "other end": [*first[:-5], *student.encode([Text("2\n")])],
        "shorter": first[:-9],
    }[edit]
    tolerance = split_tolerance(student, first)
    run(student, first)
    reused, end = run(student, then)
    with LlamaCppBackend(student_gguf) as other:
        fresh, fresh_end = run(other, then)
        scores = np.sort(other.logits([*then, *(t.id for t in fresh)]), axis=-1)
    margins = (scores[:, -1] - scores[:, -2])[len(then) - 1 :]
    assert fresh_end.reused_tokens == 0
    assert end.reused_tokens >= min(len(then) - 1, len(first) - 5)
    for a, b, margin in zip(reused, fresh, margins, strict=False):
        if margin <= tolerance:
            break
        assert a.id == b.id
        assert a.logprob == pytest.approx(b.logprob, abs=tolerance)


def test_a_follow_up_computes_only_the_new_text(student: LlamaCppBackend) -> None:
    ids = student.encode(PROMPT)
    tokens, _ = run(student, ids)
    follow = [*ids, *(t.id for t in tokens), *student.encode([Text(" and more")])]
    assert run(student, follow)[1].reused_tokens >= len(ids) + len(tokens) - 1


def test_prefill_is_what_a_stream_then_reuses(student: LlamaCppBackend) -> None:
    ids = student.encode(PROMPT)
    assert student.prefill(ids, Cancel()) == len(ids)
    assert run(student, ids)[1].reused_tokens == len(ids) - 1


def test_log_probabilities_are_the_models_own(student: LlamaCppBackend) -> None:
    ids = student.encode(PROMPT)
    tokens, _ = run(student, ids, Sampling(temperature=2.0, top_p=0.9, seed=3, max_tokens=40))
    scores = student.logits([*ids, *(t.id for t in tokens)])[len(ids) - 1 : -1].astype(np.float64)
    expected = [row[t.id] - np.logaddexp.reduce(row) for row, t in zip(scores, tokens, strict=True)]
    assert [t.logprob for t in tokens] == pytest.approx(expected, abs=0.02)  # F16 cache, other batch sizes


def test_greedy_takes_the_likeliest_token(student: LlamaCppBackend) -> None:
    ids = student.encode(PROMPT)
    tokens, _ = run(student, ids)
    scores = student.logits([*ids, *(t.id for t in tokens)])[len(ids) - 1 : -1]
    for row, token in zip(scores, tokens, strict=True):
        assert row[token.id] >= row.max() - 0.02


def test_a_seed_repeats_a_run(student: LlamaCppBackend) -> None:
    ids = student.encode(PROMPT)

    def ids_of(seed: int | None) -> list[int]:
        return [t.id for t in run(student, ids, Sampling(temperature=3.0, top_p=1.0, seed=seed, max_tokens=30))[0]]

    assert ids_of(5) == ids_of(5)
    assert len({tuple(ids_of(s)) for s in (5, 6, None, None)}) == 4


def test_top_p_cuts_the_tail(student: LlamaCppBackend) -> None:
    """At a tiny top-p only the likeliest token is left, whatever the temperature."""
    ids = student.encode(PROMPT)
    assert [t.id for t in run(student, ids, Sampling(temperature=1.5, top_p=0.01, max_tokens=30))[0]] == [
        t.id for t in run(student, ids, Sampling(temperature=0, max_tokens=30))[0]
    ]


def test_the_prefilter_cuts_off_next_to_nothing(student: LlamaCppBackend) -> None:
    ids = student.encode(PROMPT)
    tokens, _ = run(student, ids, Sampling(temperature=0))
    scores = student.logits([*ids, *(t.id for t in tokens)]).astype(np.float64) / 0.6
    mass = np.sort(np.exp(scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True)), axis=-1)
    assert mass[:, :-PREFILTER].sum(axis=-1).max() < 1e-4


def test_max_tokens_and_context_end_a_stream(student_gguf: Path) -> None:
    with LlamaCppBackend(student_gguf, context=64) as small:
        ids = small.encode(PROMPT)
        tokens, end = run(small, ids, Sampling(temperature=0, max_tokens=5))
        assert (len(tokens), end.reason) == (5, "length")
        tokens, end = run(small, ids, Sampling(temperature=0))
        assert (len(ids) + len(tokens), end.reason) == (64, "context")
        with pytest.raises(PromptTooLong, match="64"):
            next(small.stream([0] * 64, GREEDY, Cancel()))
        assert run(small, [0] * 63, Sampling(temperature=0))[1].reason in ("context", "stop")


def test_stop_is_not_a_token(student: LlamaCppBackend) -> None:
    tokens, end = run(student, student.encode(PROMPT), Sampling(temperature=0))
    assert end.reason == "stop"
    assert "<｜end▁of▁sentence｜>" not in "".join(t.text for t in tokens)


def test_cancel_ends_within_a_token(student: LlamaCppBackend) -> None:
    cancel = Cancel()
    stream = student.stream(student.encode(PROMPT), GREEDY, cancel)
    got = [next(stream), next(stream)]
    cancel.set()
    rest = list(stream)
    assert all(isinstance(t, Token) for t in got)
    assert [type(r) for r in rest] == [End]
    assert rest[0].reason == "cancelled"  # type: ignore[union-attr]
    assert rest[0].new_tokens == 2  # type: ignore[union-attr]


def test_an_interrupt_within_the_engine_leaves_the_cache_right(student: LlamaCppBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl+C while llama_decode computes: the engine holds tokens that Python does not know of."""
    ids = student.encode([*PROMPT[:2], LONG, *PROMPT[2:]])
    expected, _ = run(student, ids)
    student.prefill([1], Cancel())
    real = student._c.llama_decode

    def interrupted(*arguments: object) -> None:
        real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(student._c, "llama_decode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            student.prefill(ids, Cancel())
    assert [token.id for token in run(student, ids)[0]] == [token.id for token in expected]


@pytest.mark.parametrize("after_s", [0.0, 0.003, 0.02])
def test_cancel_in_the_prompt_stops_at_once_and_leaves_the_cache_right(
    student: LlamaCppBackend, student_gguf: Path, after_s: float
) -> None:
    ids = student.encode([*PROMPT[:2], LONG, *PROMPT[2:]])
    cancel = Cancel()
    if after_s:
        threading.Timer(after_s, cancel.set).start()
    else:
        cancel.set()
    tokens, end = run(student, ids, Sampling(temperature=0, max_tokens=1000), cancel)
    assert end.reason == "cancelled"
    if after_s < 0.02:  # by then a fast machine may have read it
        assert tokens == []
        assert student.prefill(ids, cancel) < len(ids)
    again, _ = run(student, ids)
    with LlamaCppBackend(student_gguf) as fresh:
        expected, _ = run(fresh, ids)
    assert again[0].id == expected[0].id
    assert again[0].logprob == pytest.approx(expected[0].logprob, abs=0.05)


def test_a_prompt_is_left_between_two_steps_where_the_engine_does_not_look(
    student: LlamaCppBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU."""

    class Second(Cancel):
        looks = 0

        def is_set(self) -> bool:
            self.looks += 1
            return self.looks > 1

    monkeypatch.setattr(student, "_watch", lambda cancel: None)
    student.prefill([0], Cancel())
    assert student.prefill([40 + i % 200 for i in range(1200)], Second()) == 512


def test_an_abandoned_stream_does_no_harm(student: LlamaCppBackend) -> None:
    ids = student.encode(PROMPT)
    whole, _ = run(student, ids)
    stream = student.stream(ids, GREEDY, Cancel())
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert [t.id for t in run(student, ids)[0]] == [t.id for t in whole]


def test_text_is_held_back_until_its_bytes_are_complete(student: LlamaCppBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    script = iter([*student.encode([Text("é你")]), student.encode([Special("<｜end▁of▁sentence｜>")])[0]])
    monkeypatch.setattr(student._c, "llama_sampler_sample", lambda *_: next(script))
    tokens, _ = run(student, student.encode(PROMPT), Sampling())
    assert [t.text for t in tokens] == ["", "é", "", "", "你"]


TEXTS = [
    "",
    " ",
    "\n\n",
    "Hello  world",
    "naïve café 你好 🎉",
    "\u202eabc\u200b",
    "\x00\x01\x1b[31m",
    "a\tb\r\nc",
    "１２３ ½ ②",
    "<<think>",
    "</think</think>>",
    "'s 'LL it's",
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_comes_back_from_its_ids(student: LlamaCppBackend, text: str) -> None:
    assert student.decode(student.encode([Text(text)])) == text


def test_only_specials_yield_added_tokens(student: LlamaCppBackend) -> None:
    added = student.chat_format.added_tokens
    ids = {t: student.encode([Special(t)]) for t in added}
    assert all(len(i) == 1 for i in ids.values())
    forbidden = {i[0] for i in ids.values()}
    assert len(forbidden) == len(added) == 7
    for token in added:
        for text in (token, token * 2, f"<{token}", f"{token}>", f"a{token}b {token}\n", token[:-1] + token):
            got = student.encode([Text(text)])
            assert forbidden.isdisjoint(got), text
            assert student.decode(got) == text
    with pytest.raises(EngineError, match="no single token"):
        student.encode([Special("<tool>")])


def test_info_says_what_is_loaded(student: LlamaCppBackend) -> None:
    info = student.info
    assert (info.architecture, info.format, info.context_length) == ("qwen2", "Q8_0", 4096)
    assert 8.5 <= info.bits_per_weight < 8.7
    assert "<think>" in student.chat_format.template


def test_logits_have_a_row_for_every_token(student: LlamaCppBackend) -> None:
    ids = student.encode([*PROMPT[:2], LONG])
    assert len(ids) > 1100  # more than two engine batches
    scores = student.logits(ids)
    assert scores.shape == (len(ids), 320)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    assert scores[:600] == pytest.approx(student.logits(ids[:600]), abs=0.05)
    tokens, _ = run(student, ids, Sampling(temperature=0, max_tokens=1))
    assert math.isclose(tokens[0].logprob, scores[-1][tokens[0].id] - np.logaddexp.reduce(scores[-1].astype(float)), abs_tol=0.05)


def test_the_engine_is_silent(student_gguf: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with LlamaCppBackend(student_gguf) as backend:
        run(backend, backend.encode(PROMPT))
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + b"\xff" * 100)
    with pytest.raises(ModelFileError):
        LlamaCppBackend(tmp_path / "bad.gguf")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("size", [0, 3, 24, 5000, 2_000_000])
def test_a_cut_file_is_one_clear_error(student_gguf: Path, tmp_path: Path, size: int) -> None:
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(student_gguf.read_bytes()[:size])
    with pytest.raises(ModelFileError, match=r"cut\.gguf cannot be loaded: .*fetch or convert it again") as caught:
        LlamaCppBackend(cut)
    assert "\n" not in str(caught.value)


def test_wrong_context_and_missing_file_are_clear_errors(student_gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"no model file at .*none\.gguf"):
        LlamaCppBackend(tmp_path / "none.gguf")
    with pytest.raises(EngineError, match="choose 1 to 4,096"):
        LlamaCppBackend(student_gguf, context=5000)


def test_closing_twice_is_fine(student_gguf: Path) -> None:
    backend = LlamaCppBackend(student_gguf)
    backend.close()
    backend.close()


def test_logits_do_not_listen_to_an_old_cancel(student: LlamaCppBackend) -> None:
    ids = student.encode(PROMPT)
    cancel = Cancel()
    cancel.set()
    run(student, ids, GREEDY, cancel)
    assert student.logits(ids).shape == (len(ids), 320)


def test_nothing_and_nonsense_are_refused_not_computed(student: LlamaCppBackend) -> None:
    with pytest.raises(EngineError, match="nothing to continue"):
        next(student.stream([], GREEDY, Cancel()))
    for ids in ([320], [-1], [5, 99999]):
        with pytest.raises(EngineError, match="out of range"):
            next(student.stream(ids, GREEDY, Cancel()))
        with pytest.raises(EngineError, match="out of range"):
            student.decode(ids)
    assert student.logits([]).shape == (0, 320)
    assert student.decode([]) == ""


def test_a_closed_model_says_so(student_gguf: Path) -> None:
    backend = LlamaCppBackend(student_gguf)
    ids = backend.encode(PROMPT)
    stream = backend.stream(ids, GREEDY, Cancel())
    next(stream)
    backend.close()
    for call in (lambda: next(stream), lambda: backend.encode(PROMPT), lambda: backend.logits(ids), lambda: backend.prefill(ids, Cancel())):
        with pytest.raises(EngineError, match="closed"):
            call()


def test_sampling_means_the_same_at_its_edges(student: LlamaCppBackend) -> None:
    ids = student.encode(PROMPT)
    greedy = [t.id for t in run(student, ids, Sampling(temperature=0, max_tokens=20))[0]]
    assert [t.id for t in run(student, ids, Sampling(temperature=1e-40, max_tokens=20))[0]] == greedy
    # Without a limit, a hot draw reaches beyond the likeliest 128 tokens.
    scores = student.logits(ids)[-1]
    ranks = np.argsort(np.argsort(-scores))
    firsts = [run(student, ids, Sampling(temperature=10, top_p=1, seed=s, max_tokens=1))[0] for s in range(60)]
    assert max(ranks[t[0].id] for t in firsts if t) > PREFILTER
    for wrong in (
        {"temperature": float("nan")},
        {"temperature": -1},
        {"temperature": float("inf")},
        {"top_p": 1.1},
        {"min_p": float("nan")},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Sampling(**wrong)


def test_a_tiny_model_runs_on_one_thread(student_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that wait for each other made it 20 times slower where other programs ran too."""

    def threads() -> int:
        with LlamaCppBackend(student_gguf, 16) as backend:
            return int(backend._c.llama_n_threads(backend._ctx))

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 3)
    monkeypatch.setattr(sys, "platform", "linux")
    assert threads() == 1
    monkeypatch.setattr(llamacpp_library, "TINY_PARAMETERS", 1000)
    assert threads() == 3


@pytest.mark.parametrize(("system", "repacks"), [(b"CPU : AVX512 = 1 | AMX_INT8 = 1 | ", False), (b"CPU : AVX512 = 1 | ", True)])
def test_the_kernels_that_crash_are_not_used(monkeypatch: pytest.MonkeyPatch, system: bytes, repacks: bool) -> None:
    monkeypatch.setattr(llamacpp_library.library(), "llama_print_system_info", lambda: system)
    assert llamacpp_library.model_params().use_extra_bufts == repacks


def test_damaged_weights_are_told_and_not_written_as_text(student_gguf: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    data = bytearray(student_gguf.read_bytes())
    norm = next(t for t in read_gguf_header(student_gguf).tensors if t.name == "output_norm.weight")
    data[norm.begin : norm.begin + 4 * norm.shape[0]] = norm.shape[0] * struct.pack("<f", math.nan)
    damaged.write_bytes(data)
    with LlamaCppBackend(damaged) as backend, pytest.raises(EngineError, match="weights are damaged"):
        run(backend, backend.encode(PROMPT))


def test_what_a_gpu_computes_is_waited_for_before_time_is_told(student: LlamaCppBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real = student._c.llama_synchronize
    monkeypatch.setattr(student._c, "llama_synchronize", lambda ctx: (calls.append("waits"), real(ctx)))
    monkeypatch.setattr("backends.llamacpp.perf_counter", lambda: (calls.append("clock"), perf_counter())[1])
    run(student, student.encode(PROMPT), Sampling(temperature=0, max_tokens=1))
    assert calls[:3] == ["clock", "waits", "clock"]


def test_a_gpu_that_is_too_small_is_left_out(student_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    c, tried = library(), list[int]()
    real = c.llama_model_load_from_file

    def small(path: bytes, params: Any) -> Any:
        tried.append(params.n_gpu_layers)
        return real(path, params) if params.n_gpu_layers == 0 else None

    monkeypatch.setattr(c, "llama_model_load_from_file", small)
    monkeypatch.setattr(c, "llama_supports_gpu_offload", lambda: True)
    LlamaCppBackend(student_gguf).close()
    assert tried[1:] == [0]
    with pytest.raises(ModelFileError, match="cannot be loaded"):
        LlamaCppBackend(student_gguf, gpu_layers=3)  # as planned: no other way is tried


def test_the_engines_reason_is_told_without_its_dots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.llamacpp_library._log", ["...", "....\n", "K cache type q8_0 does not divide 48\n"])
    assert logged_reason() == "K cache type q8_0 does not divide 48"
