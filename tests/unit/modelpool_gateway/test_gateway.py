"""The gateway as a whole: how it begins, serves and ends. API server and worker are real servers on loopback."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest
import yaml
from openai import AsyncOpenAI

from modelpool_gateway.gateway import Gateway
from modelpool_gateway.metrics import GatewayMetrics
from modelpool_gateway.settings import GatewaySettings
from unit.modelpool_gateway.api_server import ApiServer
from unit.modelpool_gateway.site import Upstream, answer, post, serving, until
from unit.modelpool_gateway.test_watch import MODELS, WORKERS, model, worker

LEASE = "/apis/coordination.k8s.io/v1/namespaces/ns/leases/demand-x"


def listener() -> socket.socket:
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.bind(("127.0.0.1", 0))
    found.listen()
    return found


def url_of(found: socket.socket) -> str:
    return f"http://127.0.0.1:{found.getsockname()[1]}"


class Whole:
    """A gateway that runs, and where."""

    def __init__(self, url: str, admin: str, stop: asyncio.Event, task: asyncio.Task) -> None:
        self.url, self.admin, self.stop, self.task = url, admin, stop, task

    async def ready(self, client: aiohttp.ClientSession) -> bool:
        async with client.get(f"{self.admin}/readyz") as got:
            return got.status == 200


@asynccontextmanager
async def running(server: ApiServer, **settings):
    main, admin, stop = listener(), listener(), asyncio.Event()
    given = {"namespace": "ns", "lame_duck_seconds": 0.2, "drain_seconds": 5.0, **settings}
    async with server.running() as client:
        whole = Gateway(GatewaySettings(**given), client, GatewayMetrics())
        task = asyncio.create_task(whole.run(main, admin, stop))
        try:
            yield Whole(url_of(main), url_of(admin), stop, task)
        finally:
            stop.set()
            await task


def loaded(name: str, url: str, state: str = "Ready", **labels: str) -> dict:
    found = worker(name, state)
    found["status"]["endpoint"] = url
    found["metadata"]["labels"] = labels
    return found


@pytest.fixture
def server() -> ApiServer:
    return ApiServer()


async def until_ready(client: aiohttp.ClientSession, whole: Whole) -> None:
    async with asyncio.timeout(10):
        while not await whole.ready(client):  # noqa: ASYNC110 - as the kubelet asks
            await asyncio.sleep(0.02)


async def test_nothing_is_answered_before_all_is_known(client, server):
    """A restarted gateway never says 404 to a name that is merely cold, nor 503 to one that serves."""
    server.failures.extend([503] * 2)
    server.put(MODELS, model("x"))
    upstream = Upstream()
    async with serving(upstream) as address:
        server.put(WORKERS, loaded("a", address))
        async with running(server) as whole:
            async with client.get(f"{whole.admin}/healthz") as got:
                assert got.status == 200
            assert not await whole.ready(client)
            assert (await post(client, whole.url))[:2] == (200, {"by": "a"}), "who connects early is served in the end"
            assert await whole.ready(client)


async def test_a_cold_model_is_called_by_the_official_client_unchanged(client, server):
    """The operator is played by the test: it sees the Lease, and makes a worker."""
    server.put(MODELS, model("x"))
    upstream = Upstream()

    async def embeds(scope, receive, send):
        data = b'[{"object": "embedding", "index": 0, "embedding": [0.5]}]'
        usage = b'{"prompt_tokens": 1, "total_tokens": 1}'
        body = b'{"object": "list", "model": "m", "data": %s, "usage": %s}' % (data, usage)
        await answer(send, 200, body, content_type="application/json")

    upstream.behave = embeds
    async with serving(upstream) as address, running(server) as whole:
        await until_ready(client, whole)
        async with AsyncOpenAI(base_url=f"{whole.url}/v1", api_key="none", max_retries=0) as openai:
            assert [each.id async for each in openai.models.list()] == ["m"]
            asking = asyncio.create_task(openai.embeddings.create(model="m", input="x", encoding_format="float"))
            await until(lambda: LEASE in server.objects)
            assert server.objects[LEASE]["spec"]["holderIdentity"] == "modelpool-gateway"
            server.put(WORKERS, loaded("a", address, "Loading"), "ADDED")
            server.put(WORKERS, loaded("a", address))
            assert (await asking).data[0].embedding == [0.5]


async def test_keep_alive_reaches_the_operator(client, server):
    server.put(MODELS, model("x"))
    upstream = Upstream()
    async with serving(upstream) as address, running(server) as whole:
        server.put(WORKERS, loaded("a", address, **{"modelpool.dev/model": "x"}))
        await until_ready(client, whole)
        async with client.post(f"{whole.url}/v1/embeddings", json={"model": "m", "keep_alive": "10m"}) as got:
            assert got.status == 200
        await until(lambda: LEASE in server.objects)
        assert server.objects[LEASE]["metadata"]["annotations"] == {"modelpool.dev/keep-alive": "600"}


async def test_one_that_is_told_to_stop_goes_on_for_a_while_and_finishes_what_it_has(client, server):
    server.put(MODELS, model("x"))
    upstream = Upstream()
    upstream.behave = upstream.stream
    async with serving(upstream) as address, running(server) as whole:
        server.put(WORKERS, loaded("a", address))
        await until_ready(client, whole)
        body = {"model": "m", "stream": True}
        async with client.post(f"{whole.url}/v1/chat/completions", json=body) as got:
            await got.content.readuntil(b"\n\n")
            whole.stop.set()
            await until(lambda: not whole.task.done())
            async with asyncio.timeout(5):
                while await whole.ready(client):  # noqa: ASYNC110
                    await asyncio.sleep(0.005)
            upstream.behave = upstream.echo
            async with client.post(f"{whole.url}/v1/embeddings", json={"model": "m"}) as early:
                assert early.status == 200, "it takes requests for as long as they may be sent here"
                assert early.headers["Connection"] == "close"
            await refused(client, whole)
            assert not whole.task.done(), "the stream is not over"
            upstream.go_on.set()
            assert await got.content.read() == b"data: two\n\n"
        await asyncio.wait_for(whole.task, 10)


async def refused(client: aiohttp.ClientSession, whole: Whole) -> None:
    """Wait until nobody new is let in."""
    async with asyncio.timeout(5):
        with suppress(aiohttp.ClientConnectionError):
            while (await post(client, whole.url))[0] != 503:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def test_a_request_that_is_held_when_the_gateway_stops_is_told_to_ask_again(client, server):
    server.put(MODELS, model("x"))
    async with running(server, lame_duck_seconds=0) as whole:
        await until_ready(client, whole)
        asking = asyncio.create_task(post(client, whole.url))
        await until(lambda: LEASE in server.objects)
        whole.stop.set()
        status, body, headers = await asking
        assert (status, body["error"]["code"], headers["Retry-After"]) == (503, "shutting_down", "1")
        await asyncio.wait_for(whole.task, 10)


async def test_the_process_serves_and_ends_well_on_sigterm(client, server, tmp_path):
    server.put(MODELS, model("x"))
    ports = []
    for _ in range(2):
        with listener() as free:
            ports.append(free.getsockname()[1])
    upstream = Upstream()
    async with server.running() as kube, serving(upstream) as address:
        server.put(WORKERS, loaded("a", address))
        (tmp_path / "config").write_text(yaml.safe_dump(kubeconfig(kube._api.configuration.host)))
        environment = {
            **os.environ,
            "KUBECONFIG": str(tmp_path / "config"),
            "MODELPOOL_GATEWAY_NAMESPACE": "ns",
            "MODELPOOL_GATEWAY_HOST": "127.0.0.1",
            "MODELPOOL_GATEWAY_PORT": str(ports[0]),
            "MODELPOOL_GATEWAY_ADMIN_PORT": str(ports[1]),
            "MODELPOOL_GATEWAY_LAME_DUCK_SECONDS": "0",
        }
        environment.pop("KUBERNETES_SERVICE_HOST", None)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-m", "modelpool_gateway", env=environment, stderr=subprocess.PIPE
        )
        try:
            async with asyncio.timeout(30):
                while not await answers(client, f"http://127.0.0.1:{ports[1]}/readyz"):
                    assert process.returncode is None
                    await asyncio.sleep(0.1)
                assert (await post(client, f"http://127.0.0.1:{ports[0]}"))[:2] == (200, {"by": "a"})
                process.send_signal(signal.SIGTERM)
                _, said = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 0, said.decode()
    assert b"gateway.serving" in said
    assert b"Traceback" not in said


def kubeconfig(url: str) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "clusters": [{"name": "x", "cluster": {"server": url}}],
        "users": [{"name": "x", "user": {}}],
    }


async def answers(client: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with client.get(url) as got:
            return got.status == 200
    except aiohttp.ClientConnectionError:
        return False
