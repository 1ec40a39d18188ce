"""The second port: probes and metrics."""

import pytest

from modelpool_gateway.admin import Admin
from modelpool_gateway.metrics import GatewayMetrics, StateCollector
from unit.modelpool_gateway.site import Site, serving


class Told:
    alive, ready = True, False


@pytest.fixture
async def port():
    told, metrics, site = Told(), GatewayMetrics(), Site()
    now = [100.0]
    metrics.registry.register(StateCollector(site.directory, site.room, site.bodies, lambda: now[0]))
    async with serving(Admin(lambda: told.alive, lambda: told.ready, metrics.registry)) as url:
        yield url, told, metrics, site, now


async def text(client, url: str) -> list[str]:
    async with client.get(f"{url}/metrics") as got:
        assert got.headers["Content-Type"].startswith("text/plain")
        return (await got.text()).splitlines()


async def test_probes_tell_what_they_are_asked(client, port):
    url, told, *_ = port
    for path, alive, ready, status in (
        ("/healthz", True, False, 200),
        ("/readyz", True, False, 503),
        ("/readyz", True, True, 200),
        ("/healthz", False, True, 503),
    ):
        told.alive, told.ready = alive, ready
        async with client.get(url + path) as got:
            assert got.status == status


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/models", 404), ("POST", "/metrics", 405)])
async def test_nothing_else_is_there(client, port, method, path, status):
    async with client.request(method, port[0] + path) as got:
        assert got.status == status
        assert "expected" in (await got.text()) or "only" in (await got.text())


async def test_requests_are_counted_by_model_and_class_of_status(client, port):
    url, _, metrics, *_ = port
    for model, status in (("m", 200), ("m", 201), ("m", 503), ("", 404), ("m", 0)):
        metrics.answered(model, status)
    metrics.retried()
    metrics.held(3.0)
    metrics.observe_request("WATCH", "/apis/secret", 200)
    lines = await text(client, url)
    for line in (
        'modelpool_gateway_requests_total{code="2xx",model="m"} 2.0',
        'modelpool_gateway_requests_total{code="5xx",model="m"} 1.0',
        'modelpool_gateway_requests_total{code="4xx",model=""} 1.0',
        'modelpool_gateway_requests_total{code="left",model="m"} 1.0',
        "modelpool_gateway_retries_total 1.0",
        'modelpool_gateway_hold_seconds_bucket{le="2.5"} 0.0',
        'modelpool_gateway_hold_seconds_bucket{le="5.0"} 1.0',
        'modelpool_gateway_rest_client_requests_total{code="200",method="WATCH"} 1.0',
    ):
        assert line in lines
    assert not any("secret" in line for line in lines)


async def test_a_workers_breaker_is_shown_until_the_worker_is_gone(client, port):
    url, _, _, site, now = port
    site.show("a", "Ready", "http://a:8080")
    (worker,) = site.directory.of("ns", "m")
    name = 'modelpool_gateway_breaker{model="m",worker="a"}'
    assert f"{name} 0.0" in await text(client, url)
    for _ in range(3):
        worker.breaker.failed(worker.breaker.began(), now[0])
    assert f"{name} 2.0" in await text(client, url)
    now[0] += 10
    assert f"{name} 1.0" in await text(client, url)
    worker.take()
    assert 'modelpool_gateway_in_flight_requests{model="m",worker="a"} 1.0' in await text(client, url)
    site.directory.forget("a")
    assert not any('worker="a"' in line for line in await text(client, url))


async def test_what_a_client_writes_is_no_label(client, url, gateway, one):
    async with client.post(url + "/v1/embeddings", json={"model": "<script>"}) as got:
        assert got.status == 404
    assert gateway.notes.answers == [("", 404)]
