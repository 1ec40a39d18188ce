"""Rules in CEL for what users write into specs: names, sources, environment, labels, quantities, tolerations."""

from typing import Final

from modelpool_operator.api.cel import Rule, listed, quoted
from modelpool_operator.api.quantity import MEMORY_PATTERN

#: Room for what is derived from a name, such as a Service or a pod.
MAX_NAME_CHARS: Final = 57
#: A Model's workers are called by its name and a number of up to ten digits.
MAX_MODEL_CHARS: Final = MAX_NAME_CHARS - 11
_LABEL: Final = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
_SUBDOMAIN: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_REVISION: Final = r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}"
_PATH: Final = r"(/[A-Za-z0-9._+=-]+)+"

#: Forms of ``spec.model.source``. None has room for "..", a query, a fragment, a user or a blank.
_SOURCES: Final = (
    rf"hf://[A-Za-z0-9][A-Za-z0-9._-]{{0,95}}/[A-Za-z0-9][A-Za-z0-9._-]{{0,95}}(@{_REVISION})?",
    rf"pvc://{_SUBDOMAIN}({_PATH})?/?",
    rf"file://{_PATH}/?",
    r"oci://[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+(([.]|_{1,2}|-+)[a-z0-9]+)*)*"
    r"(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[a-f0-9]{64})?",
)

#: Beginnings of variables that change how a process loads code or where it connects, compared without case.
DENIED_ENV_PREFIXES: Final = (
    # the dynamic linker and the C library
    *("LD_", "DYLD_", "GLIBC_", "MALLOC_", "GCONV_PATH", "LOCPATH", "NLSPATH", "TZDIR", "RES_OPTIONS", "LOCALDOMAIN"),
    *("HOSTALIASES", "RESOLV_", "TMPDIR", "TMP$", "TEMP$", "TEMPDIR", "NSS_"),
    # shell and search paths
    *("PATH$", "HOME$", "ENV$", "BASH", "SHELL", "IFS$", "XDG_", "USER$", "LOGNAME$"),
    # interpreters and their packages
    *("PYTHON", "_PYTHON", "__PY", "PIP_", "UV_", "VIRTUAL_ENV", "CONDA", "NODE_", "NPM_", "PERL", "RUBY", "JAVA_"),
    *("GIT_", "SETUPTOOLS", "DISTUTILS", "COVERAGE_", "PYDANTIC_", "LOKY_", "JOBLIB_", "NETWORKX_", "FSSPEC"),
    # model libraries: hubs, caches, plug-ins, compilers
    *("HF_", "HUGGING", "TRANSFORMERS_", "DIFFUSERS_", "ACCELERATE_", "SAFETENSORS_", "SENTENCE_TRANSFORMERS_"),
    *("TORCH", "PYTORCH_KERNEL", "PYTORCH_JIT", "PYTORCH_NVCC", "TRITON_", "XLA_", "INTEL_", "OMP_TOOL", "NUMBA_"),
    *("NUMEXPR_", "TRUST_REMOTE_CODE", "USE_HUB", "KERNELS_", "LOCAL_KERNELS", "AOT", "INDUCTOR_", "HALIDE_"),
    *("KINETO_", "CC$", "CXX$", "WANDB_", "MLFLOW_", "OTEL_"),
    # accelerators: which ones the process sees, and libraries that their drivers load
    *("CUDA", "CUDNN_", "CUPTI", "NVIDIA_", "NVTX_", "NVTOOLSEXT", "NVSHMEM_", "NCCL_", "ROC", "HIP", "HSA_", "AMD_"),
    *("MIOPEN_", "TENSILE_", "ZE_", "ZES_", "UR_", "SYCL_", "ONEAPI_", "LEVEL_ZERO", "OCL_", "OPENCL", "VK_", "TPU_"),
    *("LIBTPU", "PJRT_", "NEURON_", "HABANA", "GC_KERNEL", "ASCEND_"),
    # transport, fabrics, clouds
    *("SSL", "OPENSSL", "REQUESTS_", "CURL_", "HTTPX_", "AIOHTTP_", "GRPC_", "NETRC", "WEBSOCKET", "FORWARDED_", "FI_"),
    *("UCX_", "OMPI_", "PMIX_", "OPAL_", "MPI", "I_MPI_", "MASTER_", "AWS_", "AZURE_", "GOOGLE_"),
    # ours and the cluster's
    *("MODELPOOL_", "KUBE", "UVICORN_"),
)
#: Parts of names that say so wherever they stand.
_DENIED_ENV_PARTS: Final = (".*_PROXY$", ".*PRELOAD", ".*_INJECTION")
_DENIED_ENV: Final = "(?i)^(" + "|".join((*DENIED_ENV_PREFIXES, *_DENIED_ENV_PARTS)) + ")"
_RESERVED_DOMAINS: Final = ("kubernetes.io", "k8s.io", "modelpool.dev")
#: Domains whose labels and annotations are orders to runtimes, networks, meshes and clouds: who may set them has a
#: pod author's rights, such as another namespace's network or a cloud identity.
_OBEYED_DOMAINS: Final = (
    *("katacontainers.io", "containerd.io", "crio.io", "gvisor.dev", "openshift.io"),
    *("cncf.io", "multus-cni.io", "projectcalico.org", "cilium.io", "ovn.org", "antrea.io"),
    *("istio.io", "linkerd.io", "kuma.io", "dapr.io", "hashicorp.com", "spiffe.io"),
    *("amazonaws.com", "azure.com", "azure.workload.identity", "gke.io", "googleapis.com", "gke-gcsfuse"),
)
_RESOURCES: Final = ("cpu", "memory", "ephemeral-storage")


def _matches(pattern: str, message: str) -> Rule:
    return Rule(f"self.matches({quoted(pattern)})", message)


def object_name(most: int = MAX_NAME_CHARS) -> Rule:
    """Return the rule for the name of an object of ours, of at most so many characters."""
    return Rule(
        f"self.metadata.name.size() <= {most} && self.metadata.name.matches({quoted(_LABEL)})",
        f"the name must be at most {most} characters: lower case letters, digits and -, beginning with a "
        "letter and not ending with -, for example minilm",
    )


def pool_reference() -> Rule:
    """Return the rule for ``spec.pool``."""
    return Rule(
        f"self.size() <= {MAX_NAME_CHARS} && self.matches({quoted(_LABEL)})",
        "pool must be the name of a ModelPool in the same namespace, for example default",
    )


def replicas() -> Rule:
    """Return the rule between the numbers of workers of a Model."""
    least, most = "(has(self.minReplicas) ? self.minReplicas : 0)", "(has(self.maxReplicas) ? self.maxReplicas : 1)"
    return Rule(
        f"{least} <= {most}",
        "minReplicas must not be more than maxReplicas, for example minReplicas: 1 and maxReplicas: 4",
    )


def memory(limit: str) -> list[Rule]:
    """Return the rules for an amount of memory up to ``limit``, a quantity."""
    syntax = f"self.matches({quoted(MEMORY_PATTERN)})"
    return [
        Rule(syntax, "memory must be a number with a suffix Ki, Mi, Gi, Ti, Pi, k, M, G, T or P, for example 8Gi"),
        Rule(f"!{syntax} || quantity(self).isGreaterThan(quantity('0'))", "memory must be more than 0"),
        Rule(f"!{syntax} || !quantity(self).isGreaterThan(quantity('{limit}'))", f"memory must be at most {limit}"),
    ]


def model_name() -> Rule:
    """Return the rule for ``spec.model.name``."""
    return _matches(
        r"^[A-Za-z0-9]([A-Za-z0-9._/:-]*[A-Za-z0-9])?$",
        "model.name must be letters, digits and . _ / : -, beginning and ending with a letter or digit, for example "
        "all-minilm-l6-v2",
    )


def source() -> Rule:
    """Return the rule for ``spec.model.source``."""
    return Rule(
        rf"self.matches({quoted('^(' + '|'.join(_SOURCES) + ')$')}) && !self.contains('..')",
        "model.source must be hf://org/name or hf://org/name@revision, pvc://claim/path, file:///path or "
        "oci://registry/image:tag, without .. and blanks",
    )


def model() -> list[Rule]:
    """Return the rules between the fields of ``spec.model``."""
    return [
        Rule(
            "!has(self.revision) || (self.source.startsWith('hf://') && !self.source.contains('@'))",
            "model.revision goes with an hf:// source that names no revision itself",
        ),
        Rule(
            "!has(self.tokenSecretRef) || self.source.startsWith('hf://')",
            "model.tokenSecretRef goes with an hf:// source only",
        ),
        Rule(
            "!has(self.cacheClaim) || self.source.startsWith('hf://')",
            "model.cacheClaim goes with an hf:// source only; a pvc:// source names its claim itself",
        ),
    ]


def revision() -> Rule:
    """Return the rule for ``spec.model.revision``."""
    return Rule(
        f"self.matches({quoted('^' + _REVISION + '$')}) && !self.contains('..')",
        "model.revision must be a commit, tag or branch, for example main",
    )


def env_name() -> list[Rule]:
    """Return the rules for the name of an environment variable."""
    return [
        _matches(
            "^[A-Za-z_][A-Za-z0-9_]*$",
            "the name of an environment variable must be letters, digits and _ and not begin with a digit, for example "
            "OMP_NUM_THREADS",
        ),
        Rule(
            f"!self.matches({quoted(_DENIED_ENV)})",
            "this environment variable is reserved: it can change how the process loads code or where it connects",
        ),
    ]


def label_keys(what: str) -> list[Rule]:
    """Return the rules for the keys of labels or annotations that a user may give a pod."""

    def within(domains: tuple[str, ...]) -> str:
        listed_here = "|".join(domain.replace(".", r"\.") for domain in domains)
        return quoted(f"^([^/]*[.])?({listed_here})/")

    return [
        Rule(
            "self.all(key, !format.qualifiedName().validate(key).hasValue())",
            f"each key of {what} must be a name, optionally with a domain before a slash, for example example.com/team",
        ),
        Rule(
            f"self.all(key, !key.matches({within(_RESERVED_DOMAINS)}))",
            f"keys of {what} may not lie in {', '.join(_RESERVED_DOMAINS)} or domains below them: those are reserved",
        ),
        Rule(
            f"self.all(key, !key.matches({within(_OBEYED_DOMAINS)}))",
            f"keys of {what} may not lie in a domain that container runtimes, networks, meshes or clouds take orders "
            "from, such as k8s.v1.cni.cncf.io or iam.amazonaws.com",
        ),
        Rule(
            "self.all(key, key.contains('/') || !key.contains('.'))",
            f"a key of {what} that has no domain may have no dot: container runtimes take orders from such, as from "
            "io.katacontainers.config; for example example.com/team",
        ),
    ]


def label_values(what: str) -> Rule:
    """Return the rule for the values of labels."""
    return Rule(
        "self.all(key, !format.labelValue().validate(self[key]).hasValue())",
        f"each value of {what} must be letters, digits and - _ . and begin and end with a letter or digit, for example "
        "blue",
    )


def node_selector() -> list[Rule]:
    """Return the rules for a node selector; nodes do have labels in reserved domains."""
    return [label_keys("nodeSelector")[0], label_values("nodeSelector")]


def subdomain(what: str, example: str) -> Rule:
    """Return the rule for the name of another object."""
    return _matches(
        f"^{_SUBDOMAIN}$",
        f"{what} must be lower case letters, digits, - and ., as names of objects are, for example {example}",
    )


def priority_class(what: str) -> list[Rule]:
    """Return the rules for the name of a PriorityClass: those of the cluster's own parts evict anybody's pods."""
    return [
        subdomain(what, "batch"),
        Rule("!self.startsWith('system-')", f"{what} may not begin with system-: those classes are the cluster's own"),
    ]


def secret_key() -> Rule:
    """Return the rule for a key in a Secret."""
    return _matches("^[-._A-Za-z0-9]+$", "key must be letters, digits and - _ ., for example HF_TOKEN")


def gpu_resource() -> Rule:
    """Return the rule for ``spec.gpuResourceName``."""
    return Rule(
        "self.matches(r'^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$') && "
        "!self.matches(r'^([^/]*[.])?kubernetes\\.io/')",
        "gpuResourceName must be an extended resource: a domain, a slash and a name, for example nvidia.com/gpu",
    )


def toleration() -> list[Rule]:
    """Return the rules of one toleration, those that hold for a pod's."""
    exists = "(has(self.operator) && self.operator == 'Exists')"
    has_key = "(has(self.key) && self.key != '')"
    return [
        Rule(f"{has_key} || {exists}", "a toleration without key must have operator Exists"),
        Rule(f"!{exists} || !has(self.value) || self.value == ''", "a toleration with operator Exists has no value"),
        Rule(
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "tolerationSeconds goes with effect NoExecute only",
        ),
        Rule(
            f"!{has_key} || !format.qualifiedName().validate(self.key).hasValue()",
            "the key of a toleration must be that of a taint, for example nvidia.com/gpu",
        ),
        Rule(
            "!has(self.value) || !format.labelValue().validate(self.value).hasValue()",
            "the value of a toleration must be that of a taint: letters, digits and - _ ., for example present",
        ),
    ]


def resource_amounts() -> list[Rule]:
    """Return the rules for requests or limits of the container."""
    return [
        Rule(
            f"self.all(name, name in {listed(_RESOURCES)})",
            f"resources may name {', '.join(_RESOURCES)}; accelerators are asked for by spec.gpus",
        ),
        Rule(
            "self.all(name, isQuantity(string(self[name])) && "
            "quantity(string(self[name])).isGreaterThan(quantity('0')))",
            "each amount must be a quantity of more than 0, for example 500m or 2Gi",
        ),
    ]


def requests_within_limits() -> Rule:
    """Return the rule between requests and limits."""
    amount = "isQuantity(string(self.{0}[name]))"
    return Rule(
        "!has(self.requests) || !has(self.limits) || self.requests.all(name, !(name in self.limits) || "
        f"!{amount.format('requests')} || !{amount.format('limits')} || "
        "!quantity(string(self.requests[name])).isGreaterThan(quantity(string(self.limits[name]))))",
        "a request may not be more than the limit of the same resource",
    )


def requests_within_memory() -> Rule:
    """Return the rule between the container's memory request and ``spec.memory``, its limit where nothing else is."""
    asked = "self.template.resources.requests['memory']"
    return Rule(
        "(has(self.gpus) && self.gpus > 0) || !has(self.template) || !has(self.template.resources) || "
        "!has(self.template.resources.requests) || !('memory' in self.template.resources.requests) || "
        "(has(self.template.resources.limits) && 'memory' in self.template.resources.limits) || "
        f"!isQuantity(string({asked})) || !isQuantity(self.memory) || "
        f"!quantity(string({asked})).isGreaterThan(quantity(self.memory))",
        "template.resources.requests.memory may not be more than memory, which is the container's limit where gpus is "
        "0 and template.resources.limits.memory is not set",
    )
