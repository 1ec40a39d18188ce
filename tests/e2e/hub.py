"""A small model hub: the part of the Hugging Face hub's HTTP interface that a download of a whole repository needs.

What it has is in `e2e.repositories`.
"""

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from e2e.repositories import WEIGHTS, RefusedError, Repository, Shelf, digest

PIECE_BYTES = 64 * 1024
PAGE = 1000
_API = re.compile(r"/api/models/([\w.-]+)/([\w.-]+)/(revision|tree)/([\w.-]+)")
_FILE = re.compile(r"/([\w.-]+)/([\w.-]+)/resolve/([\w.-]+)/(.+)")


class Hub:
    """Serves on one address until it is closed; ``url`` is what ``HF_ENDPOINT`` has to be.

    ``served`` is what was asked for, ``tokens`` the tokens that came along. ``folders`` are further repositories by
    name, ``other`` is the address of the server that holds what is elsewhere (itself a `Hub`).
    """

    def __init__(
        self, address: str, port: int = 0, *, folders: Mapping[str, Path] | None = None, other: str = ""
    ) -> None:
        self.closing = threading.Event()
        self.served: list[str] = []
        self.tokens: set[str] = set()
        self.shelf = Shelf(folders)
        self.other = other
        self._lock = threading.Lock()
        self._times: Counter[str] = Counter()
        hub = self

        class Handler(_Handler):
            owner = hub

        self._server = ThreadingHTTPServer((address, port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="hub", daemon=True)

    @property
    def url(self) -> str:
        """Where it answers."""
        address, port = self._server.server_address[:2]
        return f"http://{address!s}:{port}"

    def times(self, what: str) -> int:
        """How often this was called with ``what`` before."""
        with self._lock:
            self._times[what] += 1
            return self._times[what] - 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    owner: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: Any) -> None:
        """Say nothing: the tests' output is the tests'."""

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.owner.served.append(f"{self.command} {path}")
        if token := self.headers.get("Authorization", "").removeprefix("Bearer "):
            self.owner.tokens.add(token)
        try:
            self._route(path, token, body=body)
        except RefusedError as refused:
            self._send(refused.status, b"{}", {"X-Error-Code": refused.code} if refused.code else {}, body=body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the worker was stopped in the middle of its download, or the hub cuts it

    def _route(self, path: str, token: str, *, body: bool) -> None:
        found = _API.fullmatch(path) or _FILE.fullmatch(path)
        if found is None:
            raise RefusedError(404, "EntryNotFound")
        is_api = found.re is _API
        name, revision = found[2], found[4] if is_api else found[3]
        repository = self.owner.shelf.find(name, revision, token)
        if repository.refused and (before := self.owner.times(name)) < len(repository.refused):
            raise RefusedError(repository.refused[before])
        if repository.garbage:
            self._send(200, b"<html>Welcome to our WiFi</html>", {"Content-Type": "text/html"}, body=body)
        elif is_api and found[3] == "revision":
            self._answer_info(repository, f"{found[1]}/{name}")
        elif is_api:
            self._answer_tree(repository)
        else:
            self._answer_file(repository, name, found[4], body=body)

    def _answer_info(self, found: Repository, name: str) -> None:
        siblings = [{"rfilename": path} for path in found.files]
        answer = {"id": name, "modelId": name, "sha": found.commit, "siblings": siblings}
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"}, body=True)

    def _answer_tree(self, found: Repository) -> None:
        sizes = {path: len(content) for path, content in found.files.items()} | dict(found.listed)
        headers = {"Content-Type": "application/json"}
        if found.endless:
            page = int(parse_qs(urlsplit(self.path).query).get("page", ["0"])[0])
            sizes = {f"{page}-{number}.json": 1 for number in range(PAGE)}
            here = self.path.partition("?")[0]
            headers["Link"] = f'<{self.owner.url}{here}?recursive=true&page={page + 1}>; rel="next"'
        answer = [
            {"type": "file", "path": path, "size": size, "oid": digest(path.encode())[:40]}
            for path, size in sizes.items()
        ]
        self._send(200, json.dumps(answer).encode(), headers, body=True)

    def _answer_file(self, found: Repository, name: str, path: str, *, body: bool) -> None:
        content = found.files.get(path)
        if content is None:
            raise RefusedError(404, "EntryNotFound")
        tag = digest(content)
        headers = {"ETag": f'"{tag[:40]}"', "X-Repo-Commit": found.commit, "Accept-Ranges": "bytes"}
        if found.elsewhere and path == WEIGHTS and self.owner.other:
            linked = {"X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{tag}"'}
            self._send(302, b"", {**headers, **linked, "Location": f"{self.owner.other}{self.path}"}, body=body)
            return
        first = 0
        if wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            first = min(int(wanted[1]), len(content))
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        cut = found.cut and path == WEIGHTS and body and self.owner.times(f"{name} {path}") == 0
        pace = len(content) / found.seconds if found.seconds and path == WEIGHTS else 0.0
        self._send(
            206 if wanted else 200,
            content[first:],
            headers,
            body=body,
            pace=pace,
            stop=len(content) // 2 if cut else None,
        )

    def _send(
        self,
        status: int,
        content: bytes,
        headers: dict[str, str],
        *,
        body: bool,
        pace: float = 0.0,
        stop: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        for piece in _pieces(content[:stop] if body else b"", pace, self.owner.closing):
            self.wfile.write(piece)
        if stop is not None:
            raise ConnectionResetError("the hub cuts the connection")


def _pieces(content: bytes, pace: float, closing: threading.Event) -> Iterator[bytes]:
    """The content in pieces, no faster than ``pace`` bytes a second (0: at once)."""
    began = time.monotonic()
    for first in range(0, len(content), PIECE_BYTES):
        ahead = first / pace - (time.monotonic() - began) if pace else 0.0
        if ahead > 0 and closing.wait(ahead):
            raise ConnectionResetError("the hub is being closed")
        yield content[first : first + PIECE_BYTES]
