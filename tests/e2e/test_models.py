"""Models called by their names through the gateway: cold or warm, alone or in each other's place."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from openai import APIStatusError

from e2e.capabilities import client_of
from e2e.machine import until
from e2e.team import Team
from e2e.watchers import MODELS, WORKERS

pytestmark = pytest.mark.e2e

ROUNDS = 3


def workers_of(team: Team, model: str) -> list[str]:
    """Names of all workers that a Model has ever had."""
    team.recorder.catch_up()
    return sorted({each.name for each in team.recorder.versions(WORKERS) if each.name.startswith(f"{model}-")})


def test_two_models_that_do_not_fit_together_take_turns(team: Team):
    """Asked in turns by the official client each is answered; the other one goes for it, and only when it is idle."""
    team.pool(memory="2Gi", idleTimeoutSeconds=1, evictAfterSeconds=600, minResidencySeconds=1)
    team.model("first")
    team.model("second")
    with team.gateways() as url, client_of(url) as openai:
        assert {each.id: each.state for each in openai.models.list()} == {"first": "Cold", "second": "Cold"}
        assert workers_of(team, "first") == []
        for _ in range(ROUNDS):
            for model in ("first", "second"):
                answer = openai.embeddings.create(model=model, input="Hello, world")
                assert len(answer.data[0].embedding) == 384
                assert answer.model == model
        assert len(workers_of(team, "first")) == ROUNDS
        for worker in (*workers_of(team, "first"), *workers_of(team, "second")[:-1]):
            evicting = team.recorder.until_state(worker, "Evicting")
            assert evicting.status["reason"] == "RoomEviction"
            states = team.recorder.states(worker)
            assert states[states.index("Evicting") - 1] == "Idle"
    assert set(team.recorder.reserved("pool")) == {0, 2048}
    team.assert_invariants()


def test_a_request_that_waits_for_a_load_that_fails_hears_the_reason(team: Team, record_property):
    """Within two seconds of Failed, in the worker's own words."""
    team.pool(failedRetentionSeconds=60)
    team.model("broken", "hf://org/truncated")
    team.model("huge", change={"memory": "64Gi"})
    with team.gateways() as url:
        body = {"model": "broken", "input": "Hello"}
        answer = httpx.post(f"{url}/v1/embeddings", json=body, timeout=120, trust_env=False)
        answered = time.monotonic()
        failed = team.recorder.until_state("broken-1", "Failed")
        record_property("Failed to the answer of who waited, seconds", round(answered - failed.at, 2))
        assert answered - failed.at < 2
        assert answer.status_code == 503
        error = answer.json()["error"]
        assert error["code"] == "ModelLoadFailed"
        assert "is cut short" in error["message"]
        assert answer.headers["x-should-retry"] == "false"
        # it is known now: nobody waits again
        began = time.monotonic()
        again = httpx.post(f"{url}/v1/embeddings", json=body, timeout=120, trust_env=False)
        assert (again.status_code, time.monotonic() - began < 1) == (503, True)

        never = httpx.post(f"{url}/v1/embeddings", json={**body, "model": "huge"}, timeout=120, trust_env=False)
        assert (never.status_code, never.json()["error"]["code"]) == (503, "ExceedsPool")
        assert "it can never fit" in never.json()["error"]["message"]
        unknown = httpx.post(f"{url}/v1/embeddings", json={**body, "model": "nobody"}, timeout=30, trust_env=False)
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    assert workers_of(team, "broken") == ["broken-1"]


def test_a_thousand_requests_at_once_for_a_cold_model(team: Team):
    """They make one worker, and each of them is answered by it."""
    team.pool(evictAfterSeconds=600)
    team.model("minilm", maxReplicas=4, targetPending=10_000)
    with team.gateways() as url:
        limits = httpx.Limits(max_connections=1000)
        with httpx.Client(trust_env=False, timeout=180, limits=limits) as http, ThreadPoolExecutor(1000) as threads:
            texts = [f"request number {number}" for number in range(1000)]
            bodies = [{"model": "minilm", "input": text} for text in texts]
            answers = list(threads.map(lambda body: http.post(f"{url}/v1/embeddings", json=body), bodies))
        assert {answer.status_code for answer in answers} == {200}
        assert all(len(answer.json()["data"]) == 1 for answer in answers)
    assert workers_of(team, "minilm") == ["minilm-1"]
    team.recorder.until_state("minilm-1", "Ready")


def test_a_held_request_is_not_the_business_of_another_gateway(team: Team):
    """One gateway goes while the other holds a request for a model that loads: it is answered all the same."""
    team.pool(evictAfterSeconds=600)
    team.model("slow", "hf://org/paced-12s")
    with team.gateways(replicas=2), ThreadPoolExecutor(1) as threads:
        holder, other = team.installation.gateway_pods(team.namespace)
        url = f"http://{holder.status.pod_ip}:8080/v1/embeddings"
        body = {"model": "slow", "input": "Hello"}
        held = threads.submit(httpx.post, url, json=body, timeout=120, trust_env=False)
        team.recorder.until_state("slow-1", "Loading")
        team.core.delete_namespaced_pod(other.metadata.name, team.namespace, grace_period_seconds=0)
        assert held.result(timeout=120).status_code == 200
    assert workers_of(team, "slow") == ["slow-1"]


def test_a_stream_begins_while_its_model_is_cold(team: Team):
    """Progress is told as comments, the text comes as it is made, and keep_alive lets the worker go afterwards."""
    team.pool(idleTimeoutSeconds=1, evictAfterSeconds=600)
    decoder = {"capability": "text-to-text", "dtype": "float32"}
    team.model("chat", "hf://org/decoder", served=decoder)
    with team.gateways() as url:
        body = {
            "model": "chat",
            "messages": [{"role": "user", "content": "Hello"}],
            "stream": True,
            "max_tokens": 20,
            "keep_alive": 0,
        }
        lines: list[str] = []
        headers = {"X-Modelpool-Progress": "true"}
        with httpx.stream(
            "POST", f"{url}/v1/chat/completions", json=body, headers=headers, timeout=180, trust_env=False
        ) as answer:
            assert answer.status_code == 200
            lines += [line for line in answer.iter_lines() if line]
        comments = [line for line in lines if line.startswith(":")]
        assert any("Loading" in line or "Spawning" in line for line in comments), comments
        events = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
        assert events[-1] == "[DONE]"
        assert json.loads(events[0])["object"] == "chat.completion.chunk"
        team.recorder.until(MODELS, "chat", lambda seen: seen.status.get("keepAliveSeconds") == 0, "let go")
        dead = team.recorder.until_state("chat-1", "Dead", seconds=60)
        assert dead.status["reason"] == "IdleEviction"


def test_it_is_scaled_by_kubectl_and_stays_within_its_bounds(team: Team):
    team.pool(memory="8Gi", idleTimeoutSeconds=1, evictAfterSeconds=1)
    team.model("minilm", maxReplicas=2)
    team.kubectl("scale", "model/minilm", "--replicas=3")
    for worker in ("minilm-1", "minilm-2"):
        team.recorder.until_state(worker, "Ready")
    team.kubectl("wait", "--for=condition=Ready", "model/minilm", "--timeout=30s")
    team.kubectl("scale", "model/minilm", "--replicas=0")
    team.recorder.until_now(MODELS, "minilm", lambda seen: seen.status.get("replicas") == 0, "nobody is left")
    assert workers_of(team, "minilm") == ["minilm-1", "minilm-2"]


def test_with_keys_and_closed_ports_only_the_gateway_is_let_in(team: Team):
    """A key for one model only; a worker answers nobody who comes without its pool's token."""
    key = "sk-" + "a" * 30
    team.pool(evictAfterSeconds=600)
    team.secret("keys", one=json.dumps({"key": key, "models": ["minilm"]}))
    for model in ("minilm", "other"):
        team.model(model)
    values = {"apiKeys": {"secret": "keys"}, "pools": ["pool"], "replicas": 1}
    with team.gateways(closed=True, **values) as url, client_of(url, key) as openai:
        assert [each.id for each in openai.models.list()] == ["minilm"]
        for refused, status, model in (("wrong", 401, "minilm"), (key, 403, "other")):
            headers, body = {"Authorization": f"Bearer {refused}"}, {"model": model, "input": "Hello"}
            answer = httpx.post(f"{url}/v1/embeddings", json=body, headers=headers, timeout=30, trust_env=False)
            assert answer.status_code == status, answer.text

        def embeds() -> bool:
            """The token reaches the gateway's volume within a minute or so of the pool's beginning."""
            try:
                return len(openai.embeddings.create(model="minilm", input="Hello").data) == 1
            except APIStatusError as error:
                if error.code != "worker_unauthorized":
                    raise
                return False

        until(embeds, "the gateway has the pool's token", 120)
        direct = f"http://{team.address('minilm-1')}:8080"
        assert httpx.get(f"{direct}/readyz", trust_env=False).status_code == 200
        assert httpx.get(f"{direct}/v1/models", trust_env=False).status_code == 401
    assert workers_of(team, "other") == []
