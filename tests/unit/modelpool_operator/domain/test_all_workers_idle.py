"""When a whole group of workers counts as unused."""

import pytest

from modelpool_api import WorkerState
from modelpool_operator.domain.idle_eviction import all_workers_idle
from unit.modelpool_operator.domain.scenes import NOW, ago, worker

_S = WorkerState
IDLE = worker(_S.IDLE, since=400)
READY = worker(_S.READY, since=400)


@pytest.mark.parametrize(
    ("group", "threshold", "expected"),
    [
        pytest.param([], 0, False, id="nobody"),
        pytest.param([IDLE], 300, True, id="one-idle"),
        pytest.param([IDLE, READY], 300, True, id="idle-and-ready-long-unused"),
        pytest.param([IDLE, READY], 401, False, id="not-yet"),
        pytest.param([IDLE], 400, True, id="to-the-second"),
        pytest.param([worker(_S.READY, since=400, status={"lastUsedTime": ago(5)})], 300, False, id="used-lately"),
        pytest.param([IDLE, worker(_S.SPAWNING, since=999)], 0, False, id="one-spawning"),
        pytest.param([IDLE, worker(_S.LOADING, since=999)], 0, False, id="one-loading"),
        pytest.param([IDLE, worker(_S.PROCESSING, since=999)], 0, False, id="one-processing"),
        pytest.param([worker(_S.IDLE, since=400, status={"pendingRequests": 1})], 0, False, id="something-pending"),
        pytest.param([IDLE, worker(_S.EVICTING, since=1), worker(_S.DEAD)], 300, True, id="leaving-counts-as-gone"),
        pytest.param([worker(_S.EVICTING), worker(_S.FAILED), worker(_S.DEAD)], 0, False, id="all-gone-is-nobody"),
    ],
)
def test_all_workers_idle(group, threshold, expected):
    assert all_workers_idle(group, NOW, threshold) is expected
