"""A hub on the loopback address: as much of its protocol as huggingface_hub asks for, and the faults that one has."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from miner_diag.files import sha256_bytes

REPOSITORY = re.compile(
    r"/(?:api/)?datasets/(?P<id>[^/]+/[^/]+)/(?P<what>[a-z-]+)/(?P<revision>[^/]+)(?:/(?P<path>.*))?"
)


class Asked(NamedTuple):
    """A request."""

    method: str
    """HEAD, GET or POST."""
    what: str
    """tree, revision, paths-info or resolve."""
    revision: str
    """The commit that was asked for."""
    path: str
    """The file, where one was asked for."""
    range: str
    """The part of it, as "bytes=10-"; "" for the whole."""


@dataclass
class Repository:
    """A data set at one commit, and what is wrong with the way to it."""

    files: dict[str, bytes]
    """Path -> content."""
    commit: str
    """Its only commit."""
    status: int = 200
    """What every request is answered with, if not 200."""
    error: str = ""
    """What the hub says beside the status; it says "RepoNotFound" beside 401 and 404."""
    cut: dict[str, int] = field(default_factory=dict)
    """Path -> after how many bytes the connection breaks, once."""
    altered: dict[str, bytes] = field(default_factory=dict)
    """Path -> what is sent in place of a file, under the file's hash."""
    asked: list[Asked] = field(default_factory=list)
    """What was asked for, in order."""

    def entry(self, path: str) -> dict[str, object]:
        """Return what the hub's lists say of a file: parquet is kept by SHA-256, other files by git's hash."""
        content = self.files[path]
        git = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        entry: dict[str, object] = {"type": "file", "path": path, "size": len(content), "oid": git}
        if path.endswith(".parquet"):
            entry["lfs"] = {"oid": sha256_bytes(content), "size": len(content), "pointerSize": 130}
        return entry

    def tree(self, path: str, recursive: bool) -> list[dict[str, object]]:
        """Return what lies below a folder: files and folders."""
        below = f"{path}/" if path else ""
        names = [name for name in self.files if name.startswith(below)]
        folders = {name[:end] for name in names for end, sign in enumerate(name) if sign == "/" and end >= len(below)}
        found = [{"type": "directory", "path": name, "oid": "0" * 40, "size": 0} for name in sorted(folders)]
        return [
            entry
            for entry in (*found, *map(self.entry, names))
            if recursive or "/" not in str(entry["path"])[len(below) :]
        ]

    def etag(self, path: str) -> str:
        """Return the name that the hub has for a file's content."""
        entry = self.entry(path)
        return entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]  # type: ignore[index,return-value]


class Hub(ThreadingHTTPServer):
    """The server; ``with Hub({"owner/name": Repository(…)}) as hub`` runs it, and `hub.url` is its address."""

    daemon_threads = True

    def __init__(self, repositories: dict[str, Repository]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Hub:
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = REPOSITORY.fullmatch(unquote(urlsplit(self.path).path))
        repository = None if found is None else self.server.repositories.get(found["id"])
        if found is None or repository is None:
            return self._refuse(404, "RepoNotFound")
        path, part = found["path"] or "", self.headers.get("Range") or ""
        repository.asked.append(Asked(self.command, found["what"], found["revision"], path, part))
        if repository.status != 200:
            return self._refuse(repository.status, repository.error)
        if found["revision"] != repository.commit:
            return self._refuse(404, "RevisionNotFound")
        if found["what"] == "resolve":
            return (
                self._file(repository, path, part) if path in repository.files else self._refuse(404, "EntryNotFound")
            )
        listed = {
            "tree": lambda: repository.tree(path, "recursive=true" in self.path.lower()),
            "revision": lambda: {"_id": "1", "id": found["id"], "sha": repository.commit, "siblings": []},
            "paths-info": lambda: [
                repository.entry(name) for name in repository.files if name in unquote(body.decode())
            ],
        }
        content = json.dumps(listed[found["what"]]()).encode()
        return self._send(200, {"Content-Type": "application/json"}, content)

    def _file(self, repository: Repository, path: str, part: str) -> None:
        content = repository.altered.get(path, repository.files[path])
        headers = {"ETag": f'"{repository.etag(path)}"', "X-Repo-Commit": repository.commit, "Accept-Ranges": "bytes"}
        headers["X-Linked-Size"] = str(len(repository.files[path]))
        if not part:
            return self._send(200, headers, content, cut=repository.cut.pop(path, None) if self._has_body else None)
        start, end = re.fullmatch(r"bytes=(\d+)-(\d*)", part).groups()  # type: ignore[union-attr]
        last = min(int(end or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {start}-{last}/{len(content)}"
        return self._send(206, headers, content[int(start) : last + 1])

    @property
    def _has_body(self) -> bool:
        return self.command != "HEAD"

    def _refuse(self, status: int, code: str) -> None:
        headers = {"X-Error-Code": code or ("RepoNotFound" if status in (401, 404) else ""), "Retry-After": "0"}
        self._send(status, {name: value for name, value in headers.items() if value}, b"")

    def _send(self, status: int, headers: dict[str, str], content: bytes, cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self._has_body:
            self.wfile.write(content[:cut])
        if cut is not None:
            self.close_connection = True
