"""What can go wrong with the hub, each as one line with its remedy.

BackendError
+-- HubError
    +-- NotThere    the hub knows no such repository or file
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping

from backends.base import BackendError
from localr1.text import printable


class HubError(BackendError):
    """A model could not be had from the hub, or put into its cache. What the hub said is made safe for a terminal."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class NotThere(HubError):
    """The hub knows no such repository or file."""


def told(error: Exception, repo: str) -> HubError:
    """`error` of huggingface_hub, of its HTTP client or of the cache, for people."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{repo}"
    cause = error.__cause__
    if isinstance(error, HubError):
        return error
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(cause, Exception):
        return told(cause, repo)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return HubError(f"{repo}: HF_HUB_OFFLINE is set; unset it to download, or use what `localr1 list` shows")
    if isinstance(error, errors.GatedRepoError):
        return HubError(f"{repo} is gated: accept its terms at {page}, then set HF_TOKEN to a token of that account ({_tokens()})")
    if isinstance(error, errors.RepositoryNotFoundError):
        return NotThere(f"{repo}: the hub knows no such model (a private one needs HF_TOKEN)")
    if isinstance(error, errors.EntryNotFoundError | errors.RevisionNotFoundError):
        return NotThere(f"{repo}: the file is no longer on the hub, it has changed meanwhile; run the same command again")
    if isinstance(error, errors.HfHubHTTPError):
        return HubError(_status(error.response.status_code, error.response.headers, repo, page))
    if isinstance(error, errors.HFValidationError):
        return HubError(f"{repo!r} is no name of a model on the hub; it looks like owner/name")
    if isinstance(error, transport_error()):
        return HubError(
            f"the hub cannot be reached at {constants.ENDPOINT} ({error or type(error).__name__}); check the connection and HF_ENDPOINT, "
            "or use what `localr1 list` shows"
        )
    if isinstance(error, OSError):
        where = error.filename or constants.HF_HUB_CACHE
        if error.errno == errno.ENOSPC:
            return HubError(f"the disk is full ({where}); make room and run the same command again, what has come is kept")
        return HubError(f"the hub's cache cannot be used: {where}: {error.strerror or error}; set HF_HOME to another place")
    return HubError(f"{constants.ENDPOINT} does not answer as a hub does ({type(error).__name__}: {error}); check HF_ENDPOINT")


def transport_error() -> type[Exception]:
    """What the HTTP client of huggingface_hub raises (httpx or httpx2, as its version has it)."""
    from huggingface_hub.errors import HfHubHTTPError

    base = HfHubHTTPError.__bases__[0]
    assert issubclass(base, Exception)
    return base


def wait_s(headers: Mapping[str, str]) -> int | None:
    """Seconds that a refusal asks to wait, if it says so."""
    found = re.fullmatch(r"\s*(\d+)\s*", headers.get("retry-after", "")) or re.search(r"\bt\s*=\s*(\d+)", headers.get("ratelimit", ""))
    return int(found[1]) if found else None


def _status(status: int, headers: Mapping[str, str], repo: str, page: str) -> str:
    if status == 401:
        return f"{repo}: the hub does not accept the token; set HF_TOKEN to a valid one ({_tokens()}), or unset it for public models"
    if status == 403:
        return f"{repo}: access is forbidden; see {page}, and set HF_TOKEN to a token that may read it ({_tokens()})"
    if status == 429:
        seconds = wait_s(headers)
        when = "in a few minutes" if seconds is None else f"in {seconds} s" if seconds < 120 else f"in {-(-seconds // 60)} minutes"
        return f"{repo}: too many requests; try again {when}, HF_TOKEN raises the limit"
    if status == 404:
        return f"{repo}: the hub says 404, not found; check the name at {page}"
    return f"{repo}: the hub answers {status}; try again later"


def _tokens() -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/settings/tokens"
