"""What the operator's benchmark reads and makes of it."""

import pytest

from bench.operator.__main__ import headline, sizes
from bench.operator.process import Counters, parse
from cluster.host import ClusterError

METRICS = """\
# TYPE modelpool_rest_client_requests counter
modelpool_rest_client_requests_total{code="200",method="GET"} 7.0
modelpool_rest_client_requests_total{code="201",method="POST"} 3.0
modelpool_rest_client_requests_total{code="409",method="PATCH"} 1.0
modelpool_rest_client_requests_total{code="200",method="PATCH"} 5.0
# TYPE modelpool_reconcile counter
modelpool_reconcile_total{kind="worker",result="success"} 11.0
modelpool_reconcile_total{kind="pool",result="success"} 2.0
# TYPE modelpool_worker_transitions counter
modelpool_worker_transitions_total{from_state="Spawning",to_state="Loading"} 4.0
# TYPE modelpool_ledger_repairs counter
modelpool_ledger_repairs_total 0.0
"""


def test_the_operators_metrics_say_how_much_it_wrote_and_how_much_was_refused():
    found = parse(METRICS)
    assert (found.writes, found.reads, found.refused) == (9, 7, 1)
    assert (found.reconciles, found.moves, found.repairs) == (13, 4, 0)
    assert found.by_answer["PATCH 409"] == 1


def test_counters_of_two_processes_add_up():
    total = parse(METRICS) + Counters(writes=1, moves=2)
    assert (total.writes, total.moves, total.by_answer["POST 201"]) == (10, 6, 3)


@pytest.mark.parametrize(("asked", "wanted"), [("", [100, 300, 1000]), ("50", [50]), ("10, 20", [10, 20])])
def test_the_sizes_are_the_usual_ones_or_those_that_are_asked_for(asked, wanted):
    assert sizes(asked) == wanted


@pytest.mark.parametrize("asked", ["none", "0", "-5", "99999"])
def test_a_size_that_is_none_is_refused_with_an_example(asked):
    with pytest.raises(ClusterError, match='WORKERS="100 300"'):
        sizes(asked)


def test_the_headline_is_the_largest_run_and_its_cost_beside_the_smallest():
    runs = {
        "1000": {"workers": 1000, "pods_per_s": 60.0, "cpu_ms_per_worker": 110.0, "answers": {"GET 200": 1}},
        "100": {"workers": 100, "pods_per_s": 70.0, "cpu_ms_per_worker": 100.0, "answers": {}},
    }
    assert headline(runs) == {"workers": 1000, "pods_per_s": 60.0, "cpu_ms_per_worker": 110.0, "cpu_growth": 1.1}
    assert headline({}) == {}
