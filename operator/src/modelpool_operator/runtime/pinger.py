"""One long-poll per running worker: ping, pong and state watch in one request."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

import structlog

from modelpool_api import EvictRequest, HealthCheck, Pong
from modelpool_api.health import NO_PINGS, PingOutcome
from modelpool_api.wire import MAX_WAIT_SECONDS
from modelpool_operator.domain.errors import ApiError, NotFoundError
from modelpool_operator.domain.objects import WorkerView
from modelpool_operator.domain.plan import AskEvict
from modelpool_operator.runtime.cache import Key
from modelpool_operator.runtime.knowledge import Knowledge
from modelpool_operator.runtime.tokens import Tokens
from modelpool_operator.worker_client import PingResult, WorkerClient

_log = structlog.get_logger(__name__)
#: A worker that has not been reached yet (its process is starting) is tried again this soon, seconds; where more than
#: so many start at once each is tried as much less often, so that all together cost no more.
_EAGER: Final = 0.5
_EAGER_WORKERS: Final = 50
#: A worker that answers a long-poll at once without news may not make us spin.
_MIN_TURN: Final = 0.05


@dataclass(frozen=True)
class Target:
    """Whom to ping, and how."""

    key: Key
    uid: str
    pool: Key
    ip: str
    check: HealthCheck
    idle_timeout: float
    #: its process is starting: misses are expected, and judged by the load deadline
    loading: bool = False


class Pingers:
    """Keeps one task per worker that has a running process; its pongs go into the knowledge and wake the reconcile."""

    def __init__(
        self,
        knowledge: Knowledge,
        client: WorkerClient,
        tokens: Tokens,
        notify: Callable[[Key], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._knowledge = knowledge
        self._client = client
        self._tokens = tokens
        self._notify = notify
        self._sleep = sleep
        self._monotonic = monotonic
        self._targets: dict[str, Target] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        #: whose process is starting and has not answered yet
        self._starting: set[str] = set()

    def __len__(self) -> int:
        """How many workers are watched."""
        return len(self._tasks)

    def watched(self) -> set[str]:
        """Return the uids of the workers that are pinged."""
        return set(self._tasks)

    def watch(self, target: Target) -> None:
        """Ping this worker from now on; changed settings hold from the next ping."""
        self._targets[target.uid] = target
        if target.loading and target.uid not in self._knowledge.pongs:
            self._starting.add(target.uid)
        else:
            self._starting.discard(target.uid)
        task = self._tasks.get(target.uid)
        if task is None or task.done():
            self._tasks[target.uid] = asyncio.create_task(self._run(target.uid), name=f"ping {target.key}")

    def unwatch(self, uid: str) -> None:
        """Stop pinging: the process is gone, and what it said last counts no more."""
        self._targets.pop(uid, None)
        self._starting.discard(uid)
        task = self._tasks.pop(uid, None)
        if task is not None:
            task.cancel()
        self._knowledge.pongs.pop(uid, None)
        self._knowledge.health.pop(uid, None)

    async def close(self) -> None:
        """Stop all pings."""
        tasks = list(self._tasks.values())
        for uid in list(self._tasks):
            self.unwatch(uid)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def evict(self, worker: WorkerView, ask: AskEvict) -> bool:
        """Ask the worker to evict itself; return whether it agreed. Its answer counts like a pong either way."""
        target, pong = self._targets.get(worker.uid), self._knowledge.pongs.get(worker.uid)
        if target is None or pong is None:
            return False
        request = EvictRequest(
            worker_id=worker.uid,
            boot_id=pong.boot_id,
            unused_for=ask.unused_for,
            force=ask.force,
            reason=str(ask.reason),
        )
        agreed = False
        try:
            tokens = await self._tokens.candidates(target.pool)
        except NotFoundError:
            return False  # the pool is gone, and its token with it: there is nothing to ask with
        for token in tokens:
            agreed, result = await self._client.evict(target.ip, token, request, patience=target.check.timeout_seconds)
            if result.outcome is not PingOutcome.UNAUTHORIZED:
                break
        self._take(target, result)
        return agreed

    async def _run(self, uid: str) -> None:
        while uid in self._targets:
            target, began = self._targets[uid], self._monotonic()
            try:
                result = await self._ping(target)
            except ApiError:
                await self._sleep(1.0)  # no token to ask with: our trouble, not the worker's
                continue
            except Exception:
                _log.exception("ping.broken", worker=target.key)
                await self._sleep(1.0)
                continue
            if uid not in self._targets:
                return
            self._take(target, result)
            if result.outcome is PingOutcome.OK:
                await self._sleep(max(0.0, _MIN_TURN - (self._monotonic() - began)))
            else:
                pause = self._eager() if uid in self._starting else float(target.check.period_seconds)
                await self._sleep(max(0.0, pause - (self._monotonic() - began)))

    def _eager(self) -> float:
        return _EAGER * max(1.0, len(self._starting) / _EAGER_WORKERS)

    async def _ping(self, target: Target) -> PingResult:
        known = self._knowledge.pongs.get(target.uid)
        # after a miss the next ping must answer at once: only then is a good answer news
        recovering = self._knowledge.health.get(target.uid, NO_PINGS).misses > 0
        after = None if known is None or recovering else (known.boot_id, known.seq)
        result = PingResult(PingOutcome.UNAUTHORIZED)
        for refused in (False, True):
            for token in await self._tokens.candidates(target.pool, refused=refused):
                result = await self._client.ping(
                    target.ip,
                    token,
                    target.uid,
                    after=after,
                    wait=min(float(target.check.period_seconds), MAX_WAIT_SECONDS) if after else 0.0,
                    idle_after=target.idle_timeout,
                    patience=float(target.check.timeout_seconds),
                )
                if result.outcome is not PingOutcome.UNAUTHORIZED:
                    return result
        return result

    def _take(self, target: Target, result: PingResult) -> None:
        uid, known = target.uid, self._knowledge.pongs.get(target.uid)
        record = self._knowledge.health.get(uid, NO_PINGS)
        pong = result.pong
        self._knowledge.health[uid] = record.after(result.outcome, pong.boot_id if pong else None)
        if result.outcome is PingOutcome.UNREACHABLE and self._knowledge.cut_off():
            # our fault: it must not be held against the worker once the connection is back
            self._knowledge.health[uid] = replace(self._knowledge.health[uid], misses=1)
        if pong is not None:
            if known is not None and known.boot_id == pong.boot_id and pong.seq < known.seq:
                return  # an older answer that was overtaken
            self._knowledge.pongs[uid] = pong
            self._starting.discard(uid)
            self._knowledge.heard[uid] = self._monotonic()
            if record.misses or known is None or _news(known, pong):
                self._notify(target.key)
        elif known is not None:
            _log.info("ping.missed", worker=target.key, outcome=str(result.outcome), misses=record.misses + 1)
            self._notify(target.key)


def _news(old: Pong, new: Pong) -> bool:
    return (old.boot_id, old.seq, old.pending_requests, old.queue_depth, old.device) != (
        new.boot_id,
        new.seq,
        new.pending_requests,
        new.queue_depth,
        new.device,
    ) or abs((old.memory.measured_mib if old.memory else 0) - (new.memory.measured_mib if new.memory else 0)) > 64
