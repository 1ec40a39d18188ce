"""The lifecycle as the API server enforces it: every move of the table and no other."""

import copy
import time

import pytest
from kubernetes.client import ApiException

from control_plane.crds.resources import TIME, Resources, assert_refused, moves, worker
from modelpool_api import FLIP_STATES, INITIAL_STATE, STATES, WorkerState, allowed_moves
from modelpool_operator.api import crd, names

pytestmark = pytest.mark.control_plane

S = WorkerState


def may_move(start: WorkerState, to: WorkerState) -> bool:
    return start is to or to in allowed_moves()[start] or {start, to} <= FLIP_STATES


@pytest.fixture
def at(workers: Resources):
    """``at(state)`` brings a new worker to that state and returns its name."""

    def at(state: WorkerState, name: str = "minilm") -> str:
        workers.create(worker(name))
        workers.walk(name, state)
        return name

    return at


@pytest.mark.parametrize("start", STATES)
def test_from_each_state_just_the_moves_of_the_table_are_taken(workers, at, start):
    name = at(start)
    before = workers.get(name)["status"].get("transitions", [])
    for to in STATES:
        if may_move(start, to):
            change = {"state": str(to), "transitions": [*before, *_story(start, to)]}
            assert workers.patch_status(name, change, dry_run="All")["status"]["state"] == to
            continue
        with pytest.raises(ApiException) as raised:
            workers.patch_status(name, {"state": str(to)}, dry_run="All")
        assert_refused(raised, "status.state", f"a worker cannot go from {start} to {to}; from {start} it can go to: ")


def _story(start, to):
    """The transitions of a legal change: moves of the load group that are written as one are told step by step."""
    if start is to:
        return []
    if to in allowed_moves()[start]:
        return moves(start, to)
    assert {start, to} <= FLIP_STATES
    between = next(state for state in FLIP_STATES if state in allowed_moves()[start] and to in allowed_moves()[state])
    return moves(start, between, to)


@pytest.mark.parametrize("state", STATES)
def test_a_worker_begins_as_spawning(workers, state):
    workers.create(worker())
    if state is INITIAL_STATE:
        assert workers.patch_status("minilm", {"state": str(state)})["status"]["state"] == state
        return
    with pytest.raises(ApiException) as raised:
        workers.patch_status("minilm", {"state": str(state)})
    assert_refused(raised, "status.state", "a worker begins its life as Spawning")


def test_a_status_given_on_create_is_dropped(workers):
    assert "status" not in workers.create({**worker(), "status": {"state": "Ready"}})


@pytest.mark.parametrize("to", STATES)
def test_each_transition_is_a_move_of_the_table(workers, at, to):
    """Entries are told one by one: here the load group is no single class."""
    name = at(to)
    for start in STATES:
        status = {"transitions": moves(start, to)}
        if to in allowed_moves()[start]:
            workers.patch_status(name, status, dry_run="All")
            continue
        with pytest.raises(ApiException) as raised:
            workers.patch_status(name, status, dry_run="All")
        assert_refused(raised, "status.transitions[0]", f"the lifecycle has no move from {start} to {to}")


@pytest.mark.parametrize(
    ("state", "status", "field", "message"),
    [
        pytest.param(
            S.READY,
            {"transitions": moves(S.SPAWNING, S.LOADING)},
            "status",
            "the last of status.transitions must end in status.state",
            id="ends elsewhere",
        ),
        pytest.param(
            S.READY,
            {"state": "Idle"},
            "status",
            "the last of status.transitions must end in status.state",
            id="moved without a transition",
        ),
        pytest.param(
            S.READY,
            {"transitions": [*moves(S.SPAWNING, S.LOADING), *moves(S.PROCESSING, S.READY)]},
            "status",
            "status.transitions must be one chain",
            id="gap in the chain",
        ),
        pytest.param(
            S.READY,
            {"transitions": [*moves(S.LOADING, S.READY), *moves(S.SPAWNING, S.LOADING, S.READY)]},
            "status",
            "status.transitions must be one chain",
            id="chain begins again",
        ),
        pytest.param(S.READY, {"transitions": None}, "status", "transitions may not be emptied", id="chain removed"),
        pytest.param(S.READY, {"transitions": []}, "status", "transitions may not be emptied", id="chain emptied"),
        pytest.param(S.READY, {"state": None}, "status", "status.state may not be removed", id="state removed"),
        pytest.param(
            S.READY,
            {"state": "Unknown", "transitions": moves(S.LOADING, S.READY)},
            "status.state",
            'Unsupported value: "Unknown"',
            id="a state that nobody writes",
        ),
        pytest.param(S.FAILED, {"reason": "Other"}, "status", "keeps its reason", id="Failed, other reason"),
        pytest.param(S.FAILED, {"reason": None}, "status", "keeps its reason", id="Failed, reason removed"),
        pytest.param(
            S.FAILED,
            {"state": "Dead", "reason": "Other", "transitions": moves(S.SPAWNING, S.FAILED, S.DEAD)},
            "status",
            "a worker that is Failed or Dead keeps its reason",
            id="reason changed on the way from Failed to Dead",
        ),
        pytest.param(S.DEAD, {"reason": "Other"}, "status", "keeps its reason", id="Dead, other reason"),
        pytest.param(
            S.READY,
            {"transitions": moves(*[S.READY, S.PROCESSING] * 11)[:21]},
            "status.transitions",
            "Too many: 21: must have at most 20 items",
            id="21 transitions",
        ),
        pytest.param(
            S.READY,
            {"message": "x" * 1025},
            "status.message",
            "Too long: may not be more than 1024",
            id="message too long",
        ),
    ],
)
def test_a_status_that_is_not_true_is_refused(workers, at, state, status, field, message):
    name = at(state)
    with pytest.raises(ApiException) as raised:
        workers.patch_status(name, status)
    assert_refused(raised, field, message)


def test_the_whole_status_may_not_be_removed(workers, at):
    name = at(S.LOADING)
    with pytest.raises(ApiException) as raised:
        workers.patch_status(name, None)
    assert_refused(raised, "", "status may not be removed")


def test_observed_generation_never_goes_back(workers, at):
    name = at(S.LOADING)
    workers.patch_status(name, {"observedGeneration": 2})
    with pytest.raises(ApiException) as raised:
        workers.patch_status(name, {"observedGeneration": 1})
    assert_refused(raised, "status", "status.observedGeneration never goes back")


def test_an_evicting_worker_may_learn_its_reason_until_it_is_dead(workers, at):
    name = at(S.EVICTING)
    workers.patch_status(name, {"reason": "NodeLost"})
    chain = [*workers.get(name)["status"]["transitions"], *moves(S.EVICTING, S.DEAD)]
    gone = workers.patch_status(name, {"state": "Dead", "reason": "IdleEviction", "transitions": chain})
    assert gone["status"]["reason"] == "IdleEviction"


def test_twenty_long_transitions_are_accepted(workers, at):
    """The rules' cost stays within the API server's budget for the longest chain there can be."""
    name = at(S.READY)
    chain = moves(*[S.PROCESSING, S.READY] * 10, S.PROCESSING)
    assert len(chain) == 20
    full = [{**move, "message": "m" * 256, "reason": "R" * 64} for move in chain]
    assert len(workers.patch_status(name, {"state": "Processing", "transitions": full})["status"]["transitions"]) == 20


def test_a_full_status_is_accepted_as_the_operator_writes_it(workers, at):
    name = at(S.READY)
    condition = {
        "type": "Ready",
        "status": "True",
        "reason": "ModelLoaded",
        "message": "loaded",
        "lastTransitionTime": "2026-01-02T03:04:05.678901Z",
        "observedGeneration": 1,
    }
    status = {
        "observedGeneration": 1,
        "conditions": [condition],
        "podName": "minilm-abcde",
        "podUID": "u",
        "nodeName": "node1",
        "endpoint": "http://minilm.default:8080",
        "restarts": 1,
        "restartsForgiven": 0,
        "memoryMiB": {"declared": 8192, "measured": 512},
        "device": "cpu",
        "pendingRequests": 0,
        "queueDepth": 0,
        "lastUsedTime": TIME,
        "readyTime": TIME,
        "mirrored": {"bootID": "b", "seq": 3},
        "coldStartSeconds": {"import": 3.25, "load": 1},
        "lastFailure": {
            "reason": "CrashLoopBackOff",
            "exitCode": 1,
            "message": "no",
            "container": "worker",
            "time": TIME,
        },
    }
    written = workers.patch_status(name, status, field_validation="Strict")["status"]
    assert {field: written[field] for field in status} == status


def test_from_a_state_of_another_version_a_worker_can_only_end(install, kube, namespace):
    """A newer version wrote ``Napping``; this one lets the worker's gauges be written and its end, nothing else."""
    ours = copy.deepcopy(crd.definitions()["modelpool.dev_modelworkers.yaml"])
    group = "versions.example.com"
    ours["metadata"]["name"] = f"{names.MODEL_WORKERS}.{group}"
    ours["spec"]["group"] = group
    ours["spec"]["names"]["shortNames"] = []
    newer = copy.deepcopy(ours)
    schema = newer["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]
    del schema["state"]["x-kubernetes-validations"]
    schema["state"]["enum"].append("Napping")
    for end in ("from", "to"):
        schema["transitions"]["items"]["properties"][end]["enum"].append("Napping")
    del schema["transitions"]["items"]["x-kubernetes-validations"]
    install(newer)
    napping = Resources(kube, namespace, names.MODEL_WORKERS, group)
    manifest = {**worker(), "apiVersion": f"{group}/{names.VERSION}"}
    _until_served(napping, manifest)
    chain = [*moves(S.SPAWNING, S.LOADING), {"from": "Loading", "to": "Napping", "time": TIME}]
    napping.patch_status("minilm", {"state": "Napping", "transitions": chain})

    install(ours)
    _until_refused(napping)
    napping.patch_status("minilm", {"pendingRequests": 1})
    for to in STATES:
        status = {"state": str(to), "transitions": []}
        if to in (S.EVICTING, S.FAILED, S.DEAD):
            assert napping.patch_status("minilm", status, dry_run="All")["status"]["state"] == to
            continue
        with pytest.raises(ApiException) as raised:
            napping.patch_status("minilm", status, dry_run="All")
        message = f"a worker cannot go from Napping to {to}; from Napping it can go to: Evicting, Failed, Dead"
        assert_refused(raised, "status.state", message)


def _until_served(resources: Resources, manifest, seconds: float = 20.0) -> None:
    """A group that has just been made is answered with 404 for a moment."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            resources.create(manifest)
        except ApiException as error:
            if error.status != 404 or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _until_refused(resources: Resources, seconds: float = 20.0) -> None:
    """A changed CRD is in force a moment later: when the newer version's moves are refused with our message."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            resources.patch_status("minilm", {"state": "Ready", "transitions": []}, dry_run="All")
        except ApiException as error:
            if "cannot go from Napping" in str(error.body):
                return
        assert time.monotonic() < deadline, "the changed CRD did not come into force"
        time.sleep(0.05)
