"""Names and connections, as the proxy gets them. The one place that touches the network."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address

from workers.sandbox.egress.policy import Address

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Internet:
    """The network of the worker's host. Tests put another one in its place."""

    async def resolve(self, host: str) -> list[Address]:
        """The addresses of a name, asked for as a whole name: no search list adds to it.

        Raises ``OSError`` when there are none.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(f"{host}.", None, type=socket.SOCK_STREAM)
        return [ip_address(str(where[0]).partition("%")[0]) for *_, where in found]

    async def dial(self, address: Address, port: int) -> Streams:
        """Connect to exactly this address. Raises ``OSError``."""
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(0)
            await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
            return await asyncio.open_connection(sock=sock)
        except BaseException:
            sock.close()
            raise
