"""What waits, and what runs next."""

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelpool_worker.capabilities.base import Prepared
from modelpool_worker.errors import InferenceFailedError, QueueFullError
from modelpool_worker.scheduling.choices import BatchLimits, choose_batch, choose_joins
from modelpool_worker.scheduling.request_queue import RequestQueue

LIMITS = BatchLimits(items=4, tokens=100)


def queue_of(*costs, group=lambda _name: None):
    """A queue and one job per list of costs; the values tell them apart: ``job.index``."""
    queue = RequestQueue(max_requests=100, max_inputs=1000)
    jobs = []
    for number, list_of_costs in enumerate(costs):
        job = queue.open(len(list_of_costs))
        names = [f"{number}.{i}" for i in range(len(list_of_costs))]
        queue.put(
            job, [Prepared(name, cost, cost, group(name)) for name, cost in zip(names, list_of_costs, strict=True)]
        )
        jobs.append(job)
    return queue, jobs


def take(queue):
    return queue.take(lambda jobs: choose_batch(jobs, LIMITS))


def values(batch):
    return [item.value for item in batch]


@pytest.mark.parametrize(
    ("costs", "batches"),
    [
        pytest.param([[5]], [["0.0"]], id="one alone"),
        pytest.param([[30, 10], [20]], [["0.1", "1.0", "0.0"]], id="requests share a batch, shortest first"),
        pytest.param(
            [[90], [10, 10]], [["0.0"], ["1.0", "1.1"]], id="a short one does not pay for a long one's padding"
        ),
        pytest.param([[500], [1]], [["0.0"], ["1.0"]], id="longer than the budget runs alone"),
        pytest.param([[1] * 6], [["0.0", "0.1", "0.2", "0.3"], ["0.4", "0.5"]], id="no more than the item limit"),
        pytest.param(
            [[9] * 6, [9]], [["0.0", "1.0", "0.1", "0.2"], ["0.3", "0.4", "0.5"]], id="a small request is not shut out"
        ),
    ],
)
async def test_batches(costs, batches):
    queue, _jobs = queue_of(*costs)
    taken = []
    while batch := take(queue):
        taken.append(values(batch))
    assert taken == batches


@given(st.lists(st.lists(st.integers(1, 150), min_size=1, max_size=8), min_size=1, max_size=8))
def test_everything_runs_once_and_within_the_limits(costs):
    async def drain():
        queue, jobs = queue_of(*costs)
        ran = []
        while batch := take(queue):
            padded = max(item.cost for item in batch) * len(batch)
            assert len(batch) == 1 or (len(batch) <= LIMITS.items and padded <= LIMITS.tokens)
            ran += values(batch)
        assert sorted(ran) == sorted(f"{j}.{i}" for j, job in enumerate(costs) for i in range(len(job)))
        for job in jobs:
            queue.close(job)

    asyncio.run(drain())


async def test_only_what_is_of_one_group_shares_a_batch():
    queue, _jobs = queue_of([1, 1], [1], [1], group=lambda name: name[0] in "02")
    assert values(take(queue)) == ["0.0", "2.0", "0.1"]
    assert values(take(queue)) == ["1.0"]


@pytest.mark.parametrize(
    ("running", "costs", "joins"),
    [
        pytest.param([], [[500], [1]], ["0.0"], id="where nothing runs the first joins whatever its cost"),
        pytest.param([], [[20], [20, 20]], ["0.0", "1.0", "1.1"], id="several join at once"),
        pytest.param([30], [[30], [30], [30]], ["0.0", "1.0"], id="padded to the longest they fit the token limit"),
        pytest.param([10], [[60], [1]], [], id="nobody overtakes one who must wait"),
        pytest.param([1, 1, 1], [[1], [1]], ["0.0"], id="no more than the item limit"),
        pytest.param([80], [[1], [1]], [], id="short ones wait for a long one as well"),
    ],
)
async def test_rows_that_join(running, costs, joins):
    queue, _jobs = queue_of(*costs)
    assert values(queue.take(lambda jobs: choose_joins(jobs, running, LIMITS))) == joins


async def test_a_long_request_is_first_in_its_turn():
    """Each job's first item leads a batch in turn, so neither long nor short ones starve."""
    queue, _jobs = queue_of([90, 90, 90], [1] * 12)
    assert [values(take(queue))[0][0] for _ in range(4)] == ["0", "1", "0", "1"]


async def test_results_come_in_the_order_of_the_inputs():
    queue, (job,) = queue_of([30, 10, 20])
    for item in take(queue):
        job.deliver(item.index, item.value)
    assert await job.answer == ["0.0", "0.1", "0.2"]


async def test_a_full_queue_refuses_and_frees():
    queue = RequestQueue(max_requests=2, max_inputs=10)
    first = queue.open(1)
    queue.open(1)
    with pytest.raises(QueueFullError) as refused:
        queue.open(1)
    assert refused.value.status == 429
    assert refused.value.headers == {"Retry-After": "1"}
    queue.close(first)
    queue.open(1)


async def test_inputs_are_bounded_too_but_one_request_always_fits():
    queue = RequestQueue(max_requests=10, max_inputs=10)
    queue.open(50)
    with pytest.raises(QueueFullError):
        queue.open(1)


async def test_inputs_are_bounded_as_well_once_every_request_has_begun_to_run():
    """Each batch begins all requests there are: what is left of them waits, and counts."""
    queue = RequestQueue(max_requests=100, max_inputs=10)
    for _ in range(2):
        queue.put(queue.open(5), [Prepared("x", 1, 1)] * 5)
    assert len(take(queue)) == 4
    assert (queue.depth, queue.waiting_inputs) == (0, 6)
    queue.put(queue.open(4), [Prepared("x", 1, 1)] * 4)
    with pytest.raises(QueueFullError, match="1 requests and 10 inputs wait already"):
        queue.open(1)
    take(queue)
    queue.open(4)


async def test_a_request_larger_than_the_bound_fits_beside_rows_that_all_run():
    """Running rows wait for nothing: who comes next is next."""
    queue = RequestQueue(max_requests=100, max_inputs=4)
    running = queue.open(3)
    queue.put(running, [Prepared("x", 1, 1)] * 3)
    assert len(queue.take(lambda jobs: choose_joins(jobs, [], LIMITS))) == 3
    queue.open(5)
    with pytest.raises(QueueFullError):
        queue.open(1)


async def test_inputs_whose_answers_nobody_reads_are_bounded():
    queue = RequestQueue(max_requests=100, max_inputs=4)
    jobs = [queue.open(4)]
    for _ in range(2):
        queue.put(jobs[-1], [Prepared("x", 1, 1)] * 4)
        for item in take(queue):
            item.job.deliver(item.index, "unread")
        if len(jobs) == 1:
            jobs.append(queue.open(4))
    with pytest.raises(QueueFullError, match="0 requests and 0 inputs wait"):
        queue.open(4)
    queue.close(jobs[0])
    queue.open(4)


async def test_a_failed_request_waits_no_more_for_its_inputs():
    queue = RequestQueue(max_requests=100, max_inputs=10)
    failed = queue.open(8)
    failed.fail(InferenceFailedError("no"))
    assert queue.waiting_inputs == 0
    queue.open(8)
    queue.close(failed)


class Untouched(dict):
    """Nobody goes through it."""

    def __iter__(self):
        raise AssertionError("went through all jobs")

    keys = values = items = __iter__


async def test_a_request_comes_and_goes_without_a_look_at_the_others():
    """Thousands may be open; each of them would make every other one slower."""
    queue, _jobs = queue_of([1, 1], [1])
    queue._jobs = Untouched(queue._jobs)
    job = queue.open(3)
    assert (queue.depth, queue.waiting_inputs) == (3, 6)
    job.fail(InferenceFailedError("no"))
    queue.close(job)
    assert (queue.depth, queue.waiting_inputs) == (2, 3)


@given(st.lists(st.tuples(st.sampled_from(["open", "put", "take", "fail", "deliver", "close"]), st.integers(0, 9))))
def test_what_is_counted_is_what_waits(steps):
    async def go_through():
        queue, jobs, running = RequestQueue(max_requests=4, max_inputs=9), [], []
        for step, number in steps:
            job = jobs[number % len(jobs)] if jobs else None
            if step == "open":
                with contextlib.suppress(QueueFullError):
                    jobs.append(queue.open(1 + number % 5))
            elif step == "take":
                running += take(queue)
            elif step == "deliver" and running:
                item = running.pop(number % len(running))
                item.job.deliver(item.index, "result")
            elif step == "put" and job is not None and not job.waiting and not job.taken:
                queue.put(job, [Prepared("x", 1, 1)] * job.size)
            elif step == "fail" and job is not None:
                job.fail(InferenceFailedError("no"))
            elif step == "close" and job is not None:
                queue.close(job)
                jobs.remove(job)
            assert queue.depth == sum(1 for each in jobs if not each.taken)
            assert queue.waiting_inputs == sum(each.size - each.taken for each in jobs if not each.over)
        for job in jobs:
            queue.close(job)
        assert (queue.depth, queue.waiting_inputs, queue._inputs) == (0, 0, 0)

    asyncio.run(go_through())


async def test_a_request_whose_waiter_was_cancelled_is_counted_until_it_is_closed():
    queue, (job,) = queue_of([1, 1])
    job.answer.cancel()
    queue.close(job)
    assert (queue.depth, queue.waiting_inputs) == (0, 0)


async def test_what_a_client_left_behind_does_not_run():
    queue, (left, stays) = queue_of([1, 1], [1])
    queue.close(left)
    assert queue.depth == 1
    assert values(take(queue)) == ["1.0"]
    stays.deliver(0, "result")
    assert await stays.answer == ["result"]


async def test_a_result_for_a_client_that_left_while_it_ran_is_dropped():
    queue, (job,) = queue_of([1])
    (item,) = take(queue)
    queue.close(job)
    job.deliver(item.index, "too late")
    assert job.answer.cancelled()
    assert take(queue) == []


async def test_inputs_prepared_after_the_client_left_are_not_queued():
    queue, (job,) = queue_of([])
    queue.close(job)
    queue.put(job, [Prepared("late", 1, 1)])
    assert take(queue) == []


async def test_a_failed_job_ends_with_its_error_and_the_rest_of_it_does_not_run():
    queue, (job,) = queue_of([90, 90])
    take(queue)
    job.fail(InferenceFailedError("no"))
    assert take(queue) == []
    with pytest.raises(InferenceFailedError):
        await job.answer


async def test_filled_waits_for_work():
    queue, (job,) = queue_of([])
    waiting = asyncio.create_task(queue.filled())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.put(job, [Prepared("now", 1, 1)])
    await asyncio.wait_for(waiting, 1)


async def test_what_a_client_leaves_waiting_is_not_work():
    """Its answer is cancelled one turn of the event loop before its request closes it: the batch loop sleeps on."""
    queue, [job] = queue_of([1])
    job.answer.cancel()
    waiting = asyncio.create_task(queue.filled())
    await asyncio.sleep(0)
    assert not waiting.done()
    assert take(queue) == []
    queue.put(queue.open(1), [Prepared("next", 1, 1)])
    await asyncio.wait_for(waiting, 5)
    assert values(take(queue)) == ["next"]
