"""Files of a plan into the hub's cache: resumed, checked, and given their final name only when the hash is right.

Blobs lie where huggingface_hub puts them, under its locks, and it links them into a snapshot. They are fetched here because it
starts a broken file over (huggingface_hub 2.4: file_download._download_to_tmp_and_move), which is too dear at 20 GB.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, NamedTuple

from localr1 import __version__
from localr1.hub import Plan, RemoteFile, cache_folder, partial, quiet
from localr1.hub_errors import HubError, told, transport_error
from quantize.report_text import size

TRIES = 5  # without a new byte
PAUSE_S = 1.0  # before the second one, doubled for each further one
SPARE_BYTES = 64 << 20  # of the disk, left free
HTTP_LIMIT_BYTES = 50 * 10**9  # of one file (huggingface_hub.constants.MAX_HTTP_DOWNLOAD_SIZE)
_PART = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})\.incomplete")


class Progress(NamedTuple):
    """Of a file, what is done with it; of the whole plan, the bytes that are here."""

    name: str
    step: Literal["waiting", "loading", "checking"]
    done_bytes: int
    total_bytes: int


Report = Callable[[Progress], None]


def check_disk(plan: Plan) -> None:
    """Before a byte comes. Raises HubError: the cache cannot be written, or has no room."""
    try:
        (plan.folder / "blobs").mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(plan.folder).free
    except OSError as error:
        raise told(error, plan.repo) from None
    if not os.access(plan.folder / "blobs", os.W_OK):
        raise HubError(f"the hub's cache {plan.folder} cannot be written; change its permissions or set HF_HOME to another place")
    if plan.missing_bytes and plan.missing_bytes + SPARE_BYTES > free:
        raise HubError(
            f"{size(plan.missing_bytes)} are missing and {size(free)} are free at {cache_folder()}; make room (localr1 list, localr1 rm), "
            "choose a smaller --quant, or set HF_HOME to another disk"
        )


def download(plan: Plan, report: Report = lambda progress: None) -> Path:
    """Fetch what is missing; returns the GGUF file (of several parts, the first one) or the folder. Raises HubError."""
    quiet()
    check_disk(plan)
    before, paths = 0, []
    try:
        for file in plan.files:
            _fetch(plan, file, before, report)
            paths.append(_link(plan, file))
            if _is_xet_only(file) and file.here < file.nbytes and _hash(paths[-1], file.etag) != file.etag:
                paths[-1].resolve().unlink()
                paths[-1].unlink()
                raise _wrong(plan, file)
            before += file.nbytes
        _remember(plan)
        _drop_outdated(plan)
    except (OSError, ValueError, RuntimeError, transport_error()) as error:
        raise told(error, plan.repo) from None
    return paths[0] if plan.form == "gguf" else paths[0].parent


def _fetch(plan: Plan, file: RemoteFile, before: int, report: Report) -> None:
    """The blob of one file. Another process may be fetching it too: then this one waits and finds it."""
    from filelock import Timeout

    blob = plan.folder / "blobs" / file.etag
    if _is_whole(blob, file) or _is_whole(_pointer(plan, file), file) or _is_xet_only(file):
        return
    for patience in (0.2, None):
        try:
            with _lock(plan, file.etag, patience):
                if not _is_whole(blob, file):
                    part = partial(plan.folder, file.etag)
                    _load(plan, file, part, lambda step, done: report(Progress(file.name, step, before + done, plan.total_bytes)))
                    part.replace(blob)
            return
        except Timeout:
            report(Progress(file.name, "waiting", before, plan.total_bytes))


def _load(plan: Plan, file: RemoteFile, part: Path, report: Callable[[Literal["loading", "checking"], int], None]) -> None:
    """The bytes of one file, from where `part` ends; a broken connection is tried again. Raises HubError with `part` kept, unless its
    bytes are wrong."""
    from huggingface_hub.errors import HfHubHTTPError

    failures, have = 0, part.stat().st_size if part.exists() else 0
    while have != file.nbytes or not part.exists():
        begun = have
        try:
            have = _stream(plan, file, part, have if have < file.nbytes else 0, lambda done: report("loading", done))
            problem = "it ended early"
        except transport_error() as error:
            if isinstance(error, HfHubHTTPError) and error.response.status_code == 416:
                break  # what is there ends before the file that was announced does
            if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
                raise
            problem = str(error) or type(error).__name__
        have = part.stat().st_size if part.exists() else 0
        if have > file.nbytes:
            break
        failures = 0 if have > begun else failures + 1
        if failures >= TRIES:
            raise HubError(
                f"{plan.repo}: the connection broke at {size(have)} of {size(file.nbytes)} of {file.name} ({problem}); what has come is kept, "
                "run the same command again to go on"
            )
        if have != file.nbytes:
            time.sleep(PAUSE_S * 2**failures)
    report("checking", min(have, file.nbytes))
    if not part.exists() or _hash(part, file.etag) != file.etag:
        part.unlink(missing_ok=True)
        raise _wrong(plan, file)


def _stream(plan: Plan, file: RemoteFile, part: Path, have: int, report: Callable[[int], None]) -> int:
    """One request for what lies behind `have`; returns the bytes that `part` has then."""
    from huggingface_hub import constants, get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

    headers = build_hf_headers(library_name="localr1", library_version=__version__) | {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    url = hf_hub_url(plan.repo, file.name, revision=plan.commit)
    # the client drops the token where a redirect leads to another host
    with get_session().stream("GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT, follow_redirects=True) as answer:
        hf_raise_for_status(answer)
        goes_on = answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        have = have if goes_on else 0
        with part.open("ab" if goes_on else "wb") as out:
            for chunk in answer.iter_bytes():
                out.write(chunk)
                have += len(chunk)
                report(min(have, file.nbytes))
                if have > file.nbytes:  # another file than the one that was announced
                    break
            out.flush()
            os.fsync(out.fileno())
    return have


def _hash(path: Path, like: str) -> str:
    """sha256, or git's hash of a small file, whichever `like` is."""
    digest = hashlib.sha256() if len(like) == 64 else hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _wrong(plan: Plan, file: RemoteFile) -> HubError:
    return HubError(
        f"{plan.repo}: {file.name} came with another hash than the hub says ({file.etag[:12]}...) and was removed; run the same command again, "
        "and if it fails again, the file on the hub or something in between is damaged"
    )


def _is_xet_only(file: RemoteFile) -> bool:
    """Beyond what the hub gives by HTTP: huggingface_hub fetches it whole, when it is asked to link it."""
    return file.nbytes > HTTP_LIMIT_BYTES


def _lock(plan: Plan, etag: str, patience_s: float | None) -> AbstractContextManager[object]:
    """huggingface_hub's own, for one blob. Raises filelock.Timeout."""
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    path = cache_folder() / ".locks" / plan.folder.name / f"{etag}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock: AbstractContextManager[object] = WeakFileLock(path, timeout=patience_s)
    return lock


def _is_whole(path: Path, file: RemoteFile) -> bool:
    return path.exists() and path.stat().st_size == file.nbytes


def _pointer(plan: Plan, file: RemoteFile) -> Path:
    return plan.folder / "snapshots" / plan.commit / file.name


def _link(plan: Plan, file: RemoteFile) -> Path:
    """Into the snapshot, by huggingface_hub, which finds the blob."""
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(plan.repo, file.name, revision=plan.commit, library_name="localr1"))


def _remember(plan: Plan) -> None:
    """That `main` is this commit, for who asks the cache without the network."""
    ref = plan.folder / "refs" / "main"
    ref.parent.mkdir(exist_ok=True)
    new = ref.with_name(f"main.{os.getpid()}.tmp")
    new.write_text(plan.commit)
    new.replace(ref)


def _drop_outdated(plan: Plan) -> None:
    """Parts of files that the hub no longer has under any name: they can never be completed."""
    for part in (plan.folder / "blobs").glob("*.incomplete"):
        if _PART.fullmatch(part.name) and part.stem not in plan.etags:
            _drop(plan, part)


def _drop(plan: Plan, part: Path) -> None:
    from filelock import Timeout

    try:
        with _lock(plan, part.stem, 0.1):
            part.unlink(missing_ok=True)
    except Timeout:  # somebody is at it
        pass
