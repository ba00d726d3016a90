"""Models on the hub: what a name means there, which of its files fit this machine, and what of them is here already."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from localr1 import __version__
from localr1.aliases import ALIASES, Alias, alias_of
from localr1.choosing import Form, Gguf, bits_of, folder_files, gguf_models, named, pickles, preferred
from localr1.fitting import fits, is_apple_silicon, needs
from localr1.hub_errors import HubError, NotThere, told

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_NAME = re.compile(r"(?:(?:https://)?(?:huggingface\.co|hf\.co)/)?([\w.-]+/[\w.-]+)(?::(.+))?")
_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
ALTERNATIVES = 5


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository. `etag`: of a large one its sha256, else its git hash. `here`: bytes that need not come again."""

    name: str
    nbytes: int
    etag: str
    here: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a pull would do. `others`: other quantizations of the repository, by bytes; `etags`: of all its files."""

    ref: str
    repo: str
    commit: str
    form: Form
    quant: str
    title: str
    files: tuple[RemoteFile, ...]
    others: dict[str, int]
    etags: frozenset[str]

    @property
    def total_bytes(self) -> int:
        return sum(file.nbytes for file in self.files)

    @property
    def missing_bytes(self) -> int:
        return sum(file.nbytes - file.here for file in self.files)

    @property
    def weight_bytes(self) -> int:
        return sum(file.nbytes for file in self.files if file.name.lower().endswith((".gguf", ".safetensors")))

    @property
    def needs_bytes(self) -> int:
        return needs(self.weight_bytes)

    @property
    def fits(self) -> bool:
        return fits(self.weight_bytes)

    @property
    def folder(self) -> Path:
        return repo_folder(self.repo)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A place to look for a model, and what of it."""

    repo: str
    form: Form | None
    quant: str


def cache_folder() -> Path:
    """The hub's, as HF_HOME and its like say."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def repo_folder(repo: str) -> Path:
    return cache_folder() / f"models--{repo.replace('/', '--')}"


def wanted(ref: str, quant: str = "", source: bool = False, form: Form | None = None) -> list[Wanted]:
    """Where `ref` may be, the best place first. Raises HubError: it is neither an alias nor a repository's name."""
    alias = ALIASES.get(ref.lower())
    if alias is not None:
        return _of_alias(alias, quant, source, form)
    name = _NAME.fullmatch(ref)
    if name is None or ".." in name[1] or "--" in name[1]:
        raise HubError(f"{ref!r} is neither a short name ({', '.join(ALIASES)}) nor owner/name[:file-or-quantization] on the hub")
    if quant and name[2] and quant.lower() != name[2].lower():
        raise HubError(f"{ref} names one quantization and --quant {quant} another; leave one of the two away")
    return [Wanted(name[1], "safetensors" if source else form, quant or name[2] or "")]


def _of_alias(alias: Alias, quant: str, source: bool, form: Form | None) -> list[Wanted]:
    if source:
        return [Wanted(alias.source.name, "safetensors", "")]
    bits = bits_of(f"-{quant}") if quant else ""
    if form == "mlx" and quant and not bits:
        raise HubError(f"{quant} is no quantization of MLX folders; give 4bit, 6bit, 8bit or bf16, or leave --format mlx away")
    mlx = Wanted(alias.mlx.name.format(bits=bits or "4bit"), "mlx", "")
    ggufs = [Wanted(repo.name, "gguf", quant) for repo in alias.gguf]
    if form == "mlx" or (form is None and bits and bits not in ("bf16", "fp16")):
        return [mlx]
    return [mlx, *ggufs] if form is None and not quant and is_apple_silicon() else ggufs


def plan(ref: str, *, quant: str = "", source: bool = False, form: Form | None = None) -> Plan:
    """What pulling `ref` would bring to this machine. Raises HubError."""
    first: Plan | None = None
    problem: HubError | None = None
    for place in wanted(ref, quant, source, form):
        try:
            found = _plan(ref, place)
        except HubError as error:
            if not isinstance(error, NotThere) and first is None:
                raise
            problem = problem or error
            continue
        if found.fits:
            return found
        first = first or found
    if first is None:
        raise problem or NotThere(f"{ref}: not found")
    return first


def _plan(ref: str, place: Wanted) -> Plan:
    api, repo = _api(), place.repo
    try:
        info = api.model_info(repo, files_metadata=True, timeout=20)
        files = {s.rfilename: RemoteFile(s.rfilename, s.size or 0, str(s.lfs.sha256 if s.lfs else s.blob_id)) for s in info.siblings or []}
    except Exception as error:
        problem = told(error, repo)
        if isinstance(problem, NotThere):
            problem = NotThere(f"{problem}{_alternatives(api, repo)}")
        raise problem from None
    names, others, form, quant = _choose(repo, {f.name: f.nbytes for f in files.values()}, place, "mlx" in (info.tags or []))
    chosen = [files[name] for name in names]
    for file in chosen:
        if not _HASH.fullmatch(file.etag):
            raise HubError(f"{repo}: the hub gives no hash for {file.name!r}, so it could not be checked; choose another repository")
    if not _HASH.fullmatch(commit := str(info.sha)):
        raise HubError(f"{repo}: the hub does not say which revision its files are of; check HF_ENDPOINT")
    alias = alias_of(repo)
    base = getattr(info.card_data, "base_model", None)
    base = base[0] if isinstance(base, list) and base else base
    what = alias.title if alias else f"{repo}, base {base}" if isinstance(base, str) else repo
    try:
        here = tuple(replace(file, here=_here(repo, commit, file)) for file in chosen)
    except OSError as error:
        raise told(error, repo) from None
    return Plan(
        ref, repo, info.sha or "main", form, quant, f"{what}, {quant or form}", here, others, frozenset(f.etag for f in files.values())
    )


def _choose(repo: str, sizes: dict[str, int], place: Wanted, tagged_mlx: bool) -> tuple[Sequence[str], dict[str, int], Form, str]:
    """The files, the other quantizations, what they are. Raises HubError: nothing here is what is wanted."""
    ggufs, folder = gguf_models(sizes), folder_files(sizes)
    is_mlx = tagged_mlx or repo.startswith("mlx-community/")
    form = place.form or ("gguf" if ggufs and not (folder and is_mlx) else "mlx" if is_mlx else "safetensors")
    if form == "gguf" and ggufs:
        model = _gguf(repo, ggufs, place.quant)
        return model.files, {m.quant or m.stem: m.nbytes for m in ggufs if m != model}, "gguf", model.quant
    if form != "gguf" and folder and (form == "mlx") <= is_mlx:
        if place.quant:
            raise HubError(f"{repo} holds one checkpoint and no quantizations to choose from; leave {place.quant!r} away")
        return folder, {}, "mlx" if is_mlx else "safetensors", bits_of(repo)
    if not ggufs and not folder and (unsafe := pickles(sizes)):
        raise HubError(
            f"{repo} holds its weights as pickle only ({unsafe[0]}), which can run code when it is read; "
            "look for a repository with safetensors or GGUF files"
        )
    has = "GGUF files" if ggufs else ("an MLX folder" if is_mlx else "safetensors, not made for MLX") if folder else "no model files"
    raise HubError(f"{repo} has no {form if place.form else 'usable'} files, it holds {has}; choose another repository or --format")


def _gguf(repo: str, models: list[Gguf], quant: str) -> Gguf:
    if quant and not (found := named(models, quant)):
        has = ", ".join(dict.fromkeys(m.quant or m.files[0] for m in models))
        raise NotThere(f"{repo} has no {quant!r}; it has {has}")
    whole = [m for m in (found if quant else models) if m.complete]
    if not whole:
        raise HubError(
            f"{repo}: parts of {(found if quant else models)[0].stem} are missing there; choose another quantization or repository"
        )
    if quant and len(whole) > 1:
        raise HubError(f"{repo} has several files of {quant!r}; name one: {', '.join(m.files[0] for m in whole)}")
    return whole[0] if quant else preferred(whole, fits)


def _here(repo: str, commit: str, file: RemoteFile) -> int:
    """Bytes of it that are in the cache, as a whole file or as a part."""
    folder = repo_folder(repo)
    for whole in (folder / "blobs" / file.etag, folder / "snapshots" / commit / file.name):
        if whole.exists() and whole.stat().st_size == file.nbytes:
            return file.nbytes
    part = partial(folder, file.etag)
    return min(part.stat().st_size, file.nbytes) if part.exists() else 0


def partial(folder: Path, etag: str) -> Path:
    return folder / "blobs" / f"{etag}.incomplete"


def _alternatives(api: HfApi, repo: str) -> str:
    """ "; there are a, b, c", of a search for the name's words; nothing if that fails."""
    name = re.sub(r"[-_.](gguf|mlx|\d+bit)$", "", repo.partition("/")[2], flags=re.IGNORECASE)
    words = re.split(r"[-_]", name)
    found: list[str] = []
    for query in dict.fromkeys((name, "-".join(words[:-1]))):
        if query and not found:
            try:
                found = [model.id for model in api.list_models(search=query, sort="downloads", limit=ALTERNATIVES)]
            except Exception:
                return ""
    return f"; there are {', '.join(found)}" if found else ""


def _api() -> HfApi:
    from huggingface_hub import HfApi, constants

    quiet()
    return HfApi(endpoint=constants.ENDPOINT, library_name="localr1", library_version=__version__)


def quiet() -> None:
    """What the library would say on stderr, localr1 says itself."""
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
