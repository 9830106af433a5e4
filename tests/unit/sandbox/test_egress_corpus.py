"""Four hundred ways to name what must not be reached, with somebody listening wherever they lead."""

from __future__ import annotations

import itertools
import socket
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

import pytest

from apps.sandboxes.types import EgressMode
from tests.support.egress import PUBLIC, Server, Stage, ask, status_of
from workers.sandbox.egress import proxy
from workers.sandbox.egress.doors import Doors
from workers.sandbox.egress.policy import Egress

#: Addresses of this machine are added to these: loopback, the engine's bridge, private networks.
TARGETS = ["127.0.0.1", "127.8.8.8", "0.0.0.0", "169.254.169.254", "10.0.0.1", "192.168.0.1"]  # noqa: S104


def own_addresses() -> list[str]:
    """Every IPv4 address this machine listens on, as far as names and routes tell."""
    found = {"172.17.0.1", "192.0.2.2"}
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("198.51.100.1", 9))
        found.add(sock.getsockname()[0])
    return sorted(found)


def spellings(address: str) -> list[str]:
    """The same IPv4 address as different programs write it."""
    number = int(IPv4Address(address))
    a, b, c, d = address.split(".")
    words = list(map(int, (a, b, c, d)))
    return [
        address,
        f"{address}.",
        str(number),
        hex(number),
        f"0{number:o}",
        ".".join(f"0x{word:x}" for word in words),
        ".".join(f"0x{word:02X}" for word in words),
        ".".join(f"0{word:o}" for word in words),
        ".".join(f"{word:03d}" for word in words),
        f"{a}.{number & 0xFFFFFF}",
        f"{a}.{b}.{number & 0xFFFF}",
        f"0x{words[0]:x}.{number & 0xFFFFFF}",
        ".".join(chr(0x2460 + int(digit) - 1) if digit not in ".0" else digit for digit in address),
        address.translate({ord(str(digit)): 0xFF10 + digit for digit in range(10)}),
        address.replace(".", "\u3002"),
        f"%{ord(a[0]):02x}{address[1:]}",
        f"[::ffff:{address}]",
        f"[::{address}]",
        f"[::ffff:0:{address}]",
        f"[64:ff9b::{address}]",
        f"[64:ff9b:1::{address}]",
        f"[{IPv6Address((0x2002 << 112) | (number << 80))}]",
        f"[{IPv6Address((0x20010000 << 96) | (~number & 0xFFFFFFFF))}]",
        f"[2606:4700::5efe:{address}]",
        f"[0:0:0:0:0:ffff:{number >> 16:x}:{number & 0xFFFF:x}]",
    ]


OTHERS = [
    *("[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[0000::0001]", "[::1%25lo]", "[fe80::1%25eth0]", "[fd00::2]"),
    *("localhost", "LOCALHOST", "localhost.", "localhost.localdomain", "ip6-localhost", "loopback"),
    *("metadata", "metadata.google.internal", "instance-data", "host.docker.internal", "docker"),
    *("kubernetes.default.svc", "gateway.docker.internal", "_", "a", "0", "127", "[::ffff:7f00:1]"),
    *("api.example.com@127.0.0.1", "127.0.0.1@api.example.com", "api.example.com%00.127.0.0.1"),
    *("api.example.com\\@127.0.0.1", "127.0.0.1\\.api.example.com", "api.example.com#@127.0.0.1"),
    *("127.0.0.1%20.api.example.com", "127.0.0.1%2f.api.example.com", "api.example.com:80@127.0.0.1"),
]  # fmt: skip
#: Names whose owner lets them lead inside; each is asked for as if it were a host like any other.
NAMES = {
    "inside.evil.com": ["127.0.0.1"],
    "metadata.evil.com": ["169.254.169.254"],
    "bridge.evil.com": ["172.17.0.1"],
    "mixed.evil.com": [PUBLIC, "127.0.0.1"],
    "mixed-first.evil.com": ["127.0.0.1", PUBLIC],
    "six.evil.com": ["::1"],
    "mapped.evil.com": ["::ffff:127.0.0.1"],
    "nat64.evil.com": ["64:ff9b::7f00:1"],
    "sixtofour.evil.com": ["2002:7f00:1::"],
    "any.evil.com": ["0.0.0.0"],  # noqa: S104
    "unspecified.evil.com": ["::"],
    "unique.evil.com": ["fd00::2"],
    "carrier.evil.com": ["100.100.100.200"],
    "azure.evil.com": ["168.63.129.16"],
    "127.0.0.1.evil.com": ["127.0.0.1"],
    "xn--n3h.evil.com": ["127.0.0.1"],
}


def corpus(port: int) -> list[bytes]:
    """The requests: each host as a tunnel, and every other one as a plain request too."""
    hosts = list(itertools.chain.from_iterable(map(spellings, [*TARGETS, *own_addresses()])))
    hosts += [*OTHERS, *NAMES]
    tunnels = [f"CONNECT {host}:{port} HTTP/1.1\r\n\r\n" for host in hosts]
    plain = [f"GET http://{host}:{port}/latest/meta-data HTTP/1.1\r\n\r\n" for host in hosts]
    return [request.encode("utf-8") for request in tunnels + plain]


@pytest.fixture
def canaries():
    """Listeners on every address of this machine, both families, one port."""
    six = four = None
    while six is None:
        four = Server(address="0.0.0.0")  # noqa: S104 - everywhere is the point
        try:
            six = Server(address="::", port=four.port)
        except OSError:
            four.close()
    yield [four, six]
    four.close()
    six.close()


@pytest.fixture
def stage():
    return Stage(dict(NAMES))


@pytest.fixture
def door(tmp_path, stage):
    doors = Doors(tmp_path / "doors", internet=stage)
    # The widest policy there is: nothing but the addresses stands between the two.
    yield doors.open("box", Egress(mode=EgressMode.OPEN, connections=64))
    doors.close_all()


def connects(canaries) -> int:
    return sum(canary.count for canary in canaries)


def test_nothing_internal_is_reached_by_any_of_four_hundred_requests(door, canaries, stage):
    requests = corpus(canaries[0].port)

    answers = [ask(door.folder, request) for request in requests]

    assert len(set(requests)) >= 400
    assert connects(canaries) == 0
    assert stage.dialed == []
    assert {status_of(answer) for answer in answers} <= {400, 403, 502}
    # A name nobody has is no denial; everything else is one.
    assert door.traffic.refused >= len(requests) - 2 * len(OTHERS)


def test_without_the_look_at_addresses_the_canaries_sing(door, canaries, monkeypatch):
    """The sabotage: the corpus above can fail."""
    monkeypatch.setattr(proxy, "is_internal", lambda *_, **__: False)

    near = [name for name, addresses in NAMES.items() if {"127.0.0.1", "::1"} & {*addresses}]
    for host in ["127.0.0.1", "127.0.0.1.", "[::ffff:127.0.0.1]", "[::1]", *near]:
        ask(door.folder, f"CONNECT {host}:{canaries[0].port} HTTP/1.1\r\n\r\n".encode())

    assert connects(canaries) >= 8
