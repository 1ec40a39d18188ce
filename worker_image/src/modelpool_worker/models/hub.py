"""Downloading a model from a hub into a cache folder, which may be a volume that workers share and that outlives them.

What is there already is not fetched again: a model of a pinned commit that is whole in the cache needs no hub at all,
one of a branch or tag needs a single request while the hub answers, and none where it does not.
"""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeVar

from modelpool_worker.errors import LoadError, NeverLoadsError, RetryLoadError
from modelpool_worker.models.model_files import no_safetensors

#: What is fetched: weights by the names under which the libraries save them, beside them configs and tokenizers.
WANTED: Final = (
    *("model*.safetensors", "*/model*.safetensors", "*/diffusion_pytorch_model*.safetensors"),
    *("*.json", "*.jinja", "*.txt", "*.model"),
)
#: What is left: the same weights in other formats, and copies that the libraries take only when asked.
UNWANTED: Final = (
    *("onnx/*", "openvino/*", "original/*", ".*"),
    *("*.fp16.*", "*.fp16-*", "*.bf16.*", "*.non_ema.*"),
)
_PICKLE_NAMES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_MAX_FILES: Final = 10_000
_MIB: Final = 1024 * 1024
#: A download that has written nothing for so long was killed; one that stalls ends by itself within a minute.
_LEFT_SECONDS: Final = 3600.0
_MAIN: Final = "main"
_BUSY: Final = (408, 425, 429)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Hub:
    """A hub and who asks it. Without ``endpoint`` it is the public one; ``token`` is sent to it alone.

    ``waits`` are the seconds before it is asked again while it is busy or gives no answer.
    """

    endpoint: str | None
    token: str | None
    waits: tuple[float, ...] = (1.0, 2.0, 4.0)


@dataclass(frozen=True, slots=True)
class Listed:
    """A file as the hub lists it, its size in bytes."""

    path: str
    size: int


def download(hub: Hub, repository: str, *, revision: str | None, source: str, cache_dir: Path) -> Path:
    """Return the folder of a repository's files at a revision (None: main) in the cache, fetching what is missing.

    Blocks. Raises ``NeverLoadsError`` for what is not there, not allowed or no model, and ``RetryLoadError`` for a hub
    out of reach or a volume without room at the moment. ``source`` is how the user calls it in those sentences.
    """
    # it reads its environment when it is imported, and only hf:// needs it
    from huggingface_hub import HfApi, snapshot_download

    fetch: dict[str, Any] = {
        "repo_id": repository,
        "allow_patterns": list(WANTED),
        "ignore_patterns": list(UNWANTED),
        "cache_dir": str(cache_dir),
        "token": hub.token or False,
        "endpoint": hub.endpoint,
        "library_name": "modelpool",
    }
    with _told(source, has_token=bool(hub.token)):
        api = HfApi(endpoint=hub.endpoint, token=hub.token or False, library_name="modelpool")
        resolve = partial(api.resolve_revision, repository, revision=revision or _MAIN, cache_dir=str(cache_dir))
        resolved = _patiently(resolve, hub.waits)
        commit = resolved.resolved
        if not _COMMIT.fullmatch(commit):
            raise RetryLoadError(f"the hub answered for {source} with something that is no commit; check HF_ENDPOINT")
        home = cache_dir / f"models--{repository.replace('/', '--')}"
        if (cached := _whole_in_cache(fetch, home, commit)) is not None:
            return cached
        tree = api.list_repo_tree(repository, recursive=True, revision=commit)
        files = check_listing((Listed(each.path, each.size) for each in tree if hasattr(each, "size")), source)
        folder = home / "snapshots" / commit
        home.mkdir(parents=True, exist_ok=True)
        clear_leftovers(home / "blobs")
        disk = shutil.disk_usage(home)
        check_room(sum(file.size for file in files if not (folder / file.path).exists()), disk.free, disk.total, source)
        return Path(snapshot_download(**fetch, revision=resolved))


def _patiently(resolve: Callable[[], _T], waits: Iterable[float]) -> _T:
    """Ask again for what the library itself asks for once only: a hub that is busy for a moment costs no restart."""
    from huggingface_hub.errors import HfHubHTTPError, RevisionResolutionError

    for seconds in waits:
        try:
            return resolve()
        except RevisionResolutionError:
            pass
        except HfHubHTTPError as error:
            if error.response.status_code not in _BUSY:
                raise
        time.sleep(seconds)
    return resolve()


def _whole_in_cache(fetch: dict[str, Any], home: Path, commit: str) -> Path | None:
    """Return the folder of that commit if every file of it is there, without asking the hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    # without the hub's listing beside it a folder may be half of a model: nobody could tell
    if not (home / "trees" / f"{commit}.json").is_file():
        return None
    try:
        return Path(snapshot_download(**fetch, revision=commit, local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def check_listing(listed: Iterable[Listed], source: str) -> list[Listed]:
    """Return the files to fetch of all that a repository lists; raise ``NeverLoadsError`` where they are no model's.

    Reads no further than the most files that a model's repository may have.
    """
    files = list(islice(listed, _MAX_FILES + 1))
    if len(files) > _MAX_FILES:
        raise NeverLoadsError(
            f"{source} lists more than {_MAX_FILES} files; expected the repository of one model, not of a data set"
        )
    if any(_climbs(file.path) for file in files):
        raise NeverLoadsError(f"{source} lists files outside of its own folder; no hub that can be trusted does")
    wanted = [file for file in files if _matches(file.path, WANTED) and not _matches(file.path, UNWANTED)]
    if not any(file.path.endswith(".safetensors") for file in wanted):
        pickles = sorted(file.path for file in files if file.path.endswith(_PICKLE_NAMES))
        if pickles:
            raise no_safetensors(source, pickles)
        raise NeverLoadsError(f"{source} has no weights; expected a repository with model.safetensors in it")
    return wanted


def check_room(needed: int, free: int, total: int, source: str) -> None:
    """Raise where ``needed`` bytes do not fit into the cache: for good, or because others fill it (``free``)."""
    if needed > total:
        raise NeverLoadsError(
            f"{source} is larger than the whole cache volume: it needs {_mib(needed)} MiB more, the volume has "
            f"{_mib(total)} MiB; give it a larger one"
        )
    if needed > free:
        raise RetryLoadError(
            f"{source} needs {_mib(needed)} MiB more in the cache volume, {_mib(free)} MiB are free; remove models "
            "from it or give it a larger one"
        )


def clear_leftovers(blobs: Path) -> None:
    """Remove what downloads left in the cache that were killed; nobody goes on with such a part."""
    parts = list(blobs.glob("*.incomplete"))
    if not parts:
        return
    with tempfile.TemporaryFile(dir=blobs) as file:
        # by the volume's own clock, which may be another machine's
        now = os.fstat(file.fileno()).st_mtime
    for part in parts:
        try:
            if now - part.stat().st_mtime > _LEFT_SECONDS:
                part.unlink()
        except FileNotFoundError:
            continue  # another worker was quicker


def _matches(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def _climbs(path: str) -> bool:
    plain = PurePosixPath(path)
    return not path or plain.is_absolute() or ".." in plain.parts or "\\" in path or not path.isprintable()


@contextmanager
def _told(source: str, *, has_token: bool) -> Iterator[None]:
    """Turn what the library raises into our sentences."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except LoadError:
        raise
    except HFValidationError:
        raise NeverLoadsError(f"{source} is no name of a model; expected for example hf://org/name") from None
    except Exception as error:
        if (status := _status(error, HfHubHTTPError)) is not None:
            raise hub_error(source, status, has_token=has_token) from error
        if isinstance(error, OSError) and error.errno is not None:
            raise RetryLoadError(
                f"{source} could not be stored in the cache ({type(error).__name__}); expected a volume with room in "
                "it that user 10001 may write to"
            ) from error
        # the library lets the errors of its HTTP client through, and a mirror may answer anything
        raise hub_error(source, None, has_token=has_token) from error


def _status(error: BaseException | None, kind: type[Exception]) -> int | None:
    """Return the HTTP status in an error or in what it came from; None where the hub gave no answer."""
    seen: Sequence[BaseException] = ()
    while error is not None and error not in seen:
        if isinstance(error, kind):
            status: int = getattr(error, "response").status_code  # noqa: B009 - of a class that is imported late
            return status
        seen = (*seen, error)
        error = error.__cause__
    return None


def hub_error(source: str, status: int | None, *, has_token: bool) -> NeverLoadsError | RetryLoadError:
    """Say what a hub's HTTP status means; None: it gave no answer. Only the hub's own trouble is worth another try."""
    if status in (401, 404):
        hint = "the token in tokenSecretRef may not read it" if has_token else "it is private and needs tokenSecretRef"
        return NeverLoadsError(f"the hub has no {source} (HTTP {status}): the name or revision is wrong, or {hint}")
    if status == 403:
        hint = "accept its terms with the token's account" if has_token else "set tokenSecretRef"
        return NeverLoadsError(f"the hub forbids {source} (HTTP 403): the model is gated or private; {hint}")
    if status is not None and 400 <= status < 500 and status not in _BUSY:
        return NeverLoadsError(f"the hub refused {source} (HTTP {status}); expected for example hf://org/name@main")
    said = f"it answered HTTP {status}" if status else "there was no answer that could be understood"
    return RetryLoadError(f"the hub could not be reached for {source}: {said}; check HF_ENDPOINT and network policies")


def _mib(size: int) -> int:
    return -(-size // _MIB)
