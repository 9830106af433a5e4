"""What a sandbox may reach: hosts by rule, and the addresses that nobody may reach, whatever the rule."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
)
from typing import Final, Self

from apps.sandboxes.types import HOST_RULE, EgressMode
from workers.sandbox.errors import SandboxSpecInvalid

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

WEB_PORTS: Final = (80, 443)
RULES_LIMIT: Final = 100
#: Megabytes that may leave and come in through one sandbox's door.
BYTES_BOUNDS: Final = (1, 10 * 1024)

_RULE: Final = re.compile(HOST_RULE)
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_AUTHORITY: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:@\[\]]+)(?::([0-9]{1,5}))?")
_NAME_LIMIT: Final = 253

#: This host, its networks, clouds' metadata, and what is not unicast at all.
_CLOSED_V4: Final = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carriers' own, and Alibaba's metadata
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host agent: a public address that is not
        "169.254.0.0/16",  # link-local, and everybody else's metadata
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
#: Everything else of IPv6 is closed: mapped and translated forms, local and multicast addresses.
_OPEN_V6: Final = IPv6Network("2000::/3")
_CLOSED_V6: Final = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # Teredo and other wrappings
        "2001:db8::/32",
        "2002::/16",  # 6to4: an IPv4 address in disguise
        "3fff::/20",
    )
)
#: An IPv4 address may hide behind any prefix (ISATAP); these words stand before it.
_ISATAP: Final = (0x00005EFE, 0x02005EFE)


class Reason(StrEnum):
    """Why a connection was refused. API: stored in the run's log."""

    NOT_LISTED = "not_listed"
    INTERNAL_ADDRESS = "internal_address"
    ODD_SPELLING = "odd_spelling"
    BAD_REQUEST = "bad_request"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    TOO_MANY_BYTES = "too_many_bytes"


_SENTENCES: Final = {
    Reason.NOT_LISTED: "it is not among the hosts that the agent's version lists",
    Reason.INTERNAL_ADDRESS: "its address is not on the public Internet",
    Reason.ODD_SPELLING: "it is spelled in a way that hides where it leads",
    Reason.BAD_REQUEST: "the request is not one a proxy can check",
    Reason.TOO_MANY_CONNECTIONS: "too many connections are open at once",
    Reason.TOO_MANY_BYTES: "the limit of bytes is reached",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """One connection that was refused, as the run's log tells it."""

    host: str
    port: int
    reason: Reason

    def __str__(self) -> str:
        where = f"{self.host}:{self.port}" if self.port else self.host
        return f"Network access to {where} was refused: {_SENTENCES[self.reason]}."


class Refused(Exception):
    """A request breaks the policy. Carries what is told of it."""

    def __init__(self, reason: Reason, *, host: str = "", port: int = 0) -> None:
        shown = "".join(c if c.isprintable() else "?" for c in host)[:_NAME_LIMIT]
        self.denial = Denial(host=shown or "an unnamed host", port=port, reason=reason)
        super().__init__(str(self.denial))


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A host in its one spelling, and a port."""

    host: str
    port: int

    @property
    def literal(self) -> Address | None:
        """The address, where the host is one."""
        if ":" in self.host:
            return IPv6Address(self.host)
        return IPv4Address(self.host) if self.host[-1].isdigit() else None

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == WEB_PORTS[0] else f"{host}:{self.port}"


def target_of(authority: str, *, port: int | None) -> Target:
    """Read ``host`` or ``host:port``. Raises ``Refused`` for whatever two programs may read differently."""
    found = _AUTHORITY.fullmatch(authority)
    number = int(found[2]) if found and found[2] else port
    if not found or not number or number > 65535:
        raise Refused(Reason.ODD_SPELLING, host=authority)
    try:
        return Target(host=_host(found[1]), port=number)
    except ValueError as error:
        raise Refused(Reason.ODD_SPELLING, host=authority, port=number) from error


def _host(text: str) -> str:
    if text.startswith("["):
        return str(IPv6Address(text[1:-1]))
    host = text.lower().removesuffix(".")
    labels = host.split(".")
    if len(host) > _NAME_LIMIT or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("not a host name")
    if labels[-1][0].isdigit():
        # Such a name is an address to some programs, however it is written: take the plain form only.
        return str(IPv4Address(host))
    if len(labels) == 1:
        raise ValueError("a name of one word belongs to somebody's own network")
    return host


def is_internal(address: Address, *, closed: tuple[Network, ...] = ()) -> bool:
    """Whether an address may be reached by no sandbox at all; ``closed`` adds the operator's own."""
    if any(address.version == network.version and address in network for network in closed):
        return True
    if isinstance(address, IPv4Address):
        return any(address in network for network in _CLOSED_V4)
    if address not in _OPEN_V6 or any(address in network for network in _CLOSED_V6):
        return True
    return (int(address) >> 32) & 0xFFFFFFFF in _ISATAP


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress:
    """What one sandbox may reach, and how much."""

    mode: EgressMode = EgressMode.NONE
    allow: tuple[str, ...] = ()
    out_mb: int = 100
    in_mb: int = 1024
    connections: int = 32
    _hosts: Mapping[tuple[str, int], None] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.allow) > RULES_LIMIT or not all(map(_is_rule, self.allow)):
            rule = f"it lists up to {RULES_LIMIT} hosts such as api.example.com, *.example.com:8443"
            raise SandboxSpecInvalid(field="egress.allow", rule=rule)
        if (self.mode == EgressMode.ALLOWLIST) != bool(self.allow):
            rule = "it names hosts exactly when egress.mode is allowlist"
            raise SandboxSpecInvalid(field="egress.allow", rule=rule)
        least, most = BYTES_BOUNDS
        for name in ("out_mb", "in_mb"):
            if type(getattr(self, name)) is not int or not least <= getattr(self, name) <= most:
                raise SandboxSpecInvalid(
                    field=f"egress.{name}", rule=f"it must be {least} to {most}"
                )
        hosts = {(host, port): None for rule in self.allow for host, port in _pairs(rule)}
        object.__setattr__(self, "_hosts", hosts)

    @classmethod
    def from_mapping(cls, wanted: object) -> Self:
        """Read the ``egress`` part of an agent version's sandbox; an unknown key is an error."""
        known = ("mode", "allow", "out_mb", "in_mb")
        if not isinstance(wanted, Mapping) or not set(wanted) <= set(known):
            raise SandboxSpecInvalid(field="egress", rule=f"it has only {', '.join(known)}")
        allow = wanted.get("allow", [])
        if wanted.get("mode") not in EgressMode.values or not isinstance(allow, list):
            modes = ", ".join(EgressMode.values)
            raise SandboxSpecInvalid(field="egress.mode", rule=f"it is one of {modes}")
        amounts = {name: wanted[name] for name in ("out_mb", "in_mb") if name in wanted}
        return cls(mode=EgressMode(wanted["mode"]), allow=tuple(allow), **amounts)

    def admits(self, target: Target) -> bool:
        """Whether the rules let the host and port through; its addresses are looked at later."""
        if self.mode == EgressMode.OPEN:
            return True
        above = target.host.split(".")
        wildcards = ("*." + ".".join(above[at:]) for at in range(1, len(above) - 1))
        return any((name, target.port) in self._hosts for name in (target.host, *wildcards))


def _is_rule(rule: object) -> bool:
    return isinstance(rule, str) and bool(_RULE.search(rule)) and _pairs(rule)[0][1] < 65536


def _pairs(rule: str) -> list[tuple[str, int]]:
    host, _, port = rule.partition(":")
    return [(host, int(port))] if port else [(host, number) for number in WEB_PORTS]
