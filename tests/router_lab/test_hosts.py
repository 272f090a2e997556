"""Several hosts on this machine: links delay, lose and cut; a lab stands on them; nothing is left behind."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from gaugeblock.fixtures.hosts.network import Link, Network, NoHosts
from gaugeblock.fixtures.targets.router_hosts import HostsBench
from gaugeblock.fixtures.targets.router_launch import LabConfig, reference_launcher


@pytest.fixture
def network() -> Iterator[Network]:
    try:
        made = Network(2)
    except NoHosts as trouble:
        pytest.skip(reason=f"no network namespaces here: {trouble}")
    yield made
    made.close()


def connect(network: Network, listener: socket.socket, seconds: float = 5.0) -> float:
    """Connect from host 0 to a listener at host 1; returns how long it took."""
    with network.socket(0) as client:
        client.settimeout(seconds)
        began = time.monotonic()
        client.connect(listener.getsockname())
        return time.monotonic() - began


@pytest.fixture
def listener(network: Network) -> Iterator[socket.socket]:
    with network.socket(1) as sock:
        sock.bind((network.address(1), 0))
        sock.listen(64)
        yield sock


def test_hosts_have_addresses_and_reach_each_other(network: Network, listener: socket.socket) -> None:
    connect(network, listener)
    connection, peer = listener.accept()
    connection.close()
    assert peer[0] == network.address(0) == "10.77.0.1"


def test_a_link_delays_both_ways(network: Network, listener: socket.socket) -> None:
    network.shape(1, Link(delay=0.1))
    assert connect(network, listener) >= 0.2


def test_a_cut_link_lets_nothing_pass(network: Network, listener: socket.socket) -> None:
    network.shape(1, Link(cut=True))
    with pytest.raises(TimeoutError):
        connect(network, listener, 0.2)
    assert network.lost


def test_lost_packets_are_sent_again(network: Network, listener: socket.socket) -> None:
    network.shape(1, Link(loss=0.3))
    for _ in range(3):
        connect(network, listener, 30.0)
    assert network.lost


def test_a_network_ends_with_its_helper(network: Network) -> None:
    network.close()
    assert network._process.returncode is not None
    assert not network._thread.is_alive()


def test_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NoHosts, match="unshare, nsenter, ip"):
        Network(1)


def test_a_lab_stands_on_hosts(network: Network) -> None:
    bench = HostsBench(reference_launcher())
    try:
        lab = bench.lab(LabConfig(workers=2), fresh=True)
        assert {lab.send(f"{n}").worker for n in range(4)} == {"w0", "w1"}
        assert [worker.url.rpartition(":")[0] for worker in lab.workers] == ["http://10.77.0.2", "http://10.77.0.3"]
        with lab.connect(2.0) as sock:
            assert sock.getpeername()[0] == "127.0.0.1"
    finally:
        bench.close()
