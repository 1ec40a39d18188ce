"""The real cluster, the product installed on it as a user would, and a namespace of its own for each test."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes import client, config

from e2e.capabilities import hub_folders
from e2e.hub import Hub
from e2e.installation import Environment, Installation, chart_values
from e2e.team import LABEL, Team

LAST = "test_drain_on_uninstall"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What uninstalls the product comes last."""
    items.sort(key=lambda item: item.name == LAST)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test shows what happened in its namespace and what the operator said."""
    report = yield
    team = getattr(item, "funcargs", {}).get("team")
    if report.failed and report.when in ("call", "teardown") and team is not None:
        report.sections.append(("what happened", team.recorder.story()))
        report.sections.append(("the operator's log", team.installation.operator_log()))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the tests measured on the way."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties if report.when == "call" else ():
            terminalreporter.write_line(f"{report.nodeid}: {name}: {value}")


@pytest.fixture(scope="session")
def environment() -> Environment:
    return Environment.read(os.environ)


@pytest.fixture(scope="session")
def api(environment: Environment) -> Iterator[client.ApiClient]:
    """The official sync client as administrator."""
    with config.new_client_from_config(environment.kubeconfig) as found:
        yield found


@pytest.fixture(scope="session")
def node(api: client.ApiClient) -> client.V1Node:
    """The one node of the cluster."""
    (found,) = client.CoreV1Api(api).list_node().items
    return found


@pytest.fixture(scope="session")
def hub(node: client.V1Node, environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A model hub on the node's address, where pods reach it and nobody else does; it has tiny models too."""
    (address,) = [each.address for each in node.status.addresses if each.type == "InternalIP"]
    folders = hub_folders(Path(environment.tiny_models), tmp_path_factory.mktemp("broken"))
    with Hub(address, folders=folders) as running:
        yield running


@pytest.fixture(scope="session")
def installation(
    environment: Environment, api: client.ApiClient, hub: Hub, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """The chart, installed once for all tests; what a killed run left goes first."""
    values = chart_values(environment, hub.url)
    installed = Installation(environment, api, tmp_path_factory.mktemp("helm"), values)
    installed.install()
    left = [each.metadata.name for each in installed.core.list_namespace(label_selector=LABEL).items]
    if left:
        installed.kubectl("delete", "namespace", "--wait", "--timeout=180s", *left)
    yield installed
    installed.uninstall()


@pytest.fixture
def team(api: client.ApiClient, installation: Installation) -> Iterator[Team]:
    """A namespace that leaves nothing behind, and no invariant broken at any version."""
    with Team(api, installation) as found:
        yield found
