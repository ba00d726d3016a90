"""Self-speculative decoding: the tokens of plain greedy decoding, in fewer forward passes."""

from __future__ import annotations

import numpy as np
import pytest

from backends.reference import agreement
from backends.reference.model import Model
from backends.reference.mtp import Acceptance, MtpModule, speculate


def greedy(model: Model, ids: list[int], new_tokens: int) -> list[int]:
    return agreement.greedy(model, ids, new_tokens)[0]


class Oracle(MtpModule):
    """Drafts what it is told, whatever the weights say: a trained MTP layer that is right, or wrong, where the test wants it."""

    def __init__(self, model: Model, truth: list[int], right: list[bool]) -> None:
        super().__init__(model)
        self.truth, self.right, self.asked = truth, right, 0
        self.head = self._scores

    def _scores(self, hidden: np.ndarray) -> np.ndarray:
        scores = np.zeros((len(hidden), self.model.config.vocab_size), np.float32)
        at = self.drafts.length - self.prompt + 2  # the draft follows this many new tokens
        good = self.right[self.asked % len(self.right)]
        self.asked += 1
        scores[:, (self.truth[min(at - 1, len(self.truth) - 1)] + (not good)) % self.model.config.vocab_size] = 1
        return scores

    def new_cache(self):
        self.drafts = super().new_cache()
        return self.drafts

    prompt = 0


@pytest.mark.parametrize("kind", ["deepseek_v3", "deepseek_v3-fp8", "deepseek_v3-mscale"])
@pytest.mark.parametrize("new_tokens", [1, 2, 40])
def test_the_same_tokens_as_greedy_decoding(kind, new_tokens, checkpoint):
    model, prompt = Model.open(checkpoint(kind)), [3, 1, 4, 1, 5]
    count = Acceptance()
    assert list(speculate(MtpModule(model), prompt, new_tokens, count)) == greedy(model, prompt, new_tokens)
    assert count.forwards in (new_tokens - count.accepted, new_tokens - count.accepted + 1)  # one more where a draft came last


@pytest.mark.parametrize("right", [[True], [False], [True, False], [False, True, True], [True, True, False, False]])
def test_drafts_right_and_wrong_in_any_order(right, checkpoint):
    model, prompt = Model.open(checkpoint("deepseek_v3")), [3, 1, 4, 1, 5]
    truth = greedy(model, prompt, 31)
    oracle, count = Oracle(model, truth, right), Acceptance()
    oracle.prompt = len(prompt)
    assert list(speculate(oracle, prompt, 30, count)) == truth[:30]
    assert count.forwards < 30 or not any(right)
    if right == [True]:
        assert count.rate == 1 and count.forwards == 1 + 15  # the prompt, then two tokens each
    if right == [False]:
        assert count.rate == 0 and count.forwards == 30


def test_the_drafting_layer_sees_what_it_would_see_at_once(checkpoint):
    """Its own cache, fed piece by piece while drafts are accepted and rejected, equals one pass over all tokens."""
    model = Model.open(checkpoint("deepseek_v3"))
    mtp, ids = MtpModule(model), [3, 1, 4, 1, 5, 9, 2, 6]
    hidden, cache = model.forward(ids, model.new_cache()), mtp.new_cache()
    pieces = [mtp.forward(hidden[i : i + n], ids[i + 1 : i + 1 + n], cache) for i, n in ((0, 4), (4, 1), (5, 2))]
    np.testing.assert_allclose(mtp.head(np.concatenate(pieces)), mtp.logits(ids), atol=1e-4)
