"""Ports for the servers that tests and benchmarks start."""

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster import host
from cluster.host import ClusterError, free_ports


def test_no_port_is_given_twice_whoever_asks():
    with ThreadPoolExecutor(8) as threads:
        found = [port for ports in threads.map(free_ports, [3] * 40) for port in ports]
    assert len(set(found)) == len(found) == 120


def test_no_outgoing_connection_can_take_one_before_its_server_does():
    first, _last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    if first < 30_000:
        pytest.skip("this machine's connections may have any port")
    assert max(free_ports(50)) < first


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "0.0.0.0"])
def test_a_port_that_somebody_listens_on_is_not_given(monkeypatch, address):
    one, other = free_ports(2)
    monkeypatch.setattr(host, "_PORTS", range(min(one, other), max(one, other) + 1))
    monkeypatch.setattr(host, "_given", set(range(20_000, 30_000)) - {one, other})
    with socket.socket() as busy:
        busy.bind((address, one))
        busy.listen()
        assert free_ports(1) == [other]
        with pytest.raises(ClusterError, match="expected 1 free TCP ports"):
            free_ports(1)
