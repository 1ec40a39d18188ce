"""kopf's part: it keeps the watches and the probes; what it sees goes into the controller, which decides alone.

Only ``on.event`` is used: it keeps no state in annotations or finalizers. What a watch misses, the sweep finds.
"""

import itertools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import kopf

from modelpool_operator.api import names
from modelpool_operator.handlers.stateless import NoDifferences, NoProgress
from modelpool_operator.runtime.controller import Controller

#: Pauses between tries of a request that the API server does not answer well, seconds; the last one for ever.
_PAUSES: Final = (1.0, 1.0, 2.0, 3.0, 5.0, 8.0, 10.0)


class Patience:
    """The pauses before each new try, without end: else kopf gives up after a minute, and the process ends with it."""

    def __iter__(self) -> Iterator[float]:
        """Begin anew."""
        return itertools.chain(_PAUSES, itertools.repeat(_PAUSES[-1]))


def build_registry(controller: Controller, end: Callable[[], Awaitable[None]]) -> kopf.OperatorRegistry:
    """Return the handlers, bound to this controller; ``end`` stops it, and is called when kopf stops."""
    registry = kopf.OperatorRegistry()

    @kopf.on.startup(registry=registry)
    def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.posting.enabled = False  # our Events tell moves, not log lines
        settings.scanning.disabled = True  # needs no right to list namespaces and CRDs
        settings.peering.standalone = True  # leadership is ours, by a Lease
        settings.persistence.diffbase_storage = NoDifferences()
        settings.persistence.progress_storage = NoProgress()
        settings.watching.server_timeout = 300
        settings.watching.client_timeout = 330
        settings.watching.connect_timeout = 10
        settings.watching.inactivity_timeout = 70
        settings.watching.label_selectors["pods"] = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"
        settings.watching.label_selectors["leases"] = names.LABEL_DEMAND
        settings.networking.request_timeout = 60
        settings.networking.connect_timeout = 10
        settings.networking.error_backoffs = Patience()

    @kopf.on.cleanup(registry=registry)
    async def stop(**_: Any) -> None:
        await end()  # here, because kopf would wait 5 s for tasks that it does not know

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

    @kopf.on.event(names.GROUP, names.VERSION, names.MODEL_WORKERS, registry=registry)
    async def worker_seen(event: kopf.RawEvent, **_: Any) -> None:
        controller.worker_seen(_object(event), deleted=event["type"] == "DELETED")

    @kopf.on.event(names.GROUP, names.VERSION, names.MODEL_POOLS, registry=registry)
    async def pool_seen(event: kopf.RawEvent, **_: Any) -> None:
        controller.pool_seen(_object(event), deleted=event["type"] == "DELETED")

    @kopf.on.event(names.GROUP, names.VERSION, names.MODELS, registry=registry)
    async def model_seen(event: kopf.RawEvent, **_: Any) -> None:
        controller.model_seen(_object(event), deleted=event["type"] == "DELETED")

    @kopf.on.event("coordination.k8s.io", "v1", "leases", labels={names.LABEL_DEMAND: kopf.PRESENT}, registry=registry)
    async def demand_seen(event: kopf.RawEvent, **_: Any) -> None:
        controller.demand_seen(_object(event), deleted=event["type"] == "DELETED")

    @kopf.on.event("", "v1", "pods", labels={names.LABEL_MANAGED_BY: names.MANAGED_BY}, registry=registry)
    async def pod_seen(event: kopf.RawEvent, **_: Any) -> None:
        controller.pod_seen(_object(event), deleted=event["type"] == "DELETED")

    @kopf.on.probe(id="controller", registry=registry)
    def controller_works(**_: Any) -> str:
        problem = controller.problem()
        if problem is not None:
            raise kopf.PermanentError(problem)  # an error makes the probe fail; permanent: at once, without retries
        return "leading" if controller.elector.is_leader else "standing by"

    return registry


def _object(event: kopf.RawEvent) -> dict[str, Any]:
    return dict(event["object"])
