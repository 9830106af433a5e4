"""Networks that an API token is taken from."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

from apps.core.errors import Invalid

MOST: Final = 20


def normal(networks: Iterable[str]) -> list[str]:
    """Networks as they are stored, sorted; raise ``Invalid`` naming what is none.

    A single address is a network of one. ``10.1.2.3/8`` is refused: it says two things.
    """
    try:
        found = {str(ip_network(network.strip())) for network in networks}
    except ValueError as error:
        raise Invalid(
            [{"field": "allowed_networks", "rule": f"{error}; use CIDR, 10.0.0.0/8"}]
        ) from error
    if len(found) > MOST:
        raise Invalid([{"field": "allowed_networks", "rule": f"must be at most {MOST}"}])
    return sorted(found)


def includes(networks: list[str], address: str | None) -> bool:
    """Whether an address lies in one of the networks; any does where none is named.

    An unknown address (a Unix socket has none) lies in no network.
    """
    if not networks:
        return True
    try:
        found = ip_address(address or "")
    except ValueError:
        return False
    # A dual-stack server sees IPv4 clients as ::ffff:192.0.2.1.
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return any(found in ip_network(network) for network in networks)
