"""Our definitions on the API server: before all of them are served there is nothing to watch."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from modelpool_operator.api import names
from modelpool_operator.domain.errors import ApiError, BusyError, NotFoundError
from modelpool_operator.kube import paths
from modelpool_operator.kube.client import KubeClient

_log = structlog.get_logger(__name__)
_PLURALS: Final = (names.MODELS, names.MODEL_POOLS, names.MODEL_WORKERS)
#: Until a new definition's storage is ready, the API server asks for patience; it is a moment.
_MOMENT: Final = 0.5


async def wait_for_crds(
    client: KubeClient,
    namespace: str | None = None,
    patience: float = 5.0,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Return once the API server serves all our kinds; ``namespace`` is one that may be listed, None: all may."""
    said = False
    while True:
        try:
            served = await client.get(f"/apis/{names.GROUP}/{names.VERSION}")
            missing = set(_PLURALS) - {each["name"] for each in served["resources"]}
            if not missing and await _answered(client, namespace):
                return
            if not missing:
                await sleep(_MOMENT)
                continue
        except NotFoundError:
            missing = set(_PLURALS)
        except ApiError as error:
            _log.warning("api.unavailable", error=str(error)[:500])
            await sleep(patience)
            continue
        if not said:
            _log.warning(
                "crds.missing", expected=[f"{each}.{names.GROUP}" for each in sorted(missing)], fix="apply crds/"
            )
            said = True
        await sleep(patience)


async def _answered(client: KubeClient, namespace: str | None) -> bool:
    """Whether lists of our kinds are answered, be it by an error, which whoever watches them deals with."""
    try:
        for path in (paths.models, paths.pools, paths.workers):
            await client.get(f"{path(namespace)}?limit=1")
    except BusyError:
        return False
    except ApiError:
        return True
    return True
