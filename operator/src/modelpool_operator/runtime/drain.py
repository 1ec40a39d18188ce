"""``modelpool-operator drain``: before an uninstall, stop every worker and take our finalizers off.

It runs beside the operator, which does the stopping: this only says what is wanted and waits.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import structlog

from modelpool_api import WorkerState
from modelpool_operator.api import names
from modelpool_operator.domain.errors import ApiError, ConflictError, NotFoundError
from modelpool_operator.domain.podview import format_time
from modelpool_operator.kube import paths
from modelpool_operator.kube.client import KubeClient, retrying

_log = structlog.get_logger(__name__)
_PAUSE = 1.0
#: Models are told this often that no worker is to be made; the operator's memory of it is longer.
_STAMP_SECONDS = 15.0


async def drain(client: KubeClient, namespaces: Sequence[str], seconds: float) -> bool:
    """Let the Models make no more, shut all workers down, wait until they are Dead, remove our finalizers.

    Returns whether all ended in time.
    """
    deadline = time.monotonic() + seconds
    scopes: Sequence[str | None] = list(namespaces) or [None]
    stamped = -_STAMP_SECONDS
    while True:
        if time.monotonic() - stamped >= _STAMP_SECONDS:
            stamped = time.monotonic()
            for scope in scopes:
                for obj in await _list(client, paths.models(scope)):
                    drained = {names.ANNOTATION_DRAINED: format_time(client.clock.now())}
                    await _patch(client, paths.models, obj, {"metadata": {"annotations": drained}})
        workers = [obj for scope in scopes for obj in await _list(client, paths.workers(scope))]
        alive = [obj for obj in workers if (obj.get("status") or {}).get("state") != WorkerState.DEAD]
        for obj in alive:
            if not obj["spec"].get("shutdown"):
                await _patch(client, paths.workers, obj, {"spec": {"shutdown": True}})
        if not alive or time.monotonic() >= deadline:
            break
        _log.info("drain.waiting", workers=len(alive))
        await asyncio.sleep(_PAUSE)
    for obj in workers:
        await _release(client, paths.workers, obj, names.WORKER_FINALIZER)
    for scope in scopes:
        for obj in await _list(client, paths.pools(scope)):
            await _release(client, paths.pools, obj, names.POOL_FINALIZER)
    _log.info("drain.done", workers=len(workers), not_ended=len(alive))
    return not alive


async def _list(client: KubeClient, path: str) -> list[dict[str, Any]]:
    try:
        return await retrying(lambda: client.list_all(path))
    except NotFoundError:
        return []  # the CRDs are gone already


async def _release(client: KubeClient, path: Any, obj: dict[str, Any], finalizer: str) -> None:
    finalizers = obj["metadata"].get("finalizers") or []
    if finalizer in finalizers:
        kept = [name for name in finalizers if name != finalizer]
        await _patch(client, path, obj, {"metadata": {"uid": obj["metadata"]["uid"], "finalizers": kept}})


async def _patch(client: KubeClient, path: Any, obj: dict[str, Any], patch: dict[str, Any]) -> None:
    meta = obj["metadata"]
    try:
        await retrying(lambda: client.patch(path(meta["namespace"], meta["name"]), patch))
    except (NotFoundError, ConflictError):
        return  # gone, or made anew: not ours to stop
    except ApiError as error:
        _log.warning("drain.refused", key=(meta["namespace"], meta["name"]), error=str(error)[:500])
