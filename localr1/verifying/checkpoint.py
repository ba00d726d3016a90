"""One checkpoint, computed by the reference in several ways that must give the same: the forms of MLA, the cache, FP8, MTP; its tokenizer.

Gates of logits are shares of the largest one (goldens.py). A token can be near a tie between two experts, where rounding decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from localr1.verifying.goldens import FLOAT32, SHARE
from localr1.verifying.lines import Check, Line, Skipped, gate
from localr1.verifying.subject import QUESTIONS, WINDOW_TOKENS, WINDOWS, Subject

if TYPE_CHECKING:
    import numpy as np

# Nats a token between `--fp8 full` and `off`: 0.003 to 0.006 was measured on the teacher. Scales of the wrong tile show above 0.1.
FP8_FULL = 2e-2
NEW_TOKENS = 48  # of self-speculative decoding, each question
TIED = 1e-3  # of the lead of an expert that was chosen over one that was not: below, rounding may choose the other
PULLED = 0.05  # of the largest score: what a token may be off for attending to one that went to another expert
NEAR_TIE = 1e-4  # of a score's lead over the second best: below, two correct programs may choose differently

TEXTS = (
    "How many r's are in strawberry? 907 + 195 = 1,102.",
    "  spaces,\ttabs\r\nand\n\nlines  ",
    "Größe, œuvre, 數學, математика, हिन्दी, العربية, e\u0301",
    "👩‍🔬 🇩🇪 🏳️‍🌈",
    "a\x00b\x1b[0m\x7f\u200b\ufeff",
    "<think> </think> <|im_end|> <｜User｜><｜end▁of▁sentence｜>",
    "".join(map(chr, range(32, 384))),
)


def checkpoint_checks(subject: Subject) -> list[Check]:
    """What can be made of the checkpoint's headers decides which there are; reading them raises BackendError."""
    from backends.checkpoint import Checkpoint
    from backends.reference.config import parse_config

    with Checkpoint.open(subject.folder) as checkpoint:
        config = parse_config(checkpoint.config)
        mtp = any(name.startswith(f"model.layers.{config.num_hidden_layers}.") for name in checkpoint.names())
        fp8 = any(checkpoint.dtype(name) == "F8_E4M3" for name in checkpoint.names())
    found = [
        Check(subject.titled("tokenizer round trips"), lambda: round_trips(subject)),
        Check(subject.titled("prefill + decode = full"), lambda: prefill_and_decode(subject)),
        Check(subject.titled("longer texts"), lambda: left_out(subject)),
    ]
    if config.mla is not None:
        found.append(Check(subject.titled("MLA naive = absorbed"), lambda: naive_and_absorbed(subject)))
    if fp8:
        found.append(Check(subject.titled("computed from FP8 storage"), lambda: fp8_weights(subject)))
        found.append(Check(subject.titled("FP8 activations"), lambda: fp8_full(subject)))
    if mtp:
        found.append(Check(subject.titled("MTP speculative = greedy"), lambda: speculative(subject)))
    return found


def round_trips(subject: Subject) -> Iterator[Line]:
    """Text comes back as it was, and nothing that it spells becomes a control token."""
    from backends.base import Special, Text

    backend = subject.reference
    added = {backend.encode([Special(text)])[0] for text in backend.chat_format.added_tokens if len(text) > 1}
    failed = 0
    for text in TEXTS:
        ids = backend.encode([Text(text)])
        failed += backend.decode(ids) != text or not added.isdisjoint(ids)
    yield gate(subject.titled("tokenizer round trips"), failed, 0, "texts lost", f"{len(TEXTS)} texts, spelled control tokens among them")


def left_out(subject: Subject) -> Iterator[Line]:
    windows, tokens = len(subject.windows), len(subject.windows[0])
    if windows * tokens < WINDOWS * WINDOW_TOKENS:
        what = f"{windows} x {tokens} tokens are read instead of {WINDOWS} x {WINDOW_TOKENS}"
        why = f"{subject.parameters[1] / 1e6:,.0f}M parameters a token take numpy long"
        yield Line(subject.titled("longer texts"), "skipped", note=f"{what}: {why}, or the model's context is shorter")


def prefill_and_decode(subject: Subject) -> Iterator[Line]:
    from backends.reference.agreement import through_cache

    model, ids = subject.reference.model, list(subject.windows[0])
    cut = len(ids) - subject.steps
    shares = _apart(through_cache(model, ids, cut), model.logits(ids))
    yield _same(subject, "prefill + decode = full", shares, f"{cut} tokens at once, {subject.steps} one by one")


def naive_and_absorbed(subject: Subject) -> Iterator[Line]:
    from backends.reference.agreement import naive

    model, ids = subject.reference.model, list(subject.windows[0])
    shares = _apart(naive(model).logits(ids), model.logits(ids))
    yield _same(subject, "MLA naive = absorbed", shares, f"{len(ids)} tokens")


def fp8_weights(subject: Subject) -> Iterator[Line]:
    from backends.reference.model import Model

    ids = list(subject.windows[0])
    shares = _apart(Model.open(subject.folder, "weights").logits(ids), subject.reference.model.logits(ids))
    yield _same(subject, "computed from FP8 storage", shares, "--fp8 weights against off")


def fp8_full(subject: Subject) -> Iterator[Line]:
    from backends import compare
    from backends.reference.backend import ReferenceBackend

    with ReferenceBackend(subject.folder, fp8="full") as full:
        found = compare.compare(subject.baseline, full)
    note = f"--fp8 full against off; the same likeliest token in {found.top1_agreement:.1%}"
    yield gate(subject.titled("FP8 activations"), found.kl_mean, FP8_FULL, "nats KL", note)


def speculative(subject: Subject) -> Iterator[Line]:
    from backends.reference.agreement import greedy, parting, speculated
    from backends.reference.mtp import Acceptance, MtpModule

    if subject.tokens < NEW_TOKENS:
        raise Skipped(f"the model is so large that decoding {NEW_TOKENS} tokens twice would take long")
    model, count, parted, tokens = subject.reference.model, Acceptance(), 0, 0
    mtp, ends = MtpModule(model), subject.reference.ends
    for question in QUESTIONS:
        prompt = subject.prompt(question)
        made, leads = greedy(model, prompt, NEW_TOKENS, ends)
        at = parting(made, leads, speculated(mtp, prompt, NEW_TOKENS, ends, count))
        parted += at is not None and at.lead > NEAR_TIE
        tokens += len(made)
    note = f"{len(QUESTIONS)} questions, {tokens} tokens in {count.forwards} forward passes; {count.rate:.0%} of drafts accepted"
    yield gate(subject.titled("MTP speculative = greedy"), parted, 0, "texts differ", note)


def _apart(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    from backends.reference.agreement import apart

    return apart(found, expected)


def _same(subject: Subject, what: str, shares: np.ndarray, note: str) -> Line:
    """The worst token's share of the first window; those left out that are near a tie between experts, and little ones behind them."""
    excused = shares > FLOAT32
    if excused.any():  # seldom: else no pass is needed for the leads
        excused = near_ties(subject.leads, shares)
    if excused.any():
        note += f"; {excused.sum()} tokens beyond, the worst {shares[excused].max():.1g}: at or behind a tie between experts"
    return gate(subject.titled(what), float(shares[~excused].max(initial=0)), FLOAT32, SHARE, note)


def near_ties(leads: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """bool [T]: which tokens' `shares` lie beyond the gate because rounding chose another expert, for them or for one before them.
    `leads` [T]: as of Routing, the least of all layers."""
    import numpy as np

    beyond, tied = shares > FLOAT32, leads < TIED
    behind = np.logical_or.accumulate(beyond & tied) & (shares < PULLED)
    return beyond & (tied | behind)
