"""A real control plane on loopback: etcd, API server, controller-manager, scheduler; no root, ready in seconds."""

import http.client
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from cluster import api_probe, binaries
from cluster.components import api_server, controller_manager, etcd, scheduler
from cluster.host import ClusterError, free_ports
from cluster.pki import Authority, Pair, write_kubeconfig
from cluster.processes import ProcessGroup

ADDRESS = "127.0.0.1"
COMPONENTS = ("kube-controller-manager", "kube-scheduler")
READY_SECONDS = 60.0
POLL_SECONDS = 0.05
START_TRIES = 3
PORTS = ("etcd", "etcd-peer", "api", "kwok")
STOP_ORDER = ("kwok", "kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd")
AUDIT_POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
"""


class ControlPlane:
    """An API server for tests that need no containers; RBAC, service accounts and Pod Security are in force.

    ``state_dir`` belongs to it: what a killed run left there is ended and removed by `start`, all of
    it is removed by `stop`. The processes end with the thread that called `start`, so call it from the
    main thread. With ``audit`` every request is a line in `audit_log` (level Metadata). With ``kwok`` nodes labelled
    ``type: kwok`` and their pods are played by kwok; make such nodes with `kwok_node`. ``admission`` names plugins of
    the API server that are not on by default.
    """

    def __init__(
        self, state_dir: Path, *, audit: bool = False, kwok: bool = False, admission: Sequence[str] = ()
    ) -> None:
        self.state_dir = state_dir.resolve()
        self.audit = audit
        self.kwok = kwok
        self.admission = tuple(admission)
        self.processes = ProcessGroup(self.state_dir, die_with_parent=True)
        self._ports: dict[str, int] = {}
        self._authority = Authority(self.state_dir / "pki")

    @property
    def url(self) -> str:
        return f"https://{ADDRESS}:{self._port('api')}"

    @property
    def ca(self) -> Path:
        return self._authority.certificate

    @property
    def kubeconfig(self) -> Path:
        """The administrator's (group ``system:masters``)."""
        return self.state_dir / "admin.kubeconfig"

    @property
    def audit_log(self) -> Path:
        """JSON lines, one per request; only written with ``audit``."""
        return self.state_dir / "audit.log"

    def client_kubeconfig(self, user: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig that authenticates as that user by client certificate; what it may do is up to RBAC."""
        count = len(list(self.state_dir.glob("client-*.kubeconfig")))
        pair = self._authority.issue(f"client-{count}", user, groups)
        return self._kubeconfig(f"client-{count}", pair)

    def start(self) -> Self:
        """Bring it up from nothing, whatever a killed run left. Raises `ClusterError` when it does not become ready."""
        bin_dir = binaries.ensure(["kube", "kwok"] if self.kwok else ["kube"])
        for attempt in range(1, START_TRIES + 1):
            self.stop()
            self.state_dir.mkdir(parents=True, mode=0o700)
            try:
                self._start(bin_dir)
            except ClusterError as error:
                self.processes.stop_all()
                # Between choosing a free port and listening on it somebody else may take it.
                if attempt == START_TRIES or "address already in use" not in str(error):
                    raise
            except BaseException:
                self.processes.stop_all()
                raise
            else:
                return self
        raise AssertionError("the loop above returns or raises")

    def stop(self) -> None:
        """End everything and remove ``state_dir``; of a control plane that does not run: its leftovers, if any."""
        # All of its data goes with it, so nothing is gained by asking first.
        self.processes.stop_all(STOP_ORDER)
        shutil.rmtree(self.state_dir, ignore_errors=True)

    def restart_api_server(self, down_seconds: float = 0.0) -> None:
        """Kill the API server and start it again on the same port and data: watches break, nothing is lost."""
        self.processes.stop("kube-apiserver")
        time.sleep(down_seconds)
        self._start_api_server(binaries.ensure(["kube"]))
        self._wait("the API server", self._api_ready)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _port(self, name: str) -> int:
        if name not in self._ports:
            raise ClusterError("the control plane has not been started; call start() first")
        return self._ports[name]

    def _start(self, bin_dir: Path) -> None:
        self._ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.processes.start(
            "etcd", etcd(bin_dir, self.state_dir / "etcd", self._port("etcd"), self._port("etcd-peer"))
        )
        self._authority = Authority.create(self.state_dir / "pki")
        self._authority.service_account_keys()
        names = ["DNS:localhost", "DNS:kubernetes.default.svc", "IP:127.0.0.1"]
        self._authority.issue("apiserver", "kube-apiserver", addresses=names)
        self._kubeconfig("admin", self._authority.issue("admin", "admin", ["system:masters"]))
        for component in COMPONENTS:
            self._kubeconfig(component, self._authority.issue(component, f"system:{component}"))
        self._start_api_server(bin_dir)
        self._wait("the API server", self._api_ready)
        manager, planner = (self.state_dir / f"{name}.kubeconfig" for name in COMPONENTS)
        command = controller_manager(bin_dir, self._authority.folder, manager)
        if self.kwok:
            # a machine so busy that kwok's heartbeats are late loses no node by it: unlike a kubelet's, the pods of a
            # node that has come back would not become ready again
            command.append("--node-monitor-grace-period=10m")
        self.processes.start(COMPONENTS[0], command)
        self.processes.start(COMPONENTS[1], scheduler(bin_dir, planner))
        if self.kwok:
            self._start_kwok(bin_dir)
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        self._wait("the controller-manager", lambda: self._get(account) == http.client.OK)

    def _start_api_server(self, bin_dir: Path) -> None:
        command = api_server(bin_dir, self._authority.folder, self._port("etcd"), ADDRESS, self._port("api"))
        # The kubernetes Service cannot have a loopback address as its endpoint.
        command.append("--endpoint-reconciler-type=none")
        command += [f"--enable-admission-plugins={plugin}" for plugin in self.admission]
        if self.audit:
            policy = self.state_dir / "audit-policy.yaml"
            policy.write_text(AUDIT_POLICY)
            command += [f"--audit-policy-file={policy}", f"--audit-log-path={self.audit_log}", "--audit-log-mode=batch"]
            # one file for a whole session: what is asked of it may be long ago
            command.append("--audit-log-maxsize=4096")
        # a heap of some hundred MiB is cheap, collecting it all the time on two CPUs is not
        self.processes.start("kube-apiserver", command, env={"GOGC": "400"})

    def _start_kwok(self, bin_dir: Path) -> None:
        stages = Path(__file__).parent / "kwok-stages.yaml"
        self.processes.start(
            "kwok",
            [
                bin_dir / "kwok",
                f"--kubeconfig={self.kubeconfig}",
                f"--config={stages}",
                "--manage-nodes-with-label-selector=type=kwok",
                f"--server-address=127.0.0.1:{self._port('kwok')}",
                "--node-ip=127.0.0.1",
            ],
        )

    def _kubeconfig(self, name: str, client: Pair) -> Path:
        path = self.state_dir / f"{name}.kubeconfig"
        return write_kubeconfig(path, self.url, self._authority, client, "modelpool-control-plane")

    def _api_ready(self) -> bool:
        return self._get("/readyz") == http.client.OK

    def _get(self, path: str) -> int:
        return api_probe.get(ADDRESS, self._port("api"), path, self._authority.folder)[0]

    def _wait(self, what: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not ready():
            for name in self.processes.dead():
                raise self.processes.died(name)
            if time.monotonic() > deadline:
                log = self.processes.log_tail("kube-apiserver")
                raise ClusterError(f"{what} was not ready after {READY_SECONDS:g} s; the API server's log ends:\n{log}")
            time.sleep(POLL_SECONDS)


def kwok_node(name: str, number: int, **extended: str) -> dict[str, object]:
    """The manifest of a node that kwok plays; its pods get the addresses 127.(100 + number).0.1 and up.

    These are loopback: a stand-in worker that listens there answers for the pod, and nothing that the
    operator sends leaves the machine. ``extended`` adds to its capacity: ``**{"nvidia.com/gpu": "4"}``.
    """
    capacity = {"cpu": "64", "memory": "256Gi", "pods": "250", **extended}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"type": "kwok", "kubernetes.io/hostname": name}},
        "spec": {"podCIDR": f"127.{100 + number}.0.0/24"},
        "status": {"capacity": capacity, "allocatable": capacity},
    }
