"""ModelWorkers and ModelPools that ask for more than their author may have, and what must become of each."""

from typing import Any

from control_plane.crds.resources import env, model, pool, template, worker

Manifest = dict[str, Any]
Attacks = dict[str, tuple[Manifest, str]]

_RESERVED_ENV = "this environment variable is reserved"
_RESERVED_KEY = "may not lie in kubernetes.io, k8s.io, modelpool.dev"
_OBEYED_KEY = "may not lie in a domain that container runtimes, networks, meshes or clouds take orders from"
_SOURCE = "model.source must be hf://org/name"
_SECRET = "the name of a Secret must be lower case letters"
_NAME = "the name must be at most 57 characters"


def _of_env(*names: str) -> Attacks:
    return {f"env {name}": (worker(**env(name)), _RESERVED_ENV) for name in names}


def _of_sources(*sources: str) -> Attacks:
    return {f"source {source}": (worker(**model(source=source)), _SOURCE) for source in sources}


def _of_keys(sentence: str, *keys: str) -> Attacks:
    return {
        f"{kind} {key}": (worker(**template(**{kind: {key: "x"}})), sentence)
        for kind in ("labels", "annotations")
        for key in keys
    }


def _hub(**fields: Any) -> Manifest:
    return worker(**model(source="hf://org/name", **fields))


#: The API server refuses these, with a sentence.
REFUSED_WORKERS: Attacks = {
    # code that the dynamic linker, the interpreter, a library or a driver would load
    **_of_env("LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH", "GLIBC_TUNABLES", "GCONV_PATH"),
    **_of_env("PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "_PYTHON_SYSCONFIGDATA_NAME", "LOKY_PICKLER", "PATH"),
    **_of_env("OMP_TOOL_LIBRARIES", "INTEL_LIBITTNOTIFY64", "NVTX_INJECTION64_PATH", "CUDA_INJECTION64_PATH"),
    **_of_env("OCL_ICD_FILENAMES", "FI_PROVIDER_PATH", "OMPI_MCA_component_path", "ROCBLAS_TENSILE_LIBPATH"),
    **_of_env("MIOPEN_USER_DB_PATH", "USE_HUB_KERNELS", "LOCAL_KERNELS", "TRUST_REMOTE_CODE", "KINETO_CONFIG"),
    # where it connects, and as whom
    **_of_env("HF_ENDPOINT", "HF_TOKEN", "TRANSFORMERS_OFFLINE", "http_proxy", "HTTPS_PROXY", "all_proxy"),
    **_of_env("SSL_CERT_FILE", "SSLKEYLOGFILE", "FSSPEC_CONFIG_DIR", "KUBECONFIG", "HOSTALIASES", "AWS_ROLE_ARN"),
    # what the operator tells the worker
    **_of_env("MODELPOOL_MODEL_SOURCE", "MODELPOOL_IMAGE_URL_HOSTS", "modelpool_worker_id", "TMPDIR"),
    # another's pool, Secret, volume
    "pool of another namespace": (worker(pool="kube-system/default"), "pool must be the name of a ModelPool"),
    "pool by its address": (worker(pool="default.kube-system"), "pool must be the name of a ModelPool"),
    "token of another namespace": (_hub(tokenSecretRef={"name": "kube-system/admin"}), _SECRET),
    "token by a path": (_hub(tokenSecretRef={"name": "../admin"}), _SECRET),
    "key by a path": (_hub(tokenSecretRef={"name": "a", "key": "../../token"}), "key must be letters, digits"),
    "pull secret of another namespace": (worker(**template(imagePullSecrets=[{"name": "a/b"}])), _SECRET),
    "cache of another namespace": (_hub(cacheClaim="kube-system/data"), "model.cacheClaim must be lower case"),
    "cache by a path": (_hub(cacheClaim="../data"), "model.cacheClaim must be lower case"),
    "revision by a path": (_hub(revision="../../secrets"), "model.revision must be a commit"),
    # files of the node, of another volume, from elsewhere
    **_of_sources("file:///models/../etc/shadow", "file://node/etc", "FILE:///etc", "hostPath:///etc", "/etc"),
    **_of_sources("pvc://claim/../other", "pvc://kube-system/../claim", "pvc://claim/%2e%2e/x", "pvc:///etc"),
    **_of_sources("hf://org/../name", "hf://org/name@../x", "hf://user:pw@host/name", "https://example.com/model"),
    **_of_sources("s3://bucket/model", "oci://user:pw@registry/x", "oci://registry/../x", "oci://registry/x:t --rm"),
    **_of_sources("oci://registry/x@sha256:12", "oci://registry/x?y", "oci:///etc", "oci://registry/x\n- name: y"),
    # nodes, devices, priority
    "priority of the cluster": (
        worker(**template(priorityClassName="system-cluster-critical")),
        "priorityClassName may not begin with system-",
    ),
    "a device": (worker(**template(resources={"limits": {"example.com/kvm": "1"}})), "accelerators are asked for by"),
    "huge pages": (worker(**template(resources={"limits": {"hugepages-2Mi": "2Mi"}})), "resources may name cpu"),
    # orders to controllers and runtimes
    **_of_keys(_RESERVED_KEY, "container.apparmor.security.beta.kubernetes.io/worker", "cdi.k8s.io/all"),
    **_of_keys(_RESERVED_KEY, "seccomp.security.alpha.kubernetes.io/pod", "app.kubernetes.io/managed-by"),
    **_of_keys(_RESERVED_KEY, "modelpool.dev/worker-uid", "modelpool.dev/pool", "modelpool.dev/gate-lifted"),
    **_of_keys(_OBEYED_KEY, "k8s.v1.cni.cncf.io/networks", "iam.amazonaws.com/role", "sidecar.istio.io/inject"),
    **_of_keys(_OBEYED_KEY, "vault.hashicorp.com/agent-inject", "azure.workload.identity/use"),
    **_of_keys("that has no domain may have no dot", "io.katacontainers.config.hypervisor.path", "cpu-quota.crio.io"),
    **_of_keys("that has no domain may have no dot", "io.kubernetes.cri-o.Devices", "run.oci.keep_original_groups"),
    # names of other things
    "name of a host": (worker("kube-dns.kube-system"), _NAME),
    "name that leaves no room": (worker("w" * 58), _NAME),
    "name with a digit first": (worker("127-0-0-1"), _NAME),
    "name with a slash": (worker("a/status"), "a lowercase RFC 1123 subdomain"),
}

REFUSED_POOLS: Attacks = {
    "node priority": (pool(priorityClasses=["system-node-critical"]), "may not begin with system-"),
    "cluster priority": (pool(priorityClasses=["batch", "system-cluster-critical"]), "may not begin with system-"),
    "native resource": (pool(gpuResourceName="kubernetes.io/batch-cpu"), "gpuResourceName must be an extended"),
    "huge pages": (pool(gpuResourceName="hugepages-2Mi"), "gpuResourceName must be an extended"),
    "runtime by a path": (pool(runtimeClassName="../kata"), "runtimeClassName must be lower case"),
    "selector that is none": (pool(nodeSelector={"a b": "x"}), "each key of nodeSelector"),
    "negative": (pool(memory="-1Gi"), "memory must be a number"),
    "name of a path": (pool("default.other"), _NAME),
}

#: What no template has room for: refused where unknown fields are, as by kubectl, and dropped where they are not.
UNKNOWN: dict[str, Any] = {
    "serviceAccountName": "admin",
    "serviceAccount": "admin",
    "automountServiceAccountToken": True,
    "nodeName": "played-node",
    "schedulerName": "mine",
    "affinity": {"nodeAffinity": {}},
    "hostNetwork": True,
    "hostPID": True,
    "hostIPC": True,
    "hostUsers": True,
    "shareProcessNamespace": True,
    "hostAliases": [{"ip": "127.0.0.1", "hostnames": ["huggingface.co"]}],
    "dnsPolicy": "None",
    "dnsConfig": {"nameservers": ["203.0.113.1"]},
    "securityContext": {"privileged": True, "runAsUser": 0},
    "runtimeClassName": "kata",
    "volumes": [{"name": "host", "hostPath": {"path": "/"}}],
    "volumeMounts": [{"name": "host", "mountPath": "/host"}],
    "initContainers": [{"name": "x", "image": "x"}],
    "containers": [{"name": "worker", "image": "x"}],
    "image": "registry.example.com/mine",
    "command": ["/bin/sh"],
    "args": ["-c", "id"],
    "envFrom": [{"secretRef": {"name": "private"}}],
    "lifecycle": {"postStart": {"exec": {"command": ["id"]}}},
    "resourceClaims": [{"name": "all"}],
    "schedulingGates": [],
    "terminationGracePeriodSeconds": 0,
    "priority": 2000000000,
    "ownerReferences": [],
    "finalizers": ["example.com/mine"],
    "name": "kube-apiserver",
    "namespace": "kube-system",
}
