"""A write that was applied and whose answer was lost: for every write of a whole life, one after the other.

One operator has all the lives at once, each in a namespace of its own, and loses one answer in each.
"""

import pytest
from aiohttp import web

from control_plane.operator_faults import faults
from control_plane.operator_runs.lives import FAILED, IDLE, all_were_reached
from control_plane.operator_runs.process import OperatorProcess
from control_plane.operator_runs.proxy import Fault, is_work, running_proxy

pytestmark = pytest.mark.control_plane


class LostOnce:
    """Loses the answer of one write in each namespace: of the so-manieth."""

    def __init__(self, number_by_namespace: dict[str, int]) -> None:
        self.left = dict(number_by_namespace)

    def __call__(self, request: web.Request) -> Fault | None:
        if not is_work(request):
            return None
        namespace = request.path.partition("/namespaces/")[2].partition("/")[0]
        self.left[namespace] -= 1
        return faults.lose() if self.left[namespace] == 0 else None


#: Usual writes of each life, and some more.
LIVES = {"idle": (IDLE, 24), "failed": (FAILED, 22)}


def test_the_lost_answer_of_any_write_changes_nothing(site, tmp_path):
    worlds = {(life, number): site.world() for life in LIVES for number in range(1, LIVES[life][1] + 1)}
    lost = LostOnce({world.namespace: number for (_, number), world in worlds.items()})
    where = [world.namespace for world in worlds.values()]
    with running_proxy(site.cluster, tmp_path) as proxy:
        proxy.fault_of = lost
        with OperatorProcess(tmp_path, proxy.kubeconfig, where, LEASE_NAME=where[0], SWEEP_SECONDS="3") as operator:
            for (life, _), world in worlds.items():
                LIVES[life][0].begin(world)
            for (life, _), world in worlds.items():
                LIVES[life][0].ends(world, 45)  # sooner than the look at everything that would hide a lost wake-up
    operator.assert_clean()
    for life, (_, writes) in LIVES.items():
        met = [number for (which, number), world in worlds.items() if which == life and lost.left[world.namespace] <= 0]
        all_were_reached(met, writes)
