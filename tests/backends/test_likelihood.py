"""How likely a token was, and what else was."""

import math

import numpy as np
import pytest

from backends.base import Cancel, Sampling, Text, Token
from backends.likelihood import ALTERNATIVES, SURE, likelihood
from backends.llamacpp import LlamaCppBackend
from backends.reference.backend import ReferenceBackend
from localr1 import paths
from quantize.convert import convert


def test_a_token_that_was_not_sure_has_the_likeliest_others():
    chances = np.array([0.05, 0.4, 0.1, 0.2, 0.05, 0.15, 0.05])
    logprob, others = likelihood(np.log(chances, dtype=np.float32) + 3, 3, str)
    assert logprob == pytest.approx(math.log(0.2), abs=1e-6)
    assert [(i, text) for i, text, _ in others] == [(1, "1"), (5, "5"), (2, "2"), (0, "0")] and len(others) == ALTERNATIVES
    assert [p for _, _, p in others] == pytest.approx(np.log([0.4, 0.15, 0.1, 0.05]), abs=1e-6)


def test_the_likeliest_itself_is_no_alternative_and_far_ones_are_none():
    chances = np.array([0.7, 0.2999, 0.0001])
    assert [i for i, _, _ in likelihood(np.log(chances), 0, str)[1]] == [1]
    assert [i for i, _, _ in likelihood(np.log(chances), 2, str)[1]] == [0, 1]


def test_a_sure_token_has_none():
    over = SURE + 0.01
    assert likelihood(np.log([over, 1 - over]), 0, str)[1] == ()
    assert likelihood(np.log([over, 1 - over]), 1, str)[1] != ()
    assert likelihood(np.array([0.0, -np.inf]), 0, str) == (0.0, ())


def test_engines_tell_the_same(tmp_path):
    student = paths.assets() / "r1-tiny"
    convert(student, tmp_path / "m.gguf", "F32")
    text = "Zebras paint 12 violins; 7 r's, or was it nine?"
    found: list[list[Token]] = []
    for backend in (LlamaCppBackend(tmp_path / "m.gguf", 256), ReferenceBackend(student, 256)):
        with backend:
            prompts = [backend.encode([Text(text[:n])]) for n in range(1, len(text))]
            found.append([next(iter(backend.stream(ids, Sampling(temperature=0), Cancel()))) for ids in prompts])
    unsure = 0
    for a, b in zip(*found, strict=True):
        assert a.logprob == pytest.approx(b.logprob, abs=0.02)  # its cache is in F16
        assert a.id == b.id or (a.alternatives[0][0] == b.id and a.alternatives[0][2] == pytest.approx(a.logprob, abs=0.005))  # a tie
        common = {i: p for i, _, p in a.alternatives}.keys() & {i for i, _, _ in b.alternatives}
        unsure += len(common)
        for i in common:
            (first,), (second,) = ([o for o in t.alternatives if o[0] == i] for t in (a, b))
            assert first[1] == second[1] and first[2] == pytest.approx(second[2], abs=0.05)
    assert unsure > 40
