"""One checkpoint through the engines against the reference: the same tokens, the same predictions; and what its quantizations lose.

Gates are nats of mean KL divergence a token.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from localr1.student import exam
from localr1.verifying.checkpoint import TEXTS
from localr1.verifying.lines import Check, Line, Skipped, gate
from localr1.verifying.subject import QUESTIONS, Subject

if TYPE_CHECKING:
    from backends.base import Backend
    from backends.compare import Baseline

# The same weights in another engine. llama.cpp keeps keys and values in F16: 1e-7 on the bundled models, measured on a CPU; MLX in float32
# 1e-12. GPUs round what they multiply, too, so there is room for that. Q8_0, the finest quantization, is 5e-4 off.
ENGINE = 1e-4
# Of the student, against its own weights in F32 in the same engine: three to four times what was measured, 5e-4, 2.3e-3 and 2.5e-2; the next
# coarser format, taken by mistake, lies beyond.
QUANTIZATIONS = {"Q8_0": 1.5e-3, "Q6_K": 8e-3, "Q4_K_M": 8e-2}
CONTEXT = 1024


def engine_checks(subject: Subject) -> list[Check]:
    return [
        Check(subject.titled("llama.cpp = reference"), lambda: llama_cpp(subject)),
        Check(subject.titled("MLX = reference"), lambda: mlx(subject)),
    ]


def llama_cpp(subject: Subject) -> Iterator[Line]:
    from backends.hardware import look
    from backends.llamacpp import LlamaCppBackend

    if not (engine := look().llamacpp).here:
        raise Skipped(engine.missing)
    with LlamaCppBackend(subject.gguf(), _context(subject)) as backend:
        yield _ids(subject, backend)
        yield _agreement(subject, backend, subject.titled("llama.cpp = reference"), f"as GGUF, {subject.exact}")


def mlx(subject: Subject) -> Iterator[Line]:
    """In float32, and without the MTP layers, which mlx-lm's networks leave out."""
    from backends.hardware import look

    if not (engine := look().mlx).here:
        raise Skipped(engine.missing)
    from backends.mlx import MlxBackend

    with MlxBackend(subject.folder, _context(subject), float32=True) as backend:
        yield _agreement(subject, backend, subject.titled("MLX = reference"), "in float32, FP8 decoded")


def quantization_checks(subject: Subject) -> list[Check]:
    from functools import cache

    @cache
    def original() -> Baseline:
        from backends import compare
        from backends.hardware import look
        from backends.llamacpp import LlamaCppBackend

        if not (engine := look().llamacpp).here:
            raise Skipped(engine.missing)
        with LlamaCppBackend(subject.gguf(), _context(subject)) as backend:
            return compare.read(backend, exam().windows)

    def check(form: str, limit: float) -> Iterator[Line]:
        from backends import compare
        from backends.llamacpp import LlamaCppBackend

        baseline = original()
        with LlamaCppBackend(subject.gguf(form), _context(subject)) as backend:
            found = compare.compare(baseline, backend)
        note = f"against {subject.exact}; the same likeliest token in {found.top1_agreement:.1%}"
        yield gate(subject.titled(form), found.kl_mean, limit, "nats KL", note)

    def made(form: str, limit: float) -> Check:
        return Check(subject.titled(form), lambda: check(form, limit))

    return [made(form, limit) for form, limit in QUANTIZATIONS.items()]


def _context(subject: Subject) -> int:
    return min(CONTEXT, subject.reference.model.config.max_position_embeddings)


def _ids(subject: Subject, backend: Backend) -> Line:
    """llama.cpp's own tokenizer, beside the one that the other engines take."""
    from backends.base import Text

    texts = [*TEXTS, *QUESTIONS]
    differ = sum(backend.encode([Text(text)]) != subject.reference.encode([Text(text)]) for text in texts)
    return gate(subject.titled("llama.cpp's tokenizer = ours"), differ, 0, "texts differ", f"{len(texts)} texts")


def _agreement(subject: Subject, backend: Backend, name: str, note: str) -> Line:
    from backends import compare

    found = compare.compare(subject.baseline, backend)
    note += f"; {found.tokens:,} tokens, the same likeliest one in {found.top1_agreement:.1%}"
    return gate(name, found.kl_mean, ENGINE, "nats KL", note)
