"""A whole one-node Kubernetes in a network namespace of its own: control plane, kubelet, containerd, DNS."""

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cluster import api_probe, binaries, cgroups, components, node_config, startup
from cluster.cache import hash_of, locked
from cluster.host import ClusterError, cache_home, ensure_packages, require_root, run
from cluster.image_store import ImageStore, Loaded
from cluster.network import NODE_ADDRESS, NetworkNamespace
from cluster.node_config import NODE, NodePaths
from cluster.processes import CLEAN_ENVIRONMENT, Identity, ProcessGroup, end
from cluster.progress import step
from cluster.startup import API_PORT, NO_PROXY, Startup, processes_of

STATE_ROOT = Path("/var/lib/modelpool")
PACKAGES = (
    *("containernetworking-plugins", "nftables", "conntrack", "iproute2", "util-linux", "mount"),
    *("openssl", "libseccomp2"),
)
GPU = "nvidia.com/gpu"


class Cluster:
    """The cluster of that name; clusters of different names run beside each other and share nothing.

    Needs root. `up` and `down` hold a lock between processes. Nothing outside reaches into the
    cluster's network: use `kubectl`, `command` (a prefix for any program) or `enter`.
    """

    def __init__(self, name: str = "demo", state_root: Path = STATE_ROOT) -> None:
        if not (name.isascii() and name.isalnum() and name.islower() and len(name) <= 12):
            raise ClusterError(
                f"a cluster's name is up to 12 lower-case letters and digits, such as demo, not {name!r}"
            )
        self.name = name
        self.state = state_root / name
        self.paths = NodePaths(self.state)
        self.network = NetworkNamespace(f"modelpool-{name}")
        self.cgroup = f"modelpool-{name}"

    # What a user asks for

    @property
    def kubeconfig(self) -> Path:
        """The administrator's; its server is reachable from inside the cluster's network only."""
        return self.paths.kubeconfig("admin")

    @property
    def bin_dir(self) -> Path:
        """kubectl, helm, ctr and all that the cluster runs."""
        return binaries.ensure(binaries.REAL_CLUSTER)

    def exists(self) -> bool:
        """Whether anything of it is there: running, or left by a killed run."""
        return self.state.exists() or self.network.exists() or cgroups.exists(self.cgroup)

    def running(self) -> bool:
        """Whether `up` has finished and every process of it lives."""
        return self._settings() is not None and not self._processes().dead()

    def up(self) -> None:
        """Bring it up; returns at once when it runs, clears what a killed run left and starts anew otherwise.

        Raises `ClusterError` with the reason and the end of the log that tells it.
        """
        require_root("the local cluster")
        with self._lock():
            ensure_packages(PACKAGES, "the local cluster")
            bin_dir = self.bin_dir
            settings = self._settings() if self.running() else None
            if settings and settings["build"] == self._build(bin_dir):
                self._keep_gpus()
                return
            if self.exists():
                reason = "another version started it" if settings else "a run ended half way"
                with step(f"Clearing the cluster {self.name}: {reason}"):
                    self._clear()
            with step(f"Starting Kubernetes {binaries.KUBERNETES} (cluster {self.name})"):
                Startup(self.paths, self.network, self.cgroup, bin_dir).run()
                self._write_settings({"build": self._build(bin_dir), "gpus": 0})

    def down(self) -> None:
        """End and remove all of it: processes, mounts, network, control groups, files. Nothing there is fine."""
        require_root("the local cluster")
        with self._lock():
            self._clear()

    def command(self, *words: str | Path) -> list[str]:
        """A command line that runs the given one inside the cluster's network."""
        return self.network.command(*words)

    def environment(self) -> dict[str, str]:
        """What programs inside need: our tools on PATH, the kubeconfig, and no proxy."""
        path = f"{self.bin_dir}:{os.environ.get('PATH', CLEAN_ENVIRONMENT['PATH'])}"
        return {"PATH": path, "KUBECONFIG": str(self.kubeconfig), **NO_PROXY}

    def kubectl(self, *words: str | Path, stdin: str | None = None, timeout: float = 120.0) -> str:
        """What kubectl prints; raises `ClusterError` with what it complains about."""
        return self.output("kubectl", *words, stdin=stdin, timeout=timeout)

    def output(self, *words: str | Path, stdin: str | None = None, timeout: float = 120.0) -> str:
        """What a program such as helm prints when it runs inside the network; raises `ClusterError` when it fails."""
        self._require()
        return run(self.command(*words), env=self.environment(), stdin=stdin, timeout=timeout)

    def execute(self, words: Sequence[str]) -> int:
        """Run a program inside the network with this terminal; returns its exit code."""
        self._require()
        return subprocess.run(self.command(*words), env={**os.environ, **self.environment()}, check=False).returncode

    @contextlib.contextmanager
    def enter(self) -> Iterator[None]:
        """Move the calling thread, and what it starts from then on, into the cluster's network.

        Threads that exist already (such as those of a client library) stay outside.
        """
        self._require()
        with self.network.enter():
            yield

    def load_image(self, image: Path, ref: str | None = None) -> Loaded:
        """Make an OCI layout folder or an image archive known to the node; see `ImageStore.load`."""
        self._require()
        return ImageStore(self.bin_dir, self.paths.containerd_socket).load(image, ref)

    def set_gpus(self, count: int) -> None:
        """Let the node have so many GPUs (``nvidia.com/gpu``) in its status; the scheduler counts them for real."""
        if not 0 <= count <= 1024:
            raise ClusterError(f"the number of GPUs must be from 0 to 1024, for example 4, not {count}")
        self._require()
        quantity = str(count) if count else None
        patch = {"status": {"capacity": {GPU: quantity}, "allocatable": {GPU: quantity}}}
        self.kubectl("patch", "node", NODE, "--subresource=status", "--type=merge", "-p", json.dumps(patch))
        self._write_settings({**(self._settings() or {}), "gpus": count})

    # How it is done

    def _lock(self) -> contextlib.AbstractContextManager[None]:
        lock = cache_home() / "clusters" / f"{self.name}.lock"
        return locked(lock, f"it works on the cluster {self.name}")

    def _require(self) -> None:
        require_root("the local cluster")
        if self._settings() is None:
            raise ClusterError(
                f"the cluster {self.name} is not up; start it with: python3 -m cluster up --name {self.name}"
            )

    def _settings(self) -> dict[str, Any] | None:
        """What `up` wrote when it was done; None before that."""
        try:
            settings: dict[str, Any] = json.loads((self.state / "ready.json").read_text())
        except (FileNotFoundError, ValueError):
            return None
        return settings

    def _write_settings(self, settings: dict[str, Any]) -> None:
        draft = self.state / "ready.json.new"
        draft.write_text(json.dumps(settings))
        draft.replace(self.state / "ready.json")

    def _build(self, bin_dir: Path) -> str:
        """What a running cluster was made of: another one is not taken for it."""
        return hash_of([bin_dir.name], [Path(str(module.__file__)) for module in (node_config, components, startup)])

    def _keep_gpus(self) -> None:
        """A kubelet that starts again forgets them."""
        wanted = (self._settings() or {}).get("gpus", 0)
        path = f"/api/v1/nodes/{NODE}"
        status, node = self.network.call(lambda: api_probe.get(NODE_ADDRESS, API_PORT, path, self.paths.pki))
        if status == 200 and wanted and node["status"]["allocatable"].get(GPU) != str(wanted):
            self.set_gpus(wanted)

    def _processes(self) -> ProcessGroup:
        return processes_of(self.paths, self.network)

    def _clear(self) -> None:
        """Everything goes, so nothing is asked to end by itself; what starts others goes first."""
        (self.state / "ready.json").unlink(missing_ok=True)
        group = self._processes()
        for name in ("kubelet", "containerd"):
            group.stop(name)
        group.stop_all()
        deadline = time.monotonic() + 20.0
        while left := [*self.network.foreign_processes(), *cgroups.processes(self.cgroup)]:
            stuck = end(left)
            if stuck and time.monotonic() > deadline:
                raise ClusterError(f"processes {_ids(stuck)} of the cluster {self.name} cannot be killed")
        if not cgroups.remove(self.cgroup):
            raise ClusterError(f"the control groups {self.cgroup} below /sys/fs/cgroup do not become empty")
        self.network.delete()
        _unmount_below(self.state)
        shutil.rmtree(self.state, ignore_errors=True)
        with contextlib.suppress(OSError):  # other clusters are in it
            self.state.parent.rmdir()


def _ids(identities: Sequence[Identity]) -> str:
    return ", ".join(str(each.pid) for each in identities)


def _unmount_below(folder: Path) -> None:
    """Mounts below the folder, innermost first; only a start that failed half way leaves any in our sight."""
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        target = Path(line.split()[4].encode().decode("unicode_escape"))
        if folder in target.parents:
            run(["umount", "--lazy", target])
