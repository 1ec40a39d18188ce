"""What the real cluster needs is asked before it starts, and answered in one sentence."""

from dataclasses import replace

import pytest

from cluster.preflight import Machine, obstacles, sentence

GOOD = Machine(
    system="linux",
    machine="x86_64",
    root=True,
    memory=24_000_000_000,
    control_groups=True,
    network_namespaces=True,
    overlay=True,
    packages_missing=("buildah",),
    apt=True,
    disks=(("/root", 60_000_000_000, 40_000_000_000),),
)


def test_a_machine_with_everything_has_no_obstacle():
    assert obstacles(GOOD) == []


@pytest.mark.parametrize(
    ("lacks", "told"),
    [
        pytest.param({"system": "darwin"}, "it needs Linux, this is darwin", id="not Linux"),
        pytest.param({"root": False}, "it needs root", id="not root"),
        pytest.param({"machine": "riscv64"}, "this is riscv64", id="unknown processor"),
        pytest.param({"memory": 4_100_000_000}, "6 GB of memory, this machine has 4.1 GB", id="little memory"),
        pytest.param({"control_groups": False}, "/sys/fs/cgroup is not mounted", id="no control groups"),
        pytest.param({"network_namespaces": False}, "network namespaces", id="no network namespaces"),
        pytest.param({"overlay": False}, "overlay", id="no overlay"),
        pytest.param({"apt": False}, "it needs buildah, and there is no apt-get", id="not Debian"),
        pytest.param(
            {"disks": (("/", 9_900_000_000, 35_000_000_000),)},
            "it will write up to 35 GB below /, where 9.9 GB are free",
            id="little disk",
        ),
    ],
)
def test_each_lack_is_told_with_what_was_expected(lacks, told):
    (found,) = obstacles(replace(GOOD, **lacks))
    assert told in found


def test_all_reasons_and_the_way_that_remains_stand_in_one_message():
    found = obstacles(replace(GOOD, root=False, memory=1_000_000_000))
    said = sentence("make demo", found, "Use another cluster.")
    assert said.startswith("make demo cannot run here: it needs root")
    assert "; it needs 6 GB of memory" in said
    assert said.endswith(" Use another cluster.")
    assert "\n" not in said
