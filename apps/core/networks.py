"""Who may connect at all, by address: ``AOS_ALLOWED_NETWORKS``, and ``AOS_ADMIN_NETWORKS`` for admin and
Flower. Empty lets everybody in."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Final

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse

from apps.core import client, threshold
from apps.core.errors import NotFromHere
from apps.core.metrics import LIMITED
from apps.core.middleware import AsyncMiddleware
from apps.core.rest import faults

Network = IPv4Network | IPv6Network

# Who watches the process must reach it from wherever it is watched.
_HEALTH: Final = frozenset({"/healthz", "/readyz"})
_ADMIN: Final = ("admin/", "flower/")


def includes(networks: Collection[Network], address: str | None) -> bool:
    """Whether an address lies in one of the networks. An unknown one lies in none."""
    try:
        found = ip_address(address or "")
    except ValueError:
        return False
    # A dual-stack server sees IPv4 clients as ::ffff:192.0.2.1.
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return any(found in network for network in networks)


def shuts_out(scope: dict[str, Any]) -> bool:
    """Whether this connection, a request or a socket, comes from where nobody may."""
    allowed: Collection[Network] = settings.AOS_ALLOWED_NETWORKS
    if not allowed or scope["path"] in _HEALTH:
        return False
    return not includes(allowed, client.address_of(scope))


async def refuse(scope: dict[str, Any], receive: Any, send: Any) -> None:
    LIMITED.labels("network").inc()
    await threshold.refuse(NotFromHere(), scope, receive, send)


class AdminNetworkMiddleware(AsyncMiddleware):
    """Keeps admin and Flower to their networks, by the route that was found, not by how it was spelt."""

    def process_view(
        self, request: HttpRequest, _view: Any, _args: Any, _kwargs: Any
    ) -> HttpResponse | None:
        allowed: Collection[Network] = settings.AOS_ADMIN_NETWORKS
        match = request.resolver_match
        if not allowed or match is None or not match.route.startswith(_ADMIN):
            return None
        if includes(allowed, client.address(request)):
            return None
        LIMITED.labels("admin-network").inc()
        return faults.permission_denied(request, PermissionDenied())
