"""The whole pod that comes out of a ModelWorker without a template, written down by hand.

A field more or less, or another value, is a failing test: an attack is found by what it changed, whatever that is.
"""

from typing import Any

Manifest = dict[str, Any]

CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "runAsGroup": 10001,
    "fsGroup": 10001,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
#: What the API server gives to every pod.
EVICTED_FROM_LOST_NODES = [
    {"key": f"node.kubernetes.io/{taint}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    for taint in ("not-ready", "unreachable")
]
IMAGE = "modelpool-worker:dev"
#: The pool's; no node has it, so that nothing runs.
NODE_SELECTOR = {"example.com/of": "mine"}


def labels(worker: Manifest) -> Manifest:
    return {
        "app.kubernetes.io/name": "modelpool-worker",
        "app.kubernetes.io/instance": worker["metadata"]["name"],
        "app.kubernetes.io/managed-by": "modelpool-operator",
        "modelpool.dev/worker": worker["metadata"]["name"],
        "modelpool.dev/worker-uid": worker["metadata"]["uid"],
        "modelpool.dev/pool": "default",
        "modelpool.dev/capability": "text-embedding",
    }


def metadata(worker: Manifest) -> Manifest:
    """All of its metadata but what the API server alone writes."""
    name, uid = worker["metadata"]["name"], worker["metadata"]["uid"]
    owner = {"apiVersion": "modelpool.dev/v1alpha1", "kind": "ModelWorker", "name": name, "uid": uid}
    return {
        "name": f"{name}-{uid[:5]}",
        "namespace": worker["metadata"]["namespace"],
        "labels": labels(worker),
        "ownerReferences": [{**owner, "controller": True}],
    }


def environment(worker: Manifest) -> list[Manifest]:
    """Every variable, in order: where a name stood twice, the last one would count."""
    return [
        {"name": "MODELPOOL_WORKER_ID", "value": worker["metadata"]["uid"]},
        {"name": "MODELPOOL_MODEL_NAME", "value": "all-minilm-l6-v2"},
        {"name": "MODELPOOL_CAPABILITY", "value": "text-embedding"},
        {"name": "MODELPOOL_MODEL_SOURCE", "value": worker["spec"]["model"]["source"]},
        {"name": "MODELPOOL_MODEL_REVISION"},
        {"name": "MODELPOOL_MODEL_PATH"},
        {"name": "MODELPOOL_DTYPE", "value": "auto"},
        {"name": "MODELPOOL_GPUS", "value": "0"},
        {"name": "MODELPOOL_IDLE_TIMEOUT_SECONDS", "value": "300"},
        {"name": "MODELPOOL_DRAIN_TIMEOUT_SECONDS", "value": "60"},
        {"name": "MODELPOOL_IMAGE_URL_HOSTS"},
        {"name": "MODELPOOL_IMAGE_URL_REFUSED_NETWORKS"},
    ]


def probe(path: str, period: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": "inference", "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "successThreshold": 1,
        "failureThreshold": failures,
    }


def spec(worker: Manifest) -> Manifest:
    """The pod's spec, defaults of the API server included,, once its scheduling gate is lifted."""
    memory = worker["spec"]["memory"]
    return {
        "restartPolicy": "OnFailure",
        "terminationGracePeriodSeconds": 70,
        "dnsPolicy": "ClusterFirst",
        "serviceAccountName": "default",
        "serviceAccount": "default",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": POD_SECURITY,
        "schedulerName": "default-scheduler",
        "priority": 0,
        "preemptionPolicy": "PreemptLowerPriority",
        "nodeSelector": NODE_SELECTOR,
        "tolerations": EVICTED_FROM_LOST_NODES,
        "volumes": [
            {"name": "token", "secret": {"secretName": "modelpool-default-token", "defaultMode": 0o440}},
            {"name": "cache", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
        ],
        "containers": [
            {
                "name": "worker",
                "image": IMAGE,
                "imagePullPolicy": "IfNotPresent",
                "env": environment(worker),
                "ports": [
                    {"name": "inference", "containerPort": 8080, "protocol": "TCP"},
                    {"name": "lifecycle", "containerPort": 8081, "protocol": "TCP"},
                ],
                "resources": {"requests": {"memory": memory}, "limits": {"memory": memory}},
                "startupProbe": probe("/healthz", 2, 1200),
                "readinessProbe": probe("/readyz", 2, 3),
                "livenessProbe": probe("/healthz", 10, 6),
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "volumeMounts": [
                    {"name": "token", "mountPath": "/var/run/modelpool/token", "readOnly": True},
                    {"name": "cache", "mountPath": "/var/cache/modelpool"},
                    {"name": "tmp", "mountPath": "/tmp"},
                ],
                "securityContext": CONTAINER_SECURITY,
            }
        ],
    }
