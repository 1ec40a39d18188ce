"""An API server that refuses, breaks, dawdles, or does a thing and loses its answer: the life goes on all the same.

Each row is a whole life, from the start of the operator to Dead, with every so-manieth answer of each kind spoiled; or
with a burst of bad answers that begins when the worker is made, so that nothing at all succeeds for a while.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest

from control_plane.operator_faults import faults
from control_plane.operator_faults.faults import TRIED_AGAIN, Spoil, Which
from control_plane.operator_runs.lives import IDLE, stage
from control_plane.operator_runs.proxy import Fault, is_work
from control_plane.operator_runs.site import until

pytestmark = pytest.mark.control_plane


@dataclass(frozen=True)
class Row:
    fault: Fault
    which: Which = faults.is_call
    every: int = 1
    times: int | None = None
    lease_seconds: int = 2

    def run(self, site, folder: Path) -> None:
        spoil = Spoil(self.which, self.fault, every=self.every, times=self.times)
        with stage(site, folder, LEASE_SECONDS=str(self.lease_seconds)) as (world, proxy, operator):
            if self.times is None:
                proxy.fault_of = spoil
                operator.start()
                IDLE.begin(world)
            else:
                operator.start()
                proxy.fault_of = spoil
                IDLE.begin(world)
            IDLE.ends(world)
            assert spoil.done >= (self.times or 5)
            operator.assert_clean(but=TRIED_AGAIN)


def refusals() -> dict[str, Row]:
    """Each status for every third request of each kind, and for the first twenty of a life."""
    rows = {}
    for status in (409, 422, 429, 500, 503, 504):
        which = faults.is_write if status in (409, 422) else faults.is_call
        fault = faults.refuse(status, retry_after=1 if status == 429 else None)
        rows[f"{status}-every-third"] = Row(fault, which, every=3)
        rows[f"{status}-burst"] = Row(fault, which, times=20)
    return rows


ROWS = {
    **refusals(),
    "slow-every-third": Row(faults.delay(1.5), every=3, lease_seconds=15),
    "slow-writes": Row(faults.delay(1.0), is_work),
    "cut-every-third": Row(faults.cut, every=3),
    "cut-burst": Row(faults.cut, times=20),
    "lost-by-cut-every-second-write": Row(faults.lose(), is_work, every=2),
    "lost-by-504-every-second-write": Row(faults.lose(504), is_work, every=2),
    "lost-by-cut-burst": Row(faults.lose(), is_work, times=8),
}


@pytest.fixture(scope="module")
def runs(site, abreast):
    return abreast({name: lambda folder, row=row: row.run(site, folder) for name, row in ROWS.items()})


@pytest.mark.parametrize("row", ROWS)
def test_the_life_is_the_same_however_the_answers_are_spoiled(runs, row):
    runs(row)


def test_an_api_server_that_is_away_just_when_a_worker_has_agreed_to_go_does_not_change_why(site, tmp_path):
    """The process ends as it said, before anything could be written of it: its last word counts."""
    with stage(site, tmp_path / "stage") as (world, proxy, operator):
        operator.start()
        IDLE.begin(world)
        world.reaches("Ready")

        def interpose(machine):
            decide = machine.evict

            def evict(request):
                agreed = decide(request)
                if agreed:
                    proxy.fault_of = Spoil(faults.is_call, faults.refuse(503))
                return agreed

            machine.evict = evict

        world.on_machine(interpose)
        until(lambda: world.pods()[0].status.phase == "Succeeded", "the process has ended")
        assert world.status()["state"] == "Idle"
        proxy.fault_of = lambda _: None
        IDLE.ends(world)
        operator.assert_clean()
