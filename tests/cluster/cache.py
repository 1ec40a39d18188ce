"""The build cache: folders named by a hash of what they were built from, in the user's cache directory."""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.host import cache_home

KEEP = 2  # the present one and the one before: switching between two branches builds nothing
TEMPORARY = ".building-"


def hash_of(texts: Iterable[str] = (), files: Iterable[Path] = ()) -> str:
    """A short hash (16 hex digits) of texts, and of files by name and content."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(b"text\0" + text.encode() + b"\0")
    for path in sorted(files):
        content = hashlib.sha256(path.read_bytes()).digest()
        digest.update(b"file\0" + path.name.encode() + b"\0" + content)
    return digest.hexdigest()[:16]


@contextmanager
def locked(lock_file: Path, waiting_for: str) -> Iterator[None]:
    """Hold an exclusive lock between processes; the kernel frees it when the holder dies, however it dies."""
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(lock_file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Waiting for another run: {waiting_for}", flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def cached(
    kind: str,
    inputs_hash: str,
    build: Callable[[Path], None],
    *,
    root: Path | None = None,
    keep: int = KEEP,
) -> Path:
    """The folder ``kind/inputs_hash``, built at most once.

    ``build`` fills an empty folder, which is renamed into place when it returns: an entry is whole or
    absent. What a killed build left is cleared by the next one. Of a kind the ``keep`` entries used
    last are kept. Errors of ``build`` pass through and leave nothing.
    """
    home = (root or cache_home()) / kind
    entry = home / inputs_hash
    if entry.is_dir():
        os.utime(entry)
        return entry
    with locked(home / ".lock", f"it builds {kind}"):
        if entry.is_dir():  # the run we waited for has built it
            os.utime(entry)
            return entry
        for leftover in home.glob(f"{TEMPORARY}*"):
            remove(leftover)
        temporary = Path(tempfile.mkdtemp(prefix=TEMPORARY, dir=home))
        try:
            build(temporary)
            temporary.chmod(0o755)
            temporary.rename(entry)
        except BaseException:
            remove(temporary)
            raise
        prune(home, keep, never=entry)
    return entry


def prune(home: Path, keep: int, never: Path) -> None:
    """Remove all entries but the ``keep`` used last; ``never`` stays in any case."""
    entries = [path for path in home.iterdir() if path.is_dir() and not path.name.startswith(".")]
    entries.sort(key=lambda path: (path == never, path.stat().st_mtime_ns), reverse=True)
    for old in entries[keep:]:
        # Renamed first: a half-removed entry must not look whole.
        doomed = home / f"{TEMPORARY}{old.name}"
        old.rename(doomed)
        remove(doomed)


def remove(folder: Path) -> None:
    """Remove a folder with read-only parts in it, as Go's module cache has them."""

    def writable_then_again(function: Callable[[str], object], path: str, _error: object) -> None:
        parent = Path(path).parent
        parent.chmod(0o700)
        Path(path).chmod(0o700)
        function(path)

    shutil.rmtree(folder, onerror=writable_then_again)
