"""Random sights: whatever is seen, a plan's moves are legal and what destroys is flagged."""

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from modelpool_api import FLIP_STATES, STATES, Pong, WorkerState, WorkerTransition, allowed_moves
from modelpool_api.health import HealthRecord, PingOutcome
from modelpool_operator.api.names import Reason
from modelpool_operator.domain.plan import AskEvict, DeletePod, LiftGate, RemoveFinalizer
from modelpool_operator.domain.seen import Seen
from modelpool_operator.domain.worker_plan import plan_worker
from unit.modelpool_operator.domain.scenes import NOW, POD_UID, UID, container, entry, pod, pool, worker

# no example database on disk; a failing example prints how to bring it back
explored = settings(max_examples=150, deadline=None, database=None, print_blob=True)

_S = WorkerState
MAYBE = st.booleans()
PROCESS_STATES = (_S.LOADING, _S.READY, _S.PROCESSING, _S.IDLE, _S.EVICTING)


@st.composite
def pods(draw: st.DrawFn) -> object:
    box = draw(
        st.none()
        | st.builds(
            container,
            running=MAYBE,
            restarts=st.integers(0, 6),
            waiting=st.sampled_from(["", "ImagePullBackOff", "InvalidImageName", "CrashLoopBackOff"]),
            exit_code=st.none() | st.sampled_from([0, 1, 78, 137, 143]),
            exit_reason=st.sampled_from(["Error", "OOMKilled", "Completed"]),
            over=MAYBE,
        )
    )
    return pod(
        box,
        gated=draw(MAYBE),
        lifted=draw(st.none() | st.floats(0, 5000)),
        scheduled=draw(MAYBE),
        ready=draw(MAYBE),
        deleting=draw(MAYBE),
        phase=draw(st.sampled_from(["Pending", "Running", "Succeeded", "Failed"])),
    )


@st.composite
def process_walks(draw: st.DrawFn) -> Pong:
    """A pong as the worker's own machine would give it: a legal walk, and where it has come to."""
    moves = allowed_moves()
    state, steps = _S.LOADING, []
    for seq in range(1, draw(st.integers(0, 9)) + 1):
        onward = [to for to in PROCESS_STATES if to in moves[state] and to is not _S.LOADING]
        if not onward:
            break
        to = draw(st.sampled_from(onward))
        steps.append(WorkerTransition(seq=seq, from_state=state, to_state=to, reason="", age=draw(st.floats(0, 99))))
        state = to
    return Pong(
        worker_id=UID,
        boot_id=draw(st.sampled_from(["boot-1", "boot-2"])),
        state=state,
        seq=len(steps),
        timestamp=0,
        queue_depth=0,
        pending_requests=draw(st.integers(0, 2)) if state is _S.PROCESSING else 0,
        unused_for=draw(st.floats(0, 5000)) if state in FLIP_STATES else None,
        transitions=tuple(steps),
    )


@st.composite
def sights(draw: st.DrawFn) -> Seen:
    of = worker(
        draw(st.none() | st.sampled_from(STATES)),
        since=draw(st.sampled_from([0, 59, 60, 5000])),
        meta={
            **({"deletionTimestamp": "2026-01-02T03:04:00Z"} if draw(MAYBE) else {}),
            **({"finalizers": None} if draw(MAYBE) else {}),
        },
        status={"restarts": draw(st.integers(0, 5)), "podUID": draw(st.sampled_from([None, POD_UID]))},
        shutdown=draw(MAYBE),
        eviction=draw(st.sampled_from(["Auto", "Never"])),
    )
    stop = draw(st.sampled_from(["None", "Hold", "HoldAndDrain"]))
    ledger = {UID: entry(pod_uid=draw(st.sampled_from([POD_UID, "another"])))} if draw(MAYBE) else None
    record = HealthRecord(draw(st.integers(0, 12)), draw(st.sampled_from(list(PingOutcome))))
    return Seen(
        worker=of,
        pool=draw(st.just(pool(ledger, stopPolicy=stop)) | st.none()),
        quota=draw(st.none() | st.just((Reason.WAITING_FOR_QUOTA, "short"))),
        pod=draw(st.none() | pods()),
        pong=draw(st.none() | process_walks()),
        health=record,
        cut_off=draw(MAYBE),
        room_wanted=draw(st.none() | st.just(Reason.ROOM_EVICTION)),
        deaf=draw(MAYBE),
    )


TIMES = st.sampled_from([0.0, 1.0, 59.0, 60.0, 1800.0, 4000.0])


@explored
@given(sights(), TIMES)
def test_every_move_is_in_the_table_and_follows_the_one_before(sight, later):
    plan = plan_worker(sight, NOW + timedelta(seconds=later))
    state = sight.worker.state
    for move in plan.moves:
        assert state is not None
        assert move.to in allowed_moves()[state], (state, move)
        state = move.to


@explored
@given(sights(), TIMES)
def test_what_destroys_is_flagged_so_that_it_is_decided_again_on_a_fresh_read(sight, later):
    plan = plan_worker(sight, NOW + timedelta(seconds=later))
    ends = any(move.to in (_S.FAILED, _S.EVICTING, _S.DEAD) for move in plan.moves)
    takes = any(isinstance(action, DeletePod | RemoveFinalizer) for action in plan.actions)
    if sight.worker.state is not None:
        assert plan.destructive is (ends or takes)


@explored
@given(sights(), TIMES)
def test_nobody_is_asked_to_go_for_idleness_or_room_who_works_loads_or_is_pinned(sight, later):
    plan = plan_worker(sight, NOW + timedelta(seconds=later))
    for action in plan.actions:
        if isinstance(action, AskEvict) and not action.force:
            assert sight.worker.state in (_S.READY, _S.IDLE)
            assert sight.pong is not None
            assert sight.pong.pending_requests == 0
            assert sight.worker.spec.eviction == "Auto"
            assert action.unused_for >= min(sight.rules.idle_timeout, sight.rules.evict_after)


@explored
@given(sights(), TIMES)
def test_a_worker_is_dead_only_without_pod_and_without_reservation(sight, later):
    plan = plan_worker(sight, NOW + timedelta(seconds=later))
    if any(move.to is _S.DEAD for move in plan.moves):
        assert sight.pod is None
        assert sight.entry is None


@explored
@given(sights(), TIMES)
def test_no_gate_is_lifted_without_a_reservation_for_that_pod(sight, later):
    plan = plan_worker(sight, NOW + timedelta(seconds=later))
    if any(isinstance(action, LiftGate) for action in plan.actions):
        assert sight.entry is not None
        assert sight.pod is not None
        assert sight.entry.pod_uid == sight.pod.uid


@explored
@given(sights(), TIMES)
def test_a_plan_depends_on_nothing_but_what_is_seen_and_the_time(sight, later):
    now = NOW + timedelta(seconds=later)
    assert plan_worker(sight, now) == plan_worker(sight, now)


@explored
@given(sights(), TIMES)
def test_the_next_look_is_in_the_future_or_there_is_none(sight, later):
    plan = plan_worker(sight, NOW + timedelta(seconds=later))
    if plan.wake_after is not None and not plan.actions and not plan.moves:
        assert plan.wake_after > 0
