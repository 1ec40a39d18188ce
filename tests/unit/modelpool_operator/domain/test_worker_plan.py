"""What is decided for one worker, state by state: what is seen on the left, what follows on the right."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from modelpool_api import STATES, WorkerState
from modelpool_api.health import HealthRecord, PingOutcome
from modelpool_operator.api.names import Reason
from modelpool_operator.domain.idle_eviction import idle_eviction_due
from modelpool_operator.domain.plan import AskEvict, DeletePod, LiftGate
from modelpool_operator.domain.podview import PodView
from modelpool_operator.domain.seen import Seen
from modelpool_operator.domain.worker_plan import plan_worker
from unit.modelpool_operator.domain.scenes import (
    NOW,
    POD_UID,
    acts,
    ago,
    charged,
    container,
    entry,
    moved,
    pod,
    pong,
    pool,
    running,
    seen,
    worker,
)

_S = WorkerState
SERVING = (_S.READY, _S.PROCESSING, _S.IDLE)
DELETED = {"deletionTimestamp": "2026-01-02T03:04:00Z"}
WAITING = (Reason.WAITING_FOR_QUOTA, "needs 1024 MiB")
MISSED_THRICE = HealthRecord(3, PingOutcome.GARBAGE)
UNREACHABLE = PingOutcome.UNREACHABLE
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}

Expected = tuple[list[tuple[str, str]], list[str]]


def check(sight: Seen, moves: list[tuple[str, str]], actions: list[str]) -> None:
    plan = plan_worker(sight, NOW)
    assert moved(plan) == moves
    assert acts(plan) == actions


def new(**what: Any) -> Seen:
    return seen(worker(None, **what), pool=pool())


@pytest.mark.parametrize(
    ("sight", "accepted", "actions"),
    [
        pytest.param(new(meta={"finalizers": None}), True, ["AddFinalizer", "AskPool"], id="without-finalizer"),
        pytest.param(new(), True, ["AskPool"], id="with-finalizer"),
        pytest.param(new(meta=DELETED), False, ["RemoveFinalizer"], id="deleted-at-once"),
        pytest.param(new(meta={**DELETED, "finalizers": ["x/y"]}), False, [], id="deleted-foreign-finalizer"),
    ],
)
def test_a_new_worker_is_accepted_once_unless_it_is_already_going(sight, accepted, actions):
    plan = plan_worker(sight, NOW)
    assert (plan.accept, acts(plan), plan.moves) == (accepted, actions, ())


def spawning(of: Any = None, **what: Any) -> Seen:
    return seen(of or worker(_S.SPAWNING), **what)


GATED = pod(gated=True, phase="Pending")


@pytest.mark.parametrize(
    ("sight", "moves", "actions"),
    [
        pytest.param(spawning(pool=pool()), [], ["AskPool"], id="no-pod-pool-silent"),
        pytest.param(spawning(pool=pool(), quota=WAITING), [], [], id="no-pod-refused"),
        pytest.param(spawning(pool=None), [], [], id="no-pool"),
        pytest.param(spawning(pod=GATED, pool=pool()), [], ["AskPool"], id="gated-no-entry"),
        pytest.param(spawning(pod=GATED), [], ["LiftGate"], id="gated-with-entry"),
        pytest.param(
            spawning(pod=GATED, pool=pool({worker().uid: entry(pod_uid="another")})),
            [],
            ["AskPool"],
            id="gated-entry-of-another-pod",
        ),
        pytest.param(
            spawning(pod=pod(container(running=True, started=1))),
            [("Loading", "ContainerStarted")],
            [],
            id="container-runs",
        ),
        pytest.param(
            spawning(pod=pod(container(waiting="CrashLoopBackOff", restarts=1, exit_code=1))),
            [("Loading", "ContainerStarted")],
            [],
            id="container-ended-already",
        ),
        pytest.param(
            spawning(worker(_S.SPAWNING, status={"podUID": POD_UID})), [("Failed", "PodLost")], [], id="pod-lost"
        ),
        pytest.param(
            spawning(pod=pod(deleting=True, phase="Pending")), [("Evicting", "PodTerminating")], [], id="pod-deleting"
        ),
        pytest.param(
            spawning(pod=pod(container(waiting="InvalidImageName"), phase="Pending")),
            [("Failed", "ImagePullError")],
            [],
            id="image-name-hopeless",
        ),
        pytest.param(
            spawning(pod=pod(container(waiting="ImagePullBackOff"), phase="Pending")), [], [], id="image-tried-again"
        ),
        pytest.param(
            spawning(pod=pod(phase="Failed", status={"reason": "OutOfcpu"})),
            [("Failed", "PodRejected")],
            [],
            id="node-refused-the-pod",
        ),
        pytest.param(spawning(worker(_S.SPAWNING, meta=DELETED)), [("Evicting", "Deleted")], [], id="deleted"),
        pytest.param(spawning(worker(_S.SPAWNING, shutdown=True)), [("Evicting", "Shutdown")], [], id="shutdown"),
        pytest.param(
            spawning(pool=pool(stopPolicy="HoldAndDrain")), [("Evicting", "PoolDrain")], [], id="pool-drained"
        ),
        pytest.param(spawning(pool=pool(deleting=True)), [("Evicting", "PoolDrain")], [], id="pool-deleted"),
        pytest.param(spawning(pool=pool(stopPolicy="Hold")), [], ["AskPool"], id="pool-held"),
    ],
)
def test_spawning(sight, moves, actions):
    """Waits for its reservation, then for its container; a pod that was charged once is never made again."""
    check(sight, moves, actions)


def test_the_gate_is_lifted_for_the_very_pod_that_was_charged():
    (action,) = plan_worker(spawning(pod=GATED), NOW).actions
    assert action == LiftGate(POD_UID, "70")


def test_before_the_gate_is_lifted_status_says_which_pod_was_charged():
    """Fields are written before actions: after a crash in between the worker still gets no second pod."""
    plan = plan_worker(spawning(pod=GATED), NOW)
    assert plan.fields["podUID"] == POD_UID
    assert "podUID" not in plan_worker(spawning(pod=GATED, pool=pool()), NOW).fields


WAITS = [
    pytest.param(pod(scheduled=False, phase="Pending", lifted=0), "QuotaReserved", id="scheduler"),
    pytest.param(
        pod(scheduled=False, phase="Pending", lifted=0, conditions=(UNSCHEDULABLE,)), "Unschedulable", id="no-node"
    ),
    pytest.param(
        pod(container(waiting="ImagePullBackOff", said="no such tag"), phase="Pending", lifted=0),
        "ImagePullError",
        id="image",
    ),
    pytest.param(
        pod(container(waiting="CreateContainerConfigError", said="secret x not found"), phase="Pending", lifted=0),
        "ConfigError",
        id="config",
    ),
    pytest.param(pod(container(waiting="ContainerCreating"), phase="Pending", lifted=0), "PodPending", id="creating"),
]


@pytest.mark.parametrize(("of", "reason"), WAITS)
def test_spawning_says_what_it_waits_for_and_fails_with_that_reason_at_its_deadline(of, reason):
    """The second before the deadline it waits; in the second of the deadline it fails, and a plain wait says so."""
    sight = spawning(worker(_S.SPAWNING, since=5, scheduleDeadlineSeconds=60), pod=of)
    early, late = (plan_worker(sight, NOW + timedelta(seconds=after)) for after in (59, 60))
    assert early.moves == ()
    assert (early.fields["reason"], early.wake_after) == (reason, 1.0)
    (move,) = late.moves
    final = "ScheduleDeadlineExceeded" if reason in ("PodPending", "QuotaReserved") else reason
    assert (move.to, move.reason) == (_S.FAILED, final)
    assert "60 s" in move.message
    assert late.fields["lastFailure"]["reason"] == final


def test_the_schedule_deadline_counts_from_the_lifting_of_the_gate_not_from_the_wait_for_quota():
    of = worker(_S.SPAWNING, since=5000, scheduleDeadlineSeconds=60)
    just_lifted = pod(scheduled=False, phase="Pending", lifted=1)
    assert plan_worker(spawning(of, pod=just_lifted), NOW).wake_after == 59.0
    assert plan_worker(spawning(of, pool=pool(), quota=WAITING), NOW).moves == ()


def loading(of: Any = None, **what: Any) -> Seen:
    return seen(of or worker(_S.LOADING), **{"pod": running(ready=False), **what})


def crashed(times: int, code: int = 1, **what: Any) -> Any:
    """A pod in back-off whose container has ended so many times."""
    return pod(container(waiting="CrashLoopBackOff", restarts=times - 1, exit_code=code, **what))


@pytest.mark.parametrize(
    ("sight", "moves", "actions"),
    [
        pytest.param(loading(), [], [], id="loads"),
        pytest.param(loading(pong=pong(_S.LOADING, seq=0)), [], [], id="says-it-loads"),
        pytest.param(
            loading(pod=running(), pong=pong(_S.READY, (_S.LOADING, _S.READY))),
            [("Ready", "StepReady")],
            [],
            id="ready",
        ),
        pytest.param(
            loading(pong=pong(_S.READY, (_S.LOADING, _S.READY))), [], [], id="ready-by-its-word-not-to-the-kubelet"
        ),
        pytest.param(loading(pod=running()), [], [], id="ready-to-the-kubelet-not-by-its-word"),
        pytest.param(loading(pod=crashed(1)), [], [], id="crashed-once"),
        pytest.param(loading(pod=crashed(3)), [], [], id="crashed-to-the-limit"),
        pytest.param(loading(pod=crashed(4)), [("Failed", "CrashLoopBackOff")], [], id="crashed-beyond-the-limit"),
        pytest.param(
            loading(worker(_S.LOADING, status={"restartsForgiven": 2}), pod=crashed(5)), [], [], id="some-are-forgiven"
        ),
        pytest.param(
            loading(worker(_S.LOADING, restartLimit=0), pod=crashed(1)),
            [("Failed", "CrashLoopBackOff")],
            [],
            id="no-restart-allowed",
        ),
        pytest.param(
            loading(pod=crashed(4, 137, exit_reason="OOMKilled")), [("Failed", "OOMKilled")], [], id="out-of-memory"
        ),
        pytest.param(loading(pod=crashed(1, 78)), [("Failed", "ModelLoadFailed")], [], id="78-in-last-state"),
        pytest.param(
            loading(pod=pod(container(exit_code=78, over=True))), [("Failed", "ModelLoadFailed")], [], id="78-in-state"
        ),
        pytest.param(
            loading(pod=pod(container(running=True, restarts=1, exit_code=78))),
            [("Failed", "ModelLoadFailed")],
            [],
            id="78-though-started-again",
        ),
        pytest.param(
            loading(pod=pod(container(exit_code=0, over=True), phase="Succeeded")),
            [("Evicting", "ExitedUnexpectedly")],
            [],
            id="exit-0-unasked",
        ),
        pytest.param(loading(pod=pod(phase="Succeeded")), [("Evicting", "ExitedUnexpectedly")], [], id="succeeded"),
        pytest.param(loading(pod=pod(phase="Failed")), [("Failed", "PodRejected")], [], id="pod-failed"),
        pytest.param(loading(pod=None), [("Failed", "PodLost")], [], id="pod-lost"),
        pytest.param(
            loading(pod=running(ready=False, deleting=True)), [("Evicting", "PodTerminating")], [], id="pod-deleting"
        ),
        pytest.param(
            loading(pong=pong(_S.EVICTING, (_S.LOADING, _S.EVICTING))),
            [("Evicting", "StepEvicting")],
            [],
            id="says-it-evicts",
        ),
        pytest.param(loading(health=MISSED_THRICE), [], [], id="deaf-while-loading-is-left-to-its-deadline"),
        pytest.param(
            loading(worker(_S.LOADING, meta=DELETED)), [("Evicting", "Deleted")], [], id="deleted-unreachable"
        ),
        pytest.param(
            loading(worker(_S.LOADING, meta=DELETED), pong=pong(_S.LOADING, seq=0)), [], ["AskEvict"], id="deleted"
        ),
        pytest.param(
            loading(worker(_S.LOADING, shutdown=True), pong=pong(_S.LOADING, seq=0), deaf=True),
            [("Evicting", "Shutdown")],
            [],
            id="refused-even-by-force",
        ),
        pytest.param(
            loading(room_wanted=Reason.ROOM_EVICTION, pong=pong(_S.LOADING, seq=0)), [], [], id="never-for-room"
        ),
    ],
)
def test_loading(sight, moves, actions):
    """Ready needs both words, the kubelet's and the worker's; only the crash limit, 78 or the deadline end a load."""
    check(sight, moves, actions)


@pytest.mark.parametrize(("after", "moves"), [(59.0, []), (60.0, [("Failed", "LoadDeadlineExceeded")])])
def test_a_load_ends_in_the_second_of_its_deadline(after, moves):
    sight = loading(worker(_S.LOADING, loadDeadlineSeconds=60))
    assert moved(plan_worker(sight, NOW + timedelta(seconds=after))) == moves


def test_a_load_that_is_done_in_the_second_of_its_deadline_counts():
    sight = loading(
        worker(_S.LOADING, since=60, loadDeadlineSeconds=60),
        pod=running(),
        pong=pong(_S.READY, (_S.LOADING, _S.READY)),
    )
    assert moved(plan_worker(sight, NOW)) == [("Ready", "StepReady")]


def test_back_off_shows_the_last_end_with_the_workers_own_sentence_and_how_many_are_left():
    plan = plan_worker(loading(pod=crashed(2, 1, words="the weights are truncated")), NOW)
    assert plan.fields["lastFailure"]["exitCode"] == 1
    assert plan.fields["lastFailure"]["message"] == "the weights are truncated"
    assert "2 of at most 3" in plan.fields["message"]
    assert plan.fields["restarts"] == 2


def serving(state: WorkerState, of: Any = None, **what: Any) -> Seen:
    return seen(of or worker(state, since=10), **{"pod": running(), "pong": pong(state), **what})


SERVING_CASES = [
    pytest.param({}, {}, [], [], id="well"),
    pytest.param({}, {"pod": None}, [], ["AskPool"], id="pod-gone-still-charged"),
    pytest.param({}, {"pod": None, "pool": pool()}, [("Dead", "PodLost")], [], id="pod-gone-and-released"),
    pytest.param({"meta": DELETED}, {}, [], ["AskEvict"], id="deleted"),
    pytest.param({"shutdown": True}, {}, [], ["AskEvict"], id="shutdown"),
    pytest.param({}, {"pool": charged(stopPolicy="HoldAndDrain")}, [], ["AskEvict"], id="pool-drained"),
    pytest.param({}, {"pool": charged(stopPolicy="Hold")}, [], [], id="pool-held"),
    pytest.param({"meta": DELETED}, {"pong": None}, [("Evicting", "Deleted")], [], id="deleted-unreachable"),
    pytest.param({"meta": DELETED}, {"deaf": True}, [("Evicting", "Deleted")], [], id="deleted-refused-by-force"),
    pytest.param({}, {"pod": running(deleting=True)}, [("Evicting", "PodTerminating")], [], id="pod-deleting"),
    pytest.param(
        {},
        {
            "pod": running(
                deleting=True,
                conditions=({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"},),
            )
        },
        [("Evicting", "NodeLost")],
        [],
        id="node-lost",
    ),
    pytest.param({}, {"pod": pod(phase="Succeeded")}, [("Evicting", "ExitedUnexpectedly")], [], id="succeeded"),
    pytest.param({}, {"pod": pod(phase="Failed")}, [("Evicting", "PodRejected")], [], id="pod-failed"),
    pytest.param(
        {},
        {
            "pod": pod(
                phase="Failed",
                conditions=({"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"},),
            )
        },
        [("Evicting", "NodeLost")],
        [],
        id="node-deleted",
    ),
    pytest.param({}, {"health": MISSED_THRICE}, [("Evicting", "HealthCheckFailed")], [], id="unhealthy"),
    pytest.param({}, {"health": HealthRecord(2, PingOutcome.GARBAGE)}, [], [], id="suspect"),
    pytest.param({}, {"health": HealthRecord(8, UNREACHABLE)}, [], [], id="unreachable-but-ready-is-given-time"),
    pytest.param(
        {}, {"health": HealthRecord(9, UNREACHABLE)}, [("Evicting", "HealthCheckFailed")], [], id="unreachable-too-long"
    ),
    pytest.param(
        {},
        {"health": HealthRecord(3, UNREACHABLE), "pod": running(ready=False)},
        [("Evicting", "HealthCheckFailed")],
        [],
        id="unreachable-and-not-ready",
    ),
    pytest.param({}, {"health": MISSED_THRICE, "cut_off": True}, [], [], id="we-are-cut-off"),
    pytest.param(
        {},
        {"pod": pod(container(waiting="CrashLoopBackOff", exit_code=1)), "pong": None},
        [("Loading", "ContainerRestarted")],
        [],
        id="container-ended",
    ),
    pytest.param(
        {},
        {"pod": pod(container(running=True, restarts=1, exit_code=1))},
        [("Loading", "ContainerRestarted")],
        [],
        id="restarted-old-pong",
    ),
    pytest.param(
        {},
        {"pod": crashed(4), "pong": None},
        [("Failed", "CrashLoopBackOff")],
        [],
        id="restart-limit-passed",
    ),
    pytest.param(
        {},
        {"pong": pong(_S.LOADING, boot="boot-2", seq=0)},
        [("Loading", "ContainerRestarted")],
        [],
        id="another-process-says-it-loads",
    ),
]


@pytest.mark.parametrize("state", SERVING, ids=str)
@pytest.mark.parametrize(("of", "what", "moves", "actions"), SERVING_CASES)
def test_serving(state, of, what, moves, actions):
    """Leaves by its own consent where it can be asked, at once where it cannot; our own blindness condemns nobody."""
    check(serving(state, worker(state, since=10, **of), **what), moves, actions)


@pytest.mark.parametrize("state", SERVING, ids=str)
def test_a_worker_that_says_it_evicts_is_mirrored_even_when_much_else_is_wrong(state):
    told = pong(_S.EVICTING, (state, _S.EVICTING), seq=2)
    check(serving(state, pong=told, health=MISSED_THRICE), [("Evicting", "StepEvicting")], [])


def test_a_wish_is_put_to_the_process_by_force_and_with_its_reason():
    (ask,) = plan_worker(serving(_S.PROCESSING, worker(_S.PROCESSING, shutdown=True)), NOW).actions
    assert ask == AskEvict(Reason.SHUTDOWN, force=True)


IDLE_RULES = {"idleTimeoutSeconds": 100, "evictAfterSeconds": 200}


@pytest.mark.parametrize(
    ("state", "since", "unused", "pending", "more", "asked"),
    [
        pytest.param(_S.IDLE, 1000, 200, 0, {}, True, id="idle-long-enough"),
        pytest.param(_S.IDLE, 1000, 199, 0, {}, False, id="idle-a-second-short"),
        pytest.param(_S.READY, 1000, 200, 0, {}, True, id="ready-and-unused-for-as-long"),
        pytest.param(_S.PROCESSING, 1000, 500, 1, {}, False, id="processing"),
        pytest.param(_S.READY, 1000, 500, 1, {}, False, id="pending"),
        pytest.param(_S.IDLE, 59, 500, 0, {}, False, id="young"),
        pytest.param(_S.IDLE, 60, 500, 0, {}, True, id="old-enough"),
        pytest.param(_S.IDLE, 1000, 500, 0, {"eviction": "Never"}, False, id="pinned"),
        pytest.param(_S.LOADING, 1000, None, 0, {}, False, id="loading"),
        pytest.param(_S.SPAWNING, 1000, None, 0, {}, False, id="spawning"),
        pytest.param(_S.EVICTING, 1000, 500, 0, {}, False, id="evicting"),
    ],
)
def test_eviction_for_idleness(state, since, unused, pending, more, asked):
    """Only Ready or Idle, nothing pending, unused for long enough, Ready for long enough, not pinned."""
    sight = seen(
        worker(state, since=since, **IDLE_RULES, **more),
        pod=running(ready=state in SERVING),
        pong=pong(state, pending=pending, unused=unused),
    )
    asks = [action for action in plan_worker(sight, NOW).actions if isinstance(action, AskEvict)]
    assert asks == ([AskEvict(Reason.IDLE_EVICTION, unused_for=200.0)] if asked else [])
    assert idle_eviction_due(sight, NOW) is asked


@pytest.mark.parametrize(("unused", "asked"), [(99, False), (100, True)])
def test_for_room_the_idle_timeout_is_enough(unused, asked):
    sight = serving(
        _S.IDLE,
        worker(_S.IDLE, since=1000, **IDLE_RULES),
        pong=pong(_S.IDLE, unused=unused),
        room_wanted=Reason.ROOM_EVICTION,
    )
    actions = plan_worker(sight, NOW).actions
    assert actions == ((AskEvict(Reason.ROOM_EVICTION, unused_for=100.0),) if asked else ())


def test_a_worker_that_missed_its_last_ping_is_not_asked_to_go():
    sight = serving(
        _S.IDLE,
        worker(_S.IDLE, since=1000, **IDLE_RULES),
        pong=pong(_S.IDLE, unused=500),
        health=HealthRecord(1, UNREACHABLE),
    )
    assert plan_worker(sight, NOW).actions == ()


def test_the_next_look_is_when_the_worker_may_be_due():
    sight = serving(_S.IDLE, worker(_S.IDLE, since=1000, **IDLE_RULES), pong=pong(_S.IDLE, unused=150))
    assert plan_worker(sight, NOW).wake_after == 50.0


@pytest.mark.parametrize(("ready_for", "forgiven"), [(599, None), (600, 2)])
def test_restarts_are_forgotten_after_the_restart_window(ready_for, forgiven):
    of = worker(_S.READY, since=ready_for, status={"restarts": 2})
    sight = serving(_S.READY, of, pod=pod(container(running=True, restarts=2, exit_code=1), ready=True))
    plan = plan_worker(sight, NOW)
    assert moved(plan) == []
    assert plan.fields.get("restartsForgiven") == forgiven


GOING = {"reason": "Shutdown"}


@pytest.mark.parametrize(
    ("sight", "moves", "actions"),
    [
        pytest.param(seen(worker(_S.EVICTING, status=GOING), pod=running()), [], ["DeletePod"], id="pod-there"),
        pytest.param(seen(worker(_S.EVICTING), pod=running(deleting=True)), [], [], id="pod-going"),
        pytest.param(seen(worker(_S.EVICTING)), [], ["AskPool"], id="pod-gone-still-charged"),
        pytest.param(
            seen(worker(_S.EVICTING, status=GOING), pool=pool()), [("Dead", "Shutdown")], [], id="gone-and-released"
        ),
        pytest.param(
            seen(worker(_S.EVICTING, status=GOING), pool=None), [("Dead", "Shutdown")], [], id="pool-gone-too"
        ),
        pytest.param(
            seen(worker(_S.EVICTING, meta={**DELETED, "finalizers": None}), pool=pool()),
            [("Dead", "Test")],
            [],
            id="deleting-gets-no-finalizer-back",
        ),
    ],
)
def test_evicting(sight, moves, actions):
    """One way: the pod goes, then the charge, then Dead with the reason it left for."""
    check(sight, moves, actions)


@pytest.mark.parametrize(
    ("reason", "of", "grace"),
    [
        pytest.param("IdleEviction", running(), 64, id="it-may-finish"),
        pytest.param("HealthCheckFailed", running(), 5, id="it-does-not-answer"),
        pytest.param("Shutdown", pod(phase="Succeeded"), 5, id="it-has-ended"),
    ],
)
def test_an_evicted_pod_has_the_drain_timeout_and_the_linger_to_finish(reason, of, grace):
    plan = plan_worker(seen(worker(_S.EVICTING, status={"reason": reason}), pod=of), NOW)
    assert plan.actions == (DeletePod(POD_UID, grace),)


@pytest.mark.parametrize(
    ("before", "sight", "grace"),
    [
        pytest.param("Loading", {"pod": running(ready=False)}, 5, id="its-process-has-only-begun"),
        pytest.param("Spawning", {"pod": pod()}, 5, id="it-has-no-process"),
        pytest.param("Loading", {"pod": running(ready=False), "pong": pong(_S.EVICTING)}, 64, id="it-has-answered"),
        pytest.param("Loading", {"pod": running(ready=True)}, 64, id="it-is-ready-and-we-are-new"),
        pytest.param("Processing", {"pod": running(ready=False)}, 64, id="it-may-have-requests"),
    ],
)
def test_a_worker_that_left_before_it_served_has_nothing_to_finish(before, sight, grace):
    chain = [{"from": before, "to": "Evicting", "reason": "Deleted", "message": "", "time": ago(1)}]
    of = worker(_S.EVICTING, status={"reason": "Deleted", "transitions": chain})
    assert plan_worker(seen(of, **sight), NOW).actions == (DeletePod(POD_UID, grace),)


FAILED = {"reason": "CrashLoopBackOff", "message": "it crashed"}


@pytest.mark.parametrize(
    ("sight", "moves", "actions"),
    [
        pytest.param(seen(worker(_S.FAILED), pod=running()), [], ["DeletePod"], id="pod-there"),
        pytest.param(seen(worker(_S.FAILED), pod=running(deleting=True)), [], [], id="pod-going"),
        pytest.param(seen(worker(_S.FAILED)), [], ["AskPool"], id="still-charged"),
        pytest.param(seen(worker(_S.FAILED, since=299), pool=pool()), [], [], id="retained"),
        pytest.param(
            seen(worker(_S.FAILED, since=300, status=FAILED), pool=pool()),
            [("Dead", "CrashLoopBackOff")],
            [],
            id="retention-over",
        ),
        pytest.param(seen(worker(_S.FAILED, since=9999)), [], ["AskPool"], id="never-dead-while-charged"),
        pytest.param(
            seen(worker(_S.FAILED, status=FAILED, meta=DELETED), pool=pool()),
            [("Dead", "CrashLoopBackOff")],
            [],
            id="deleted-is-not-retained",
        ),
        pytest.param(
            seen(worker(_S.FAILED, status=FAILED, shutdown=True), pool=pool()),
            [("Dead", "CrashLoopBackOff")],
            [],
            id="shut-down-is-not-retained",
        ),
        pytest.param(seen(worker(_S.FAILED, meta={"finalizers": []}), pool=pool()), [], [], id="finalizer-stays-off"),
    ],
)
def test_failed(sight, moves, actions):
    """The pod and the charge go at once, the object stays for the retention; the reason stays for ever."""
    check(sight, moves, actions)


@pytest.mark.parametrize(
    ("sight", "actions"),
    [
        pytest.param(seen(worker(_S.DEAD), pool=pool()), [], id="rests"),
        pytest.param(seen(worker(_S.DEAD), pod=running(), pool=pool()), ["DeletePod"], id="a-pod-came-back"),
        pytest.param(seen(worker(_S.DEAD), pod=running(deleting=True), pool=pool()), [], id="that-pod-goes"),
        pytest.param(seen(worker(_S.DEAD)), ["AskPool"], id="still-charged"),
        pytest.param(seen(worker(_S.DEAD, meta=DELETED), pool=pool()), ["RemoveFinalizer"], id="deleted"),
        pytest.param(
            seen(worker(_S.DEAD, meta={**DELETED, "finalizers": None}), pool=pool()), [], id="deleted-without-ours"
        ),
        pytest.param(seen(worker(_S.DEAD, meta={"finalizers": None}), pool=pool()), [], id="gets-no-finalizer"),
        pytest.param(seen(worker(_S.DEAD, meta=DELETED)), ["AskPool"], id="charge-goes-before-the-finalizer"),
        pytest.param(
            seen(worker(_S.DEAD, meta=DELETED), pool=pool(), pod=running(deleting=True)),
            [],
            id="pod-goes-before-the-finalizer",
        ),
    ],
)
def test_dead(sight, actions):
    """Nothing more happens to it; its finalizer goes last."""
    check(sight, [], actions)


@pytest.mark.parametrize(
    ("of", "moves"),
    [({}, []), ({"shutdown": True}, [("Evicting", "Shutdown")]), ({"meta": DELETED}, [("Evicting", "Deleted")])],
    ids=["left-alone", "shutdown", "deleted"],
)
def test_a_state_of_a_newer_version_is_left_alone_until_the_user_wants_it_gone(of, moves):
    sight = seen(worker("Hibernating", **of), pod=running(), pong=pong(), health=MISSED_THRICE)
    check(sight, moves, [])


WISHES = [
    pytest.param({"meta": DELETED}, {}, Reason.DELETED, id="deletion"),
    pytest.param({"shutdown": True}, {}, Reason.SHUTDOWN, id="shutdown"),
    pytest.param({}, {"pool": charged(stopPolicy="HoldAndDrain")}, Reason.POOL_DRAIN, id="drain"),
]


@pytest.mark.parametrize("state", STATES, ids=str)
@pytest.mark.parametrize(("of", "what", "reason"), WISHES)
def test_a_wish_to_end_a_worker_leads_out_of_every_state(state, of, what, reason):
    """Live states go to Evicting, asked first where a process answers; the others are on their way already."""
    answering = state in (_S.LOADING, *SERVING)
    sight = seen(
        worker(state, since=10, **of),
        **{"pod": running(ready=state in SERVING), "pong": pong(state, seq=1) if answering else None, **what},
    )
    plan = plan_worker(sight, NOW)
    if state is _S.SPAWNING:
        assert moved(plan) == [("Evicting", str(reason))]
    elif answering:
        assert plan.actions == (AskEvict(reason, force=True),)
    else:
        assert acts(plan) == ["DeletePod"]
        assert moved(plan) == []


@pytest.mark.parametrize("state", [_S.SPAWNING, _S.LOADING, *SERVING], ids=str)
def test_a_live_worker_that_lost_its_finalizer_gets_it_back(state):
    of = worker(state, meta={"finalizers": None})
    assert acts(plan_worker(seen(of, pod=running(), pong=None), NOW))[0] == "AddFinalizer"


@pytest.mark.parametrize(
    ("spec", "actions"), [({}, ["EnsureService"]), ({"service": False}, [])], ids=["default", "service-false"]
)
def test_a_worker_gets_a_service_of_its_name_unless_it_wants_none(spec, actions):
    of = worker(_S.SPAWNING, status={"endpoint": None}, **spec)
    check(spawning(of, pod=GATED), [], ["LiftGate", *actions])


def test_a_worker_that_waits_for_its_reservation_has_no_service_yet():
    of = worker(_S.SPAWNING, status={"endpoint": None})
    check(seen(of, pool=pool(), quota=WAITING), [], [])


def test_the_service_is_told_with_the_next_write_and_by_itself_only_once_the_container_runs():
    waits = spawning(worker(_S.SPAWNING, status={"endpoint": None}), pod=pod(scheduled=False, lifted=0))
    told = plan_worker(replace(waits, service_made=True), NOW)
    assert told.fields["endpoint"].endswith(":8080")
    after = worker(_S.SPAWNING, status={"endpoint": None, **{k: v for k, v in told.fields.items() if k != "endpoint"}})
    assert plan_worker(replace(waits, worker=after, service_made=True), NOW).fields == {}
    runs = loading(worker(_S.LOADING, status={"endpoint": None}))
    assert plan_worker(replace(runs, service_made=True), NOW).fields["endpoint"] == told.fields["endpoint"]


def test_without_a_service_the_endpoint_is_the_pods_address():
    of = worker(_S.LOADING, status={"endpoint": None}, service=False)
    assert plan_worker(loading(of), NOW).fields["endpoint"] == "http://10.0.0.7:8080"


def test_a_plan_that_is_carried_out_is_not_planned_again():
    """Written as planned, the same sight brings no further move: a reconcile ends."""
    first = plan_worker(loading(pod=running(), pong=pong(_S.READY, (_S.LOADING, _S.READY))), NOW)
    after = worker(_S.READY, status={**first.fields, "mirrored": first.fields["mirrored"]})
    second = plan_worker(serving(_S.READY, after), NOW)
    assert (moved(second), acts(second)) == ([], [])


def ended(words: str) -> PodView:
    return pod(container(exit_code=0, words=words, over=True), phase="Succeeded")


@pytest.mark.parametrize("state", [*SERVING, _S.LOADING])
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        *((str(why), why) for why in ("IdleEviction", "RoomEviction", "PoolDrain", "Shutdown", "Deleted")),
        ("", "ExitedUnexpectedly"),
        ("NodeLost", "ExitedUnexpectedly"),
        ("thank you and good bye", "ExitedUnexpectedly"),
    ],
)
def test_a_process_that_ended_as_it_agreed_to_is_gone_for_what_it_was_asked_for(state, words, reason):
    """Whoever asked it may have been killed, frozen or cut off before it could write down that it did."""
    for said in (None, pong(state)):
        assert moved(plan_worker(serving(state, pod=ended(words), pong=said), NOW)) == [("Evicting", reason)]


def test_the_story_of_a_process_that_was_heard_is_its_own():
    said = pong(_S.EVICTING, (_S.READY, _S.IDLE), (_S.IDLE, _S.EVICTING), seq=3)
    plan = plan_worker(serving(_S.READY, pod=ended("IdleEviction"), pong=said), NOW)
    assert moved(plan) == [("Idle", "StepIdle"), ("Evicting", "StepEvicting")]
