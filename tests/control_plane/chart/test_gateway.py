"""The gateways that helm makes of the chart: one Deployment a namespace, with rights for demand Leases alone."""

from typing import Any

import pytest

from control_plane.chart.test_rbac import rights
from control_plane.chart.test_rendering import environment, pod_of
from modelpool_gateway.settings import GatewaySettings
from modelpool_operator.domain.pods import token_secret_name

pytestmark = pytest.mark.control_plane

TWO = {"gateway": {"namespaces": ["team-a", "team-b"]}}
EVERYTHING = {
    "fullnameOverride": "pools",
    "commonLabels": {"team": "ml"},
    "imagePullSecrets": [{"name": "registry"}],
    "operator": {"image": {"repository": "registry.example.com/operator", "tag": "1.2", "pullPolicy": "Always"}},
    "worker": {"inference": {"closed": True}},
    "gateway": {
        "namespaces": ["team-a"],
        "replicas": 3,
        "holdSeconds": 7.5,
        "maxHeldPerModel": 10,
        "maxHeld": 20,
        "maxBodyBytes": 268435456,
        "workerInFlight": 1,
        "apiKeys": {"secret": "keys"},
        "pools": ["default", "large"],
        "logLevel": "debug",
        "logFormat": "console",
        "drainSeconds": 600,
        "podAnnotations": {"example.com/note": "yes"},
        "podLabels": {"tier": "edge"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}],
        "priorityClassName": "high",
        "podDisruptionBudget": {"enabled": True},
        "networkPolicy": {"enabled": True, "from": [{"podSelector": {}}]},
    },
}
GATEWAY = {
    ("modelpool.dev", "modelworkers"): {"list", "watch"},
    ("modelpool.dev", "models"): {"list", "watch"},
    ("coordination.k8s.io", "leases"): {"create", "patch"},
}


def of_gateways(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The chart's objects that belong to gateways, by their name."""
    return [each for each in objects if each["metadata"]["name"].partition("-gateway")[1]]


def kinds(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [each for each in of_gateways(objects) if each["kind"] == kind]


def test_without_namespaces_there_is_no_gateway(render):
    assert of_gateways(render()) == []


def test_each_namespace_gets_its_own_and_nothing_elsewhere(render):
    objects = of_gateways(render(TWO))
    for namespace in ("team-a", "team-b"):
        here = sorted(each["kind"] for each in objects if each["metadata"].get("namespace") == namespace)
        assert here == ["Deployment", "Role", "RoleBinding", "Service", "ServiceAccount"]
    everywhere = sorted(each["kind"] for each in objects if "namespace" not in each["metadata"])
    assert everywhere == ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"]
    assert {each["metadata"]["name"] for each in kinds(render(TWO), "Service")} == {"modelpool-gateway"}


@pytest.mark.parametrize("values", [TWO, EVERYTHING], ids=["defaults", "everything"])
def test_its_pods_pass_the_restricted_profile(render, values):
    for deployment in kinds(render(values), "Deployment"):
        pod = pod_of(deployment)
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert {*pod["volumes"][0]} == {"name", "emptyDir"}
        assert all({*volume} <= {"name", "emptyDir", "secret", "projected"} for volume in pod["volumes"])
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert all(mount.get("readOnly") for mount in container["volumeMounts"] if mount["name"] != "tmp")


@pytest.mark.parametrize("values", [TWO, EVERYTHING], ids=["defaults", "everything"])
def test_it_understands_every_setting_that_the_chart_makes(render, monkeypatch, values):
    prefix = GatewaySettings.model_config["env_prefix"]
    known = {f"{prefix}{name}".upper() for name in GatewaySettings.model_fields}
    variables = environment(kinds(render(values), "Deployment")[0])
    assert variables.keys() <= known
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    GatewaySettings()


def test_values_reach_its_settings(render, monkeypatch):
    (deployment,) = kinds(render(EVERYTHING), "Deployment")
    for name, value in environment(deployment).items():
        monkeypatch.setenv(name, value)
    settings = GatewaySettings()
    assert (settings.namespace, settings.pod_name) == ("metadata.namespace", "metadata.name")
    assert (settings.hold_seconds, settings.max_held_per_model, settings.max_held) == (7.5, 10, 20)
    assert (settings.max_body_bytes, settings.worker_in_flight, settings.drain_seconds) == (268435456, 1, 600)
    assert (settings.log_level, settings.log_format) == ("debug", "console")
    mounts = {mount["name"]: mount["mountPath"] for mount in pod_of(deployment)["containers"][0]["volumeMounts"]}
    assert (mounts["keys"], mounts["tokens"]) == (settings.keys_folder, settings.tokens_folder)
    assert pod_of(deployment)["containers"][0]["image"] == "registry.example.com/operator:1.2"
    assert pod_of(deployment)["terminationGracePeriodSeconds"] > settings.drain_seconds


def test_defaults_are_its_own(render, monkeypatch):
    for name, value in environment(kinds(render(TWO), "Deployment")[0]).items():
        monkeypatch.setenv(name, value)
    for name, field in GatewaySettings.model_fields.items():
        if name not in {"namespace", "pod_name"}:
            assert getattr(GatewaySettings(), name) == field.get_default(), name


def test_the_tokens_it_gets_are_those_of_the_pools_named_and_may_be_missing_yet(render):
    volumes = {each["name"]: each for each in pod_of(kinds(render(EVERYTHING), "Deployment")[0])["volumes"]}
    secrets = [source["secret"] for source in volumes["tokens"]["projected"]["sources"]]
    assert [each["name"] for each in secrets] == [token_secret_name("default"), token_secret_name("large")]
    assert [each["items"] for each in secrets] == [
        [{"key": "token", "path": "default/token"}],
        [{"key": "token", "path": "large/token"}],
    ]
    assert all(each["optional"] for each in secrets)
    assert volumes["keys"]["secret"] == {"secretName": "keys"}
    assert "tokens" not in {each["name"] for each in pod_of(kinds(render(TWO), "Deployment")[0])["volumes"]}


def test_workers_ask_for_the_token_where_the_chart_says_so(render):
    def told(values: dict[str, Any]) -> str:
        (operator,) = [
            each for each in render(values) if each["kind"] == "Deployment" and each not in of_gateways([each])
        ]
        return environment(operator)["MODELPOOL_OPERATOR_CLOSED_INFERENCE"]

    assert (told(TWO), told(EVERYTHING)) == ("false", "true")


def test_its_rights_are_to_read_and_to_ask(render):
    for role in kinds(render(TWO), "Role"):
        assert rights(role) == GATEWAY
    for binding in kinds(render(TWO), "RoleBinding"):
        namespace = binding["metadata"]["namespace"]
        subject = {"kind": "ServiceAccount", "name": "modelpool-gateway", "namespace": namespace}
        assert binding["subjects"] == [subject]
    assert all(each["automountServiceAccountToken"] is False for each in kinds(render(TWO), "ServiceAccount"))


def test_probes_and_service_meet_the_ports_that_it_opens(render):
    (service,) = kinds(render(EVERYTHING), "Service")
    (deployment,) = kinds(render(EVERYTHING), "Deployment")
    (container,) = pod_of(deployment)["containers"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    fields = GatewaySettings.model_fields
    assert ports == {"http": fields["port"].default, "admin": fields["admin_port"].default}
    assert service["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": "http"}]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    assert {container[probe]["httpGet"]["port"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")} == {
        "admin"
    }
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_the_operators_service_does_not_lead_to_it(render):
    objects = render(TWO)
    (operators,) = [each for each in objects if each["kind"] == "Service" and each not in kinds(objects, "Service")]
    for deployment in kinds(objects, "Deployment"):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert not operators["spec"]["selector"].items() <= labels.items()


def test_the_policy_names_every_gateways_account(render):
    (policy,) = kinds(render(TWO), "ValidatingAdmissionPolicy")
    (condition,) = policy["spec"]["matchConditions"]
    assert condition["expression"] == (
        "request.userInfo.username in ['system:serviceaccount:team-a:modelpool-gateway', "
        "'system:serviceaccount:team-b:modelpool-gateway']"
    )
