"""An inference port that asks for the pool's token: for every path but the kubelet's and Prometheus'."""

import asyncio

import httpx
import pytest

EMBED = {"model": "org/m", "input": "hello"}


@pytest.fixture
async def closed(make_worker):
    """A worker that is Ready and answers only whoever has the token."""
    worker = make_worker(closed_inference=True)
    worker.life = asyncio.create_task(worker.runner.live())
    await worker.reach("Ready")
    yield worker
    worker.life.cancel()
    await asyncio.gather(worker.life, return_exceptions=True)


async def ask(worker, method, path, headers=None, **arguments):
    transport = httpx.ASGITransport(app=worker.inference, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://worker") as http:
        return await http.request(method, path, headers=headers, **arguments)


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer other"}, {"Authorization": "sekret"}], ids=["none", "wrong", "no-scheme"]
)
@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/models", "//v1/models", "/nowhere"])
async def test_nobody_without_the_token_is_served(closed, headers, path):
    answer = await ask(closed, "POST", path, headers, json=EMBED)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "unauthorized"
    assert "inference port needs the pool's token" in answer.json()["error"]["message"]
    assert closed.machine.pong(closed.runner.gauges(), 0).seq == 1  # no request has been begun for it


async def test_whoever_has_the_token_is_served(closed):
    answer = await ask(closed, "POST", "/v1/embeddings", {"Authorization": "Bearer sekret"}, json=EMBED)
    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_probes_and_metrics_are_for_everybody(closed, path):
    assert (await ask(closed, "GET", path)).status_code == 200


async def test_otherwise_the_port_is_open(make_worker):
    worker = make_worker()
    assert (await ask(worker, "GET", "/v1/models")).status_code == 200
