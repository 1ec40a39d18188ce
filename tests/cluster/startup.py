"""How a cluster comes up: one process after the other, each waited for where the next needs it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster import api_probe, cgroups, components, dns_probe, node_config
from cluster.host import ClusterError, run
from cluster.image_store import ImageStore
from cluster.network import NODE_ADDRESS, NetworkNamespace
from cluster.node_config import DNS_ADDRESS, NODE, NodePaths
from cluster.pause_image import write_pause_image
from cluster.pki import Authority, write_kubeconfig
from cluster.processes import CLEAN_ENVIRONMENT, ProcessGroup

API_PORT, ETCD_PORTS = 6443, (2379, 2380)
READY_SECONDS = 180.0
POLL_SECONDS = 0.1
NO_PROXY = {"NO_PROXY": "*", "no_proxy": "*"}  # no proxy of the machine can be reached from inside
# Users of the components, with what Kubernetes' default roles know them as.
USERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "admin": ("admin", ("system:masters",)),
    "kube-controller-manager": ("system:kube-controller-manager", ()),
    "kube-scheduler": ("system:kube-scheduler", ()),
    "kube-proxy": ("system:kube-proxy", ()),
    "node": (f"system:node:{NODE}", ("system:nodes",)),
    "coredns": ("modelpool:coredns", ()),
}


def processes_of(paths: NodePaths, network: NetworkNamespace) -> ProcessGroup:
    """The processes of a cluster, to be started in its network and, once that is held open, among its mounts."""
    prefix = ["nsenter", f"--net={network.path}"]
    group = ProcessGroup(paths.state, prefix=prefix)
    holder = group.recorded().get("mounts")
    if holder is not None:
        group.prefix = (*prefix, f"--mount=/proc/{holder.pid}/ns/mnt", f"--root=/proc/{holder.pid}/root", "--")
    return group


class Startup:
    """One start of one cluster."""

    def __init__(self, paths: NodePaths, network: NetworkNamespace, cgroup: str, bin_dir: Path) -> None:
        self.paths = paths
        self.network = network
        self.cgroup = cgroup
        self.bin_dir = bin_dir

    def run(self) -> None:
        """Bring the cluster up from nothing; raises `ClusterError` with the end of the log that tells why it failed."""
        self.paths.state.mkdir(parents=True, mode=0o700)
        self.network.create()
        cgroups.create(self.cgroup)
        group = processes_of(self.paths, self.network)
        script = node_config.private_mounts(self.paths)
        group.start("mounts", ["unshare", "--mount", "--propagation", "unchanged", "sh", "-c", script])
        self._wait(group, "the mount namespace", (self.paths.state / "mounted").exists, "mounts")
        group = processes_of(self.paths, self.network)
        self._start_runtime(group)
        group.start("etcd", components.etcd(self.bin_dir, self.paths.state / "etcd", *ETCD_PORTS))
        self._issue_certificates()
        api_server = components.api_server(self.bin_dir, self.paths.pki, ETCD_PORTS[0], NODE_ADDRESS, API_PORT)
        kubelet_client = f"{self.paths.pki}/kubelet-client"
        api_server += [
            f"--kubelet-client-certificate={kubelet_client}.crt",
            f"--kubelet-client-key={kubelet_client}.key",
            f"--kubelet-certificate-authority={self.paths.pki}/ca.crt",
            "--kubelet-preferred-address-types=InternalIP",
        ]
        group.start("kube-apiserver", api_server)
        self._load_pause_image(group)
        self._wait(group, "the API server", lambda: self._get("/readyz")[0] == 200, "kube-apiserver")
        self._start_clients(group)
        system, account = "/api/v1/namespaces/kube-system", "/api/v1/namespaces/default/serviceaccounts/default"
        self._wait(group, "the API server", lambda: self._get(system)[0] == 200, "kube-apiserver")
        kubectl = self.network.command(self.bin_dir / "kubectl", "--kubeconfig", self.paths.kubeconfig("admin"))
        apply = [*kubectl, "apply", "--server-side", "-f", "-"]
        run(apply, env=NO_PROXY, stdin=node_config.CLUSTER_OBJECTS, timeout=60)
        corefile = self.paths.state / "Corefile"
        corefile.write_text(node_config.coredns(self.paths))
        group.start("coredns", [self.bin_dir / "coredns", "-conf", corefile])
        self._wait(group, "the node", self._node_ready, "kubelet")
        self._wait(group, "the controller-manager", lambda: self._get(account)[0] == 200, "kube-controller-manager")
        self._wait(group, "the cluster's DNS", self._names_resolve, "coredns")

    def _start_runtime(self, group: ProcessGroup) -> None:
        (self.paths.state / "cni").mkdir()
        (self.paths.state / "cni" / "10-pods.conflist").write_text(node_config.pod_network(self.paths))
        config = self.paths.state / "containerd.toml"
        config.write_text(node_config.containerd(self.paths, self.bin_dir))
        path = f"{self.bin_dir}:{CLEAN_ENVIRONMENT['PATH']}"
        group.start("containerd", [self.bin_dir / "containerd", "--config", config], {"PATH": path})

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
            write_kubeconfig(self.paths.kubeconfig(name), server, authority, pair, self.network.name)

    def _start_clients(self, group: ProcessGroup) -> None:
        """What talks to the API server from the start."""
        paths, state = self.paths, self.paths.state
        manager = components.controller_manager(self.bin_dir, paths.pki, paths.kubeconfig("kube-controller-manager"))
        nodes = [f"--cluster-cidr={node_config.POD_RANGE}", "--allocate-node-cidrs=true"]
        group.start("kube-controller-manager", [*manager, *nodes])
        group.start("kube-scheduler", components.scheduler(self.bin_dir, paths.kubeconfig("kube-scheduler")))
        kubelet = state / "kubelet.json"
        kubelet.write_text(node_config.kubelet(paths, f"/{self.cgroup}"))
        node = [f"--kubeconfig={paths.kubeconfig('node')}", f"--hostname-override={NODE}", f"--node-ip={NODE_ADDRESS}"]
        folders = [f"--root-dir={state}/kubelet", f"--cert-dir={state}/kubelet-certificates"]
        group.start("kubelet", [self.bin_dir / "kubelet", f"--config={kubelet}", *node, *folders])
        proxy = state / "kube-proxy.json"
        proxy.write_text(node_config.kube_proxy(paths))
        group.start("kube-proxy", [self.bin_dir / "kube-proxy", f"--config={proxy}", f"--hostname-override={NODE}"])

    def _load_pause_image(self, group: ProcessGroup) -> None:
        layout = self.paths.state / "pause-image"
        write_pause_image(self.bin_dir, layout)
        store = ImageStore(self.bin_dir, self.paths.containerd_socket)

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

    def _names_resolve(self) -> bool:
        """Whether a Service leads to the DNS server, as pods reach it, and the server knows the Services."""
        return self.network.call(lambda: dns_probe.resolves(DNS_ADDRESS, "kubernetes.default.svc.cluster.local"))

    def _wait(self, group: ProcessGroup, what: str, ready: Callable[[], bool], log_of: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not ready():
            for name in group.dead():
                raise group.died(name)
            if time.monotonic() > deadline:
                log = group.log_tail(log_of)
                raise ClusterError(f"{what} was not ready after {READY_SECONDS:g} s; the log of {log_of} ends:\n{log}")
            time.sleep(POLL_SECONDS)
