"""Programs of Debian packages, unpacked into the cache: nothing is installed, nothing is started, no root is needed."""

import platform
import re
import shutil
from pathlib import Path

from cluster.cache import cached, hash_of
from cluster.host import ClusterError, is_root, run
from cluster.progress import step

_PLACES = ("usr/sbin", "usr/bin")


def command(package: str) -> tuple[str, ...]:
    """The first words of a command that runs the program of that package: the installed one, else the unpacked one.

    Raises `ClusterError` where it is neither here nor to be had.
    """
    installed = shutil.which(package, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    if installed is not None:
        return (installed,)
    root = _unpacked(package)
    for place in _PLACES:
        program = root / place / package
        if program.is_file():
            folders = sorted({str(library.parent) for library in root.glob("**/*.so*")})
            # env becomes the program: no process stands between us and it
            return (*(["env", f"LD_LIBRARY_PATH={':'.join(folders)}"] if folders else []), str(program))
    raise ClusterError(f"the Debian package {package} has no program of that name; install {package} by other means")


def _unpacked(package: str) -> Path:
    if shutil.which("apt-get") is None:
        raise ClusterError(f"{package} is not installed, and there is no apt-get to fetch it with")
    release = platform.freedesktop_os_release().get("VERSION_ID", "")

    def unpack(folder: Path) -> None:
        with step(f"Fetching {package} from Debian"):
            downloads = folder / "downloads"
            downloads.mkdir()
            run(["apt-get", "download", "-q", *_with_dependencies(package)], cwd=downloads, timeout=600)
            for archive in sorted(downloads.glob("*.deb")):
                run(["dpkg-deb", "--extract", archive, folder])
            shutil.rmtree(downloads)

    return cached(f"debian-{package}", hash_of([package, release, platform.machine()]), unpack, keep=1)


def _with_dependencies(package: str) -> list[str]:
    """The package and what it needs of those that are not installed."""
    simulate = ["apt-get", "install", "--simulate", "--no-install-recommends", package]
    try:
        said = run(simulate)
    except ClusterError:
        if not is_root():
            raise
        run(["apt-get", "update", "-q"], timeout=600)  # an image comes without the lists
        said = run(simulate)
    return re.findall(r"^Inst (\S+)", said, re.MULTILINE)
