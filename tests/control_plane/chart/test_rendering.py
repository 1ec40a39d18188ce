"""What helm makes of the chart: safe pods, the settings the operator knows, refusals with a reason."""

from typing import Any

import pytest

from modelpool_api import pod as contract
from modelpool_operator.api import names
from modelpool_operator.settings import OperatorSettings

pytestmark = pytest.mark.control_plane

EVERYTHING = {
    "fullnameOverride": "pools",
    "commonLabels": {"team": "ml"},
    "imagePullSecrets": [{"name": "registry"}],
    "watchNamespaces": ["team-a", "team-b"],
    "operator": {
        "replicas": 2,
        "image": {"repository": "registry.example.com:5000/modelpool/operator", "digest": "sha256:" + "0" * 64},
        "logLevel": "debug",
        "logFormat": "console",
        "reconcileWorkers": 256,
        "sweepSeconds": 7.5,
        "maintenanceSeconds": 0.5,
        "statusWritesPerSecond": 1000,
        "leaseSeconds": 600,
        "podAnnotations": {"example.com/note": "yes"},
        "podLabels": {"tier": "control"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"podAntiAffinity": {}},
        "priorityClassName": "system-cluster-critical",
        "podDisruptionBudget": {"enabled": True},
    },
    "serviceAccount": {"name": "runner", "annotations": {"example.com/role": "none"}},
    "worker": {
        "image": {"repository": "registry.example.com/worker", "tag": "1.2", "pullPolicy": "Always"},
        "images": {"text-to-image": "registry.example.com/diffusion@sha256:" + "1" * 64},
        "hfEndpoint": "https://hub.example.com:8443/mirror",
        "imageUrls": {
            "hosts": ["images.example.com", "http://cdn.example.com:8080"],
            "refusedNetworks": ["10.0.0.0/8", "2001:db8::/32"],
        },
        "networkPolicy": {"enabled": True, "inferenceFrom": [{"podSelector": {"matchLabels": {"app": "web"}}}]},
    },
    "drainOnUninstall": {"timeoutSeconds": 86400},
    "networkPolicy": {"enabled": True, "from": [{"namespaceSelector": {}}]},
    "metrics": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "workerPodMonitor": {"enabled": True, "interval": "1m"},
    },
}
VALUE_SETS = {
    "defaults": {},
    "everything": EVERYTHING,
    "namespaced": {"watchNamespaces": ["team-a"]},
    "bare": {
        "crds": {"install": False},
        "rbac": {"aggregate": False},
        "drainOnUninstall": {"enabled": False},
        "operator": {"resources": {}},
    },
}
PODS = {"Deployment", "Job", "Pod"}


@pytest.fixture(params=VALUE_SETS)
def objects(request, render):
    """All objects of one set of values."""
    return render(VALUE_SETS[request.param])


def pod_of(manifest: dict[str, Any]) -> dict[str, Any]:
    spec = manifest["spec"]
    return spec if manifest["kind"] == "Pod" else spec["template"]["spec"]


def one(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [each for each in objects if each["kind"] == kind]
    return found


def environment(manifest: dict[str, Any]) -> dict[str, str]:
    """Return the environment of the only container; a field of the pod stands as its path."""
    (container,) = pod_of(manifest)["containers"]
    return {each["name"]: each.get("value") or _field(each) for each in container["env"]}


def _field(variable: dict[str, Any]) -> str:
    return variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath", "")


def test_every_pod_passes_the_restricted_profile_and_cannot_write_to_its_image(objects):
    pods = [pod_of(each) for each in objects if each["kind"] in PODS]
    assert pods
    for pod in pods:
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & pod.keys()
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] >= 10000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert all(set(volume) == {"name", "emptyDir"} for volume in pod.get("volumes", []))
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert not any("hostPort" in port for port in container.get("ports", []))


def test_only_pods_that_talk_to_the_api_server_carry_a_token(objects):
    expected = {"Deployment": True, "Job": True, "Pod": False}

    for each in objects:
        if each["kind"] in PODS:
            assert pod_of(each)["automountServiceAccountToken"] is expected[each["kind"]]
        if each["kind"] == "ServiceAccount":
            assert each["automountServiceAccountToken"] is False


def test_names_are_unique_short_and_every_namespaced_object_names_its_namespace(objects):
    cluster_wide = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}
    keys = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in objects]

    assert len(keys) == len(set(keys))
    for kind, namespace, name in keys:
        assert (namespace is None) == (kind in cluster_wide), (kind, name)
        assert len(name) <= 63


@pytest.mark.parametrize("values", VALUE_SETS.values(), ids=VALUE_SETS)
def test_the_operator_understands_every_setting_that_the_chart_makes(values, render, monkeypatch):
    variables = environment(one(render(values), "Deployment"))
    prefix = OperatorSettings.model_config["env_prefix"]
    known = {f"{prefix}{name}".upper() for name in OperatorSettings.model_fields}

    assert variables.keys() == known
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    OperatorSettings()


def test_values_reach_the_operators_settings(render, monkeypatch):
    objects = render(EVERYTHING)
    for name, value in environment(one(objects, "Deployment")).items():
        monkeypatch.setenv(name, value)
    settings = OperatorSettings()

    assert settings.namespace == "metadata.namespace"
    assert settings.pod_name == "metadata.name"
    assert settings.lease_name == "pools-operator"
    assert settings.watch_namespaces == ("team-a", "team-b")
    assert settings.worker_image == "registry.example.com/worker:1.2"
    assert settings.worker_images == {"text-to-image": "registry.example.com/diffusion@sha256:" + "1" * 64}
    assert settings.worker_image_pull_policy == "Always"
    assert settings.hf_endpoint == "https://hub.example.com:8443/mirror"
    assert settings.image_url_hosts == "images.example.com,http://cdn.example.com:8080"
    assert settings.image_url_refused_networks == "10.0.0.0/8,2001:db8::/32"
    assert (settings.reconcile_workers, settings.status_writes_per_second) == (256, 1000)
    assert (settings.sweep_seconds, settings.maintenance_seconds, settings.lease_seconds) == (7.5, 0.5, 600)
    assert (settings.log_level, settings.log_format) == ("debug", "console")


def test_defaults_are_the_operators_own(render, monkeypatch):
    """The chart repeats the defaults of the settings so that users see them; the two do not drift apart."""
    for name, value in environment(one(render(), "Deployment")).items():
        monkeypatch.setenv(name, value)
    given_by_the_chart = {"namespace", "pod_name", "worker_image"}

    for name, field in OperatorSettings.model_fields.items():
        if name not in given_by_the_chart:
            assert getattr(OperatorSettings(), name) == field.get_default(call_default_factory=True), name


def test_a_digest_wins_over_the_tag_and_the_tag_over_the_charts_version(render):
    def image(**values: str) -> str:
        deployment = one(render({"operator": {"image": {"repository": "r.example.com/op", **values}}}), "Deployment")
        return pod_of(deployment)["containers"][0]["image"]

    assert image() == "r.example.com/op:0.1.0"
    assert image(tag="x") == "r.example.com/op:x"
    assert image(tag="x", digest="sha256:" + "a" * 64) == "r.example.com/op@sha256:" + "a" * 64


def test_probes_and_service_meet_the_ports_that_the_operator_opens(render):
    objects = render()
    (container,) = pod_of(one(objects, "Deployment"))["containers"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    settings = OperatorSettings.model_fields

    assert ports == {"metrics": settings["metrics_port"].default, "probes": settings["probe_port"].default}
    assert {each["name"]: each["port"] for each in one(objects, "Service")["spec"]["ports"]} == ports
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/healthz", "port": "probes"}


def test_service_and_budget_select_the_operators_pods_and_no_others(render):
    objects = render(EVERYTHING)
    labels = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    selector = one(objects, "Service")["spec"]["selector"]

    assert selector.items() <= labels.items()
    assert one(objects, "Deployment")["spec"]["selector"]["matchLabels"] == selector
    assert one(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == selector
    others = [one(objects, "Job")["spec"]["template"], one(objects, "Pod")]
    assert not any(selector.items() <= each["metadata"]["labels"].items() for each in others)


def test_several_operators_are_spread_over_nodes_unless_their_affinity_is_given(render):
    def affinity(**operator: Any) -> Any:
        return pod_of(one(render({"operator": operator}), "Deployment")).get("affinity")

    labels = one(render(), "Deployment")["spec"]["template"]["metadata"]["labels"]
    ((term,),) = affinity(replicas=2)["podAntiAffinity"].values()
    assert term["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"
    assert term["podAffinityTerm"]["labelSelector"]["matchLabels"].items() <= labels.items()
    assert affinity(replicas=1) is None
    assert affinity(replicas=2, affinity={"nodeAffinity": {}}) == {"nodeAffinity": {}}


def test_the_drain_runs_before_an_uninstall_with_an_account_of_its_own(render):
    objects = render({"drainOnUninstall": {"timeoutSeconds": 100}})
    hooks = [each for each in objects if each["metadata"].get("annotations", {}).get("helm.sh/hook") == "pre-delete"]
    job = one(hooks, "Job")

    assert {each["kind"] for each in hooks} == {"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Job"}
    assert pod_of(job)["containers"][0]["args"] == ["drain", "--timeout", "100"]
    assert pod_of(job)["serviceAccountName"] == one(hooks, "ServiceAccount")["metadata"]["name"]
    assert pod_of(job)["serviceAccountName"] != pod_of(one(objects, "Deployment"))["serviceAccountName"]
    assert job["spec"]["activeDeadlineSeconds"] > 100
    weight = {each["kind"]: int(each["metadata"]["annotations"]["helm.sh/hook-weight"]) for each in hooks}
    assert all(weight[kind] < weight["Job"] for kind in weight if kind != "Job")


def test_worker_policy_closes_the_lifecycle_port_to_all_but_the_operator(render):
    values = {"worker": {"networkPolicy": {"enabled": True, "namespaces": ["team-a"]}}}
    objects = render(values, namespace="ops")
    policy = one(objects, "NetworkPolicy")
    pod_labels = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    by_port = {rule["ports"][0]["port"]: rule.get("from") for rule in policy["spec"]["ingress"]}

    assert policy["metadata"]["namespace"] == "team-a"
    assert policy["spec"]["podSelector"]["matchExpressions"] == [{"key": names.LABEL_WORKER, "operator": "Exists"}]
    assert by_port.keys() == {contract.INFERENCE_PORT, contract.LIFECYCLE_PORT}
    assert by_port[contract.INFERENCE_PORT] is None
    (peer,) = by_port[contract.LIFECYCLE_PORT]
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "ops"}
    assert peer["podSelector"]["matchLabels"].items() <= pod_labels.items()


REFUSALS = {
    "unknown key": ({"operater": {}}, "additional properties 'operater' not allowed"),
    "unknown key inside": ({"operator": {"image": {"registry": "x"}}}, "additional properties 'registry' not allowed"),
    "replicas as text": ({"operator": {"replicas": "two"}}, "got string, want integer"),
    "too many replicas": ({"operator": {"replicas": 6}}, "maximum: got 6, want 5"),
    "log level": ({"operator": {"logLevel": "loud"}}, "value must be one of 'debug', 'info', 'warning', 'error'"),
    "tag in the repository": ({"operator": {"image": {"repository": "a/b:1"}}}, "does not match pattern"),
    "short digest": ({"worker": {"image": {"digest": "sha256:12"}}}, "does not match pattern"),
    "capability": ({"worker": {"images": {"text-to-speech": "a/b"}}}, "value must be one of 'text-embedding'"),
    "endpoint": ({"worker": {"hfEndpoint": "hub.example.com"}}, "does not match pattern"),
    "image host": ({"worker": {"imageUrls": {"hosts": ["*.example.com"]}}}, "does not match pattern"),
    "image host with a comma": ({"worker": {"imageUrls": {"hosts": ["a.example,b"]}}}, "does not match pattern"),
    "refused network": ({"worker": {"imageUrls": {"refusedNetworks": ["10.0.0.0"]}}}, "does not match pattern"),
    "namespace": ({"watchNamespaces": ["Team_A"]}, "does not match pattern"),
    "namespace twice": ({"watchNamespaces": ["a", "a"]}, "items at 0 and 1 are equal"),
    "the chart's own label": ({"commonLabels": {"app.kubernetes.io/name": "x"}}, "invalid propertyName"),
    "policy without namespaces": (
        {"worker": {"networkPolicy": {"enabled": True}}},
        "expected worker.networkPolicy.namespaces or watchNamespaces with at least one name, for example",
    ),
    "budget for one": (
        {"operator": {"podDisruptionBudget": {"enabled": True}}},
        "expected operator.replicas of at least 2, for example --set operator.replicas=2, got 1",
    ),
}


@pytest.mark.parametrize(("values", "sentence"), REFUSALS.values(), ids=REFUSALS)
def test_wrong_values_are_refused_with_what_was_expected(values, sentence, run_helm, chart):
    done = run_helm("template", "modelpool", str(chart), values=values)

    assert done.returncode != 0
    assert sentence in done.stderr


def test_helm_lint_finds_nothing(run_helm, chart):
    done = run_helm("lint", "--strict", str(chart))

    assert done.returncode == 0, done.stdout
    assert "[WARNING]" not in done.stdout
