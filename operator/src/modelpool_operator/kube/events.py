"""Events on ModelWorkers and ModelPools: one for each lifecycle move, none for load."""

from datetime import datetime
from typing import Any

import structlog

from modelpool_operator.api import names
from modelpool_operator.domain.errors import ApiError
from modelpool_operator.domain.podview import format_time
from modelpool_operator.kube import paths
from modelpool_operator.kube.client import KubeClient

_log = structlog.get_logger(__name__)


class EventRecorder:
    """Writes Events; one that cannot be written is counted, never a reason to stop."""

    def __init__(self, client: KubeClient, instance: str) -> None:
        self._client = client
        self._instance = instance
        self.lost = 0

    async def record(
        self,
        kind: str,
        key: tuple[str, str],
        uid: str,
        *,
        reason: str,
        action: str,
        note: str,
        warning: bool,
        now: datetime,
    ) -> None:
        """Write one Event about the object."""
        namespace, name = key
        stamp = format_time(now)
        body: dict[str, Any] = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"generateName": f"{name[:200]}-", "namespace": namespace},
            "eventTime": stamp,
            "reportingController": f"{names.GROUP}/operator",
            "reportingInstance": self._instance,
            "action": action,
            "reason": reason,
            "note": note[:1024],
            "type": "Warning" if warning else "Normal",
            "regarding": {
                "apiVersion": names.API_VERSION,
                "kind": kind,
                "namespace": namespace,
                "name": name,
                "uid": uid,
            },
        }
        try:
            await self._client.create(paths.events(namespace), body)
        except ApiError as error:
            self.lost += 1
            _log.warning("event.lost", object=key, reason=reason, error=type(error).__name__, status=error.status)
