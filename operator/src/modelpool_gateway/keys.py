"""API keys from a mounted Secret: one file a key, read again while the gateway runs."""

import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import orjson
import structlog

_log = structlog.get_logger(__name__)
#: The folder is looked at this often, seconds.
_LOOK_SECONDS: Final = 5.0
_MAX_KEYS: Final = 256
_MAX_FILE_BYTES: Final = 16 * 1024
_MIN_KEY_CHARS: Final = 16
_MAX_PATTERNS: Final = 64
_EXPECTED: Final = 'expected a key, or JSON such as {"key": "sk-…", "models": ["minilm", "llama-*"]}'


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Whoever has it: ``name`` is the entry's in the Secret, ``models`` are patterns of names it may use."""

    name: str
    digest: bytes
    models: tuple[str, ...] = ("*",)

    def allows(self, model: str) -> bool:
        """Whether this model may be used."""
        return any(fnmatchcase(model, pattern) for pattern in self.models)


class ApiKeys:
    """The keys of a folder. An entry is the key itself, or ``{"key": "sk-…", "models": ["minilm", "llama-*"]}``.

    An entry that cannot be read lets nobody in; an empty folder lets nobody in.
    """

    def __init__(self, folder: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._monotonic = monotonic
        self._keys: tuple[ApiKey, ...] = ()
        self._state: object = None
        self._looked = -_LOOK_SECONDS

    def find(self, authorization: str) -> ApiKey | None:
        """Return whose ``Authorization: Bearer …`` this is; all keys are compared, each in constant time."""
        self._look()
        scheme, _, offered = authorization.partition(" ")
        if scheme.lower() != "bearer" or not offered:
            return None
        digest = hashlib.sha256(offered.strip().encode("utf-8", "surrogateescape")).digest()
        found: ApiKey | None = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found

    def _look(self) -> None:
        now = self._monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        try:
            # the kubelet replaces a mounted Secret as a whole, through this link
            link = self._folder / "..data"
            state: object = link.readlink() if link.is_symlink() else self._files_state()
            if state == self._state:
                return
            self._keys = tuple(self._read())
            self._state = state
        except OSError as error:
            _log.error("keys.unreadable", error=type(error).__name__)
            return
        _log.info("keys.read", count=len(self._keys))

    def _files(self) -> list[Path]:
        return sorted(path for path in self._folder.iterdir() if not path.name.startswith(".") and path.is_file())

    def _files_state(self) -> object:
        return tuple((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in self._files())

    def _read(self) -> list[ApiKey]:
        found = []
        files = self._files()
        if len(files) > _MAX_KEYS:
            _log.error("keys.too-many", expected=f"at most {_MAX_KEYS}", found=len(files))
        for path in files[:_MAX_KEYS]:
            with path.open("rb") as file:
                content = file.read(_MAX_FILE_BYTES + 1)
            try:
                found.append(read_key(path.name, content))
            except ValueError as error:
                _log.error("keys.refused", name=path.name, error=str(error))
        return found


def read_key(name: str, content: bytes) -> ApiKey:
    """Read one entry. Raises ValueError with a sentence that holds nothing of it."""
    if len(content) > _MAX_FILE_BYTES:
        raise ValueError(f"expected at most {_MAX_FILE_BYTES} bytes")
    text = content.strip()
    models: object = ["*"]
    if text.startswith(b"{"):
        try:
            entry = orjson.loads(text)
        except orjson.JSONDecodeError:
            raise ValueError(_EXPECTED) from None
        key, models = entry.get("key"), entry.get("models", ["*"])
    else:
        key = text.decode("utf-8", "replace")
    if (
        not isinstance(key, str)
        or len(key) < _MIN_KEY_CHARS
        or not key.isascii()
        or not key.isprintable()
        or " " in key
    ):
        raise ValueError(f"expected a key of at least {_MIN_KEY_CHARS} printable ASCII characters without blanks")
    if not isinstance(models, list) or len(models) > _MAX_PATTERNS or not all(isinstance(each, str) for each in models):
        raise ValueError(_EXPECTED)
    return ApiKey(name, hashlib.sha256(key.encode()).digest(), tuple(models))
