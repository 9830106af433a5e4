"""A second host: a network namespace of its own, on a cable that a test can pull.

The cable's near end is in a namespace too, with a forwarder to this host. Nothing changes among this
host's own interfaces, because Chromium gives up what it is fetching whenever an address comes or goes.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from aos_project import env


class Host:
    """Runs programs with ``prefix`` before them; they reach this host's services at ``gateway``."""

    gateway, _address = "10.200.0.1", "10.200.0.2"
    _near, _far = "near", "far"

    def __init__(self) -> None:
        self.name = f"aos-{secrets.token_hex(3)}"
        self.exchange = f"{self.name}-near"

    @property
    def prefix(self) -> list[str]:
        return ["ip", "netns", "exec", self.name]

    def build(self) -> None:
        for name in (self.exchange, self.name):
            _ip("netns", "add", name)
        far = ("type", "veth", "peer", "name", self._far, "netns", self.name)
        _ip("-n", self.exchange, "link", "add", self._near, *far)
        for name, end, address in (
            (self.exchange, self._near, self.gateway),
            (self.name, self._far, self._address),
        ):
            _ip("-n", name, "addr", "add", f"{address}/28", "dev", end)
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", end, "up")

    def cut_off(self) -> None:
        """Pull the cable: nothing is refused or closed, packets just do not arrive any more."""
        _ip("-n", self.exchange, "link", "set", self._near, "down")

    def plug_in(self) -> None:
        _ip("-n", self.exchange, "link", "set", self._near, "up")

    def remove(self) -> None:
        for name in (self.exchange, self.name):
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "del", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextmanager
def second_host(*services: int) -> Iterator[Host]:
    """A host that reaches these ports of ours. Skips the test where none can be made.

    With AOS_REQUIRE_NETNS=1 that is a failure.
    """
    host = Host()
    try:
        if os.geteuid() or not shutil.which("ip"):
            raise PermissionError("needs root and the program ip")
        host.build()
    except (OSError, subprocess.CalledProcessError) as error:
        host.remove()
        missing = f"network namespaces cannot be made here: {error}"
        if env.flag("AOS_REQUIRE_NETNS", default=False):
            pytest.fail(missing)
        pytest.skip(missing)
    try:
        with _forwarding(host, services):
            yield host
    finally:
        host.remove()


@contextmanager
def _forwarding(host: Host, services: tuple[int, ...]) -> Iterator[None]:
    """Hand on connections to the gateway: the servers themselves listen on loopback only."""
    program = [sys.executable, str(Path(__file__).with_name("forwarder.py"))]
    with subprocess.Popen(
        [*program, host.exchange, host.gateway, *map(str, services)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as forwarder:
        try:
            assert forwarder.stdout is not None
            assert forwarder.stdout.readline() == b"listening\n"
            yield
        finally:
            forwarder.kill()
