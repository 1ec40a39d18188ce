"""Operators whose clocks disagree by ten minutes, one after the other on the same workers.

All times that a deadline compares are the API server's; the Lease is judged by what each has watched itself.
"""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from control_plane.operator_runs.lives import IDLE
from control_plane.operator_runs.process import OperatorProcess
from control_plane.operator_runs.site import until

pytestmark = pytest.mark.control_plane

SHIFT = 600.0


def off_by(seconds: float, folder: Path, site, namespace: str, name: str) -> OperatorProcess:
    folder.mkdir()
    operator = OperatorProcess(folder, site.cluster.kubeconfig, [namespace], LEASE_NAME=namespace, POD_NAME=name)
    operator.environment |= {"PYTHONPATH": str(Path(__file__).parent / "shifted"), "SHIFTED_SECONDS": str(seconds)}
    return operator


def shown_shift(operator: OperatorProcess) -> float:
    """How far the times in its log are from ours."""
    latest = datetime.fromisoformat(operator.records()[-1]["timestamp"])
    return (latest - datetime.now(UTC)).total_seconds()  # noqa: TID251


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize("first", ["ahead", "behind"])
def test_what_one_clock_began_another_one_ends_in_time(site, world, tmp_path, first):
    shifts = {"ahead": SHIFT / 2, "behind": -SHIFT / 2}
    second = "behind" if first == "ahead" else "ahead"
    with (
        off_by(shifts[first], tmp_path / first, site, world.namespace, first) as one,
        off_by(shifts[second], tmp_path / second, site, world.namespace, second) as other,
    ):
        until(lambda: "lease.taken" in one.log.read_text() + other.log.read_text(), "one leads", 60)
        leads, follows = (one, other) if "lease.taken" in one.log.read_text() else (other, one)
        world.pool(scheduleDeadlineSeconds=6, failedRetentionSeconds=300, idleTimeoutSeconds=300)
        world.worker("serves")
        world.worker("failed", "file:///never")
        world.worker("patient", "file:///stuck", scheduleDeadlineSeconds=300)
        world.worker("hasty", "file:///stuck")
        for name in ("patient", "hasty"):
            until(lambda name=name: world.status(name).get("nodeName"), f"{name} has a node")
        world.reaches("Ready", "serves")
        world.reaches("Failed", "failed")
        killed = time.monotonic()
        leads.kill()
        until(lambda: "lease.taken" in follows.log.read_text(), "the other takes over")
        assert time.monotonic() - killed < 6
        assert abs(shown_shift(one) - shown_shift(other)) > SHIFT * 0.9
        hasty = world.reaches("Failed", "hasty")
        assert hasty["reason"] == "ScheduleDeadlineExceeded"
        pod = next(
            each.obj
            for each in reversed(world.recorder.of(world.namespace, "pod"))
            if each.obj["metadata"]["name"] == hasty["podName"]
        )
        lifted = at(pod["metadata"]["annotations"]["modelpool.dev/gate-lifted"])
        took = at(hasty["transitions"][-1]["time"]) - lifted
        assert timedelta(seconds=6) <= took < timedelta(seconds=12)
        # the times of both are the API server's, and nobody else's deadline has passed
        assert abs((at(hasty["transitions"][-1]["time"]) - datetime.now(UTC)).total_seconds()) < 30  # noqa: TID251
        assert world.status("patient")["state"] == "Spawning"
        assert world.status("serves")["state"] == "Ready"
        assert world.status("failed")["state"] == "Failed"
        assert {entry["name"] for entry in world.ledger().values()} >= {"serves", "patient"}
        assert world.pool_status().get("ledgerRepairs", 0) == 0
        world.check()
    for operator in (one, other):
        operator.assert_clean()


def test_a_whole_life_under_a_clock_that_is_off_is_the_same(site, world, tmp_path):
    with off_by(SHIFT, tmp_path / "off", site, world.namespace, "off") as operator:
        IDLE.begin(world)
        IDLE.ends(world)
        assert shown_shift(operator) > SHIFT - 60
        first = world.status()["transitions"][0]["time"]
        assert abs((at(first) - datetime.now(UTC)).total_seconds()) < 60  # noqa: TID251
    operator.assert_clean()
