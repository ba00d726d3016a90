"""Which engine runs a model here: one table of rules, read from the top, the first that applies decides and says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from backends.base import BackendError
from backends.hardware import Machine
from backends.memory import QUANTIZATIONS, free_bytes, plan, quantized_bytes, room_for_weights
from backends.model_file import Kind, ModelFile, describe
from backends.reference.config import MODEL_TYPES

Name = Literal["gguf", "mlx", "reference"]
Asked = Literal["auto", "gguf", "mlx", "reference"]

__all__ = ["RULES", "Decision", "ImpossibleChoice", "ModelFile", "choose", "conversion", "describe", "markdown"]


class ImpossibleChoice(BackendError):
    """No engine, or not the one asked for, can run this model here; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Decision:
    """`convert`: the format to convert the folder to first (`localr1 quantize --to`), None to open it as it is."""

    backend: Name
    convert: str | None
    reason: str


@dataclass(frozen=True, slots=True)
class Condition:
    words: str
    holds: Callable[[Machine, ModelFile], bool]


ALWAYS = Condition("", lambda machine, model: True)
LLAMACPP = Condition("llama.cpp is here", lambda machine, model: machine.llamacpp.here)
MLX = Condition("MLX is here", lambda machine, model: machine.mlx.here)
MLX_FITS = Condition("MLX on an Apple GPU, and it fits", lambda machine, model: machine.apple_gpu and plan(machine, model).fits)
UNKNOWN = Condition("unknown architecture", lambda machine, model: model.architecture not in MODEL_TYPES)


@dataclass(frozen=True, slots=True)
class Rule:
    """`kind` of model, `--backend` values and a condition -> `backend`, None for an error; `why` in words, with {places} to fill."""

    kind: Kind
    asked: tuple[Asked, ...]
    where: Condition
    backend: Name | None
    why: str
    converts: bool = False


RULES = (
    Rule("gguf", ("auto", "gguf"), LLAMACPP, "gguf", "llama.cpp reads GGUF files as they are"),
    Rule("gguf", ("auto", "gguf"), ALWAYS, None, "only llama.cpp reads GGUF files, and {no_llamacpp}"),
    Rule("gguf", ("mlx",), ALWAYS, None, "MLX reads no GGUF files; use --backend gguf, or name an MLX or safetensors folder of the model"),
    Rule("gguf", ("reference",), ALWAYS, None, "the reference reads safetensors folders; use --backend gguf, or name the original folder"),
    Rule("mlx", ("auto", "mlx"), MLX, "mlx", "the folder is quantized for MLX, and nothing else reads that"),
    Rule("mlx", ("auto", "mlx"), ALWAYS, None, "only MLX reads this, and {no_mlx}; or take a GGUF file of the same model"),
    Rule("mlx", ("gguf",), ALWAYS, None, "llama.cpp does not read MLX's format; use --backend mlx, or take a GGUF file of the same model"),
    Rule("mlx", ("reference",), ALWAYS, None, "the reference does not read MLX's format; use --backend mlx, or the original folder"),
    Rule(
        "safetensors",
        ("auto", "gguf", "mlx", "reference"),
        UNKNOWN,
        None,
        "known are {known}; take a GGUF file of it, llama.cpp knows more",
    ),
    Rule("safetensors", ("reference",), ALWAYS, "reference", "asked for: numpy, slow, to check the others against"),
    Rule("safetensors", ("auto",), MLX_FITS, "mlx", "MLX is the fast path on Apple chips and takes the weights as they are"),
    Rule(
        "safetensors", ("auto", "gguf"), LLAMACPP, "gguf", "llama.cpp is the fast path here; it takes a GGUF file, made once", converts=True
    ),
    Rule("safetensors", ("gguf",), ALWAYS, None, "{no_llamacpp}"),
    Rule("safetensors", ("auto", "mlx"), MLX, "mlx", "MLX takes the weights as they are"),
    Rule("safetensors", ("mlx",), ALWAYS, None, "{no_mlx}"),
    Rule("safetensors", ("auto",), ALWAYS, "reference", "slow: {no_llamacpp}"),
)


def choose(machine: Machine, model: ModelFile, asked: Asked = "auto") -> Decision:
    """Raises ImpossibleChoice: one line with the model, why not, and what to do."""
    rule = next(rule for rule in RULES if rule.kind == model.kind and asked in rule.asked and rule.where.holds(machine, model))
    why = rule.why.format(no_llamacpp=machine.llamacpp.missing, no_mlx=machine.mlx.missing, known=", ".join(MODEL_TYPES))
    if rule.backend is None:
        engine = "" if asked == "auto" else f" with --backend {asked}"
        raise ImpossibleChoice(f"{model.path}: this {model.words} cannot be run{engine}: {why}")
    convert = conversion(machine, model) if rule.converts else None
    made = f" in {convert}" if convert else ""
    return Decision(rule.backend, convert, f"{why}{made}; {_runs_on(machine, rule.backend)}")


def conversion(machine: Machine, model: ModelFile) -> str:
    """Q8_0, which loses next to nothing, where it fits beside 8,192 tokens of context; else the largest that does, at worst the smallest."""
    shape = model.shape
    room = room_for_weights(machine, shape, min(8192, shape.context)) if shape else free_bytes(machine)
    return next((name for name in QUANTIZATIONS if quantized_bytes(model, name) <= room), list(QUANTIZATIONS)[-1])


def _runs_on(machine: Machine, backend: Name) -> str:
    if backend == "gguf" and machine.gpus:
        return f"runs on the {machine.gpus[0].name} ({machine.gpus[0].backend})"
    if backend == "mlx" and machine.mlx.device == "gpu":
        return f"runs on the GPU of the {machine.chip}" if machine.unified_memory else "runs on the GPU"
    return "runs on the CPU" + (", where MLX is slow" if backend == "mlx" else "")


def markdown() -> str:
    """The rules as the README shows them."""
    kinds = {"gguf": "GGUF file", "mlx": "MLX folder", "safetensors": "safetensors folder"}
    lines = ["| model | `--backend` | where | runs with | because |", "|---|---|---|---|---|"]
    for rule in RULES:
        why = rule.why.format(no_llamacpp="why llama.cpp is not here", no_mlx="why MLX is not here", known=", ".join(MODEL_TYPES))
        engine = "error" if rule.backend is None else rule.backend + (", converted" if rule.converts else "")
        lines.append(f"| {kinds[rule.kind]} | {', '.join(rule.asked)} | {rule.where.words or 'otherwise'} | {engine} | {why} |")
    return "\n".join(lines)
