"""Which hosts a version may name, how a host is read, and which addresses nobody may reach."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from jsonschema import Draft202012Validator

from apps.sandboxes.types import EGRESS_SCHEMA, EgressMode
from workers.sandbox.base import SandboxSpec
from workers.sandbox.egress.policy import (
    Egress,
    Reason,
    Refused,
    is_internal,
    target_of,
)
from workers.sandbox.errors import SandboxSpecInvalid

RULES = ["api.example.com", "*.example.org", "files.example.net:8443", "xn--bcher-kva.example:80"]


def admitted(authority: str, *rules: str, port: int | None = 443) -> bool:
    egress = Egress(mode=EgressMode.ALLOWLIST, allow=rules or tuple(RULES))
    return egress.admits(target_of(authority, port=port))


@pytest.mark.parametrize(
    "authority",
    [
        "api.example.com",
        "API.Example.COM.",
        "api.example.com:80",
        "a.example.org",
        "a.b.example.org:443",
        "files.example.net:8443",
        "xn--bcher-kva.example:80",
    ],
)
def test_a_listed_host_is_let_through(authority):
    assert admitted(authority)


@pytest.mark.parametrize(
    "authority",
    [
        "example.com",
        "b.api.example.com",
        "api.example.com.evil.com",
        "evilapi.example.com",
        "example.org",  # a wildcard is for what lies below
        "evilexample.org",
        "a.example.org.evil.com",
        "api.example.com:8080",
        "files.example.net",
        "files.example.net:443",
        "xn--bcher-kva.example",
        "93.184.216.34",
    ],
)
def test_a_host_or_port_that_is_not_listed_is_not(authority):
    assert not admitted(authority)


@pytest.mark.parametrize(
    "authority",
    [
        *("localhost", "metadata", "intranet", "a", "1"),  # one word
        *("127.1", "0x7f.1", "0177.0.0.1", "127.0.0.01", "2130706433", "0x7f000001", "017700000001"),
        *("127.0.0.1.1", "1.2.3", "256.1.1.1", "example.1", "example.0x7f", "a.b.127"),
        *("\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021", "b\u00fccher.example", "ex\u00adample.com"),
        *("user@api.example.com", "api.example.com@evil.com", "api.example.com:443@evil.com"),
        *("api.example.com\\@evil.com", "api.example.com#evil.com", "api example.com", "api.example.com\t"),
        *("", ".", "..", "api..example.com", ".example.com", "-a.example.com", "a-.example.com", "a%2e.com"),
        *("api.example.com:", "api.example.com:0", "api.example.com:65536", "api.example.com:8 0", "a.com:+80"),
        *("[::1", "::1", "[::1%25lo]", "[fe80::1%eth0]", "[127.0.0.1]", "[v1.a]", "[::ffff:0x7f.1]", "a.com:80:80"),
        *("a" * 64 + ".example.com", "a." * 130 + "com", "api.example.com\x00", "api.example.com\r\nx:y"),
    ],
)  # fmt: skip
def test_what_two_programs_may_read_differently_is_refused(authority):
    with pytest.raises(Refused) as caught:
        target_of(authority, port=443)

    assert caught.value.denial.reason == Reason.ODD_SPELLING
    assert str(caught.value).isprintable()


def test_a_host_without_a_port_needs_one():
    with pytest.raises(Refused):
        target_of("api.example.com", port=None)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.17.0.1"),  # noqa: S104
        *("172.31.255.255", "192.168.1.1", "169.254.169.254", "169.254.170.2", "100.64.0.1", "100.100.100.200"),
        *("168.63.129.16", "192.0.0.192", "192.0.2.2", "192.88.99.1", "198.18.0.1", "198.51.100.7", "203.0.113.9"),
        *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "fe80::1", "fec0::1", "fc00::1", "fd00:ec2::254", "ff02::1", "100::1", "5f00::1"),
        *("::ffff:127.0.0.1", "::ffff:93.184.216.34", "::127.0.0.1", "::ffff:0:127.0.0.1"),
        *("64:ff9b::7f00:1", "64:ff9b::5db8:d822", "64:ff9b:1::a9fe:a9fe", "2002:7f00:1::", "2002:a9fe:a9fe::1"),
        *("2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "2001:20::1", "3fff::1"),
        *("2606:4700::5efe:7f00:1", "2606:4700::200:5efe:10.0.0.1"),
    ],
)  # fmt: skip
def test_no_address_off_the_public_internet_is_reached(address):
    assert is_internal(ip_address(address))


@pytest.mark.parametrize(
    "address",
    ["93.184.216.34", "1.1.1.1", "172.15.0.1", "172.32.0.1", "100.63.0.1", "2606:4700::1111"],
)
def test_public_addresses_are_not_internal(address):
    assert not is_internal(ip_address(address))


def test_an_operator_closes_networks_of_their_own():
    closed = (ip_network("93.184.216.0/24"), ip_network("2606:4700::/32"))

    assert is_internal(ip_address("93.184.216.34"), closed=closed)
    assert is_internal(ip_address("2606:4700::1111"), closed=closed)
    assert not is_internal(ip_address("1.1.1.1"), closed=closed)


WRONG_RULES = [
    *("localhost", "127.0.0.1", "10.0.0.1:80", "[::1]", "*", "*.com", "*.*.com", "a.*.com", "api.example.com:0"),
    *("api.example.com:99999", "API.example.com", "api.example.com/", "https://api.example.com", "api.example.com\n"),
    *("b\u00fccher.example", "api.example.com.", "", " ", "a..com", "-a.com", "1.2.3.4", "example.0x7f", 7, None),
]  # fmt: skip


@pytest.mark.parametrize("rule", WRONG_RULES)
def test_a_rule_that_is_no_host_is_refused_by_the_worker(rule):
    with pytest.raises(SandboxSpecInvalid, match=r"egress\.allow"):
        Egress.from_mapping({"mode": "allowlist", "allow": [rule]})


@pytest.mark.parametrize("rule", WRONG_RULES)
def test_a_rule_that_is_no_host_is_refused_when_the_version_is_drafted(rule):
    # A port above 65535 is for the worker to refuse: a pattern cannot count.
    wrong = not Draft202012Validator(EGRESS_SCHEMA).is_valid({"mode": "allowlist", "allow": [rule]})

    assert wrong or rule == "api.example.com:99999"


@pytest.mark.parametrize(
    "wanted",
    [
        {"mode": "everything"},
        {"mode": None},
        {},
        {"mode": "open", "allow": ["api.example.com"]},
        {"mode": "none", "allow": ["api.example.com"]},
        {"mode": "allowlist"},
        {"mode": "allowlist", "allow": []},
        {"mode": "allowlist", "allow": "api.example.com"},
        {"mode": "allowlist", "allow": ["api.example.com"] * 101},
        {"mode": "open", "out_mb": 0},
        {"mode": "open", "in_mb": 10241},
        {"mode": "open", "out_mb": True},
        {"mode": "open", "out_mb": "1"},
        {"mode": "open", "network_mode": "host"},
        "open",
        None,
        ["open"],
    ],
)
def test_a_wrong_wish_is_refused_by_worker_and_schema(wanted):
    with pytest.raises(SandboxSpecInvalid, match="egress"):
        SandboxSpec.from_mapping({"egress": wanted}, image="i")
    assert not Draft202012Validator(EGRESS_SCHEMA).is_valid(wanted)


def test_nothing_is_reached_unless_asked_for():
    spec = SandboxSpec.from_mapping({}, image="i")

    assert spec.egress.mode == EgressMode.NONE
    assert not spec.egress.admits(target_of("api.example.com:443", port=None))


def test_each_mode_covers_those_before_it():
    covered = {most: [mode for mode in EgressMode if most.covers(mode)] for most in EgressMode}

    assert [len(modes) for modes in covered.values()] == [1, 2, 3]
    assert covered[EgressMode.NONE] == [EgressMode.NONE]
