"""What the gateway's benchmark makes of its samples, and how it reads what a program takes."""

import re
import subprocess
import sys
import time

import pytest

from bench.figures import Sample, Samples
from bench.gateway.__main__ import asked
from bench.gateway.contenders import DIRECT, LITELLM, NGINX, OURS
from bench.gateway.measure import STREAMS, TARGETS, figures
from bench.gateway.usage import cpu_seconds, peak_mib
from bench.peer_environments import FOLDER
from cluster.host import ClusterError


def samples() -> Samples:
    """Two rounds; in the second one the machine is half as fast."""
    found = []
    for number, slow in enumerate((1, 2)):
        for who, rate, p99 in ((DIRECT, 60_000, 0.5), (OURS, 12_000, 2.0), (LITELLM, 400, 90.0), (NGINX, 30_000, 1.0)):
            found.append(Sample(number, who, "32", {"per_second": rate / slow, "p99_ms": p99 * slow, "rss_mb": 50}))
    whole = ((0, STREAMS), (1, STREAMS - 1))
    return Samples([*found, *(Sample(n, OURS, f"{STREAMS} streams", {"whole": w, "rss_mb": 80}) for n, w in whole)])


def test_ratios_are_of_one_round_and_a_lost_frame_in_any_round_counts():
    found = figures(samples())
    assert found["ratio_litellm"] == 30
    assert found["ratio_nginx"] == 0.4
    assert found["added_p99_ms_32"] == (1.5 + 3.0) / 2
    assert found["streams_without_loss"] == STREAMS - 1
    assert found["rss_mb"] == 80


def test_what_was_not_measured_is_none_and_every_target_has_its_figure():
    found = figures(samples())
    assert found["ttft_added_ms"] is None
    assert {target.key for target in TARGETS} <= found.keys()


def test_subjects_and_rounds_are_checked():
    assert asked("streams", "1") == (["streams"], 1)
    assert asked("", "")[0] == ["requests", "streams"]
    with pytest.raises(ClusterError, match="expected BENCH="):
        asked("speed", "")
    with pytest.raises(ClusterError, match="ROUNDS"):
        asked("", "none")


def test_a_programs_memory_and_time_are_those_of_all_its_processes():
    child = "import time; held = bytearray(40 << 20); end = time.process_time() + 0.3\n"
    child += "while time.process_time() < end: pass\nprint(flush=True); time.sleep(60)"
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    with subprocess.Popen(
        [sys.executable, "-c", script, child], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            assert peak_mib(process.pid) > 40
            assert cpu_seconds(process.pid) >= 0.1
        finally:
            subprocess.run(["kill", "--", f"-{process.pid}"], check=True)
    # the child was killed with its parent, and is gone a moment later
    deadline = time.monotonic() + 10
    while peak_mib(process.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert peak_mib(process.pid) == 0


def test_every_release_for_litellm_is_pinned_by_hashes():
    releases = re.split(r"\n(?=\S)", (FOLDER / "litellm.txt").read_text())[1:]
    assert len(releases) > 50
    assert all("==" in each and "--hash=sha256:" in each for each in releases)
