"""A hub on loopback: the part of huggingface.co's HTTP API that the installed huggingface_hub uses for models, and its bad days.

Large files (LFS) redirect to another server, as the hub's do to its CDN; small ones come at once.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".gguf", ".safetensors", ".bin")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repo:
    """`gated`: "" | "token" (any good token opens it) | "terms" (403 until they are accepted)."""

    files: dict[str, bytes]
    tags: list[str] = field(default_factory=list)
    card: dict[str, Any] = field(default_factory=dict)
    gated: str = ""

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(sorted((n, sha256(d)) for n, d in self.files.items())).encode()).hexdigest()


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]


class Hub:
    """`served`: other bytes than the list says, by hash; `cut`: how many more times a large file breaks off after `cut_at` bytes;
    `refuse`: (status, headers) for everything; `before_large`: called before a large file is sent; `before_cut`: before it breaks off."""

    TOKEN = "hf_good"

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.served: dict[str, bytes] = {}
        self.cut, self.cut_at = 0, 0
        self.ranges = True
        self.refuse: tuple[int, dict[str, str]] | None = None
        self.before_large: Callable[[], None] = lambda: None
        self.before_cut: Callable[[], None] = lambda: None
        self.requests: list[Request] = []
        handler = type("Handler", (_Handler,), {"hub": self})
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
        self.url, self.storage = (f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers)
        self._threads = [threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True) for server in self._servers]
        for thread in self._threads:
            thread.start()

    def large_requests(self) -> list[Request]:
        return [r for r in self.requests if r.path.startswith("/cdn/") and r.method == "GET"]

    def close(self) -> None:
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        hub, url = self.hub, urlsplit(self.path)
        path = unquote(url.path)
        hub.requests.append(Request(self.command, path, {k.lower(): v for k, v in self.headers.items()}))
        if hub.refuse is not None:
            return self.put(*hub.refuse)
        if path == "/api/models":
            query = parse_qs(url.query)
            words = query.get("search", [""])[0].lower()
            found = [{"id": name, "modelId": name} for name in hub.repos if words in name.lower()]
            return self.put_json(found[: int(query.get("limit", ["9"])[0])])
        if path.startswith("/api/models/"):
            return self.info("/".join(path.split("/")[3:5]))
        if path.startswith("/cdn/"):
            return self.large(path.removeprefix("/cdn/"))
        parts = path.split("/")
        if len(parts) > 5 and parts[3] == "resolve":
            return self.resolve("/".join(parts[1:3]), parts[4], "/".join(parts[5:]))
        return self.put(404)

    def info(self, name: str) -> None:
        if (repo := self.opened(name, "api")) is None:
            return
        siblings: list[dict[str, Any]] = []
        for file, data in repo.files.items():
            siblings.append({"rfilename": file, "size": len(data), "blobId": git_hash(data)})
            if file.endswith(LARGE):
                siblings[-1]["lfs"] = {"sha256": sha256(data), "size": len(data), "pointerSize": 134}
        self.put_json({"id": name, "sha": repo.commit, "siblings": siblings, "tags": repo.tags, "cardData": repo.card})

    def resolve(self, name: str, revision: str, file: str) -> None:
        if (repo := self.opened(name, "resolve")) is None:
            return
        commit = {"X-Repo-Commit": repo.commit}
        if revision not in ("main", repo.commit):
            return self.put(404, {"X-Error-Code": "RevisionNotFound"})
        if file not in repo.files:
            return self.put(404, commit | {"X-Error-Code": "EntryNotFound"})
        data = repo.files[file]
        if file.endswith(LARGE):
            linked = {"X-Linked-Etag": f'"{sha256(data)}"', "X-Linked-Size": str(len(data))}
            return self.put(302, commit | linked | {"Location": f"{self.hub.storage}/cdn/{sha256(data)}"})
        self.put(200, commit | {"ETag": f'"{git_hash(data)}"'}, data)

    def large(self, wanted: str) -> None:
        hub = self.hub
        data = next((d for repo in hub.repos.values() for d in repo.files.values() if sha256(d) == wanted), b"")
        data = hub.served.get(wanted, data)
        hub.before_large()
        begin = 0
        if hub.ranges and (asked := self.headers.get("Range")):
            begin = int(asked.removeprefix("bytes=").partition("-")[0])
        headers = {"ETag": '"of the storage"', "Accept-Ranges": "bytes"}
        if begin >= len(data) > 0:
            return self.put(416, {"Content-Range": f"bytes */{len(data)}"})
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        self.put(206 if begin else 200, headers, data[begin:], cut=hub.cut > 0)

    def opened(self, name: str, where: str) -> Repo | None:
        """The repository, or what the hub says instead of it."""
        repo, token = self.hub.repos.get(name), self.headers.get("Authorization")
        if token and token != f"Bearer {Hub.TOKEN}":
            self.put(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif repo is None:
            self.put(404 if token else 401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif repo.gated and where == "resolve" and (repo.gated == "terms" or not token):
            self.put(403 if token else 401, {"X-Error-Code": "GatedRepo", "X-Error-Message": f"Access to model {name} is restricted"})
        else:
            return repo
        return None

    def put_json(self, value: object) -> None:
        self.put(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def put(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"", cut: bool = False) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if cut:
            self.hub.cut -= 1
            body, self.close_connection = body[: self.hub.cut_at], True
        try:
            self.wfile.write(body)
            if cut:
                self.hub.before_cut()
        except OSError:  # the client has gone
            self.close_connection = True
