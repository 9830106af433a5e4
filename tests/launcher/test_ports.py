"""Ports: free or not, who holds one, and which are picked."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from launcher import ports
from launcher.problems import Problem


def test_a_port_somebody_listens_on_is_taken_and_its_holder_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        assert ports.is_free("127.0.0.1", port) is False
        holder = ports.holder(port)

    assert holder is not None
    assert holder.endswith(f"(process {os.getpid()} in {Path.cwd()})")
    assert ports.holder(port) is None


def test_who_listens_on_a_port_is_told_from_who_does_not():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        assert ports.is_held_by(os.getpid(), port) is True
        assert ports.is_held_by(os.getppid(), port) is False
    assert ports.is_held_by(os.getpid(), port) is False


def test_a_port_taken_on_every_address_is_taken_on_ours():
    with socket.create_server(("0.0.0.0", 0)) as server:  # noqa: S104 - the point of the test
        assert ports.is_free("127.0.0.1", server.getsockname()[1]) is False


def test_connections_that_linger_do_not_keep_a_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            connection, _ = server.accept()
            connection.close()

    assert ports.is_free("127.0.0.1", port) is True


def test_picked_ports_are_below_those_of_outgoing_connections():
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])

    assert ports.pick() < max(first, ports.RANGE.stop)
    assert ports.pick() in ports.RANGE


def test_the_preferred_port_is_picked_when_it_can_be_had():
    port = ports.pick()

    assert ports.pick(port) == port
    assert ports.pick(port, taken=frozenset({port})) != port
    with socket.create_server(("127.0.0.1", port)):
        assert ports.pick(port) != port


@pytest.mark.parametrize("text", ["", "0", "65536", "8000.5", "+80", "eighty", "٨٠٠٠", " 80"])
def test_what_is_no_port_is_refused(text: str):
    with pytest.raises(Problem, match="is not a port"):
        ports.number("AOS_PORT", text)
