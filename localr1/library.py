"""Which models are here: the bundled one, those in the hub's cache (whoever put them there), those converted for a chat."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from backends.base import ModelFileError
from localr1 import paths
from localr1.aliases import ALIASES, alias_of
from localr1.choosing import Form, Gguf, folder_files, gguf_models, preferred
from localr1.files import write_whole
from localr1.fitting import fits, is_apple_silicon
from localr1.hub import cache_folder, repo_folder, wanted
from localr1.hub_errors import HubError
from localr1.model_facts import Facts, kept_facts, title

BUNDLED = "r1-tiny"
KNOWN = ("qwen2", "llama", "qwen3", "deepseek_v2", "deepseek_v3")


@dataclass(frozen=True, slots=True)
class Model:
    """`name`: what `show`, `rm` and -m take; `path`: the file or folder to open; `files`: all of it; `problem`: why it cannot be read."""

    name: str
    kind: Literal["bundled", "pulled", "converted"]
    form: Form
    path: Path
    files: tuple[Path, ...]
    nbytes: int
    repo: str = ""
    quant: str = ""
    facts: Facts | None = None
    problem: str = ""
    used_s: float | None = None

    @property
    def weight_bytes(self) -> int:
        return self.facts.tensor_bytes if self.facts else self.nbytes

    @property
    def fits(self) -> bool:
        return fits(self.weight_bytes)

    @property
    def title(self) -> str:
        return title(self.repo or self.name, self.facts, self.quant)


def models() -> list[Model]:
    """All models, the last used ones first. Raises HubError: the cache cannot be read."""
    used = {Path(name).resolve(): at for name, at in _used().items()}
    found = []
    for model in (*_bundled(), *_pulled(), *_converted()):
        facts, problem = None, ""
        try:
            facts = kept_facts(model.path)
        except ModelFileError as error:
            problem = str(error)
        if facts and model.form != "gguf" and facts.architecture not in KNOWN:
            continue
        form = facts.form if facts else model.form
        quant = model.quant or (facts.quant if facts else "")
        found.append(
            Model(
                model.name, model.kind, form, model.path, model.files, model.nbytes, model.repo, quant, facts, problem,
                used.get(model.path.resolve()),
            )
        )  # fmt: skip
    return sorted(found, key=lambda m: -(m.used_s or 0))


def find(ref: str) -> Path | None:
    """What `ref` - a short name or owner/name[:file-or-quantization] - means in the hub's cache: the file or folder to open. No network."""
    try:
        place = wanted(ref)[0]
        alias = ALIASES.get(ref.lower())
        repos = [place.repo] if alias is None else [repo for repo in _repos() if alias_of(repo) is alias]
        here = [model for repo in repos for model in _in_repo(repo)]
    except (HubError, OSError):
        return None
    what = place.quant.lower()
    for form in _forms():
        if of_form := [m for m in here if m.form == form and (not what or what in _labels(m))]:
            ggufs = [Gguf(m.quant, (str(m.path),), m.nbytes) for m in sorted(of_form, key=lambda m: m.nbytes)]
            return Path(preferred(ggufs, fits).files[0])
    return None


def default() -> Path | None:
    """The last used model that is still here, else the largest of the R1 family that fits; None is the bundled one."""
    if before := used_before():
        return before[0]
    try:
        family = [(alias.parameters, m) for m in _pulled() if (alias := alias_of(m.repo)) and m.form in _forms()[:2] and m.fits]
    except (HubError, OSError):
        return None
    for _, model in sorted(family, key=lambda one: (one[0], one[1].form == _forms()[0], one[1].nbytes), reverse=True):
        try:
            kept_facts(model.path)
        except ModelFileError:
            continue
        return model.path
    return None


def used_before() -> list[Path]:
    """Files and folders that were opened and are still there, the last one first."""
    return [Path(name) for name, _ in sorted(_used().items(), key=lambda item: -item[1]) if _is_there(name)]


def _is_there(name: str) -> bool:
    return os.path.exists(name)  # noqa: PTH110 - Path's fails where one may not look


def used(path: Path) -> None:
    """Remember that a model was opened just now. A data folder that cannot be written is no reason to stop."""
    try:
        seen = {name: at for name, at in _used().items() if _is_there(name)} | {str(path.absolute()): time.time()}
        paths.data().mkdir(parents=True, exist_ok=True)
        write_whole(paths.data() / "models.json", json.dumps({"used": seen}, indent=1))
    except OSError:
        pass


def short_names() -> dict[Path, str]:
    """Of what short names mean here: path -> r1:7b."""
    return {path: name for name in ALIASES if (path := find(name)) is not None}


def named_model(ref: str) -> Model:
    """The one of `models` that `ref` means. Raises HubError: none, or several."""
    here = models()
    path = find(ref)
    exact = [m for m in here if ref in (m.name, str(m.path)) or (path is not None and ref.lower() in ALIASES and m.path == path)]
    low = ref.lower()
    found = exact or [m for m in here if m.repo and (low == m.repo.lower() or low in {f"{m.repo}:{label}".lower() for label in _labels(m)})]
    if not found:
        raise HubError(f"no model called {ref!r} is here; `localr1 list` shows what is, `localr1 pull` what can be had")
    if len(found) > 1:
        raise HubError(f"{ref} is several models; name one: {', '.join(m.name for m in found)}")
    return found[0]


def remove(model: Model) -> int:
    """Delete its files, through huggingface_hub where they are in its cache; returns the bytes freed. Raises HubError."""
    if model.kind == "bundled":
        raise HubError(f"{model.name} comes with localr1 and is not removed")
    if model.kind == "converted":
        for file in model.files:
            file.unlink(missing_ok=True)
        return model.nbytes
    from huggingface_hub import scan_cache_dir

    cache = scan_cache_dir(cache_folder())
    repo = next((repo for repo in cache.repos if repo.repo_type == "model" and repo.repo_id == model.repo), None)
    if repo is None:
        raise HubError(f"{repo_folder(model.repo)} is damaged; look at it and remove it by hand")
    cache = replace(cache, repos=frozenset({repo}))  # revisions go by their hash, which a copied repository shares
    mine = {str(file.relative_to(repo.repo_path / "snapshots").as_posix()).partition("/")[2] for file in model.files}
    every = [(r, file) for r in repo.revisions for file in r.files]
    chosen = [file for r, file in every if file.file_path.relative_to(r.snapshot_path).as_posix() in mine]
    if len(chosen) == len(every):
        strategy = cache.delete_revisions(*(r.commit_hash for r in repo.revisions))
    else:
        strategy = cache.delete_files(*chosen)
    strategy.execute()
    return strategy.expected_freed_size


def _forms() -> list[Form]:
    """What runs here, the best first; the last one after being converted only."""
    return ["mlx", "gguf", "safetensors"] if is_apple_silicon() else ["gguf", "safetensors", "mlx"]


def _labels(model: Model) -> set[str]:
    """What may stand behind owner/name: for it."""
    inside = model.name.partition(":")[2]
    return {label.lower() for label in (model.quant, inside, model.path.name, model.path.stem)} if inside else set()


def _bundled() -> Iterator[Model]:
    folder = paths.assets() / BUNDLED
    if folder.is_dir():
        files = tuple(file for file in folder.iterdir() if file.is_file())
        yield Model(BUNDLED, "bundled", "safetensors", folder, files, _bytes(files))


def _converted() -> Iterator[Model]:
    for file in sorted((paths.cache() / "converted").rglob("*.gguf")):
        yield Model(file.stem, "converted", "gguf", file, (file,), file.stat().st_size)


def _pulled() -> Iterator[Model]:
    for repo in _repos():
        yield from _in_repo(repo)


def _repos() -> list[str]:
    """In the hub's cache. Raises HubError: it cannot be read."""
    folder = cache_folder()
    try:
        names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    except OSError as error:
        raise HubError(f"the hub's cache {folder} cannot be read ({error.strerror}); change its permissions or set HF_HOME") from None
    return sorted(name.removeprefix("models--").replace("--", "/") for name in names if name.startswith("models--"))


def _in_repo(repo: str) -> list[Model]:
    """Whole models in one repository's folder; of several revisions, the one that `main` names, then the newest."""
    folder = repo_folder(repo)
    found: dict[str, Model] = {}
    for snapshot in _snapshots(folder):
        sizes: dict[str, int] = {}
        for file in snapshot.rglob("*"):
            try:
                if file.is_file():  # a link whose blob is gone is none
                    sizes[file.relative_to(snapshot).as_posix()] = file.stat().st_size
            except OSError:
                continue
        ggufs = [m for m in gguf_models(sizes) if m.complete]
        quants = [m.quant for m in ggufs]
        for gguf in ggufs:
            label = gguf.quant if gguf.quant and quants.count(gguf.quant) == 1 else gguf.files[0]
            files = tuple(snapshot / name for name in gguf.files)
            found.setdefault(gguf.files[0], Model(f"{repo}:{label}", "pulled", "gguf", files[0], files, gguf.nbytes, repo, gguf.quant))
        if names := folder_files(sizes):
            files = tuple(snapshot / name for name in names)
            form: Form = "mlx" if repo.startswith("mlx-community/") else "safetensors"
            found.setdefault("", Model(repo, "pulled", form, snapshot, files, _bytes(files), repo))
    return list(found.values())


def _snapshots(folder: Path) -> list[Path]:
    main = folder / "refs" / "main"
    try:
        commit = main.read_text().strip() if main.is_file() else ""
        snapshots = [entry for entry in (folder / "snapshots").iterdir() if entry.is_dir()] if (folder / "snapshots").is_dir() else []
    except OSError:
        return []
    return sorted(snapshots, key=lambda entry: (entry.name != commit, -entry.stat().st_mtime))


def _bytes(files: tuple[Path, ...]) -> int:
    return sum(file.stat().st_size for file in files)


def _used() -> dict[str, float]:
    """Path -> when, in seconds."""
    try:
        seen = json.loads((paths.data() / "models.json").read_text())["used"]
        return {name: float(at) for name, at in seen.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}
