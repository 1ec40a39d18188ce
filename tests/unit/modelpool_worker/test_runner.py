"""From load to exit, with a model whose pace the test decides."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from modelpool_api import EvictRequest
from modelpool_worker.errors import NeverLoadsError, NotServingError, RetryLoadError
from modelpool_worker.models.devices import reserved_mib
from modelpool_worker.runner import Exit, chunk_size
from unit.modelpool_worker.gpus import GPU, Gpus


def evict(**fields):
    return EvictRequest(worker_id="uid", boot_id="boot", **fields)


async def end(worker):
    async with asyncio.timeout(20):
        return await worker.life


async def request(worker, text="x"):
    with worker.runner.admitted(1) as job:
        return await worker.runner.compute(job, [text])


@pytest.mark.parametrize(
    ("error", "exit_"),
    [
        (NeverLoadsError("wrong model"), Exit(78, "wrong model")),
        (RetryLoadError("hub away"), Exit(1, "hub away")),
    ],
    ids=["never", "perhaps later"],
)
async def test_a_failed_load_ends_with_its_reason(loading, error, exit_):
    loading.capability.load_error = error
    loading.capability.loading.set()
    assert await end(loading) == exit_


async def test_an_unexpected_error_is_named_by_its_class_only(loading):
    loading.capability.load_error = ZeroDivisionError("internal detail")
    loading.capability.loading.set()
    ended = await end(loading)
    assert ended.code == 1
    assert "ZeroDivisionError" in ended.sentence
    assert "internal detail" not in ended.sentence


async def test_a_source_that_is_not_there_is_final(make_worker, tmp_path):
    worker = make_worker(model_source=f"file://{tmp_path}/nowhere")
    ended = await worker.runner.live()
    assert ended.code == 78
    assert "nowhere is not a folder" in ended.sentence


async def test_evicted_while_loading_it_ends_at_once_though_the_load_goes_on(loading):
    assert loading.machine.evict(evict(force=True, reason="Shutdown"))
    assert await end(loading) == Exit(0, "Shutdown")
    assert not loading.capability.loading.is_set()


async def test_terminated_while_loading(loading):
    loading.machine.terminate()
    assert await end(loading) == Exit(143)


@pytest.mark.parametrize(("evicted", "code"), [(True, 0), (False, 143)], ids=["evicted", "SIGTERM"])
async def test_what_was_admitted_is_finished_and_nothing_else(ready, evicted, code):
    ready.capability.gate.clear()
    running = asyncio.create_task(request(ready, "running"))
    await ready.until_running()
    queued = asyncio.create_task(request(ready, "queued"))
    await asyncio.sleep(0)
    if evicted:
        assert ready.machine.evict(evict(force=True))
    ready.machine.terminate()
    ready.machine.terminate()
    with pytest.raises(NotServingError) as refused:
        await request(ready)
    assert refused.value.headers["X-Modelpool-State"] == "Evicting"
    assert not ready.life.done()
    ready.capability.gate.set()
    assert [len((await task)[0]) for task in (running, queued)] == [1, 1]
    # why it was agreed to is the last word of a process: whoever asked may not have heard the answer
    assert await end(ready) == Exit(code, "Evicted" if evicted else "")


async def test_the_drain_has_an_end(make_worker):
    worker = make_worker(drain_timeout_seconds=0)
    worker.life = asyncio.create_task(worker.runner.live())
    await worker.reach("Ready")
    worker.capability.gate.clear()
    stuck = asyncio.create_task(request(worker))
    await worker.until_running()
    worker.machine.terminate()
    with pytest.raises(NotServingError):
        await stuck
    worker.capability.gate.set()
    assert await end(worker) == Exit(143)


async def test_a_model_beyond_repair_ends_the_process(ready):
    ready.capability.broken = True
    task = asyncio.create_task(request(ready))
    ended = await end(ready)
    assert ended.code == 1
    assert "see the worker's log" in ended.sentence
    with pytest.raises(Exception, match="the model failed"):
        await task


async def test_idle_comes_by_itself_and_obeys_the_latest_timeout(ready):
    ready.machine.set_idle_timeout(0)
    await ready.reach("Idle")
    await request(ready)
    assert [str(move.to_state) for move in ready.machine.pong(ready.runner.gauges(), 0).transitions][:5] == [
        "Ready",
        "Idle",
        "Processing",
        "Ready",
        *(["Idle"] if str(ready.machine.state) == "Idle" else []),
    ]


async def test_a_request_of_many_parts_is_answered_in_order(ready):
    texts = ["x" * (1 + i % 7) for i in range(300)]
    with ready.runner.admitted(len(texts)) as job:
        vectors, tokens = await ready.runner.compute(job, texts)
    assert [int(vector[0]) for vector in vectors] == [len(text) for text in texts]
    assert tokens == sum(len(text) for text in texts)
    assert max(len(batch) for batch in ready.capability.batches) <= ready.settings.max_batch_items


def kib_of_this_process():
    """Resident memory by /proc/self/status, KiB, which the worker does not read."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1])


async def test_the_memory_of_a_pong_is_what_the_kernel_says_of_this_process(ready):
    before = ready.runner.gauges().memory
    assert before.measured_mib == before.resident_mib == pytest.approx(kib_of_this_process() / 1024, abs=32)
    taken = np.ones(256 * 2**20 // 8)  # written to: it takes memory
    after = ready.runner.gauges().memory
    assert after.resident_mib - before.resident_mib == pytest.approx(256, abs=32)
    assert len(taken)


async def test_on_an_accelerator_the_memory_there_is_the_measured_one(make_worker):
    worker = make_worker()
    worker.capability.accelerator_mib = lambda: reserved_mib(GPU, Gpus(held={GPU: 40_000 * 2**20}))
    assert worker.runner.gauges().memory.measured_mib == worker.runner.gauges().memory.resident_mib, "not loaded yet"
    life = asyncio.create_task(worker.runner.live())
    await worker.reach("Ready")
    memory = worker.runner.gauges().memory
    assert memory.measured_mib == 40_000
    assert memory.resident_mib == pytest.approx(kib_of_this_process() / 1024, abs=32)
    life.cancel()
    await asyncio.gather(life, return_exceptions=True)


@pytest.mark.parametrize(
    ("lengths", "sizes"),
    [([1] * 130, [64, 64, 2]), ([90_000, 20_000, 1], [1, 2]), ([900_000, 900_000], [1, 1])],
    ids=["by number", "by length", "each alone"],
)
def test_inputs_are_prepared_in_portions(lengths, sizes):
    inputs = ["x" * length for length in lengths]
    first, seen = 0, []
    while first < len(inputs):
        seen.append(chunk_size(inputs, first))
        first += seen[-1]
    assert seen == sizes
