"""The one HTTP client of the workers' lifecycle ports."""

from dataclasses import dataclass
from typing import Final

import aiohttp
from pydantic import ValidationError

from modelpool_api import EvictRequest, Pong
from modelpool_api.health import PingOutcome
from modelpool_api.pod import LIFECYCLE_PORT

#: A pong with 20 transitions is below 10 KiB; more is not a pong.
_MAX_BYTES: Final = 64 * 1024
_CONNECT_SECONDS: Final = 3.0


@dataclass(frozen=True, slots=True)
class PingResult:
    """How a ping ended, and the pong where it brought one."""

    outcome: PingOutcome
    pong: Pong | None = None


class WorkerClient:
    """Pings workers and asks them to evict themselves. Any number at once; one connection each."""

    def __init__(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=75)
        # proxies of the environment are for the outside, never for pods
        self._session = aiohttp.ClientSession(connector=connector, trust_env=False, raise_for_status=False)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def ping(
        self,
        ip: str,
        token: str,
        worker_id: str,
        *,
        after: tuple[str, int] | None,
        wait: float,
        idle_after: float,
        patience: float,
    ) -> PingResult:
        """Ask for the worker's state: now, or when it moves on from ``after`` (boot id, seq), within ``wait`` s."""
        query = {"wait": f"{wait:g}", "idle_after": f"{idle_after:g}"}
        if after is not None:
            query["after"] = f"{after[0]}:{after[1]}"
        limits = aiohttp.ClientTimeout(total=wait + patience, sock_connect=min(patience, _CONNECT_SECONDS))
        try:
            async with self._session.get(
                self._url(ip, "lifecycle"),
                params=query,
                headers=_auth(token),
                timeout=limits,
                allow_redirects=False,
            ) as answer:
                return _judge(answer.status, await answer.content.read(_MAX_BYTES), worker_id)
        except (TimeoutError, aiohttp.ClientError, OSError):
            return PingResult(PingOutcome.UNREACHABLE)

    async def evict(self, ip: str, token: str, request: EvictRequest, *, patience: float) -> tuple[bool, PingResult]:
        """Ask the worker to evict itself; return whether it agreed, and what it said of itself."""
        try:
            async with self._session.post(
                self._url(ip, "lifecycle/evict"),
                json=request.model_dump(),
                headers=_auth(token),
                timeout=aiohttp.ClientTimeout(total=patience, sock_connect=min(patience, _CONNECT_SECONDS)),
                allow_redirects=False,
            ) as answer:
                agreed = answer.status == 200
                status = 200 if answer.status == 409 else answer.status
                return agreed, _judge(status, await answer.content.read(_MAX_BYTES), request.worker_id)
        except (TimeoutError, aiohttp.ClientError, OSError):
            return False, PingResult(PingOutcome.UNREACHABLE)

    @staticmethod
    def _url(ip: str, path: str) -> str:
        host = f"[{ip}]" if ":" in ip else ip
        return f"http://{host}:{LIFECYCLE_PORT}/v1/{path}"


def _auth(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _judge(status: int, body: bytes, worker_id: str) -> PingResult:
    if status in (401, 403):
        return PingResult(PingOutcome.UNAUTHORIZED)
    if status != 200 or len(body) >= _MAX_BYTES:
        return PingResult(PingOutcome.GARBAGE)
    try:
        pong = Pong.model_validate_json(body)
    except ValidationError:
        return PingResult(PingOutcome.GARBAGE)
    if pong.worker_id != worker_id:
        return PingResult(PingOutcome.WRONG_WORKER)
    return PingResult(PingOutcome.OK, pong)
