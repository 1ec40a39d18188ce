"""Building Dockerfiles with Debian's buildah: no daemon, no registry, a storage folder of our own in the cache."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cluster.cache import locked, remove
from cluster.host import cache_home, run

PACKAGES = ("buildah", "mmdebstrap", "skopeo", "zstd")
_BIND = "mount --rbind / /mnt && mount --make-rprivate /mnt"
#: Runs a command so that its mounts and its children end with it, and it ends with us, be we killed.
CONTAINED = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--propagation", "unchanged", "--pid", "--mount-proc", "--kill-child"),
    # In a chroot the root is no mount, which these tools need it to be: there it is bound to a folder and entered.
    *("sh", "-c", f'mount --make-rprivate / 2>/dev/null || {{ {_BIND} && exec chroot /mnt "$@"; }}; exec "$@"', "sh"),
)
_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
#: where a RUN finds the host's download cache; a folder that every base image has, so that none is left behind
_DOWNLOADS = "/mnt"


class Storage:
    """The layers that buildah works on. They stay between builds: that is the layer cache."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_home() / "buildah"
        self.root, self.runroot, self.scratch = self.folder / "root", self.folder / "run", self.folder / "scratch"

    @contextmanager
    def ours(self) -> Iterator[None]:
        """Keep other runs out, and clear the containers that a killed build left."""
        with locked(self.folder / ".lock", "it builds images"):
            if self.scratch.exists():
                remove(self.scratch)
            self.scratch.mkdir()
            self._buildah("rm", "--all")
            yield

    def transport(self, name: str) -> str:
        """An image of this storage as skopeo names it."""
        return f"containers-storage:[overlay@{self.root}+{self.runroot}]{name}"

    def has(self, name: str) -> bool:
        return name in self._buildah("images", "--format", "{{.Name}}:{{.Tag}}").split()

    def pull(self, layout: Path, ref: str) -> None:
        """Take an image in from a layout folder."""
        self._run(["skopeo", "copy", "--quiet", "--insecure-policy", f"oci:{layout}:{ref}", self.transport(ref)])

    def build(self, dockerfile: Path, context: Path, name: str, arguments: Mapping[str, str]) -> None:
        """Build a Dockerfile; the host's certificates and download cache are lent to it, not copied.

        Its stage ``lock`` gets a name too, else `prune` would take it out of the layer cache.
        """
        downloads = download_cache()
        downloads.mkdir(parents=True, exist_ok=True)
        volumes = [f"{downloads}:{_DOWNLOADS}:rw"]
        bundle = Path(os.environ.get("SSL_CERT_FILE") or _BUNDLE)
        if bundle.is_file():
            pip = self.folder / "pip.conf"
            pip.write_text(f"[global]\ncert = {_BUNDLE}\n")
            volumes += [f"{bundle.resolve()}:{_BUNDLE}:ro", f"{pip}:/etc/pip.conf:ro"]
        options = [f"--build-arg={key}={value}" for key, value in {**arguments, "UV_CACHE_DIR": _DOWNLOADS}.items()]
        options += [f"--volume={volume}" for volume in volumes]
        bud: list[str | Path] = ["bud", "--layers", "--quiet", *options, "--file", dockerfile]
        self._buildah(*bud, "--tag", name, context)
        self._buildah(*bud, "--target", "lock", "--tag", f"{name}-lock", context)

    def prune(self) -> None:
        """Forget layers that no named image is built on."""
        self._buildah("rmi", "--prune")

    def _buildah(self, *words: str | Path) -> str:
        place = ["--root", str(self.root), "--runroot", str(self.runroot), "--storage-driver", "overlay"]
        return self._run(["buildah", *place, *words])

    def _run(self, command: Sequence[str | Path]) -> str:
        environment = {"BUILDAH_ISOLATION": "chroot", "TMPDIR": str(self.scratch)}
        return run([*CONTAINED, *command], env=environment)


def download_cache() -> Path:
    """Where uv keeps downloads on this machine; the development environment has filled it already."""
    configured = os.environ.get("UV_CACHE_DIR")
    if configured:
        return Path(configured)
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home.startswith("/") else Path.home() / ".cache") / "uv"
