"""Where a model comes from: a source as the user wrote it becomes a folder on this machine."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from modelpool_worker.errors import NeverLoadsError, RetryLoadError
from modelpool_worker.models.model_files import no_safetensors

_HF: Final = re.compile(r"hf://(?P<repo>[\w.-]{1,96}(?:/[\w.-]{1,96})?)(?:@(?P<revision>[\w./-]{1,255}))?", re.ASCII)
_PATTERNS: Final = ("*.safetensors", "*.json", "*.txt", "*.model")
_PICKLE_NAMES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5")
_EXAMPLES: Final = "hf://org/name@revision, pvc://claim/path, oci://registry/image:tag or file:///path"


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed source. ``place`` is the repository of ``hf``, else a folder; ``text`` is what the user wrote."""

    kind: Literal["file", "mounted", "hf"]
    place: str
    revision: str | None
    text: str


def parse(source: str, revision: str, path: str) -> Source:
    """Parse a source (with the folder where pvc:// and oci:// are mounted); raise ``NeverLoadsError`` for others."""
    scheme, separator, rest = source.partition("://")
    if scheme == "file" and separator:
        if not rest.startswith("/"):
            raise NeverLoadsError(f"{source} has no absolute path; expected for example file:///models/minilm")
        return Source("file", rest, None, source)
    if scheme in ("pvc", "oci") and separator:
        if not path.startswith("/"):
            raise NeverLoadsError(f"{source} is not mounted; expected MODELPOOL_MODEL_PATH to name its folder")
        return Source("mounted", path, None, source)
    if scheme == "hf" and (match := _HF.fullmatch(source)):
        return Source("hf", match["repo"], match["revision"] or revision or None, source)
    raise NeverLoadsError(f"the model source is not one that this worker knows; expected {_EXAMPLES}")


def fetch(source: Source, *, cache_dir: Path, token: str | None, endpoint: str | None) -> Path:
    """Return the folder of a source, downloading it where it is on a hub. Blocks.

    Raises ``NeverLoadsError`` for what is not there or not allowed, ``RetryLoadError`` for a hub out of reach.
    """
    if source.kind == "hf":
        return _download(source, cache_dir, token, endpoint)
    folder = Path(source.place)
    if not folder.is_dir():
        raise NeverLoadsError(f"{source.text} is not a folder in this worker; expected one with config.json in it")
    return folder


def _download(source: Source, cache_dir: Path, token: str | None, endpoint: str | None) -> Path:
    # it reads its environment when it is imported, and only hf:// needs it
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(
            snapshot_download(
                source.place,
                revision=source.revision,
                allow_patterns=list(_PATTERNS),
                cache_dir=str(cache_dir),
                token=token or False,
                endpoint=endpoint,
                library_name="modelpool",
            )
        )
    except HFValidationError:
        raise NeverLoadsError(f"{source.text} is no name of a model; expected for example hf://org/name") from None
    except HfHubHTTPError as error:
        raise hub_error(source.text, error.response.status_code, has_token=bool(token)) from error
    except LocalEntryNotFoundError as error:
        cause = error.__cause__
        status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else None
        raise hub_error(source.text, status, has_token=bool(token)) from error
    except OSError as error:
        raise RetryLoadError(
            f"{source.text} could not be stored or fetched ({type(error).__name__}); expected room in the cache volume "
            "and a hub within reach"
        ) from error
    if not any(folder.rglob("*.safetensors")):
        pickles = _pickles_of(source, token, endpoint)
        if pickles:
            raise no_safetensors(source.text, pickles)
    return folder


def _pickles_of(source: Source, token: str | None, endpoint: str | None) -> list[str]:
    from huggingface_hub import HfApi

    try:
        names = HfApi(endpoint=endpoint, token=token or False).list_repo_files(source.place, revision=source.revision)
    except (OSError, ValueError):
        return []  # only for the wording of an error that is certain already
    return sorted(name for name in names if name.endswith(_PICKLE_NAMES))


def hub_error(source: str, status: int | None, *, has_token: bool) -> NeverLoadsError | RetryLoadError:
    """Say what a hub's HTTP status means; None: it gave no answer. Only the hub's own trouble is worth another try."""
    if status in (401, 404):
        hint = "" if has_token else ", or it is private and tokenSecretRef is not set"
        return NeverLoadsError(f"the hub has no {source} (HTTP {status}): the name or revision is wrong{hint}")
    if status == 403:
        hint = "accept its terms with the token's account" if has_token else "set tokenSecretRef"
        return NeverLoadsError(f"the hub forbids {source} (HTTP 403): the model is gated or private; {hint}")
    if status is not None and 400 <= status < 500 and status not in (408, 425, 429):
        return NeverLoadsError(f"the hub refused {source} (HTTP {status}); expected for example hf://org/name@main")
    said = f"it answered HTTP {status}" if status else "there was no answer"
    return RetryLoadError(f"the hub could not be reached for {source}: {said}; check HF_ENDPOINT and network policies")
