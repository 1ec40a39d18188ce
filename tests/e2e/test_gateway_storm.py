"""20,000 requests while workers are evicted, killed and crash, and gateways and the operator are restarted."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable

import httpx
import pytest
from kubernetes import client
from prometheus_client.parser import text_string_to_metric_families

from e2e.machine import processes_with, until
from e2e.storm import Storm
from e2e.team import Team, processes_of
from e2e.watchers import WORKERS

pytestmark = pytest.mark.e2e

REQUESTS, CLIENTS, TEXTS = 20_000, 24, 40
SERVING = ("Ready", "Processing", "Idle")


class Weather:
    """What goes wrong, one thing after the other, until it is told to stop; ``done`` says what has happened."""

    def __init__(self, team: Team, seconds: float) -> None:
        self._team, self._seconds = team, seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.done: list[str] = []
        self.broken: BaseException | None = None
        #: gateways that were killed without a word
        self.killed = 0

    def __enter__(self) -> "Weather":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(120)

    def _run(self) -> None:
        turns: list[Callable[[], None]] = [
            self.evict_a_worker,
            self.crash_a_worker,
            self.lose_a_pod,
            self.restart_the_operator,
            self.stop_a_gateway,
            self.kill_a_gateway,
        ]
        try:
            while not self._stop.wait(self._seconds):
                turn = turns[len(self.done) % len(turns)]
                turn()
                self.done.append(turn.__name__)
        except BaseException as error:
            self.broken = error

    def _a_serving_worker(self) -> str | None:
        seen = {each.name: each for each in self._team.recorder.versions(WORKERS)}
        found = [name for name, each in seen.items() if not each.gone and each.status.get("state") in SERVING]
        return found[0] if found else None

    def evict_a_worker(self) -> None:
        """It is told to stop: it answers what it has, and nobody else is sent to it."""
        if name := self._a_serving_worker():
            self._team.change(name, shutdown=True)

    def crash_a_worker(self) -> None:
        """Its process is killed in the middle of what it does."""
        if name := self._a_serving_worker():
            for process in processes_of(self._team.worker_uid(name)):
                os.kill(process, signal.SIGKILL)

    def lose_a_pod(self) -> None:
        """Its pod is deleted by somebody, without a grace."""
        if name := self._a_serving_worker():
            try:
                self._team.core.delete_namespaced_pod(
                    self._team.pod_name(name), self._team.namespace, grace_period_seconds=0
                )
            except client.ApiException as error:
                if error.status != 404:
                    raise

    def restart_the_operator(self) -> None:
        """Its process is killed; another one takes over."""
        self._team.installation.wait_for_operator(other_than=self._team.installation.kill_operator())

    def stop_a_gateway(self) -> None:
        """The younger of the gateways is stopped as a rollout stops it; the Deployment makes another one."""
        pods = self._team.installation.gateway_pods(self._team.namespace)
        youngest = max(pods, key=lambda pod: pod.metadata.creation_timestamp)
        self._team.core.delete_namespaced_pod(youngest.metadata.name, self._team.namespace)
        until(lambda: ready_gateways(self._team) == 2, "two gateways are ready again", 90)

    def kill_a_gateway(self) -> None:
        """The process of one is killed: what it had under way breaks off, and the kubelet starts it again."""
        pod = self._team.installation.gateway_pods(self._team.namespace)[0]
        processes = processes_with("MODELPOOL_GATEWAY_POD_NAME", pod.metadata.name)
        for process in processes:
            os.kill(process, signal.SIGKILL)
        self.killed += 1
        until(lambda: ready_gateways(self._team) == 2, "two gateways are ready again", 90)


def counted(url: str) -> dict[str, int]:
    """Requests that a gateway has answered, by class of status, as its metrics say."""
    text = httpx.get(f"{url}/metrics", trust_env=False).raise_for_status().text
    found: dict[str, int] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "modelpool_gateway_requests_total":
                code = sample.labels["code"]
                found[code] = found.get(code, 0) + int(sample.value)
    return found


def set_apart(team: Team) -> str:
    """Take a gateway out of its Deployment and its Service, so that all it answers is known; they get another one."""
    pod = team.installation.gateway_pods(team.namespace)[0].metadata.name
    apart = {"metadata": {"labels": {"app.kubernetes.io/instance": "apart"}, "ownerReferences": None}}
    team.core.patch_namespaced_pod(pod, team.namespace, apart)
    until(lambda: ready_gateways(team) == 2, "the Deployment has made another one", 90)
    return str(pod)


def ready_gateways(team: Team) -> int:
    """How many gateways the Service leads to."""
    conditions = [pod.status.conditions or () for pod in team.installation.gateway_pods(team.namespace)]
    return sum(any(each.type == "Ready" and each.status == "True" for each in found) for found in conditions)


def test_gateway_storm(team: Team, record_property):
    """Every request has one terminal answer, none is lost to an eviction, and both sides have counted the same."""
    team.pool(memory="8Gi", evictAfterSeconds=600, restartLimit=50, failedRetentionSeconds=1)
    team.model("minilm", change={"memory": "1Gi"}, replicas=2, maxReplicas=3, targetPending=1000)
    with team.gateways(replicas=2) as service:
        texts = [f"this is text number {number} of the storm" for number in range(TEXTS)]
        first = httpx.post(
            f"{service}/v1/embeddings", json={"model": "minilm", "input": texts}, timeout=120, trust_env=False
        )
        expected = dict(
            zip(texts, (each["embedding"] for each in first.raise_for_status().json()["data"]), strict=True)
        )
        for worker in ("minilm-1", "minilm-2"):
            team.recorder.until_state(worker, *SERVING)
        steady = set_apart(team)
        address = str(team.core.read_namespaced_pod(steady, team.namespace).status.pod_ip)
        before = counted(f"http://{address}:8081")

        storm = Storm("minilm", expected, REQUESTS, CLIENTS)
        began = time.monotonic()
        with Weather(team, 3) as weather:
            # one half asks a gateway that stays, the other half asks whoever the Service leads to
            asyncio.run(storm.run([f"http://{address}:8080", service]))
        seconds = time.monotonic() - began
        assert weather.broken is None, weather.broken
        assert len(set(weather.done)) == 6, f"the storm was over too soon: {weather.done}"
        by_steady, by_service = storm.by_gateway[f"http://{address}:8080"], storm.by_gateway[service]
        record_property("requests a second", round(REQUESTS / seconds))
        record_property("what happened", weather.done)
        record_property("the slowest answer, seconds", round(max(by_steady.slowest, by_service.slowest), 1))
        assert by_steady.ended + by_service.ended == REQUESTS
        assert by_steady.wrong == []
        assert by_service.wrong == []
        assert by_steady.cut == {}, "nobody stopped this gateway"
        cut = sum(by_service.cut.values())
        assert cut <= weather.killed * CLIENTS, "only what a killed gateway had under way breaks off"
        record_property("requests cut by a killed gateway", cut)
        after = counted(f"http://{address}:8081")
        assert {code: after[code] - before.get(code, 0) for code in after} == {"2xx": by_steady.answers["200"]}
        team.core.delete_namespaced_pod(steady, team.namespace)
    until(lambda: processes_with("MODELPOOL_GATEWAY_POD_NAME", steady) == [], "it has ended", 90)
    team.recorder.catch_up()
    evicted = [each for each in team.recorder.versions(WORKERS) if each.status.get("reason") == "Shutdown"]
    assert evicted
    team.assert_invariants()
