"""Which worker is asked next."""

import pytest

from modelpool_api import STATES
from modelpool_gateway.breaker import THRESHOLD
from modelpool_gateway.directory import Directory


def seen(
    name: str, state: str | None = "Ready", *, version: int = 1, model: str = "m", pending: int = 0, told=None, **more
) -> dict:
    meta = {"namespace": "ns", "name": name, "uid": f"uid-{name}", "resourceVersion": str(version), **more}
    status = {"state": state, "endpoint": f"http://{name}.ns:8080", "pendingRequests": pending, "reason": "Why"}
    status |= told or {}
    return {"metadata": meta, "spec": {"model": {"name": model}}, "status": status if state else {}}


def directory(*objects: dict) -> Directory:
    found = Directory()
    for each in objects:
        found.observe(each)
    return found


def chosen(found: Directory, now: float = 0.0, tried=()) -> str | None:
    worker = found.choose("ns", "m", now, tried)
    return worker.name if worker else None


@pytest.mark.parametrize("state", [*map(str, STATES), "Hibernating", None], ids=str)
def test_only_ready_processing_and_idle_take_requests(state):
    asked = chosen(directory(seen("a", state)))
    assert (asked == "a") is (state in ("Ready", "Processing", "Idle"))


def test_one_that_is_being_deleted_or_told_to_stop_takes_none():
    assert chosen(directory(seen("a", deletionTimestamp="2026-01-01T00:00:00Z"))) is None
    leaving = seen("a")
    leaving["spec"]["shutdown"] = True
    assert chosen(directory(leaving)) is None


def test_one_without_an_address_takes_none():
    without = seen("a")
    del without["status"]["endpoint"]
    assert chosen(directory(without)) is None


def test_the_fewest_pending_is_asked_by_our_own_count_and_by_what_the_workers_tell():
    found = directory(seen("a", pending=3), seen("b", pending=1), seen("c", pending=2))
    assert chosen(found) == "b"
    next(worker for worker in found.of("ns", "m") if worker.name == "b").in_flight = 9
    assert chosen(found) == "c"


def test_those_that_are_being_replaced_come_to_rest_while_others_serve():
    def of(template: str, owner: str = "x") -> dict:
        return {"labels": {"modelpool.dev/template": template, "modelpool.dev/model": owner}}

    found = directory(
        seen("a", **of("1")), seen("b", pending=5, **of("2")), seen("c", pending=9, **of("1", "y")), seen("d", "Idle")
    )
    found.mark(("ns", "m"), {"x": "2"})
    assert [worker.name for worker in found.of("ns", "m") if worker.old] == ["a"]
    found.forget("uid-d")
    assert [chosen(found) for _ in range(3)] == ["b"] * 3
    assert chosen(found, tried=["uid-b", "uid-c"]) == "a", "better than none"
    found.observe(seen("a", "Processing", version=2, **of("1")))
    assert chosen(found) == "b"
    found.mark(("ns", "m"), {"x": "", "y": "1"})
    assert chosen(found) == "a", "nothing is known of the present one"


def test_equals_are_asked_in_turn():
    found = directory(seen("a"), seen("b"), seen("c"))
    assert [chosen(found) for _ in range(6)] == ["a", "b", "c", "a", "b", "c"]


def test_who_was_tried_or_has_an_open_breaker_is_passed_over():
    found = directory(seen("a"), seen("b"))
    for worker in found.of("ns", "m"):
        if worker.name == "a":
            for _ in range(THRESHOLD):
                worker.breaker.failed(worker.breaker.began(), 10.0)
    assert chosen(found, 10.0) == "b"
    assert chosen(found, 10.0, tried=["uid-b"]) is None
    assert chosen(found, 11.0, tried=["uid-b"]) == "a"


def test_models_of_other_names_and_namespaces_are_others():
    found = directory(seen("a", model="other"), seen("b", namespace="elsewhere"))
    assert chosen(found) is None


def test_an_older_view_changes_nothing():
    found = directory(seen("a", "Evicting", version=5), seen("a", "Ready", version=4))
    assert chosen(found) is None


def test_what_this_gateway_knows_of_a_worker_outlives_the_news_of_it():
    found = directory(seen("a"))
    (worker,) = found.of("ns", "m")
    worker.in_flight = 3
    found.observe(seen("a", "Processing", version=2, pending=1))
    assert [each.in_flight for each in found.of("ns", "m")] == [3]


def test_one_that_has_refused_as_one_that_goes_is_asked_no_more_though_the_watch_is_late():
    found = directory(seen("a"))
    (worker,) = found.of("ns", "m")
    worker.gone = True
    found.observe(seen("a", "Processing", version=2))
    assert chosen(found) is None


@pytest.mark.parametrize(
    ("later", "asked"),
    [
        pytest.param([seen("a", "Processing", version=2)], False, id="the-same-process"),
        pytest.param([seen("a", version=2, told={"restarts": 1})], True, id="a-restart"),
        pytest.param([seen("a", version=2, told={"mirrored": {"bootID": "2"}})], True, id="another-process"),
        pytest.param([seen("a", "Loading", version=2), seen("a", version=3)], True, id="loaded-anew"),
    ],
)
@pytest.mark.parametrize("before", ["gone", "broken", "loading"])
def test_another_process_of_a_worker_is_asked_at_once(before, later, asked):
    found = directory(seen("a", told={"mirrored": {"bootID": "1"}}))
    (worker,) = found.of("ns", "m")
    if before == "broken":
        for token in [worker.take() for _ in range(128)]:
            worker.breaker.failed(token, 10.0)
            worker.give_back()
    else:
        worker.refused(b"Evicting" if before == "gone" else b"Loading", worker.take(), 10.0)
        worker.give_back()
    assert chosen(found, 10.0) is None
    for each in later:
        found.observe(each)
    assert (chosen(found, 10.0) == "a") is asked


@pytest.mark.parametrize(
    ("state", "healed"),
    [(b"Evicting", False), (b"", False), (b"Loading", True), (b"Spawning", True), (b"Hibernating", True)],
    ids=["evicting", "anothers-address", "loading", "spawning", "unknown"],
)
def test_one_that_will_be_there_again_is_asked_again_without_any_news_of_it(state, healed):
    found = directory(seen("a"))
    (worker,) = found.of("ns", "m")
    worker.refused(state, worker.take(), 10.0)
    worker.give_back()
    assert chosen(found, 10.9) is None
    assert (chosen(found, 11.0) == "a") is healed


def test_an_address_that_was_anothers_counts_again_once_it_is_another_address():
    found = directory(seen("a"))
    (worker,) = found.of("ns", "m")
    worker.refused(b"", worker.take(), 10.0)
    found.observe(seen("a", version=2, told={"endpoint": "http://elsewhere:8080"}))
    assert chosen(found, 10.0) == "a"


def test_a_list_drops_whom_it_misses_and_names_the_models_that_changed():
    found = directory(seen("a"), seen("b", model="other"))
    assert found.replace([seen("a"), seen("c")]) == {("ns", "m"), ("ns", "other")}
    assert len(found) == 2
    assert list(found.of("ns", "other")) == []
    assert found.forget("uid-nobody") is None
