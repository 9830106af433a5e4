"""What the tests of the way out share: a staged Internet, canaries, a raw client."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from workers.sandbox.egress.doors import SOCKET
from workers.sandbox.egress.network import Internet
from workers.sandbox.egress.policy import Address

#: An address of the public Internet; the stage below has a server of the test behind it.
PUBLIC = "93.184.216.34"


class Stage(Internet):
    """Names mean what a test says; public addresses lead to servers of the test.

    Whatever is not staged is dialed for real, so that a hole in the checks is a real connection.
    """

    def __init__(
        self, names: dict[str, list[str]], servers: dict[tuple[str, int], int] | None = None
    ) -> None:
        self.names = names
        self.servers = servers or {}
        self.asked: list[str] = []
        self.dialed: list[tuple[str, int]] = []

    async def resolve(self, host: str) -> list[Address]:
        self.asked.append(host)
        if host not in self.names:
            raise OSError("no such name")
        return [ip_address(address) for address in self.names[host]]

    async def dial(self, address: Address, port: int):
        self.dialed.append((str(address), port))
        here = self.servers.get((str(address), port))
        if here is not None:
            return await super().dial(ip_address("127.0.0.1"), here)
        return await super().dial(address, port)


class Server:
    """Accepts on an address and answers each connection with ``serve``; counts them."""

    def __init__(self, serve=None, *, address: str = "127.0.0.1", port: int = 0) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.listener = socket.create_server((address, port), family=family, backlog=128)
        self.port = self.listener.getsockname()[1]
        self.count = 0
        self._serve = serve or (lambda _: None)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                line, _ = self.listener.accept()
            except OSError:
                return
            self.count += 1
            threading.Thread(target=self._answer, args=[line], daemon=True).start()

    def _answer(self, line: socket.socket) -> None:
        with line, suppress(OSError):
            self._serve(line)

    def close(self) -> None:
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join()


def head_of(line: socket.socket) -> bytes:
    """A request's head, and whatever came with it."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = line.recv(65536)
        if not piece:
            break
        data += piece
    return data


def connect(folder: Path) -> socket.socket:
    line = socket.socket(socket.AF_UNIX)
    line.settimeout(10)
    line.connect(str(folder / SOCKET))
    return line


def ask(folder: Path, request: bytes) -> bytes:
    """The whole answer to one request."""
    with connect(folder) as line:
        with suppress(BrokenPipeError):
            line.sendall(request)
        answer = b""
        with suppress(ConnectionResetError):
            line.shutdown(socket.SHUT_WR)
            while data := line.recv(65536):
                answer += data
    return answer


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])
