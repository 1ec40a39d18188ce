"""Where a model comes from: a source as the user wrote it becomes a folder on this machine."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from modelpool_worker.errors import NeverLoadsError
from modelpool_worker.models.hub import Hub, download

_HF: Final = re.compile(r"hf://(?P<repo>[\w.-]{1,96}(?:/[\w.-]{1,96})?)(?:@(?P<revision>[\w./-]{1,255}))?", re.ASCII)
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


def fetch(source: Source, *, cache_dir: Path, hub: Hub) -> Path:
    """Return the folder of a source, downloading it where it is on a hub. Blocks.

    Raises ``NeverLoadsError`` for what is not there or not allowed, ``RetryLoadError`` for a hub out of reach.
    """
    if source.kind == "hf":
        return download(hub, source.place, revision=source.revision, source=source.text, cache_dir=cache_dir)
    folder = Path(source.place)
    if not folder.is_dir():
        raise NeverLoadsError(f"{source.text} is not a folder in this worker; expected one with config.json in it")
    return folder
