"""Command lines of the control plane's components, the same for both kinds of local cluster."""

from pathlib import Path

SERVICE_RANGE = "10.96.0.0/16"
SERVICE_ACCOUNT_ISSUER = "https://kubernetes.default.svc.cluster.local"


def etcd(bin_dir: Path, data: Path, client_port: int, peer_port: int) -> list[str | Path]:
    """A single etcd on loopback that does not wait for the disk: its data never outlives the cluster."""
    client, peer = f"http://127.0.0.1:{client_port}", f"http://127.0.0.1:{peer_port}"
    return [
        bin_dir / "etcd",
        f"--data-dir={data}",
        "--unsafe-no-fsync",
        "--log-level=warn",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
    ]


def api_server(bin_dir: Path, pki: Path, etcd_port: int, address: str, port: int) -> list[str | Path]:
    """With RBAC, node authorization, service accounts and Kubernetes' default admission plugins."""
    return [
        bin_dir / "kube-apiserver",
        f"--etcd-servers=http://127.0.0.1:{etcd_port}",
        f"--bind-address={address}",
        f"--advertise-address={address}",
        f"--secure-port={port}",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--client-ca-file={pki}/ca.crt",
        f"--service-account-issuer={SERVICE_ACCOUNT_ISSUER}",
        f"--service-account-key-file={pki}/sa.pub",
        f"--service-account-signing-key-file={pki}/sa.key",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
    ]


def controller_manager(bin_dir: Path, pki: Path, kubeconfig: Path) -> list[str | Path]:
    """All controllers, each as its own service account."""
    return [
        bin_dir / "kube-controller-manager",
        f"--kubeconfig={kubeconfig}",
        f"--root-ca-file={pki}/ca.crt",
        f"--service-account-private-key-file={pki}/sa.key",
        "--use-service-account-credentials",
        # With the default of 20 it spends five seconds on waiting for its own limiter.
        "--kube-api-qps=500",
        "--kube-api-burst=500",
        "--leader-elect=false",
        "--secure-port=0",
    ]


def scheduler(bin_dir: Path, kubeconfig: Path) -> list[str | Path]:
    return [bin_dir / "kube-scheduler", f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0"]
