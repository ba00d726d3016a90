"""`localr1 verify --teacher`: what the trained teacher does in the reference - FP8, MTP, MLA, routing - measured on problems it was not trained on.

Every reply is the model's own greedy one; llama.cpp and the other modes only draft it, so that it is computed in one forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from localr1.student import exam, recipe
from localr1.verifying.checkpoint import NEAR_TIE, naive_and_absorbed
from localr1.verifying.lines import Check, Line, Skipped, gate, measured
from localr1.verifying.subject import Subject

if TYPE_CHECKING:
    from backends.base import Backend
    from backends.compare import Baseline, Comparison
    from backends.reference.model import Model
    from backends.reference.moe import Routing
    from backends.reference.mtp import Acceptance

Mode = Literal["off", "weights", "full"]
MODES: tuple[Mode, ...] = ("off", "weights", "full")
PROBLEMS = 20  # of each family
NEW_TOKENS = 800  # the longest worked thought of the families has 735
TIMED, ROUTED = 2, 10  # of each family: problems decoded for the clock, and replies whose experts are counted
LOST, LOST_PROBLEMS = 2.0, 2  # points of accuracy that `full` may lose, and problems, where these are more: of few problems, chance
WEIGHTS = 1e-6  # nats: the same arithmetic from another storage; 1e-11 was measured
REPORTED_LOSS_ERROR = "the V3 report: below 0.25%"


@dataclass
class Measured:
    """What was found so far. `right`: mode -> family -> share."""

    subject: Subject
    problems: int = PROBLEMS
    right: dict[str, dict[str, float]] = field(default_factory=lambda: {mode: {} for mode in MODES})
    replies: dict[str, list[tuple[list[int], list[int]]]] = field(default_factory=dict)  # family -> prompts and replies, of `off`
    fp8: dict[str, Comparison] = field(default_factory=dict)
    routing: dict[str, dict[int, Routing]] = field(default_factory=dict)  # by family
    drafted: Acceptance | None = None

    @cached_property
    def models(self) -> dict[str, Model]:
        from backends.reference.model import Model

        return {"off": self.subject.reference.model} | {mode: Model.open(self.subject.folder, mode) for mode in MODES[1:]}

    @cached_property
    def baseline(self) -> Baseline:
        """Of `off`, on all of the exam's conversations: a loss error is told from chance by thousands of tokens."""
        from backends import compare

        return compare.read(self.subject.reference, exam().windows)

    @cached_property
    def drafter(self) -> Backend | None:
        """llama.cpp, where it is here."""
        from backends.hardware import look
        from backends.llamacpp import LlamaCppBackend

        context = min(4096, self.subject.reference.model.config.max_position_embeddings)
        return LlamaCppBackend(self.subject.gguf(), context) if look().llamacpp.here else None

    def overall(self, mode: str) -> float:
        return sum(self.right[mode].values()) / max(1, len(self.right[mode]))


def teacher_checks(found: Measured) -> list[Check]:
    subject = found.subject
    data, rewards = recipe("data", "rewards")

    def family(name: str) -> Check:
        return Check(f"right: {name}", lambda: accuracy(found, data, rewards, name))

    return [
        *(family(name) for name in data.FAMILIES),
        Check("right: FP8", lambda: accuracy_lost(found)),
        Check("FP8 weights", lambda: fp8(found, "weights")),
        Check("FP8 full", lambda: fp8(found, "full")),
        Check("MTP", lambda: mtp(found)),
        Check("MLA", lambda: mla(found)),
        Check("MLA naive = absorbed", lambda: naive_and_absorbed(subject)),
        Check("routing", lambda: routing(found)),
    ]


def accuracy(found: Measured, data: Any, rewards: Any, family: str) -> Iterator[Line]:
    """Of replies in each mode, at temperature 0."""
    from backends import compare
    from backends.reference.agreement import greedy

    subject, right = found.subject, dict.fromkeys(MODES, 0)
    ends = subject.reference.ends
    for problem in islice(data.evaluation(0, family), found.problems):
        prompt = subject.prompt(problem.question)
        drafter = found.drafter
        draft = [] if drafter is None else [token.id for token in compare.greedy(drafter, prompt, NEW_TOKENS)]
        for mode in MODES:
            reply = greedy(found.models[mode], prompt, NEW_TOKENS, ends, draft)[0]
            answer = subject.reference.decode(reply).partition("</think>")[2].strip()
            right[mode] += rewards.right(problem, answer)
            if mode == "off":
                draft = reply
                found.replies.setdefault(family, []).append((prompt, reply))
    for mode in MODES:
        found.right[mode][family] = 100 * right[mode] / found.problems
    others = ", ".join(f"{found.right[mode][family]:.1f}% with --fp8 {mode}" for mode in MODES[1:])
    yield measured(f"right: {family}", found.right["off"][family], "%", f"{found.problems} held-out problems; {others}")


def accuracy_lost(found: Measured) -> Iterator[Line]:
    if not found.right["off"]:
        raise Skipped("no family could be asked")
    for mode in MODES:
        yield measured(f"right: all, --fp8 {mode}", found.overall(mode), "%", f"mean of {len(found.right[mode])} families")
    allowed = max(LOST, 100 * LOST_PROBLEMS / max(1, found.problems * len(found.right["off"])))
    yield gate("right: lost by --fp8 full", found.overall("off") - found.overall("full"), allowed, "points")


def fp8(found: Measured, mode: Literal["weights", "full"]) -> Iterator[Line]:
    from backends import compare
    from backends.reference.backend import ReferenceBackend
    from localr1.verifying.checkpoint import FP8_FULL

    with ReferenceBackend(found.subject.folder, fp8=mode) as backend:
        c = found.fp8[mode] = compare.compare(found.baseline, backend)
    note = f"against off, {c.tokens:,} tokens; the same likeliest one in {c.top1_agreement:.1%}"
    yield gate(f"FP8: KL of {mode}", c.kl_mean, WEIGHTS if mode == "weights" else FP8_FULL, "nats", note)
    note = f"of {math.log(c.baseline_perplexity):.3f} nats a token; {REPORTED_LOSS_ERROR}"
    yield measured(f"FP8: relative loss error of {mode}", 100 * loss_error(c), "%", note)


def loss_error(c: Comparison) -> float:
    """Of the mean negative log-probability."""
    return abs(math.log(c.perplexity) / math.log(c.baseline_perplexity) - 1)


def mtp(found: Measured) -> Iterator[Line]:
    from backends.reference.agreement import greedy, parting, speculated
    from backends.reference.mtp import Acceptance, MtpModule

    model, ends = found.subject.reference.model, found.subject.reference.ends
    module, count = MtpModule(model), Acceptance()
    prompts = [prompt for replies in found.replies.values() for prompt, _ in replies[:TIMED]]
    if not prompts:
        raise Skipped("no family could be asked")
    tokens, parted, seconds = 0, 0, [0.0, 0.0]
    for prompt in prompts:
        began = perf_counter()
        made, leads = greedy(model, prompt, NEW_TOKENS, ends)
        seconds[0] += perf_counter() - began
        began = perf_counter()
        other = speculated(module, prompt, NEW_TOKENS, ends, count)
        seconds[1] += perf_counter() - began
        at = parting(made, leads, other)
        parted += at is not None and at.lead > NEAR_TIE
        tokens += len(made)
    found.drafted = count
    note = f"{len(prompts)} replies, {tokens:,} tokens"
    yield measured("MTP: second tokens accepted", 100 * count.rate, "%", f"{note}; the V3 report: 85 to 90%")
    yield measured("MTP: tokens a forward pass", tokens / max(1, count.forwards), "", "1 without drafts")
    yield measured("MTP: decoding is so many times as fast", seconds[0] / max(seconds[1], 1e-9), "", "on this machine, in numpy")
    yield gate("MTP: the same greedy text", parted, 0, "texts differ", note)


def mla(found: Measured) -> Iterator[Line]:
    from backends.reference.agreement import naive

    model = found.subject.reference.model
    latent, full = (m.new_cache().bytes_per_token for m in (model, naive(model)))
    yield measured("MLA: cache of a token", latent, "bytes", "float32, all layers: latent and rotated key")
    yield measured("MLA: keys and values of all heads", full, "bytes", f"{full / latent:.1f} times as much")


def routing(found: Measured) -> Iterator[Line]:
    """Families count alike."""
    import numpy as np

    from backends.reference.route import routed, shares

    model = found.subject.reference.model
    for family, replies in found.replies.items():
        found.routing[family] = routed(model, [prompt + reply for prompt, reply in replies[:ROUTED]])
    by_family = np.stack([shares(routing, model.config) for routing in found.routing.values()])  # [families, layers, E]
    layers = sorted(next(iter(found.routing.values())))
    for layer, load in zip(layers, by_family.mean(0), strict=True):
        apart = by_family[:, layers.index(layer)]
        note = f"from {load.min() / load.mean():.2f}; a family's busiest expert takes up to {apart.max():.0%} of its tokens"
        yield measured(f"routing, layer {layer}: busiest expert", load.max() / load.mean(), "of fair", note)


def markdown(found: Measured, lines: list[Line]) -> str:
    """For the model card."""
    from localr1.verifying.lines import figures

    rows = ["| family | `--fp8 off` | `weights` | `full` |", "|---|---|---|---|"]
    for family in found.right["off"]:
        rows.append(f"| {family} | " + " | ".join(f"{found.right[mode][family]:.1f}%" for mode in MODES) + " |")
    rows.append("| all | " + " | ".join(f"{found.overall(mode):.1f}%" for mode in MODES) + " |")
    rows += ["", "| measured | figure | tolerance | |", "|---|---|---|---|"]
    for line in lines:
        if not line.name.startswith("right: "):
            rows.append(
                f"| {line.name} | {' | '.join(figures(line))} | {'; '.join(filter(None, (line.status * (line.status != 'measured'), line.note)))} |"
            )
    return "\n".join(rows)
