"""Networks that an API token is taken from."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, ip_network
from typing import Final

from apps.core import networks as core_networks
from apps.core.errors import Invalid
from apps.core.networks import Network

MOST: Final = 20
_MAPPED_BITS: Final = 96


def normal(networks: Iterable[str]) -> list[str]:
    """Networks as they are stored, sorted; raise ``Invalid`` naming what is none.

    A single address is a network of one. ``10.1.2.3/8`` is refused: it says two things.
    """
    try:
        found = {str(_plain(ip_network(network.strip()))) for network in networks}
    except ValueError as error:
        raise Invalid(
            [{"field": "allowed_networks", "rule": f"{error}; use CIDR, 10.0.0.0/8"}]
        ) from error
    if len(found) > MOST:
        raise Invalid([{"field": "allowed_networks", "rule": f"must be at most {MOST}"}])
    return sorted(found)


def _plain(network: Network) -> Network:
    """A network of IPv4 that is written within IPv6 is the one of IPv4: no client comes from the other."""
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < _MAPPED_BITS:
        return network
    return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))


def includes(networks: list[str], address: str | None) -> bool:
    """Whether an address lies in one of the networks; any does where none is named.

    An unknown address (a Unix socket has none) lies in no network.
    """
    if not networks:
        return True
    return core_networks.includes([ip_network(network) for network in networks], address)
