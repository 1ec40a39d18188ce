"""Configuration files of the one node: container runtime, pod network, kubelet, kube-proxy, cluster DNS."""

import json
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from cluster.network import NODE_ADDRESS

NODE = "node1"
POD_RANGE = "10.244.0.0/24"
DNS_ADDRESS = "10.96.0.10"
PAUSE_IMAGE = "localhost/modelpool/pause:1"
# What a kubelet sets on the machine it owns. Ours does not own it: it finds files with these contents instead.
KERNEL_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
CLUSTER_OBJECTS = f"""
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: "modelpool:coredns"}}
rules:
- {{apiGroups: [""], resources: [services, namespaces], verbs: [list, watch]}}
- {{apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: "modelpool:coredns"}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "modelpool:coredns"}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: "modelpool:coredns"}}]
---
apiVersion: v1
kind: Service
metadata: {{name: kube-dns, namespace: kube-system, labels: {{k8s-app: kube-dns}}}}
spec:
  clusterIP: {DNS_ADDRESS}
  ports:
  - {{name: dns, port: 53, protocol: UDP}}
  - {{name: dns-tcp, port: 53, protocol: TCP}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: kube-dns-node, namespace: kube-system, labels: {{kubernetes.io/service-name: kube-dns}}}}
addressType: IPv4
endpoints: [{{addresses: [{NODE_ADDRESS}], conditions: {{ready: true}}}}]
ports:
- {{name: dns, port: 53, protocol: UDP}}
- {{name: dns-tcp, port: 53, protocol: TCP}}
"""


@dataclass(frozen=True)
class NodePaths:
    """Where one cluster keeps its things, all of them below its state folder."""

    state: Path

    @property
    def pki(self) -> Path:
        return self.state / "pki"

    @property
    def containerd_socket(self) -> Path:
        return self.state / "containerd.sock"

    def kubeconfig(self, user: str) -> Path:
        return self.state / f"{user}.kubeconfig"


def containerd(paths: NodePaths, bin_dir: Path) -> str:
    state = paths.state
    return f"""
version = 3
root = "{state}/containerd"
state = "{state}/containerd-state"
[grpc]
  address = "{paths.containerd_socket}"
[plugins.'io.containerd.internal.v1.opt']
  path = "{state}/containerd-opt"
[plugins.'io.containerd.nri.v1.nri']
  disable = true
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{PAUSE_IMAGE}"
[plugins.'io.containerd.cri.v1.runtime']
  # Without CAP_SYS_RESOURCE, as in many containers, nothing may lower its own OOM score.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/usr/lib/cni", "/opt/cni/bin"]
    conf_dir = "{state}/cni"
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        SystemdCgroup = false
        BinaryName = "{bin_dir}/runc"
"""


def pod_network(paths: NodePaths) -> str:
    """Routed pairs of interfaces: on a bridge, answers from pod to pod would pass by the Service's translation."""
    addresses = {
        "type": "host-local",
        "dataDir": f"{paths.state}/cni-addresses",
        "ranges": [[{"subnet": POD_RANGE}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    plugins = [{"type": "ptp", "ipMasq": False, "ipam": addresses}]
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": plugins})


def kubelet(paths: NodePaths, cgroup: str) -> str:
    return json.dumps(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": f"unix://{paths.containerd_socket}",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": f"{paths.pki}/ca.crt"},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": f"{paths.pki}/kubelet.crt",
            "tlsPrivateKeyFile": f"{paths.pki}/kubelet.key",
            "clusterDNS": [DNS_ADDRESS],
            "clusterDomain": "cluster.local",
            "resolvConf": "",
            "volumePluginDir": f"{paths.state}/volume-plugins",
            "podLogsDir": f"{paths.state}/pod-logs",
            # The machine may be a container itself, with cgroup v1, swap and limits of its own.
            "failCgroupV1": False,
            "failSwapOn": False,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": cgroup,
            "cgroupsPerQOS": True,  # without it the kubelet ignores cgroupRoot
            "enforceNodeAllocatable": [],
            "localStorageCapacityIsolation": False,
            "oomScoreAdj": 0,
            # Images come from no registry: one that is removed for room cannot be pulled again.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "shutdownGracePeriod": "0s",
        },
        indent=1,
    )


def kube_proxy(paths: NodePaths) -> str:
    return json.dumps(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clientConnection": {"kubeconfig": str(paths.kubeconfig("kube-proxy"))},
            "clusterCIDR": POD_RANGE,
            "oomScoreAdj": 0,
            "conntrack": {"maxPerCore": 0},  # the limit is the machine's, not the namespace's
            "nftables": {"minSyncPeriod": "0.1s"},
        },
        indent=1,
    )


def coredns(paths: NodePaths) -> str:
    """Names of Services and pods; every other name is refused at once, as there is no world to ask."""
    return f"""
.:53 {{
    bind {NODE_ADDRESS}
    errors
    health 127.0.0.1:8180
    ready 127.0.0.1:8181
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {paths.kubeconfig("coredns")}
        ttl 1
    }}
}}
"""


def private_mounts(paths: NodePaths) -> str:
    """The shell script that makes the cluster's own mount namespace what its processes expect, then holds it open.

    Folders that Kubernetes and its network plugins write to under fixed names are the cluster's own in
    there, so two clusters and the machine do not meet, and all mounts end with the last process.
    """
    state, private = paths.state, paths.state / "private"
    lines = [
        "set -e",
        "umount -R -l /run/netns 2>/dev/null || true",
        "mount -t tmpfs -o mode=755 tmpfs /run",
        # /var/lib/kubelet, /var/lib/cni: in memory, with the state folder where it was.
        f"mkdir -p /run/state && mount --bind {state} /run/state",
        "mount -t tmpfs -o mode=755 tmpfs /var/lib",
        f"mkdir -p {state} && mount --bind /run/state {state} && umount /run/state",
        f"mkdir -p {private}/log && mount --bind {private}/log /var/log",
    ]
    for name, value in KERNEL_SETTINGS.items():
        file = f"{private}/proc/sys/{name}"
        lines += [f"mkdir -p $(dirname {file})", f"echo {value} > {file}", f"mount --bind {file} /proc/sys/{name}"]
    lines += ["mount --make-rshared /", f"touch {state}/mounted", "exec sleep infinity"]
    script = "\n".join(lines)
    # In a chroot the root is no mount, which kubelet and runc need it to be: there it is bound to a folder and entered.
    root = state / "root"
    bound = f"mkdir -p {root} && mount --rbind / {root} && mount --make-rprivate {root}"
    return (
        f"mount --make-rprivate / 2>/dev/null || {{ {bound} && exec chroot {root} sh -c {quote(script)}; }}\n{script}"
    )
