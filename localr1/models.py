"""What a model name means, and how to open it: the bundled student, a checkpoint folder, or a GGUF file."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from backends.base import Backend, BackendError, ModelFileError
from backends.checkpoint import model_name, source_files
from localr1 import __version__, library, paths

if TYPE_CHECKING:
    from backends.dispatch import Asked
    from backends.hardware import Machine
    from backends.memory import CacheType, MemoryPlan

BUNDLED = "r1-tiny"
CONVERTED_FORMAT = "Q8_0"  # what a checkpoint folder is converted to before its first chat, where that fits


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A model that is here: a GGUF file to open as it is, or a safetensors folder to convert first."""

    name: str
    kind: Literal["gguf", "folder"]
    path: Path


def resolve(name: str | None, backend: Asked = "auto") -> ModelSpec:
    """What `name` means: the bundled model, a file or folder, a short name (r1:7b) or hub repository that was pulled. None is the default
    model: the last used one, else the best that was pulled and fits, else the bundled one, which every `backend` runs.

    Raises ModelFileError, with the remedy, if it means nothing here.
    """
    if name is None:
        path = library.default()
        unfit = path is None or path == _bundled().path or (path.is_file() and backend in ("mlx", "reference"))
        return _bundled() if path is None or unfit else _there(path, model_name(path) if path.is_dir() else path.stem)
    if name == BUNDLED:
        return _bundled()
    try:
        path = Path(name).expanduser()
    except RuntimeError:  # ~nobody
        path = Path(name)
    if name and os.path.isdir(path):  # noqa: PTH112 - Path's fails on names that are too long
        files = sorted(path.glob("*.gguf"))
        if files and not (path / "config.json").exists():
            raise ModelFileError(f"{path} is a folder of GGUF files; name one of them, for example {files[0]}")
        return ModelSpec(model_name(path), "folder", path)
    if os.path.isfile(path):  # noqa: PTH113
        from backends.gguf_header import MAGIC

        with path.open("rb") as file:
            magic = file.read(len(MAGIC))
        if magic == MAGIC:
            return ModelSpec(path.stem, "gguf", path)
        if path.suffix == ".safetensors":
            raise ModelFileError(f"{path} is a single weights file; name the checkpoint folder it lies in")
        raise ModelFileError(f"{path} is no GGUF file (it begins with {magic!r}); name a .gguf file or a checkpoint folder")
    pulled = library.find(name)
    if pulled is not None:
        return _there(pulled, name)
    raise ModelFileError(
        f"no model called {name!r}: it is no file, no folder, not {BUNDLED!r} and was not pulled; check the path, or see `localr1 pull`"
    )


def _bundled() -> ModelSpec:
    folder = paths.assets() / BUNDLED
    if not folder.is_dir():
        raise ModelFileError(f"the bundled model is missing ({folder}); reinstall localr1, or name a model with -m")
    return ModelSpec(BUNDLED, "folder", folder)


def _there(path: Path, name: str) -> ModelSpec:
    """The path stays as it is: what a link in the hub's cache leads to has no name that says what it is."""
    return ModelSpec(name, "folder" if path.is_dir() else "gguf", path)


class DoesNotFit(BackendError):
    """A model takes more memory than there is; the message says what would fit."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a model is to be opened: an engine, or "auto"; tokens of context, None for what fits; the type of keys and values in llama.cpp;
    `force`: even where it does not fit."""

    backend: Asked = "auto"
    context: int | None = None
    kv: CacheType = "f16"
    force: bool = False


Tell = Callable[[str], None]


def open_model(spec: ModelSpec, wanted: Wanted = Wanted(), say: Tell = lambda line: None, why: Tell = lambda line: None) -> Backend:
    """Open `spec` in the engine that suits it here; `why` is told the reason. For llama.cpp a checkpoint folder is converted first.

    `say` is told what takes time. Raises BackendError (ImpossibleChoice, DoesNotFit among them) or quantize.QuantizeError.
    """
    from backends import memory
    from backends.dispatch import choose
    from backends.hardware import look
    from backends.memory import plan
    from backends.model_file import describe

    machine, model = look(paths.cache()), describe(spec.path)
    decision = choose(machine, model, wanted.backend)
    why(decision.reason)
    if decision.backend == "reference":
        from backends.reference.backend import ReferenceBackend

        return ReferenceBackend(spec.path, wanted.context)
    if decision.backend == "mlx":
        from backends.mlx import MlxBackend

        fit = _checked(spec, plan(machine, model, wanted.context), wanted)
        return MlxBackend(spec.path, fit.context if wanted.context is None else wanted.context)
    if decision.convert is None:
        return _llamacpp(spec.path, machine, spec, wanted)
    if not converted_file(spec, decision.convert).exists():  # before minutes are spent on what will not fit
        _checked(spec, plan(machine, memory.converted(model, decision.convert), wanted.context, wanted.kv), wanted)
    path = converted(spec, say, decision.convert)
    try:
        return _llamacpp(path, machine, spec, wanted)
    except ModelFileError:
        if not _is_damaged(path):
            raise  # for want of memory, say
        path.unlink(missing_ok=True)  # our own file: make it again
        return _llamacpp(converted(spec, say, decision.convert), machine, spec, wanted)


def _is_damaged(file: Path) -> bool:
    from quantize.gguf_reader import read_gguf_header

    try:
        read_gguf_header(file)
    except ModelFileError as error:
        return not isinstance(error.__cause__, OSError)
    return False


def _llamacpp(path: Path, machine: Machine, spec: ModelSpec, wanted: Wanted) -> Backend:
    from backends.llamacpp import LlamaCppBackend
    from backends.memory import plan
    from backends.model_file import describe

    fit = _checked(spec, plan(machine, describe(path), wanted.context, wanted.kv), wanted)
    context = fit.context if wanted.context is None else wanted.context
    return LlamaCppBackend(path, context, fit.gpu_layers if machine.gpus else None, wanted.kv)


def _checked(spec: ModelSpec, fit: MemoryPlan, wanted: Wanted) -> MemoryPlan:
    if not fit.fits and not wanted.force:
        raise DoesNotFit(f"{spec.name} does not fit this machine: {fit.advice}; --force opens it all the same")
    return fit


def converted(spec: ModelSpec, say: Tell, form: str = CONVERTED_FORMAT) -> Path:
    """The cached GGUF of a checkpoint folder, made now if it is not there or the folder has changed since."""
    target = converted_file(spec, form)
    if not target.exists():
        from quantize.convert import Progress, convert

        def report(progress: Progress) -> None:
            say(f"converting {spec.name} to {form}: {100 * progress.done_bytes // max(1, progress.total_bytes)}%")

        say(f"converting {spec.name} to {form} (first run only)")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ModelFileError(
                f"the cache folder {target.parent} cannot be made ({error.strerror}); set XDG_CACHE_HOME to another place"
            ) from error
        convert(spec.path, target, form, on_progress=report, force=True)  # another first run may have been faster
        for outdated in target.parent.glob(f"{glob.escape(_stem(spec))}-*.gguf"):
            if outdated != target:
                outdated.unlink(missing_ok=True)
    return target


def converted_file(spec: ModelSpec, form: str) -> Path:
    """Where it is kept."""
    return paths.cache() / "converted" / f"{_stem(spec)}-{_digest(_state(spec.path))}-{form}.gguf"


def _stem(spec: ModelSpec) -> str:
    folder = spec.path.resolve()  # by whatever name it was asked for
    return f"{model_name(folder)}-{_digest(str(folder))}"


def _state(folder: Path) -> str:
    """Differs when a file that is converted does (name, size or time), or the converter."""
    files = [*source_files(folder), *(p for p in folder.iterdir() if p.name == "README.md")]  # which the file's metadata are made of
    return __version__ + repr(sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
