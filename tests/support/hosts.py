"""A second host: a network namespace of its own, on a cable that a test can pull."""

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

    def __init__(self) -> None:
        mark = secrets.token_hex(3)
        self.name = f"aos-{mark}"
        self._near, self._far = f"an{mark}", f"af{mark}"
        # One of 16,384 networks of two hosts, so that two sessions do not meet.
        number = secrets.randbelow(2**14)
        self._network = f"10.{200 + number // 4096}.{number // 16 % 256}.{number % 16 * 16}"
        stem, _, last = self._network.rpartition(".")
        self.gateway, self._address = f"{stem}.{int(last) + 1}", f"{stem}.{int(last) + 2}"

    @property
    def prefix(self) -> list[str]:
        return ["ip", "netns", "exec", self.name]

    def build(self) -> None:
        _ip("netns", "add", self.name)
        _ip("link", "add", self._near, "type", "veth", "peer", "name", self._far)
        _ip("link", "set", self._far, "netns", self.name)
        _ip("addr", "add", f"{self.gateway}/28", "dev", self._near)
        self.plug_in()
        for words in (
            ("link", "set", "lo", "up"),
            ("addr", "add", f"{self._address}/28", "dev", self._far),
            ("link", "set", self._far, "up"),
        ):
            _ip("-n", self.name, *words)

    def cut_off(self) -> None:
        """Pull the cable: nothing is refused or closed, packets just do not arrive any more."""
        _ip("link", "set", self._near, "down")

    def plug_in(self) -> None:
        _ip("link", "set", self._near, "up")

    def remove(self) -> None:
        for words in (("link", "del", self._near), ("netns", "del", self.name)):
            with suppress(subprocess.CalledProcessError):
                _ip(*words)


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
        with _forwarding(host.gateway, services):
            yield host
    finally:
        host.remove()


@contextmanager
def _forwarding(address: str, services: tuple[int, ...]) -> Iterator[None]:
    """Hand on connections to ``address``: the servers themselves listen on loopback only."""
    program = [sys.executable, str(Path(__file__).with_name("forwarder.py")), address]
    with subprocess.Popen(
        [*program, *map(str, services)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as forwarder:
        try:
            assert forwarder.stdout is not None
            assert forwarder.stdout.readline() == b"listening\n"
            yield
        finally:
            forwarder.kill()
