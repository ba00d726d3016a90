"""The `Backend` protocol through MLX, the real library, on the bundled student beside the reference. Networks: test_mlx_model.py."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.base import Backend, Cancel, End, EngineError, PromptTooLong, Sampling, Special, Text, Token
from backends.reference.backend import ReferenceBackend
from backends.reference.sampling import draw as reference_draw
from localr1 import paths
from tests.backends.asked import ASK

pytest.importorskip("mlx.core", exc_type=ImportError)

from backends import mlx
from backends.mlx import MlxBackend
from backends.mlx_sampling import draw

STUDENT = paths.assets() / "r1-tiny"
GREEDY = Sampling(temperature=0)
LONG = [*ASK[:2], Text("How often does the letter e occur in these words? " * 9), *ASK[3:]]

# Two float32 implementations agree within 6e-5 on logits of size 10 (of DeepSeek-V3); 4e-5 is the most that was seen here.
LOGITS = 1e-4


@pytest.fixture(scope="module")
def exact() -> Iterator[MlxBackend]:
    """The student, computed in float32: comparable with the reference to the last digits."""
    with MlxBackend(STUDENT, float32=True) as backend:
        yield backend


@pytest.fixture(scope="module")
def reference() -> Iterator[ReferenceBackend]:
    with ReferenceBackend(STUDENT) as backend:
        yield backend


def run(backend: Backend, ids: Sequence[int], sampling: Sampling = GREEDY, cancel: Cancel | None = None) -> tuple[list[Token], End]:
    *tokens, end = backend.stream(ids, sampling, cancel or Cancel())
    assert isinstance(end, End) and end.new_tokens == len(tokens)
    return [t for t in tokens if isinstance(t, Token)], end


def ids_of(tokens: list[Token]) -> list[int]:
    return [t.id for t in tokens]


def limited(tokens: int, **more: Any) -> Sampling:
    return Sampling(**{"temperature": 0, "max_tokens": tokens} | more)


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems know no such names")
def test_a_folder_whose_name_is_no_unicode(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"mod\xe8le")
    shutil.copytree(STUDENT, folder)
    with MlxBackend(folder) as backend:
        assert run(backend, backend.encode([Text("What is 1 + 1?")]), Sampling(temperature=0, max_tokens=4))[0]


def test_as_stored_the_student_answers_right():
    """BF16 has 8 bits: logits of size 20 are rounded to 1/8, and the sums before them have the same error again."""
    with MlxBackend(STUDENT) as backend:
        tokens, _ = run(backend, backend.encode(ASK))
        assert "".join(t.text for t in tokens).endswith("There are **3** r's in strawberry.")
        info = backend.info
        assert (info.architecture, info.format, info.bits_per_weight, info.context_length) == ("qwen2", "BF16", 16.0, 4096)


def test_it_answers_as_the_reference_does(exact, reference):
    ids = exact.encode(ASK)
    assert ids == reference.encode(ASK) and exact.chat_format == reference.chat_format
    (ours, end), (theirs, their_end) = run(exact, ids), run(reference, ids)
    assert [(t.id, t.text) for t in ours] == [(t.id, t.text) for t in theirs]
    assert [t.logprob for t in ours] == pytest.approx([t.logprob for t in theirs], abs=LOGITS)
    for a, b in zip(ours, theirs, strict=True):
        assert [(i, text) for i, text, _ in a.alternatives] == [(i, text) for i, text, _ in b.alternatives]
    assert (end.reason, end.new_tokens) == (their_end.reason, their_end.new_tokens) and end.reason == "stop"


@pytest.mark.parametrize("seed", [5, 6])
def test_a_seed_repeats_a_run_and_means_what_it_means_to_the_reference(exact, reference, seed):
    ids, hot = exact.encode(ASK), limited(25, temperature=1.5, top_p=0.97, seed=seed)
    assert ids_of(run(exact, ids, hot)[0]) == ids_of(run(exact, ids, hot)[0]) == ids_of(run(reference, ids, hot)[0])
    free = limited(15, temperature=3.0, top_p=1)
    assert ids_of(run(exact, ids, free)[0]) != ids_of(run(exact, ids, free)[0])


@pytest.mark.parametrize(
    "sampling",
    [Sampling(), Sampling(top_p=1), Sampling(top_k=9), Sampling(min_p=0.2, top_p=1), Sampling(top_p=0), Sampling(1e-4), GREEDY],
)
def test_drawing_is_the_references(exact, sampling):
    class Fixed:
        def random(self) -> float:
            return chance

    random = np.random.default_rng(1)
    for _ in range(40):
        logits, chance = random.normal(0, 3, 1000).astype(np.float32), random.random()
        wanted = reference_draw(logits, sampling, Fixed())  # type: ignore[arg-type]
        assert int(draw(exact._mx, exact._mx.array(logits), sampling, chance).item()) == wanted


def test_log_probabilities_are_the_models_own(exact):
    ids = exact.encode(ASK)
    tokens, _ = run(exact, ids, limited(40, temperature=2.0, top_p=0.9, seed=3))
    rows = exact.logits([*ids, *ids_of(tokens)])[len(ids) - 1 : -1].astype(np.float64)
    assert rows.shape == (40, 320)
    expected = [row[t.id] - np.logaddexp.reduce(row) for row, t in zip(rows, tokens, strict=True)]
    assert [t.logprob for t in tokens] == pytest.approx(expected, abs=LOGITS)


@pytest.mark.parametrize("edit", ["the same", "longer", "other end", "shorter", "another"])
def test_a_reused_prefix_gives_what_a_fresh_run_gives(exact, reference, edit):
    first = exact.encode([*ASK, Text("I count r in straw")])
    then = {
        "the same": first,
        "longer": [*first, *exact.encode([Text("berry.\n1 s,")])],
        "other end": [*first[:-5], *exact.encode([Text("blue")])],
        "shorter": first[:-9],
        "another": exact.encode([*ASK[:2], Text("What is 2 + 2?"), *ASK[3:]]),
    }[edit]
    wanted, _ = run(reference, then, limited(15))
    run(exact, first, limited(15))
    tokens, end = run(exact, then, limited(15))
    assert ids_of(tokens) == ids_of(wanted)
    assert [t.logprob for t in tokens] == pytest.approx([t.logprob for t in wanted], abs=LOGITS)
    kept = {"other end": len(first) - 5, "another": 1}.get(edit, min(len(then) - 1, len(first)))
    assert kept <= end.reused_tokens < len(then)


def test_a_follow_up_computes_only_the_new_text(exact):
    ids = exact.encode(ASK)
    assert exact.prefill(ids, Cancel()) == len(ids)
    tokens, end = run(exact, ids)
    assert end.reused_tokens == len(ids) - 1
    follow = [*ids, *ids_of(tokens), *exact.encode([Special("<｜end▁of▁sentence｜>"), *ASK[1:]])]
    # what ends a reply has been put into the cache before it was known
    assert run(exact, follow, limited(3))[1].reused_tokens == len(ids) + len(tokens) + 1


def test_a_cache_that_cannot_be_cut_is_computed_anew(exact, monkeypatch):
    ids = exact.encode(ASK)
    wanted = ids_of(run(exact, ids, limited(9))[0])
    monkeypatch.setattr(exact._net, "trim", lambda *_: False)
    tokens, end = run(exact, ids, limited(9))
    assert ids_of(tokens) == wanted and end.reused_tokens == 0


def test_why_it_ended(exact):
    ids = exact.encode(ASK)
    assert [run(exact, ids, limited(n))[1].reason for n in (0, 5)] == ["length"] * 2
    with MlxBackend(STUDENT, context=len(ids) + 4) as small:
        tokens, end = run(small, ids)
        assert (len(tokens), end.reason) == (4, "context") and len(small._cached) == len(ids) + 3  # what is not needed is not computed
        for call in (lambda: run(small, ids * 2), lambda: small.logits(ids * 2)):
            with pytest.raises(PromptTooLong):
                call()
        assert small.prefill(ids * 2, Cancel()) == len(ids) + 4


def test_cancel_ends_within_a_token_and_computes_at_most_one_more(exact, reference, monkeypatch):
    ids = exact.encode(ASK)
    wanted, steps, hidden = run(reference, ids, limited(12))[0], [], exact._net.hidden
    exact.prefill(ids, Cancel())
    monkeypatch.setattr(exact._net, "hidden", lambda *a: steps.append(1) or hidden(*a))
    cancel = Cancel()
    stream = exact.stream(ids, GREEDY, cancel)
    got = [next(stream), next(stream)]
    cancel.set()
    (end,) = stream
    assert isinstance(end, End) and (end.reason, end.new_tokens) == ("cancelled", 2)
    assert len(steps) == 1 + 2  # the prompt's last token, and the two
    assert [t.id for t in got] == ids_of(wanted)[:2]
    again, end = run(exact, [*ids, *(t.id for t in got)], limited(10))
    assert ids_of(again) == ids_of(wanted)[2:] and end.reused_tokens == len(ids) + 1


@pytest.mark.parametrize("after_s", [0.0, 0.003, 0.03])
def test_cancel_in_the_prompt_stops_at_once_and_leaves_the_cache_right(exact, reference, monkeypatch, after_s):
    monkeypatch.setattr(exact, "_piece_tokens", 32)
    ids = exact.encode(LONG)
    assert len(ids) > 10 * 32
    exact.prefill([0], Cancel())
    cancel = Cancel()
    timer = threading.Timer(after_s, cancel.set)
    timer.start()
    if not after_s:
        timer.join()
    hidden, late = exact._net.hidden, []
    monkeypatch.setattr(exact._net, "hidden", lambda *a: late.append(cancel.is_set()) or hidden(*a))
    tokens, end = run(exact, ids, limited(2000), cancel)
    timer.join()
    assert sum(late) <= 1  # a piece of the prompt, or a token, that was begun as the cancel came
    assert end.reason == "cancelled" and (after_s or not tokens)
    assert run(exact, ids, limited(1))[0][0].logprob == pytest.approx(run(reference, ids, limited(1))[0][0].logprob, abs=LOGITS)


def test_an_abandoned_stream_does_no_harm(exact):
    ids = exact.encode(ASK)
    whole = ids_of(run(exact, ids, limited(15))[0])
    for closed in (True, False):
        stream = exact.stream(ids, GREEDY, Cancel())
        begun = [next(stream).id for _ in range(4)]  # type: ignore[union-attr]
        if closed:
            stream.close()  # type: ignore[attr-defined]
        rest, end = run(exact, ids + begun, limited(11))
        assert begun + ids_of(rest) == whole and end.reused_tokens == len(ids) + 3
        assert ids_of(run(exact, ids, limited(15))[0]) == whole


@pytest.mark.parametrize("raised, told", [(RuntimeError("out of memory"), EngineError), (KeyboardInterrupt(), KeyboardInterrupt)])
def test_a_failure_on_the_way_leaves_no_wrong_cache(exact, monkeypatch, raised, told):
    ids = exact.encode(ASK)
    whole, logits, calls = ids_of(run(exact, ids, limited(9))[0]), exact._net.logits, iter(range(99))

    def failing(hidden: Any) -> Any:
        if next(calls) == 3:
            raise raised
        return logits(hidden)

    monkeypatch.setattr(exact._net, "logits", failing)
    with pytest.raises(told):
        run(exact, ids, limited(9))
    tokens, end = run(exact, ids, limited(9))
    assert ids_of(tokens) == whole and end.reused_tokens == 0


def test_threads_take_turns(reference):
    """Opened in one, asked in a second, left in a third while the device computes: MLX cannot end there what was begun here."""
    kept: list[Any] = []
    wanted = ids_of(run(reference, reference.encode(ASK), limited(20))[0])

    def on_a_thread(work: Callable[[], Any]) -> Any:
        made: list[Any] = []
        thread = threading.Thread(target=lambda: made.append(work()))
        thread.start()
        thread.join()
        return made[0]

    backend = on_a_thread(lambda: MlxBackend(STUDENT, float32=True))
    ids = backend.encode(ASK)
    assert ids_of(on_a_thread(lambda: run(backend, ids, limited(20)))[0]) == wanted
    stream = backend.stream(ids, GREEDY, Cancel())
    kept += [on_a_thread(lambda: next(stream)).id for _ in range(3)]
    on_a_thread(stream.close)
    assert kept + ids_of(on_a_thread(lambda: run(backend, ids + kept, limited(17)))[0]) == wanted
    assert on_a_thread(lambda: backend.logits(ids)).shape == (len(ids), 320)
    on_a_thread(backend.close)


def test_text_is_held_back_until_its_bytes_are_complete(exact, monkeypatch):
    script = iter([*exact.encode([Text("é你")]), *exact.encode([Special("<｜end▁of▁sentence｜>")]), 0])
    monkeypatch.setattr(mlx, "draw", lambda mx, *_: mx.array(next(script)))
    assert [t.text for t in run(exact, exact.encode(ASK), Sampling())[0]] == ["", "é", "", "", "你"]


def test_only_specials_yield_added_tokens(exact):
    added = exact.chat_format.added_tokens
    forbidden = {exact.encode([Special(t)])[0] for t in added}
    assert len(forbidden) == len(added) == 7
    for token in added:
        for text in (token, token * 2, f"<{token}", f"{token}>", f"a{token}b {token}\n", token[:-1] + token):
            got = exact.encode([Text(text)])
            assert forbidden.isdisjoint(got) and exact.decode(got) == text
    with pytest.raises(EngineError, match="no single token"):
        exact.encode([Special("<tool>")])


def test_close_frees_the_memory_and_says_so(exact):
    before = exact._mx.get_active_memory()
    backend = MlxBackend(STUDENT, float32=True)
    ids = backend.encode(ASK)
    stream = backend.stream(ids, GREEDY, Cancel())
    next(stream)
    backend.close()
    backend.close()
    for call in (stream.__next__, lambda: backend.encode(ASK), lambda: backend.logits(ids), lambda: backend.prefill(ids, Cancel())):
        with pytest.raises(EngineError, match="closed"):
            call()
    assert exact._mx.get_active_memory() - before < 100_000  # 13 MB of weights are gone


def test_nothing_and_nonsense_are_refused_not_computed(exact):
    with pytest.raises(EngineError, match="nothing to continue"):
        run(exact, [])
    for ids in ([320], [-1], [5, 99999]):
        for call in (lambda ids=ids: run(exact, ids), lambda ids=ids: exact.decode(ids), lambda ids=ids: exact.logits(ids)):
            with pytest.raises(EngineError, match="out of range"):
                call()
    assert exact.logits([]).shape == (0, 320)
