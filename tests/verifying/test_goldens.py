"""Every check of the arithmetic fails when the arithmetic is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from verifying.conftest import statuses

from backends.reference import attention, fp8, model, moe, mtp
from backends.reference.weights import Weights
from localr1 import paths
from localr1.verifying.goldens import Tiny, golden_checks


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """Of two kinds, the rest is the same; and briefly."""
    monkeypatch.setattr("localr1.verifying.goldens.CUT", 190)
    monkeypatch.setattr("localr1.verifying.goldens.NEW_TOKENS", 8)
    tiny = Tiny(paths.assets() / "goldens", tmp_path)
    tiny.module.KINDS = {kind: tiny.module.KINDS[kind] for kind in ("qwen2", "deepseek_v3-fp8")}
    return tiny


def failing(tiny: Tiny, *words: str) -> set[str]:
    """Of the checks in whose name one of the words is, those that fail; by their last words."""
    checks = [check for check in golden_checks(tiny) if any(word in check.name for word in words)]
    assert len(checks) >= len(words)
    return {name for name, status in statuses(checks).items() if status == "FAIL"}


def test_all_is_well(tiny: Tiny) -> None:
    found = statuses(golden_checks(tiny))
    assert set(found.values()) == {"PASS"} and len(found) == 4 + 2 + 6


def test_a_wrong_code(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    table = fp8._table().copy()
    table[0x70] *= 1.5
    monkeypatch.setattr(fp8, "_pairs", lambda: table[np.arange(65536, dtype="<u2").view(np.uint8)].view(np.float64))
    assert failing(tiny, "E4M3", "FP8", "golden ") == {
        "E4M3 codes decoded",
        "FP8 linears",
        "golden deepseek_v3-fp8",
        "computed from FP8 storage",
    }
    monkeypatch.setattr(fp8, "e4m3_encode", lambda x, real=fp8.e4m3_encode: real(np.clip(x, -448, 448) * np.float32(1.02)))
    assert {"E4M3 codes encoded", "codes and scales"} <= failing(tiny, "E4M3", "FP8 linears")


def test_what_is_no_number_fails(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's max(0.0, nan) is 0.0."""
    monkeypatch.setattr(fp8, "fp8_linear", lambda x, codes, scales: np.full((*x.shape[:-1], len(codes)), np.nan, np.float32))
    assert "FP8 linears" in failing(tiny, "FP8 linears")


def test_experts_chosen_without_the_bias(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moe, "route", lambda logits, bias, config, real=moe.route: real(logits, None, config))
    assert failing(tiny, "golden ", "expert") == {"golden deepseek_v3-fp8", "expert choices"}


def test_mtp_with_its_inputs_swapped(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def swapped(self: Weights, prefix: str, real: Callable[..., Any] = Weights.linear) -> Any:
        linear = real(self, prefix)
        return (lambda x: linear(np.roll(x, x.shape[-1] // 2, -1))) if prefix.endswith("eh_proj") else linear

    monkeypatch.setattr(Weights, "linear", swapped)
    assert failing(tiny, "MTP", "golden ") == {"MTP logits"}  # drafts are worse, and what is accepted is still greedy


def test_a_wrong_norm_in_the_naive_form(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    real = attention.LatentAttention._naive
    monkeypatch.setattr(attention.LatentAttention, "_naive", lambda self, q, *rest: real(self, q * 1.001, *rest))
    assert failing(tiny, "MLA", "golden ") == {"MLA naive = absorbed"}


def test_positions_that_begin_anew_behind_the_cache(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "angles", lambda rope, start, n, real=model.angles: real(rope, 0, n))
    assert failing(tiny, "prefill", "golden ") == {"prefill + decode = full"}


def test_drafts_that_nobody_checks(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def unchecked(module: Any, ids: list[int], new_tokens: int, count: Any, real: Callable[..., Any] = mtp.speculate) -> Any:
        return (token if i != 5 else 0 for i, token in enumerate(real(module, ids, new_tokens, count)))

    monkeypatch.setattr("backends.reference.agreement.speculate", unchecked)
    assert failing(tiny, "speculative") == {"MTP speculative = greedy"}


def test_weights_that_are_not_the_goldens(tiny: Tiny, tmp_path: Path) -> None:
    assert failing(tiny, "golden qwen2") == set()
    config = tmp_path / "qwen2" / "config.json"
    config.write_text(config.read_text().replace("1e-06", "1e-05"))
    assert failing(tiny, "golden qwen2") == {"golden qwen2"}
