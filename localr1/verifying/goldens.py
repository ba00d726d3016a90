"""The arithmetic against other programs' results (assets/goldens): E4M3, FP8 linears, every architecture, both forms of MLA, MTP.

Gates of logits are shares of the largest one ("of max"). Two correct float32 programs lie 6e-6 apart, because they add in another order; the
smallest known mistake, a wrong epsilon, lies 2e-3 off (assets/goldens/README.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from localr1.scripts import load
from localr1.verifying.lines import Check, Line, gate

if TYPE_CHECKING:
    import numpy as np

    from backends.reference.model import Model

FLOAT32 = 2e-5  # three times what correct programs were seen to lie apart, a hundredth of the smallest known mistake
LINEAR = 5e-6  # of the largest output: up to 288 products, added in another order; 8e-7 was measured
SHARE = "of max"
CUT = 150  # of 200 tokens: so many at once, the rest one by one through the cache
PROMPT, NEW_TOKENS = [3, 1, 4, 1, 5], 24


@dataclass
class Tiny:
    """The tiny checkpoints, drawn into `scratch` when they are needed, and their goldens."""

    goldens: Path
    scratch: Path
    module: ModuleType = field(init=False)
    models: dict[str, Model] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.module = load(self.goldens, "checkpoints")[0]

    def kinds(self, key: str = "") -> list[str]:
        """Those whose config has something at `key`."""
        return [kind for kind, drawn in self.module.KINDS.items() if not key or drawn.config.get(key)]

    def folder(self, kind: str) -> Path:
        folder = self.scratch / kind
        if not folder.is_dir():
            self.module.build(kind, folder)
        return folder

    def model(self, kind: str) -> Model:
        from backends.reference.model import Model

        if kind not in self.models:
            self.models[kind] = Model.open(self.folder(kind))
        return self.models[kind]

    def golden(self, name: str) -> Mapping[str, np.ndarray]:
        import numpy as np

        with np.load(self.goldens / f"{name}.npz") as file:
            return dict(file)

    def ids(self, kind: str) -> list[int]:
        found: list[int] = self.golden(kind)["tokens_200"].tolist()
        return found


def golden_checks(tiny: Tiny) -> list[Check]:
    def of(check: Callable[[Tiny, str], Iterator[Line]], kind: str) -> Callable[[], Iterator[Line]]:
        return lambda: check(tiny, kind)

    return [
        Check("E4M3 codes", lambda: e4m3(tiny)),
        Check("FP8 linears", lambda: fp8_linears(tiny)),
        *(Check(f"golden {kind}", of(architecture, kind)) for kind in tiny.kinds()),
        Check("goldens: expert choices", lambda: experts(tiny)),
        Check("goldens: MTP logits", lambda: mtp_logits(tiny)),
        Check("goldens: MLA naive = absorbed", lambda: naive_and_absorbed(tiny)),
        Check("goldens: prefill + decode = full", lambda: prefill_and_decode(tiny)),
        Check("goldens: computed from FP8 storage", lambda: fp8_weights(tiny)),
        Check("goldens: MTP speculative = greedy", lambda: speculative(tiny)),
    ]


def by_definition(code: int) -> float:
    """OCP 8-bit floating point E4M3: 1 sign, 4 exponent bits (bias 7), 3 mantissa bits; S.1111.111 is NaN; there is no infinity."""
    sign, exponent, mantissa = -1 if code & 0x80 else 1, (code >> 3) & 15, code & 7
    if exponent == 15 and mantissa == 7:
        return float("nan")
    return sign * (mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7))


def e4m3(tiny: Tiny) -> Iterator[Line]:
    import numpy as np

    from backends.reference.fp8 import e4m3_decode, e4m3_encode

    golden = tiny.golden("e4m3")
    found = e4m3_decode(np.arange(256, dtype=np.uint8))
    wrong = [
        ~((found == table) | (np.isnan(found) & np.isnan(table)))
        for table in (np.array([by_definition(code) for code in range(256)], np.float32), golden["decoded"])
    ]
    yield gate("E4M3 codes decoded", int(np.logical_or(*wrong).sum()), 0, "wrong", "all 256, against the format's definition and torch")
    differ = int((e4m3_encode(golden["x"]) != golden["codes"]).sum())
    yield gate("E4M3 codes encoded", differ, 0, "wrong", f"{len(golden['x']):,} numbers on, between and beside the codes, against torch")


def fp8_linears(tiny: Tiny) -> Iterator[Line]:
    import numpy as np

    from backends.checkpoint import Checkpoint
    from backends.reference.agreement import worst
    from backends.reference.fp8 import fp8_linear, quantize_tiles

    golden, codes_wrong, shares = tiny.golden("fp8_linears"), 0, []
    names = sorted({key.rsplit(".", 1)[0] for key in golden})
    with Checkpoint.open(tiny.folder("deepseek_v3-fp8")) as weights:
        for name in names:
            x, y = golden[f"{name}.x"], golden[f"{name}.y"]
            codes, scales = quantize_tiles(x)
            codes_wrong += int((codes != golden[f"{name}.codes"]).sum() + (scales != golden[f"{name}.scales"]).sum())
            found = fp8_linear(x, weights.read(f"{name}.weight").view(np.uint8), weights.read(f"{name}.weight_scale_inv"))
            shares.append(float(np.abs(found - y).max() / np.abs(y).max()))
    yield gate("FP8 activations: codes and scales", codes_wrong, 0, "wrong", "tiles of 128, against torch")
    yield gate("FP8 linears", worst(shares), LINEAR, "of max", f"{len(names)} layers of deepseek_v3-fp8")


def architecture(tiny: Tiny, kind: str) -> Iterator[Line]:
    from backends.reference.agreement import golden_logits

    golden = tiny.golden(kind)
    if tiny.module.digest(tiny.folder(kind)) != golden["checkpoint_sha256"]:
        yield Line(f"golden {kind}", "FAIL", note="the weights drawn here are others than the golden was made from")
        return
    yield gate(f"golden {kind}", golden_logits(tiny.model(kind), golden), FLOAT32, SHARE, "1, 22 and 200 tokens, against transformers")


def experts(tiny: Tiny) -> Iterator[Line]:
    from backends.reference.agreement import golden_experts

    kinds = tiny.kinds("n_routed_experts")
    wrong = sum(golden_experts(tiny.model(kind), tiny.golden(kind)) for kind in kinds)
    yield gate("goldens: expert choices", wrong, 0, "others", f"200 tokens of {len(kinds)} kinds")


def mtp_logits(tiny: Tiny) -> Iterator[Line]:
    from backends.reference.agreement import golden_mtp, worst

    kinds = tiny.kinds("num_nextn_predict_layers")
    kinds = [kind for kind in kinds if "mtp_logits_22" in tiny.golden(kind)]
    share = worst(golden_mtp(tiny.model(kind), tiny.golden(kind)) for kind in kinds)
    yield gate("goldens: MTP logits", share, FLOAT32, SHARE, f"{len(kinds)} kinds")


def naive_and_absorbed(tiny: Tiny) -> Iterator[Line]:
    from backends.reference.agreement import apart, naive, worst

    kinds = tiny.kinds("kv_lora_rank")
    share = worst(float(apart(naive(model).logits(ids), model.logits(ids)).max()) for model, ids in _models(tiny, kinds))
    yield gate("goldens: MLA naive = absorbed", share, FLOAT32, SHARE, f"{len(kinds)} kinds")


def prefill_and_decode(tiny: Tiny) -> Iterator[Line]:
    from backends.reference.agreement import apart, through_cache, worst

    kinds = tiny.kinds()
    share = worst(float(apart(through_cache(model, ids, CUT), model.logits(ids)).max()) for model, ids in _models(tiny, kinds))
    yield gate("goldens: prefill + decode = full", share, FLOAT32, SHARE, f"{len(kinds)} kinds, {CUT} tokens, then {200 - CUT} one by one")


def fp8_weights(tiny: Tiny) -> Iterator[Line]:
    from backends.reference.agreement import golden_logits
    from backends.reference.model import Model

    model = Model.open(tiny.folder("deepseek_v3-fp8"), "weights")
    yield gate("goldens: computed from FP8 storage", golden_logits(model, tiny.golden("deepseek_v3-fp8")), FLOAT32, SHARE, "--fp8 weights")


def speculative(tiny: Tiny) -> Iterator[Line]:
    from backends.reference.agreement import greedy, parting, speculated
    from backends.reference.mtp import Acceptance, MtpModule

    kinds, parted = tiny.kinds("num_nextn_predict_layers"), 0
    for kind in kinds:
        made, leads = greedy(tiny.model(kind), PROMPT, NEW_TOKENS)
        parted += parting(made, leads, speculated(MtpModule(tiny.model(kind)), PROMPT, NEW_TOKENS, frozenset(), Acceptance())) is not None
    yield gate("goldens: MTP speculative = greedy", parted, 0, "texts differ", f"{NEW_TOKENS} tokens of {len(kinds)} kinds")


def _models(tiny: Tiny, kinds: list[str]) -> Iterator[tuple[Model, list[int]]]:
    for kind in kinds:
        yield tiny.model(kind), tiny.ids(kind)
