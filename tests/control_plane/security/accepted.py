"""What checkov and kube-score say of the chart that stays as it is, each with its reason."""

from dataclasses import dataclass

OPERATOR, DRAIN, HELM_TEST = "Deployment/modelpool-operator", "Job/modelpool-drain", "Pod/modelpool-test"
OPERATORS_POD, DRAINS_POD = "Pod/modelpool-operator", "Pod/modelpool-drain"
GATEWAY = "Deployment/modelpool-gateway"
WORKER_POLICY = "NetworkPolicy/modelpool-workers"

#: One team's installation with everything on that a value can harden.
HARDENED = {
    "watchNamespaces": ["team-a"],
    "operator": {
        "replicas": 2,
        "image": {
            "repository": "registry.example.com/modelpool/operator",
            "digest": "sha256:" + "0" * 64,
            "pullPolicy": "Always",
        },
        "podDisruptionBudget": {"enabled": True},
    },
    "networkPolicy": {"enabled": True},
    "worker": {"networkPolicy": {"enabled": True}},
}
GATEWAYS = {
    **HARDENED,
    "gateway": {
        "namespaces": ["team-a"],
        "podDisruptionBudget": {"enabled": True},
        "networkPolicy": {"enabled": True},
    },
}
#: The chart's values of each manifest but the plain one.
VALUES: dict[str, dict[str, object]] = {"defaults": {}, "hardened": HARDENED, "gateways": GATEWAYS}
#: What each manifest has for the checkers to look at.
OBJECTS = {
    "defaults": {OPERATOR, OPERATORS_POD, DRAIN, DRAINS_POD, HELM_TEST},
    "plain": {OPERATOR, OPERATORS_POD},
    "hardened": {OPERATOR, OPERATORS_POD, DRAIN, DRAINS_POD, HELM_TEST, WORKER_POLICY},
    "gateways": {OPERATOR, OPERATORS_POD, DRAIN, DRAINS_POD, HELM_TEST, WORKER_POLICY, GATEWAY},
}
ALL = tuple(OBJECTS)
NOT_HARDENED = ("defaults", "plain")
HARDENED_ONES = ("hardened", "gateways")


@dataclass(frozen=True)
class Accepted:
    """A finding that is right in itself, and why it stays: in these manifests, of these objects."""

    check: str
    objects: tuple[str, ...]
    manifests: tuple[str, ...]
    reason: str

    def __post_init__(self) -> None:
        assert len(self.reason.split()) > 5, f"{self.check}: a reason is a sentence"


CPU = "a CPU limit throttles whoever answers; a request is set, and memory and disk are limited"
IMAGE = "names a release and never a moving tag; operator.image.digest pins it, operator.image.pullPolicy is a value"
PULL = "a release's tag does not move, and the registry must not be needed to restart the operator"
DISK = "the disk is limited; requested is none, for a node that does not count its disk would never take the pod"
TOKEN = "it talks to the API server by that token, which nothing else mounts; its rights are named verb by verb"
ENDS = "it runs once and ends within seconds: helm waits for its end, nothing is sent to it"
OPEN = "whoever runs it opens two ports and no other; networkPolicy.enabled closes the rest where the network obeys it"
NO_PORT = "it listens on no port, and what it may reach is the API server or the operator, wherever those are"

CHECKOV = (
    Accepted("CKV_K8S_11", (OPERATOR, GATEWAY, DRAIN, HELM_TEST), ALL, CPU),
    Accepted("CKV_K8S_15", (OPERATOR, DRAIN, HELM_TEST), NOT_HARDENED, PULL),
    Accepted("CKV_K8S_43", (OPERATOR, DRAIN, HELM_TEST), NOT_HARDENED, IMAGE),
    Accepted("CKV_K8S_38", (OPERATOR, GATEWAY, DRAIN), ALL, TOKEN),
    Accepted("CKV_K8S_8", (HELM_TEST,), ALL, ENDS),
    Accepted("CKV_K8S_9", (HELM_TEST,), ALL, ENDS),
    Accepted("CKV2_K8S_6", (OPERATORS_POD,), NOT_HARDENED, OPEN),
    Accepted("CKV2_K8S_6", (DRAINS_POD, HELM_TEST), ("defaults",), NO_PORT),
)
KUBE_SCORE = (
    Accepted("container-ephemeral-storage-request-and-limit", (OPERATOR, GATEWAY, DRAIN, HELM_TEST), ALL, DISK),
    Accepted("container-resources", (OPERATOR, GATEWAY, DRAIN, HELM_TEST), ALL, CPU),
    Accepted("container-image-pull-policy", (OPERATOR, DRAIN, HELM_TEST), NOT_HARDENED, PULL),
    Accepted("pod-networkpolicy", (OPERATOR,), NOT_HARDENED, OPEN),
    Accepted(
        "pod-networkpolicy",
        (OPERATOR, GATEWAY),
        HARDENED_ONES,
        "egress stays open: where the API server and the workers' pods are is the cluster's to know, not the chart's",
    ),
    Accepted("pod-networkpolicy", (DRAIN, HELM_TEST), ALL, NO_PORT),
    Accepted(
        "networkpolicy-targets-pod",
        (WORKER_POLICY,),
        HARDENED_ONES,
        "the pods it selects are the workers', which the operator makes and no chart",
    ),
    Accepted(
        "pod-probes-identical",
        (OPERATOR,),
        ALL,
        "one question has one answer: does it work; no traffic depends on readiness, liveness waits for three misses",
    ),
    Accepted(
        "deployment-strategy",
        (OPERATOR,),
        ALL,
        "Recreate: the old version is gone before the new one leads, and workers serve on without an operator",
    ),
    Accepted(
        "deployment-replicas",
        (OPERATOR,),
        NOT_HARDENED,
        "workers serve on without an operator, and a restart loses nothing; operator.replicas adds standbys",
    ),
)


def expected(accepted: tuple[Accepted, ...], manifest: str) -> set[tuple[str, str]]:
    """The findings that one manifest may have, and must: one that is not found any more has no place in the list."""
    return {
        (each.check, name)
        for each in accepted
        if manifest in each.manifests
        for name in each.objects
        if name in OBJECTS[manifest]
    }
