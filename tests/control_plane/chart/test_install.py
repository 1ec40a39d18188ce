"""The chart on a real API server: accepted field by field, with the rights it promises, upgraded and removed."""

import json
import os
import shutil
import subprocess
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config

from cluster import binaries
from cluster.control_plane import ControlPlane

pytestmark = pytest.mark.control_plane

CHARTS = Path(__file__).resolve().parents[3] / "charts"
README = (CHARTS.parent / "README.md").read_text(encoding="utf-8")
HOME = "modelpool-system"
OPERATOR = f"system:serviceaccount:{HOME}:modelpool-operator"
DRAIN = f"system:serviceaccount:{HOME}:modelpool-drain"
CRDS = {"models.modelpool.dev", "modelpools.modelpool.dev", "modelworkers.modelpool.dev"}

Tool = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane that nobody else has put CRDs on."""
    with ControlPlane(tmp_path_factory.mktemp("chart") / "state") as running:
        yield running


@pytest.fixture(scope="module")
def api(cluster: ControlPlane) -> Iterator[client.ApiClient]:
    with config.new_client_from_config(str(cluster.kubeconfig)) as administrator:
        yield administrator


@pytest.fixture(scope="module")
def run(cluster: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Tool:
    """``run("helm", …)``, ``run("kubectl", …)`` as administrator of that control plane."""
    folder = binaries.ensure(["kube", "helm"])
    environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig), "HOME": str(tmp_path_factory.mktemp("home"))}

    def run(program: str, *arguments: str, text: str | None = None) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [folder / program, *arguments], env=environment, input=text, text=True, capture_output=True, check=False
        )

    return run


@pytest.fixture(scope="module")
def installed(run: Tool, api: client.ApiClient) -> str:
    """The name of a release, in a namespace where only restricted pods may be."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    client.CoreV1Api(api).create_namespace({"metadata": {"name": HOME, "labels": labels}})
    done = run("helm", "install", "modelpool", str(CHARTS / "modelpool"), "--namespace", HOME)
    assert done.returncode == 0, done.stderr
    assert "kubectl -n default get mw -w" in done.stdout
    return "modelpool"


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.05)
    return value


def may(api: client.ApiClient, user: str, groups: list[str], wanted: str, namespace: str) -> bool:
    """Ask the API server whether a user may do ``VERB RESOURCE[/SUBRESOURCE].GROUP [NAME]`` in a namespace."""
    verb, kind, *name = wanted.split()
    kind, _, group = kind.partition(".")
    resource, _, subresource = kind.partition("/")
    attributes = {"verb": verb, "group": group, "resource": resource, "subresource": subresource}
    attributes |= {"namespace": namespace, "name": name[0] if name else ""}
    review = {"spec": {"user": user, "groups": groups, "resourceAttributes": attributes}}
    return bool(client.AuthorizationV1Api(api).create_subject_access_review(review).status.allowed)


def crd_names(api: client.ApiClient) -> set[str]:
    found = client.ApiextensionsV1Api(api).list_custom_resource_definition().items
    return {each.metadata.name for each in found}


def test_the_operators_pod_is_admitted_where_only_restricted_pods_may_be(installed, api):
    """The pod object exists although no node runs it: its account is there and Pod Security let it pass."""
    selector = f"app.kubernetes.io/instance={installed}"
    core = client.CoreV1Api(api)

    (pod,) = until(lambda: core.list_namespaced_pod(HOME, label_selector=selector).items)
    assert pod.spec.service_account_name == "modelpool-operator"


def test_crds_are_established(installed, api):
    extensions = client.ApiextensionsV1Api(api)

    def established() -> bool:
        found = extensions.list_custom_resource_definition().items
        good = {each.metadata.name for each in found for c in each.status.conditions or () if _established(c)}
        return good >= CRDS

    assert until(established)


def _established(condition: Any) -> bool:
    return condition.type == "Established" and condition.status == "True"


@pytest.mark.parametrize("values", [[], ["watchNamespaces={default}"]], ids=["cluster-wide", "namespaced"])
def test_the_api_server_knows_every_field_of_every_object_hooks_included(values, installed, run):
    settings = [
        *values,
        "operator.replicas=2,operator.podDisruptionBudget.enabled=true,networkPolicy.enabled=true",
        "worker.networkPolicy.enabled=true,worker.networkPolicy.namespaces={default}",
    ]
    given = [word for each in settings for word in ("--set", each)]
    text = run("helm", "template", "other", str(CHARTS / "modelpool"), "--namespace", HOME, *given).stdout
    options = ["--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict"]
    done = run("kubectl", "apply", *options, "-f", "-", text=text)

    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr  # such as: would violate PodSecurity
    kinds = {line.partition("/")[0] for line in done.stdout.splitlines()}
    assert {"deployment.apps", "job.batch", "pod", "networkpolicy.networking.k8s.io"} <= kinds


ALLOWED = [
    (OPERATOR, "watch modelworkers.modelpool.dev"),
    (OPERATOR, "patch modelworkers.modelpool.dev"),
    (OPERATOR, "create modelworkers.modelpool.dev"),
    (OPERATOR, "delete modelworkers.modelpool.dev"),
    (OPERATOR, "watch models.modelpool.dev"),
    (OPERATOR, "patch models/status.modelpool.dev"),
    (OPERATOR, "watch leases.coordination.k8s.io"),
    (OPERATOR, "patch modelpools/status.modelpool.dev"),
    (OPERATOR, "create pods"),
    (OPERATOR, "delete pods"),
    (OPERATOR, "get secrets modelpool-default"),
    (OPERATOR, "create services"),
    (OPERATOR, "create events.events.k8s.io"),
    (DRAIN, "list modelworkers.modelpool.dev"),
    (DRAIN, "patch modelpools.modelpool.dev"),
]
FORBIDDEN = [
    (OPERATOR, "list secrets"),
    (OPERATOR, "watch secrets"),
    (OPERATOR, "delete secrets"),
    (OPERATOR, "create pods/exec"),
    (OPERATOR, "get pods/log"),
    (OPERATOR, "update services"),
    (OPERATOR, "patch models.modelpool.dev"),
    (OPERATOR, "create models.modelpool.dev"),
    (OPERATOR, "delete modelpools.modelpool.dev"),
    (OPERATOR, "create serviceaccounts/token"),
    (OPERATOR, "create rolebindings.rbac.authorization.k8s.io"),
    (OPERATOR, "patch nodes"),
    (OPERATOR, "list customresourcedefinitions.apiextensions.k8s.io"),
    (OPERATOR, "list namespaces"),
    (OPERATOR, "patch customresourcedefinitions.apiextensions.k8s.io"),
    (OPERATOR, "get leases.coordination.k8s.io modelpool-operator"),  # elsewhere than at home
    (OPERATOR, "create leases.coordination.k8s.io"),
    (DRAIN, "delete modelworkers.modelpool.dev"),
    (DRAIN, "list pods"),
    (DRAIN, "get secrets modelpool-default"),
]


def account_ids(pair: tuple[str, str]) -> str:
    return f"{pair[0].rpartition(':')[2]}: {pair[1]}"


@pytest.fixture(scope="module")
def hooks_applied(installed: str, run: Tool) -> None:
    """The drain's account and role as helm makes them before it runs the Job."""
    text = run("helm", "get", "hooks", installed, "--namespace", HOME).stdout
    wanted = [each for each in text.split("\n---\n") if "kind: Job" not in each and "kind: Pod" not in each]
    done = run("kubectl", "apply", "--namespace", HOME, "-f", "-", text="\n---\n".join(wanted))
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("hooks_applied")
@pytest.mark.parametrize("pair", ALLOWED, ids=account_ids)
def test_accounts_may_do_what_they_need_in_every_namespace(pair, api):
    assert may(api, pair[0], [], pair[1], "default")


@pytest.mark.usefixtures("hooks_applied")
@pytest.mark.parametrize("pair", FORBIDDEN, ids=account_ids)
def test_accounts_may_do_nothing_else(pair, api):
    assert not may(api, pair[0], [], pair[1], "default")


@pytest.mark.usefixtures("installed")
def test_at_home_the_operator_has_its_own_lease_and_no_other(api):
    assert may(api, OPERATOR, [], "create leases.coordination.k8s.io", HOME)
    assert may(api, OPERATOR, [], "update leases.coordination.k8s.io modelpool-operator", HOME)
    assert not may(api, OPERATOR, [], "update leases.coordination.k8s.io kube-scheduler", HOME)
    assert not may(api, OPERATOR, [], "patch leases.coordination.k8s.io", HOME)
    assert not may(api, OPERATOR, [], "delete leases.coordination.k8s.io", HOME)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("role", "workers", "pools"),
    [("view", False, False), ("edit", True, False), ("admin", True, True)],
)
def test_users_change_workers_with_edit_and_pools_with_admin(role, workers, pools, api, run):
    user = f"someone-with-{role}"
    done = run("kubectl", "-n", "default", "create", "rolebinding", user, f"--clusterrole={role}", f"--user={user}")
    assert done.returncode == 0, done.stderr

    until(lambda: may(api, user, [], "list modelworkers.modelpool.dev", "default"))
    until(lambda: may(api, user, [], "create modelworkers.modelpool.dev", "default") is workers)
    until(lambda: may(api, user, [], "create models.modelpool.dev", "default") is workers)
    until(lambda: may(api, user, [], "patch models/scale.modelpool.dev", "default") is workers)
    until(lambda: may(api, user, [], "create modelpools.modelpool.dev", "default") is pools)
    assert not may(api, user, [], "patch modelworkers/status.modelpool.dev", "default")


def shown_in_the_readme() -> str:
    """Return the resource on the README's first screen."""
    return README.partition("```yaml\n")[2].partition("```")[0]


def shown_in_the_notes() -> str:
    """Return what NOTES.txt pipes into kubectl."""
    notes = (CHARTS / "modelpool" / "templates" / "NOTES.txt").read_text(encoding="utf-8")
    return textwrap.dedent(notes.partition("<<'END'\n")[2].partition("   END\n")[0])


def shown_on_the_hub() -> str:
    """Return the examples that the chart's registry page shows."""
    chart = yaml.safe_load((CHARTS / "modelpool" / "Chart.yaml").read_text(encoding="utf-8"))
    return yaml.safe_dump_all(yaml.safe_load(chart["annotations"]["artifacthub.io/crdsExamples"]))


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("shown", [shown_in_the_readme, shown_in_the_notes, shown_on_the_hub])
def test_the_api_server_takes_every_resource_that_is_shown_to_users(shown, run):
    done = run("kubectl", "apply", "--dry-run=server", "--validate=strict", "-f", "-", text=shown())

    assert done.returncode == 0, done.stderr
    assert "modelworker.modelpool.dev/minilm created" in done.stdout


@pytest.mark.usefixtures("installed")
def test_the_refusal_in_the_readme_is_the_api_servers_own(run):
    wrong = yaml.safe_load(shown_in_the_readme())
    wrong["metadata"]["name"] = "a"
    wrong["spec"]["model"]["source"] = "s3://bucket/model"
    done = run("kubectl", "apply", "-f", "-", text=yaml.safe_dump(wrong))

    assert done.returncode != 0
    assert done.stderr.strip() in README


def test_an_upgrade_brings_new_crds_and_an_uninstall_keeps_them(installed, api, run, tmp_path):
    newer = tmp_path / "modelpool"
    shutil.copytree(CHARTS / "modelpool", newer)
    crd = newer / "files" / "crds" / "modelpool.dev_modelpools.yaml"
    crd.write_text(crd.read_text().replace("    - mpool\n", "    - mpool\n    - mpools\n"))

    done = run("helm", "upgrade", installed, str(newer), "--namespace", HOME)
    assert done.returncode == 0, done.stderr
    extensions = client.ApiextensionsV1Api(api)
    names = extensions.read_custom_resource_definition("modelpools.modelpool.dev").spec.names
    assert names.short_names == ["mpool", "mpools"]

    # without hooks: this cluster has no node that could run the drain
    done = run("helm", "uninstall", installed, "--namespace", HOME, "--no-hooks")
    assert done.returncode == 0, done.stderr
    assert crd_names(api) == CRDS
    left = json.loads(run("kubectl", "-n", HOME, "get", "deployments,services,roles", "-o", "json").stdout)
    assert left["items"] == []

    done = run("helm", "install", installed, str(CHARTS / "modelpool"), "--namespace", HOME)
    assert done.returncode == 0, done.stderr
    done = run("helm", "uninstall", installed, "--namespace", HOME, "--no-hooks")
    assert done.returncode == 0, done.stderr


def test_the_plain_manifest_installs_with_kubectl_alone(run, tmp_path_factory):
    with ControlPlane(tmp_path_factory.mktemp("plain") / "state") as fresh:
        arguments = ["--kubeconfig", str(fresh.kubeconfig), "apply", "--server-side", "--validate=strict"]
        first = run("kubectl", *arguments, "-f", str(CHARTS / "plain" / "modelpool.yaml"))
        again = run("kubectl", *arguments, "-k", str(CHARTS / "plain"))

        assert first.returncode == 0, first.stderr
        assert again.returncode == 0, again.stderr
        with config.new_client_from_config(str(fresh.kubeconfig)) as administrator:
            assert crd_names(administrator) == CRDS
            core = client.CoreV1Api(administrator)
            assert until(lambda: core.list_namespaced_pod(HOME).items)
