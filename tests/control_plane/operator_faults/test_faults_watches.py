"""Watches that say nothing, drop, repeat and reorder events, or are too old; and lists that are.

Watches are hints and the sweep is the truth, so every life ends as if they were well.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from control_plane.operator_faults import faults
from control_plane.operator_faults.faults import TRIED_AGAIN, OldLists, Spoil
from control_plane.operator_runs.lives import IDLE, pods_of, stage
from control_plane.operator_runs.proxy import Fault
from control_plane.operator_runs.site import Site, until
from modelpool_operator.api import names

pytestmark = pytest.mark.control_plane


@dataclass(frozen=True)
class Row:
    fault: Fault

    def run(self, site, folder: Path) -> None:
        spoil = Spoil(faults.is_watch, self.fault)
        with stage(site, folder) as (world, proxy, operator):
            proxy.fault_of = spoil
            operator.start()
            IDLE.begin(world)
            IDLE.ends(world)
            assert spoil.done >= 3
            operator.assert_clean(but=TRIED_AGAIN)


ROWS = {
    "silent": Row(faults.say_nothing),
    "every-second-event-dropped": Row(faults.dropping()),
    "no-deletions-told": Row(faults.dropping(lambda event: event["type"] == "DELETED")),
    "nothing-but-deletions-told": Row(faults.dropping(lambda event: event["type"] in ("ADDED", "MODIFIED"))),
    "repeated": Row(faults.repeating),
    "reordered": Row(faults.reordering),
    "gone-in-the-stream": Row(faults.end_with(410)),
    "unavailable": Row(faults.refuse(503)),
}


def a_watch_that_cannot_go_on_ends_the_process_and_its_successor_goes_on(site, folder, *, fault):
    """The library gives up at such an answer: better a new process, as Kubernetes makes one, than one that is deaf."""
    with stage(site, folder) as (world, proxy, operator):
        operator.start()
        IDLE.begin(world)
        world.reaches("Ready")
        proxy.fault_of = Spoil(faults.is_watch, fault, times=3)
        proxy.hang_up()
        until(lambda: not operator.running, "the process ends")
        assert operator.exit_code == 1
        operator.start()
        IDLE.ends(world)


def what_was_deleted_while_the_watches_were_away_is_noticed_and_the_rest_untouched(site, folder):
    """All answers stop; meanwhile one worker and its pod vanish without a word; the watches come back with 410."""
    with stage(site, folder) as (world, proxy, operator):
        operator.start()
        world.pool()
        for name in ("stays", "goes"):
            world.worker(name)
            world.reaches("Ready", name)
        stays = world.get("stays")
        proxy.fault_of = Spoil(lambda _: True, faults.refuse(503))
        proxy.hang_up()
        world.delete("goes")
        world.patch_meta("goes", {"finalizers": None})
        pod = next(pod for pod in world.pods() if pod.metadata.labels[names.LABEL_WORKER] == "goes")
        world.core.delete_namespaced_pod(pod.metadata.name, world.namespace, grace_period_seconds=0)
        until(lambda: len(world.pods()) == 1, "the pod is gone")
        proxy.fault_of = Spoil(faults.is_watch, faults.end_with(410), times=3)
        until(lambda: [entry["name"] for entry in world.ledger().values()] == ["stays"], "its room is given back", 60)
        # the charge of a worker that vanished by force is found by the sweep, and counted as what it is
        assert world.pool_status()["ledgerRepairs"] == 1
        assert world.status("stays")["state"] == "Ready"
        assert pods_of(world, stays["metadata"]["uid"]) == {pod.metadata.uid for pod in world.pods()}
        world.worker("new")
        world.reaches("Ready", "new")
        operator.assert_clean(but=TRIED_AGAIN)


def a_list_from_before_the_restart_does_no_harm(site, folder, *, kept):
    """The new process is first told how things were: nothing yet, or a worker that has left and been made anew."""
    lists = OldLists()
    with stage(site, folder) as (world, proxy, operator):
        world.pool(idleTimeoutSeconds=1, evictAfterSeconds=600)
        if kept == "empty":
            proxy.fault_of = lists.fault_of
            operator.start()
            until(lambda: world.pool_status().get("reserved"), "the empty ledger")
            until(lambda: lists.complete, "all lists were seen")
            proxy.fault_of = lambda _: None
            first = world.worker()
            world.reaches("Idle")
        else:
            operator.start()
            first = world.worker(source="file:///slow")
            world.reaches("Loading")
            if kept == "ready":
                world.load()
                world.reaches("Idle")
            proxy.fault_of = lists.fault_of
            until(lambda: lists.complete, "all lists were seen")
            proxy.fault_of = lambda _: None
            world.delete()
            world.vanishes()
            first = world.worker()
            world.reaches("Idle")
        operator.kill()
        lists.old = True
        proxy.fault_of = lists.fault_of
        operator.start()
        until(lambda: len(lists.given) == 4, "the old lists were told")
        second = world.worker("second")
        world.reaches("Idle", "second")
        assert set(world.ledger()) == {first["metadata"]["uid"], second["metadata"]["uid"]}
        assert world.status()["state"] == "Idle"
        for made in (first, second):
            assert len(pods_of(world, made["metadata"]["uid"])) == 1
        for name in ("w", "second"):
            world.patch(name, {"shutdown": True})
            assert world.reaches("Dead", name)["reason"] == "Shutdown"
        until(world.settled, "all is given back")
        assert world.pool_status().get("ledgerRepairs", 0) == 0
        world.check()
        operator.assert_clean()


STORIES: dict[str, Callable[[Site, Path], None]] = {
    **{f"all-along-{name}": row.run for name, row in ROWS.items()},
    "deleted-in-the-gap": what_was_deleted_while_the_watches_were_away_is_noticed_and_the_rest_untouched,
}
for name, fault in {"410": faults.refuse(410), "500-in-the-stream": faults.end_with(500)}.items():
    STORIES[f"ended-by-{name}"] = partial(
        a_watch_that_cannot_go_on_ends_the_process_and_its_successor_goes_on, fault=fault
    )
for kept in ("empty", "loading", "ready"):
    STORIES[f"old-list-{kept}"] = partial(a_list_from_before_the_restart_does_no_harm, kept=kept)


@pytest.fixture(scope="module")
def runs(site, abreast):
    return abreast({name: partial(story, site) for name, story in STORIES.items()})


@pytest.mark.parametrize("story", STORIES)
def test_watches_and_lists_may_be_wrong_and_the_lives_are_not(runs, story):
    runs(story)
