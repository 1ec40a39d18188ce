"""Certificates and kubeconfigs of a local cluster, made with the openssl command."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.host import ClusterError, run

DAYS = "3650"
EXTENSIONS = """
[req]
distinguished_name = subject
prompt = no
[subject]
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, as PEM files."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    """A certificate authority of its own per cluster, in ``folder`` (private keys are readable by the owner only)."""

    folder: Path

    @property
    def certificate(self) -> Path:
        return self.folder / "ca.crt"

    @classmethod
    def create(cls, folder: Path) -> "Authority":
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        authority = cls(folder)
        authority._openssl(
            [*_new_key(folder / "ca.key"), "-subj", "/CN=modelpool local cluster", "-extensions", "authority"],
            EXTENSIONS,
            folder / "ca.crt",
        )
        return authority

    def issue(self, name: str, user: str, groups: Sequence[str] = (), addresses: Sequence[str] = ()) -> Pair:
        """A pair for a client (``user`` and ``groups`` as Kubernetes sees them) or a server.

        ``addresses`` are openssl's: ``DNS:localhost``, ``IP:127.0.0.1``. EC keys: RSA ones take longer to
        make than all the rest of a start.
        """
        pair = Pair(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        subject = "".join(f"/O={_escape(group)}" for group in groups) + f"/CN={_escape(user)}"
        names = f"subjectAltName = {', '.join(addresses)}\n" if addresses else ""
        signed_by: list[str | Path] = ["-CA", self.certificate, "-CAkey", self.folder / "ca.key"]
        command: list[str | Path] = [*_new_key(pair.key), *signed_by, "-subj", subject, "-extensions", "leaf"]
        self._openssl(command, EXTENSIONS + names, pair.certificate)
        return pair

    def service_account_keys(self) -> tuple[Path, Path]:
        """The key pair that signs service account tokens: (private, public)."""
        private, public = self.folder / "sa.key", self.folder / "sa.pub"
        run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private])
        private.chmod(0o600)
        run(["openssl", "ec", "-in", private, "-pubout", "-out", public])
        return private, public

    def _openssl(self, arguments: Sequence[str | Path], config: str, certificate: Path) -> None:
        file = certificate.with_suffix(".cnf")
        file.write_text(config)
        run(["openssl", "req", "-x509", "-config", file, "-days", DAYS, "-out", certificate, *arguments])
        file.unlink()


def _new_key(key: Path) -> list[str | Path]:
    return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key]


def _escape(text: str) -> str:
    if not text or not text.isprintable():
        raise ClusterError(f"a user or group name must be printable text, for example 'alice', not {text!r}")
    return text.replace("\\", "\\\\").replace("/", "\\/").replace("+", "\\+")


def write_kubeconfig(path: Path, server: str, authority: Authority, client: Pair, context: str) -> Path:
    """A kubeconfig that carries its certificates in itself, so that it may be copied; JSON is YAML."""

    def encoded(file: Path) -> str:
        return base64.b64encode(file.read_bytes()).decode()

    user = {"client-certificate-data": encoded(client.certificate), "client-key-data": encoded(client.key)}
    cluster = {"server": server, "certificate-authority-data": encoded(authority.certificate)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": context, "cluster": cluster}],
        "users": [{"name": context, "user": user}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
        "current-context": context,
    }
    path.touch(mode=0o600)
    path.write_text(json.dumps(config, indent=1))
    return path
