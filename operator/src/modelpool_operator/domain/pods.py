"""The pod, the Service and the token Secret of a worker, as objects to create.

Only the fields of ``spec.template`` reach the pod from its user, one by one; everything else is ours. The pod passes
the ``restricted`` Pod Security Standard.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from modelpool_api import Capability, pod
from modelpool_operator.api import names
from modelpool_operator.api.modelworker import WorkerTemplate
from modelpool_operator.domain.objects import PoolView, WorkerView
from modelpool_operator.domain.rules import rules_for

Json = dict[str, Any]

#: Seconds that a stuck process has before the kubelet restarts it.
_LIVENESS_SECONDS: Final = 60
_UID: Final = 10001
_SOURCE_MOUNT: Final = f"{pod.MODEL_MOUNT}/source"


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """Which image serves a capability, how workers reach a model hub, and from where they fetch clients' pictures."""

    default: str
    by_capability: Mapping[Capability, str]
    pull_policy: str
    hf_endpoint: str = ""
    url_hosts: str = ""
    url_refused_networks: str = ""


def template_problem(worker: WorkerView, pool: PoolView) -> str | None:
    """Return what of the worker's template its pool does not allow, as a sentence; None where all is well."""
    template = worker.spec.template
    if template is None:
        return None
    wanted = template.priority_class_name
    if wanted and wanted not in pool.spec.priority_classes:
        allowed = ", ".join(pool.spec.priority_classes) or "none"
        return f"template.priorityClassName {wanted} is not allowed by pool {pool.name}; allowed: {allowed}"
    for toleration in template.tolerations:
        if toleration not in pool.spec.tolerations:
            return f"template.tolerations: the pool {pool.name} does not tolerate {toleration.key or 'every taint'}"
    for label, value in template.node_selector.items():
        if pool.spec.node_selector.get(label, value) != value:
            return f"template.nodeSelector: the pool {pool.name} fixes {label} to {pool.spec.node_selector[label]}"
    return None


def build_pod(worker: WorkerView, pool: PoolView, images: ImageSettings) -> Json:
    """Return the pod of a worker, gated until its reservation is in the ledger."""
    template = worker.spec.template or WorkerTemplate()
    rules = rules_for(worker.spec, pool.spec)
    volumes, mounts = _volumes(worker, pool)
    spec: Json = {
        "schedulingGates": [{"name": names.QUOTA_GATE}],
        "restartPolicy": "OnFailure",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": rules.drain_timeout + 10,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _UID,
            "runAsGroup": _UID,
            "fsGroup": _UID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "nodeSelector": {**template.node_selector, **pool.spec.node_selector},
        "tolerations": [toleration.to_api() for toleration in pool.spec.tolerations],
        "imagePullSecrets": [secret.to_api() for secret in template.image_pull_secrets],
        "volumes": volumes,
        "containers": [
            {
                "name": names.WORKER_CONTAINER,
                "image": images.by_capability.get(worker.spec.model.capability, images.default),
                "imagePullPolicy": images.pull_policy,
                "env": _environment(worker, template, rules.idle_timeout, rules.drain_timeout, images),
                "ports": [
                    {"name": "inference", "containerPort": pod.INFERENCE_PORT},
                    {"name": "lifecycle", "containerPort": pod.LIFECYCLE_PORT},
                ],
                "resources": _resources(worker, pool, template),
                "startupProbe": _probe("/healthz", period=2, failures=int(rules.load_deadline / 2) + 300),
                "readinessProbe": _probe("/readyz", period=2, failures=3),
                "livenessProbe": _probe("/healthz", period=10, failures=_LIVENESS_SECONDS // 10),
                "terminationMessagePath": pod.TERMINATION_FILE,
                "terminationMessagePolicy": "File",
                "volumeMounts": mounts,
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
    }
    if pool.spec.runtime_class_name:
        spec["runtimeClassName"] = pool.spec.runtime_class_name
    if template.priority_class_name:
        spec["priorityClassName"] = template.priority_class_name
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": worker.pod_name,
            "namespace": worker.namespace,
            "labels": {**template.labels, **_labels(worker)},
            "annotations": dict(template.annotations),
            "ownerReferences": [_owner(worker)],
        },
        "spec": spec,
    }


def build_service(worker: WorkerView) -> Json:
    """Return the Service that makes ``http://WORKER.NAMESPACE:8080`` work."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": worker.name,
            "namespace": worker.namespace,
            "labels": _labels(worker),
            "ownerReferences": [_owner(worker)],
        },
        "spec": {
            "selector": {names.LABEL_WORKER_UID: worker.uid},
            "ports": [{"name": "inference", "port": pod.INFERENCE_PORT, "targetPort": "inference"}],
        },
    }


def token_secret_name(pool: str) -> str:
    """Return the name of the Secret with the token that a pool's lifecycle ports ask for."""
    return f"modelpool-{pool}-token"


def build_token_secret(pool: PoolView, token: str) -> Json:
    """Return the Secret with a pool's lifecycle token."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {
            "name": token_secret_name(pool.name),
            "namespace": pool.namespace,
            "labels": {names.LABEL_MANAGED_BY: names.MANAGED_BY, names.LABEL_POOL: pool.name},
            "ownerReferences": [
                {"apiVersion": names.API_VERSION, "kind": names.MODEL_POOL, "name": pool.name, "uid": pool.uid}
            ],
        },
        "stringData": {pod.TOKEN_FILE: token},
    }


def _environment(
    worker: WorkerView, template: WorkerTemplate, idle_timeout: float, drain_timeout: int, images: ImageSettings
) -> list[Json]:
    model = worker.spec.model
    ours = {
        pod.ENV_WORKER_ID: worker.uid,
        pod.ENV_MODEL_NAME: model.name,
        pod.ENV_CAPABILITY: str(model.capability),
        pod.ENV_MODEL_SOURCE: model.source,
        pod.ENV_MODEL_REVISION: model.revision or "",
        pod.ENV_MODEL_PATH: _model_path(model.source),
        pod.ENV_DTYPE: model.dtype,
        pod.ENV_GPUS: str(worker.spec.gpus),
        pod.ENV_IDLE_TIMEOUT_SECONDS: f"{idle_timeout:g}",
        pod.ENV_DRAIN_TIMEOUT_SECONDS: str(drain_timeout),
        # also where they are empty: what a worker may connect to is not its template's to decide
        pod.ENV_IMAGE_URL_HOSTS: images.url_hosts,
        pod.ENV_IMAGE_URL_REFUSED_NETWORKS: images.url_refused_networks,
    }
    if images.hf_endpoint:
        ours["HF_ENDPOINT"] = images.hf_endpoint
    # the user's come first: where a name is given twice the last one counts, and ours always count
    env: list[Json] = [{"name": variable.name, "value": variable.value} for variable in template.env]
    env += [{"name": name, "value": value} for name, value in ours.items()]
    if model.token_secret_ref is not None:
        reference = {"name": model.token_secret_ref.name, "key": model.token_secret_ref.key}
        env.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": reference}})
    return env


def _resources(worker: WorkerView, pool: PoolView, template: WorkerTemplate) -> Json:
    requests: dict[str, str] = {}
    limits: dict[str, str] = {}
    if worker.spec.gpus == 0:
        requests["memory"] = limits["memory"] = f"{worker.need.memory_mib}Mi"
    if template.resources is not None:
        requests |= template.resources.requests
        limits |= template.resources.limits
        if "memory" in template.resources.limits and "memory" not in template.resources.requests:
            requests["memory"] = limits["memory"]
    if worker.spec.gpus > 0:
        requests[pool.spec.gpu_resource_name] = limits[pool.spec.gpu_resource_name] = str(worker.spec.gpus)
    return {"requests": requests, "limits": limits}


def _volumes(worker: WorkerView, pool: PoolView) -> tuple[list[Json], list[Json]]:
    claim = worker.spec.model.cache_claim
    volumes: list[Json] = [
        {"name": "token", "secret": {"secretName": token_secret_name(pool.name), "defaultMode": 0o440}},
        {"name": "cache", **({"persistentVolumeClaim": {"claimName": claim}} if claim else {"emptyDir": {}})},
        {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
    ]
    mounts: list[Json] = [
        {"name": "token", "mountPath": pod.TOKEN_DIR, "readOnly": True},
        {"name": "cache", "mountPath": pod.CACHE_DIR},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own emptyDir
    ]
    scheme, _, rest = worker.spec.model.source.partition("://")
    source: Json | None = None
    if scheme == "pvc":
        source = {"persistentVolumeClaim": {"claimName": rest.partition("/")[0], "readOnly": True}}
    elif scheme == "oci":
        source = {"image": {"reference": rest, "pullPolicy": "IfNotPresent"}}
    if source is not None:
        volumes.append({"name": "model", **source})
        mounts.append({"name": "model", "mountPath": _SOURCE_MOUNT, "readOnly": True})
    return volumes, mounts


def _model_path(source: str) -> str:
    """Return where the model's folder is mounted: ``pvc://claim/a/b`` → …/a/b; "" for what the worker finds itself."""
    scheme, _, rest = source.partition("://")
    if scheme == "pvc":
        inside = rest.partition("/")[2].strip("/")
        return f"{_SOURCE_MOUNT}/{inside}" if inside else _SOURCE_MOUNT
    return _SOURCE_MOUNT if scheme == "oci" else ""


def _probe(path: str, *, period: int, failures: int) -> Json:
    return {
        "httpGet": {"path": path, "port": "inference"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _labels(worker: WorkerView) -> dict[str, str]:
    return {
        names.LABEL_NAME: "modelpool-worker",
        names.LABEL_INSTANCE: worker.name,
        names.LABEL_MANAGED_BY: names.MANAGED_BY,
        names.LABEL_WORKER: worker.name,
        names.LABEL_WORKER_UID: worker.uid,
        names.LABEL_POOL: worker.spec.pool,
        names.LABEL_CAPABILITY: str(worker.spec.model.capability),
        **({names.LABEL_MODEL: worker.model.name} if worker.model else {}),
    }


def _owner(worker: WorkerView) -> Json:
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.MODEL_WORKER,
        "name": worker.name,
        "uid": worker.uid,
        # the owner's finalizer waits for the pod already: no blockOwnerDeletion, which some clusters want a right for
        "controller": True,
    }
