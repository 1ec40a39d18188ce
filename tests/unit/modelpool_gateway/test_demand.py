"""What is written of the Models that the gateway needs, and how often."""

import asyncio
from datetime import UTC, datetime

import pytest

from modelpool_gateway.demand import Demand
from modelpool_gateway.models import Model, Models
from unit.modelpool_gateway.api_server import ApiServer
from unit.modelpool_gateway.site import until

LEASES = "/apis/coordination.k8s.io/v1/namespaces/ns/leases"
KEEP = "modelpool.dev/keep-alive"


class Desk:
    """A demand whose clock the test moves, and the Models that are there."""

    def __init__(self, client) -> None:
        self.now = 1000.0
        self.models = Models()
        self.waited_for: list[Model] = []
        self._version = 0
        self.demand = Demand(
            client, "ns", "gateway-1", self.models, lambda: self.waited_for, monotonic=lambda: self.now
        )

    def model(self, name: str = "m", keep_alive: int | None = None) -> Model:
        """The watch shows a Model."""
        self._version += 1
        meta = {
            "namespace": "ns",
            "name": name,
            "uid": f"uid-{name}",
            "resourceVersion": str(self._version),
            "creationTimestamp": "2026-01-01T00:00:00Z",
        }
        spec = {"worker": {"model": {"name": name, "capability": "text-embedding"}}}
        self.models.observe({"metadata": meta, "spec": spec, "status": {"keepAliveSeconds": keep_alive}})
        return self.models.of("ns", name)[0]


@pytest.fixture
def server() -> ApiServer:
    return ApiServer()


@pytest.fixture
async def desk(server):
    async with server.running() as client:
        yield Desk(client)


async def test_a_wish_is_a_lease_that_belongs_to_the_model(desk, server):
    desk.demand.want(desk.model())
    before = datetime.now(UTC)  # noqa: TID251 - the server's clock is this one's
    await desk.demand.write_due()
    lease = server.objects[f"{LEASES}/demand-m"]
    assert lease["metadata"] == {
        "name": "demand-m",
        "namespace": "ns",
        "labels": {"modelpool.dev/demand": "m"},
        "annotations": {},
        "ownerReferences": [{"apiVersion": "modelpool.dev/v1alpha1", "kind": "Model", "name": "m", "uid": "uid-m"}],
    }
    assert lease["spec"]["holderIdentity"] == "gateway-1"
    assert lease["spec"]["leaseDurationSeconds"] == 15
    assert abs((datetime.fromisoformat(lease["spec"]["renewTime"]) - before).total_seconds()) < 60


async def test_a_thousand_wishes_are_one_write_and_it_is_repeated_every_five_seconds_while_somebody_waits(desk, server):
    model = desk.model()
    desk.waited_for = [model]
    written = []
    for second in range(12):
        for _ in range(1000):
            desk.demand.want(model)
        desk.now = 1000.0 + second
        count = len(server.writes)
        await desk.demand.write_due()
        written.append(len(server.writes) - count)
    assert written == [2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0], "a patch that finds nothing and a create; then patches"


async def test_nothing_is_written_once_nobody_waits(desk, server):
    model = desk.model()
    desk.demand.want(model)
    await desk.demand.write_due()
    desk.demand.want(model)  # within the five seconds, and served meanwhile
    desk.now += 1
    await desk.demand.write_due()
    desk.now += 10
    count = len(server.writes)
    await desk.demand.write_due()
    assert len(server.writes) == count


async def test_the_first_wish_is_written_though_whoever_had_it_is_gone(desk, server):
    desk.demand.want(desk.model())
    await desk.demand.write_due()
    assert len(server.objects) == 1


async def test_keep_alive_is_an_annotation_that_the_next_wish_takes_away(desk, server):
    model = desk.model(keep_alive=300)
    desk.demand.keep(model, -1)
    await desk.demand.write_due()
    assert server.objects[f"{LEASES}/demand-m"]["metadata"]["annotations"] == {KEEP: "-1"}
    desk.demand.want(model)
    await desk.demand.write_due()
    assert server.objects[f"{LEASES}/demand-m"]["metadata"]["annotations"] == {}


async def test_keep_alive_is_written_where_it_differs_the_latest_word_and_seldom(desk, server):
    model = desk.model(keep_alive=300)
    desk.demand.keep(model, 300)
    await desk.demand.write_due()
    assert server.writes == []
    desk.demand.keep(model, 60)
    desk.demand.keep(model, 0)
    await desk.demand.write_due()
    desk.demand.keep(model, 300)  # the Model's status still tells of 300, but 0 is on its way
    desk.now += 4
    await desk.demand.write_due()
    desk.now += 1
    await desk.demand.write_due()
    values = [body["metadata"]["annotations"][KEEP] for method, _, body in server.writes if method == "PATCH"]
    assert values == ["0", "300"]


async def test_what_the_operator_has_taken_is_not_said_again(desk, server):
    desk.demand.keep(desk.model(), 60)
    await desk.demand.write_due()
    count = len(server.writes)
    model = desk.model(keep_alive=60)
    desk.now += 10
    desk.demand.keep(model, 60)
    await desk.demand.write_due()
    assert len(server.writes) == count


async def test_both_wishes_of_one_model_are_written_one_after_the_other(desk, server):
    model = desk.model()
    desk.demand.keep(model, 60)
    desk.demand.want(model)
    await desk.demand.write_due()
    await desk.demand.write_due()
    values = [body["metadata"]["annotations"].get(KEEP) for method, _, body in server.writes if method == "PATCH"]
    assert values == [None, "60"]


@pytest.mark.parametrize("status", [500, 503, 429, 403, 409], ids=str)
async def test_a_write_that_fails_is_made_again_after_a_pause(desk, server, status):
    model = desk.model()
    desk.waited_for = [model]
    desk.demand.want(model)
    server.failures.append(status)
    await desk.demand.write_due()
    await desk.demand.write_due()
    assert server.writes == [], "not in the same instant"
    desk.now += 1
    await desk.demand.write_due()
    assert len(server.objects) == 1


async def test_a_keep_alive_that_could_not_be_written_is_not_lost(desk, server):
    desk.demand.keep(desk.model(), 60)
    server.failures.append(503)
    await desk.demand.write_due()
    desk.now += 1
    await desk.demand.write_due()
    assert server.objects[f"{LEASES}/demand-m"]["metadata"]["annotations"] == {KEEP: "60"}


async def test_another_gateway_that_creates_the_lease_first_changes_nothing(desk, server):
    patched = []

    async def racing(path, body):
        patched.append(path)
        if len(patched) == 1:
            try:
                return await original(path, body)
            finally:
                server.objects[path] = {"metadata": {"name": "demand-m"}, "spec": {"holderIdentity": "gateway-2"}}
        return await original(path, body)

    original, desk.demand._client.patch = desk.demand._client.patch, racing
    desk.demand.want(desk.model())
    await desk.demand.write_due()
    assert [method for method, *_ in server.writes] == ["PATCH", "POST", "PATCH"]
    assert server.objects[f"{LEASES}/demand-m"]["spec"]["holderIdentity"] == "gateway-1"


async def test_a_model_that_is_gone_is_not_written_of(desk, server):
    model = desk.model()
    desk.demand.want(model)
    desk.models.forget(model.uid)
    await desk.demand.write_due()
    assert server.writes == []


async def test_the_writer_writes_at_once_when_it_is_asked(desk, server):
    task = asyncio.create_task(desk.demand.run())
    await asyncio.sleep(0)
    desk.demand.want(desk.model())
    await until(lambda: server.objects)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_nobody_has_thought_of_does_not_end_it(desk, server, monkeypatch):
    failures = [RuntimeError()] * 2
    patch = desk.demand._client.patch

    async def fails(*given):
        if failures:
            raise failures.pop()
        return await patch(*given)

    def still_wanted():
        if not failures:
            return []
        raise failures.pop()

    monkeypatch.setattr(desk.demand._client, "patch", fails)
    desk.demand.want(desk.model())
    await desk.demand.write_due()
    assert len(failures) == 1, "it is written again after a pause"
    monkeypatch.setattr(desk.demand, "_still_wanted", still_wanted)
    desk.now += 5
    task = asyncio.create_task(desk.demand.run())
    await until(lambda: not failures)
    desk.demand.want(desk.model())
    await until(lambda: server.objects)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
