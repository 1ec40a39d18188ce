"""A whole one-node Kubernetes in a network namespace of its own: control plane, kubelet, containerd, DNS."""

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cluster import api_probe, binaries, cgroups, components, node_config
from cluster.cache import hash_of, locked
from cluster.host import ClusterError, cache_home, ensure_packages, require_root, run
from cluster.image_store import ImageStore, Loaded
from cluster.network import NODE_ADDRESS, NetworkNamespace
from cluster.node_config import NODE, NodePaths
from cluster.pause_image import write_pause_image
from cluster.pki import Authority, write_kubeconfig
from cluster.processes import CLEAN_ENVIRONMENT, Identity, ProcessGroup, end
from cluster.progress import step

STATE_ROOT = Path("/var/lib/modelpool")
PACKAGES = (
    *("containernetworking-plugins", "nftables", "conntrack", "iproute2", "util-linux", "mount"),
    *("openssl", "libseccomp2"),
)
API_PORT, ETCD_PORTS = 6443, (2379, 2380)
READY_SECONDS = 180.0
POLL_SECONDS = 0.1
GPU = "nvidia.com/gpu"
# Users of the components, with what Kubernetes' default roles know them as.
USERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "admin": ("admin", ("system:masters",)),
    "kube-controller-manager": ("system:kube-controller-manager", ()),
    "kube-scheduler": ("system:kube-scheduler", ()),
    "kube-proxy": ("system:kube-proxy", ()),
    "node": (f"system:node:{NODE}", ("system:nodes",)),
    "coredns": ("modelpool:coredns", ()),
}


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
                self._start(bin_dir)

    def down(self) -> None:
        """End and remove all of it: processes, mounts, network, control groups, files. Nothing there is fine."""
        require_root("the local cluster")
        with self._lock():
            self._clear()

    def command(self, *words: str | Path) -> list[str]:
        """A command line that runs the given one inside the cluster's network."""
        return ["nsenter", f"--net={self.network.path}", "--", *map(str, words)]

    def environment(self) -> dict[str, str]:
        """What programs inside need: our tools on PATH, the kubeconfig, and no proxy."""
        path = f"{self.bin_dir}:{os.environ.get('PATH', CLEAN_ENVIRONMENT['PATH'])}"
        return {"PATH": path, "KUBECONFIG": str(self.kubeconfig), "NO_PROXY": "*", "no_proxy": "*"}

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
        return hash_of([bin_dir.name], [Path(node_config.__file__), Path(components.__file__), Path(__file__)])

    def _keep_gpus(self) -> None:
        """A kubelet that starts again forgets them."""
        wanted = (self._settings() or {}).get("gpus", 0)
        status, node = self._get(f"/api/v1/nodes/{NODE}")
        if status == 200 and wanted and node["status"]["allocatable"].get(GPU) != str(wanted):
            self.set_gpus(wanted)

    def _processes(self) -> ProcessGroup:
        prefix = ["nsenter", f"--net={self.network.path}"]
        group = ProcessGroup(self.state, prefix=prefix)
        holder = group.recorded().get("mounts")
        if holder is not None:
            group.prefix = (*prefix, f"--mount=/proc/{holder.pid}/ns/mnt", "--")
        return group

    def _start(self, bin_dir: Path) -> None:
        self.state.mkdir(parents=True, mode=0o700)
        self.network.create()
        cgroups.create(self.cgroup)
        group = self._processes()
        script = node_config.private_mounts(self.paths)
        group.start("mounts", ["unshare", "--mount", "--propagation", "private", "sh", "-c", script])
        self._wait(group, "the mount namespace", (self.state / "mounted").exists, "mounts")
        group = self._processes()
        self._start_runtime(group, bin_dir)
        group.start("etcd", components.etcd(bin_dir, self.state / "etcd", *ETCD_PORTS))
        self._issue_certificates()
        api_server = components.api_server(bin_dir, self.paths.pki, ETCD_PORTS[0], NODE_ADDRESS, API_PORT)
        kubelet_client = f"{self.paths.pki}/kubelet-client"
        api_server += [
            f"--kubelet-client-certificate={kubelet_client}.crt",
            f"--kubelet-client-key={kubelet_client}.key",
            f"--kubelet-certificate-authority={self.paths.pki}/ca.crt",
            "--kubelet-preferred-address-types=InternalIP",
        ]
        group.start("kube-apiserver", api_server)
        self._load_pause_image(group, bin_dir)
        self._wait(group, "the API server", lambda: self._get("/readyz")[0] == 200, "kube-apiserver")
        self._start_clients(group, bin_dir)
        self._wait(group, "the node", self._node_ready, "kubelet")
        self._write_settings({"build": self._build(bin_dir), "gpus": 0})
        self.kubectl("apply", "--server-side", "-f", "-", stdin=node_config.CLUSTER_OBJECTS)
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        self._wait(group, "the controller-manager", lambda: self._get(account)[0] == 200, "kube-controller-manager")

    def _start_runtime(self, group: ProcessGroup, bin_dir: Path) -> None:
        (self.state / "cni").mkdir()
        (self.state / "cni" / "10-pods.conflist").write_text(node_config.pod_network(self.paths))
        config = self.state / "containerd.toml"
        config.write_text(node_config.containerd(self.paths, bin_dir))
        path = f"{bin_dir}:{CLEAN_ENVIRONMENT['PATH']}"
        group.start("containerd", [bin_dir / "containerd", "--config", config], {"PATH": path})

    def _issue_certificates(self) -> None:
        authority = Authority.create(self.paths.pki)
        authority.service_account_keys()
        service_names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
        names = [f"DNS:{name}" for name in [*service_names, "kubernetes.default.svc.cluster.local"]]
        authority.issue("apiserver", "kube-apiserver", addresses=[*names, f"IP:{NODE_ADDRESS}", "IP:10.96.0.1"])
        authority.issue("kubelet", NODE, addresses=[f"DNS:{NODE}", f"IP:{NODE_ADDRESS}"])
        authority.issue("kubelet-client", "kube-apiserver-kubelet-client", ["system:masters"])
        server = f"https://{NODE_ADDRESS}:{API_PORT}"
        for name, (user, groups) in USERS.items():
            pair = authority.issue(name, user, groups)
            write_kubeconfig(self.paths.kubeconfig(name), server, authority, pair, f"modelpool-{self.name}")

    def _start_clients(self, group: ProcessGroup, bin_dir: Path) -> None:
        """Everything that talks to the API server."""
        paths, state = self.paths, self.state
        manager = components.controller_manager(bin_dir, paths.pki, paths.kubeconfig("kube-controller-manager"))
        nodes = [f"--cluster-cidr={node_config.POD_RANGE}", "--allocate-node-cidrs=true"]
        group.start("kube-controller-manager", [*manager, *nodes])
        group.start("kube-scheduler", components.scheduler(bin_dir, paths.kubeconfig("kube-scheduler")))
        kubelet = state / "kubelet.json"
        kubelet.write_text(node_config.kubelet(paths, f"/{self.cgroup}"))
        node = [f"--kubeconfig={paths.kubeconfig('node')}", f"--hostname-override={NODE}", f"--node-ip={NODE_ADDRESS}"]
        folders = [f"--root-dir={state}/kubelet", f"--cert-dir={state}/kubelet-certificates"]
        group.start("kubelet", [bin_dir / "kubelet", f"--config={kubelet}", *node, *folders])
        proxy = state / "kube-proxy.json"
        proxy.write_text(node_config.kube_proxy(paths))
        group.start("kube-proxy", [bin_dir / "kube-proxy", f"--config={proxy}", f"--hostname-override={NODE}"])
        corefile = state / "Corefile"
        corefile.write_text(node_config.coredns(paths))
        group.start("coredns", [bin_dir / "coredns", "-conf", corefile])

    def _load_pause_image(self, group: ProcessGroup, bin_dir: Path) -> None:
        layout = self.state / "pause-image"
        write_pause_image(bin_dir, layout)
        store = ImageStore(bin_dir, self.paths.containerd_socket)

        def answers() -> bool:
            try:
                store.refs()
            except ClusterError:
                return False
            return True

        self._wait(group, "containerd", answers, "containerd")
        store.load(layout)

    def _get(self, path: str) -> tuple[int, Any]:
        return self.network.call(lambda: api_probe.get(NODE_ADDRESS, API_PORT, path, self.paths.pki))

    def _node_ready(self) -> bool:
        status, node = self._get(f"/api/v1/nodes/{NODE}")
        conditions = node["status"].get("conditions", []) if status == 200 else []
        return {"Ready": "True"}.items() <= {each["type"]: each["status"] for each in conditions}.items()

    def _wait(self, group: ProcessGroup, what: str, ready: Callable[[], bool], log_of: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not ready():
            for name in group.dead():
                raise group.died(name)
            if time.monotonic() > deadline:
                log = group.log_tail(log_of)
                raise ClusterError(f"{what} was not ready after {READY_SECONDS:g} s; the log of {log_of} ends:\n{log}")
            time.sleep(POLL_SECONDS)

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
