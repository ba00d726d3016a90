"""Every architecture against transformers in float32 (see assets/goldens/README.md).

Gates: two correct float32 programs differ by up to 6e-5 on logits of size 10, because they sum in another order.
"""

from __future__ import annotations

import numpy as np
import pytest
from goldens.checkpoints import KINDS, digest

from backends.reference.model import Model, Record
from backends.reference.mtp import MtpModule

LOGITS_MAX, LOGITS_RMS = 2e-4, 1e-5  # the second relative to the size of the logits
MOE = [kind for kind in KINDS if kind.startswith("deepseek")]
MTP = [kind for kind in KINDS if KINDS[kind].config.get("num_nextn_predict_layers")]


def close(logits: np.ndarray, wanted: np.ndarray) -> bool:
    error = logits - wanted
    rms = np.sqrt(np.mean(error**2) / np.mean(wanted**2))
    return bool(logits.dtype == np.float32 and np.abs(error).max() < LOGITS_MAX and rms < LOGITS_RMS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_checkpoint_is_the_one_that_the_goldens_were_made_from(kind, checkpoint, golden):
    assert digest(checkpoint(kind)) == golden(kind)["checkpoint_sha256"]


@pytest.mark.parametrize("absorbed", [True, False], ids=["absorbed", "naive"])
@pytest.mark.parametrize("kind", KINDS)
def test_logits(kind, absorbed, checkpoint, golden):
    if not absorbed and not kind.startswith("deepseek"):
        pytest.skip("grouped-query attention has one form")
    expected, model = golden(kind), Model.open(checkpoint(kind), absorbed=absorbed)
    for length in (1, 22, 200):
        assert close(model.logits(expected[f"tokens_{length}"].tolist()), expected[f"logits_{length}"]), length


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_of_every_layer(kind, checkpoint, golden):
    expected, model, record = golden(kind), Model.open(checkpoint(kind)), Record()
    final = model.forward(expected["tokens_22"].tolist(), model.new_cache(), record)
    after_layers = np.stack(record.hidden[1:])
    np.testing.assert_allclose(after_layers, expected["hidden_22"], atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(final, expected["final_22"], atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize("length", [22, 200])
@pytest.mark.parametrize("kind", MOE)
def test_routed_experts_and_their_weights(kind, length, checkpoint, golden):
    expected, model, record = golden(kind), Model.open(checkpoint(kind)), Record()
    model.forward(expected[f"tokens_{length}"].tolist(), model.new_cache(), record)
    experts = np.stack([r.experts for r in record.routing.values()])
    weights = np.stack([r.weights for r in record.routing.values()])
    order = np.argsort(experts, axis=-1)
    np.testing.assert_array_equal(np.take_along_axis(experts, order, -1), expected[f"experts_{length}"])
    np.testing.assert_allclose(np.take_along_axis(weights, order, -1), expected[f"weights_{length}"], rtol=2e-5)


@pytest.mark.parametrize("kind", MTP)
def test_mtp_logits(kind, checkpoint, golden):
    expected = golden(kind)
    mtp = MtpModule(Model.open(checkpoint(kind)))
    assert close(mtp.logits(expected["tokens_22"].tolist()), expected["mtp_logits_22"])


def test_mtp_routes_too(checkpoint, golden):
    expected = golden("deepseek_v3")
    model = Model.open(checkpoint("deepseek_v3"))
    mtp, record, ids = MtpModule(model), Record(), expected["tokens_22"].tolist()
    mtp.forward(model.forward(ids, model.new_cache())[:-1], ids[1:], mtp.new_cache(), record)
    np.testing.assert_array_equal(np.sort(record.routing[3].experts, -1), expected["mtp_experts_22"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", [1, 7, 150, 199])
def test_prefill_and_decode_equal_the_full_forward(kind, split, checkpoint, golden):
    expected, model = golden(kind), Model.open(checkpoint(kind))
    ids, cache = expected["tokens_200"].tolist(), model.new_cache()
    parts = [model.logits(ids[:split], cache)]
    parts += [model.logits([token], cache) for token in ids[split:]]
    assert close(np.concatenate(parts), expected["logits_200"])


def test_weights_computed_from_fp8_storage_give_the_same_numbers(checkpoint, golden):
    expected = golden("deepseek_v3-fp8")
    logits = Model.open(checkpoint("deepseek_v3-fp8"), "weights").logits(expected["tokens_200"].tolist())
    assert close(logits, expected["logits_200"])


def test_queries_taken_a_few_at_a_time_give_the_same_numbers(checkpoint, golden, monkeypatch):
    monkeypatch.setattr("backends.reference.attention.SCORES_LIMIT", 3000)
    for kind in ("qwen3", "deepseek_v3"):
        expected = golden(kind)
        assert close(Model.open(checkpoint(kind)).logits(expected["tokens_200"].tolist()), expected["logits_200"])
