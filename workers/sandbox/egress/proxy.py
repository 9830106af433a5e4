"""An HTTP proxy for one sandbox: plain requests and tunnels, each checked on its own.

A name is resolved once, every address it has is looked at, and exactly a looked-at address is dialed:
what the name means a moment later cannot matter. One connection carries one request, so a redirect or
a second host comes back as a new request, and is checked like the first.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from workers.sandbox.egress.network import Internet, Streams
from workers.sandbox.egress.policy import (
    Address,
    Denial,
    Egress,
    Network,
    Reason,
    Refused,
    Target,
    is_internal,
)
from workers.sandbox.egress.request import Headers, Request, parse

logger = logging.getLogger(__name__)

Tell = Callable[[Denial], None]
#: Given a checked request to a server, the headers it goes out with: where secrets are put on.
Dress = Callable[[Target, Headers], Headers]

_PIECE: Final = 64 * 1024
_MIB: Final = 1024 * 1024
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]{0,200})?\r\n")
_LOOKUPS: Final = 4
#: Pieces that a client may still send when it has had its answer.
_SENTENCE: Final = 64
#: Denials told one by one; what comes after is only counted.
_TOLD: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Seconds until a silent client, name server, server or line is given up."""

    head: float = 30.0
    dial: float = 30.0
    idle: float = 60.0
    #: A client that does not take the last bytes.
    farewell: float = 5.0


PATIENT: Final = Patience()


@dataclass(slots=True)
class Traffic:
    """What went through one sandbox's door."""

    connections: int = 0
    refused: int = 0
    sent: int = 0
    received: int = 0

    def __str__(self) -> str:
        return (
            f"Network: {self.connections:,} connections, {self.sent:,} bytes out, "
            f"{self.received:,} bytes in, {self.refused:,} refused."
        )


class Unreachable(Exception):
    """The host was let through and does not answer; said to the client, no denial."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def undressed(_target: Target, headers: Headers) -> Headers:
    return headers


class Proxy:
    """Belongs to one event loop. ``tell`` may be replaced while it serves."""

    def __init__(
        self,
        egress: Egress,
        *,
        tell: Tell,
        internet: Internet,
        closed: tuple[Network, ...] = (),
        patience: Patience = PATIENT,
        dress: Dress = undressed,
    ) -> None:
        self.egress = egress
        self.tell = tell
        self.traffic = Traffic()
        #: Set when the forwarder inside has said that it listens; other threads wait for it.
        self.greeted = threading.Event()
        self._internet = internet
        self._closed = closed
        self._patience = patience
        self._dress = dress
        # A name server that takes its time must not hold up the lookups of other sandboxes.
        self._lookups = asyncio.Semaphore(_LOOKUPS)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_cut = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the sandbox, from its first byte to its end."""
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("served outside a task")
        self._tasks.add(task)
        try:
            await self._answer(reader, writer)
            # Counted until the last byte is taken: who never takes it must not gather descriptors.
            async with asyncio.timeout(self._patience.farewell):
                await _hang_up(reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError) as error:
            logger.debug("egress connection dropped", extra={"error": repr(error)})
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def cut(self) -> None:
        """End all connections, and let no new one begin."""
        self._is_cut = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self._require_room()
            await self._carry(reader, writer)
        except Refused as refused:
            self._deny(refused.denial)
            status = {
                Reason.TOO_MANY_CONNECTIONS: HTTPStatus.SERVICE_UNAVAILABLE,
                Reason.BAD_REQUEST: HTTPStatus.BAD_REQUEST,
            }.get(refused.denial.reason, HTTPStatus.FORBIDDEN)
            _say(writer, status, str(refused), reason=refused.denial.reason)
        except Unreachable as error:
            _say(writer, error.status, str(error), reason="unreachable")
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError) as error:
            logger.debug("egress connection ended", extra={"error": repr(error)})

    def _require_room(self) -> None:
        if self._is_cut or len(self._tasks) > self.egress.connections:
            raise Refused(Reason.TOO_MANY_CONNECTIONS)

    def _deny(self, denial: Denial) -> None:
        self.traffic.refused += 1
        if self.traffic.refused <= _TOLD:
            self.tell(denial)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await self._read(reader)
        if request is None:
            self.greeted.set()
            _say(writer, HTTPStatus.NO_CONTENT, "", reason="ready")
            return
        server = await self._connect(request.target)
        self.traffic.connections += 1
        try:
            await self._exchange(request, (reader, writer), server)
        except Refused as refused:
            # In the middle of somebody else's bytes there is no place for words of ours.
            self._deny(refused.denial)
        finally:
            server[1].transport.abort()

    async def _read(self, reader: asyncio.StreamReader) -> Request | None:
        try:
            async with asyncio.timeout(self._patience.head):
                return parse(await reader.readuntil(b"\r\n\r\n"))
        except asyncio.LimitOverrunError as error:
            raise Refused(Reason.BAD_REQUEST) from error

    # --- the way to a server ---

    async def _connect(self, target: Target) -> Streams:
        """Resolve, check, dial what was checked. Raises ``Refused`` or ``Unreachable``."""
        if not self.egress.admits(target):
            raise Refused(Reason.NOT_LISTED, host=target.host, port=target.port)
        self._count(target, sent=0, received=0)
        try:
            async with asyncio.timeout(self._patience.dial):
                return await self._dial(await self._checked(target), target)
        except TimeoutError as error:
            raise Unreachable(
                HTTPStatus.GATEWAY_TIMEOUT, f"{target.host} did not answer in time."
            ) from error

    async def _checked(self, target: Target) -> list[Address]:
        """All addresses of a host. One that is internal taints the others: somebody plays with us."""
        try:
            literal = target.literal
            found = [literal] if literal else await self._resolved(target.host)
        except (OSError, UnicodeError, ValueError) as error:
            raise Unreachable(
                HTTPStatus.BAD_GATEWAY, f"The name {target.host} cannot be resolved."
            ) from error
        if any(is_internal(address, closed=self._closed) for address in found):
            raise Refused(Reason.INTERNAL_ADDRESS, host=target.host, port=target.port)
        return found

    async def _resolved(self, host: str) -> list[Address]:
        async with self._lookups:
            return await self._internet.resolve(host)

    async def _dial(self, addresses: list[Address], target: Target) -> Streams:
        for address in dict.fromkeys(addresses):
            with suppress(OSError):
                return await self._internet.dial(address, target.port)
        raise Unreachable(HTTPStatus.BAD_GATEWAY, f"{target.host} cannot be reached.")

    # --- what is carried ---

    async def _exchange(self, request: Request, client: Streams, server: Streams) -> None:
        reader, writer = client
        answers, asks = server
        target = request.target
        async with asyncio.timeout(self._patience.idle) as clock:

            def heard(*, sent: int = 0, received: int = 0) -> None:
                clock.reschedule(asyncio.get_running_loop().time() + self._patience.idle)
                self._count(target, sent=sent, received=received)

            if request.method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                sending = _pump(reader, asks, lambda size: heard(sent=size), close=True)
            else:
                head = request.head(self._dress(target, list(request.headers)))
                heard(sent=len(head))
                asks.write(head)
                sending = _body(request, reader, asks, lambda size: heard(sent=size))
            receiving = _pump(answers, writer, lambda size: heard(received=size))
            await _until_received(sending, receiving)

    def _count(self, target: Target, *, sent: int, received: int) -> None:
        self.traffic.sent += sent
        self.traffic.received += received
        if (
            self.traffic.sent > self.egress.out_mb * _MIB
            or self.traffic.received > self.egress.in_mb * _MIB
        ):
            raise Refused(Reason.TOO_MANY_BYTES, host=target.host, port=target.port)


async def _hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say that this was all, and let the client finish its sentence: else it never hears the answer."""
    await writer.drain()
    writer.write_eof()
    for _ in range(_SENTENCE):
        if not await reader.read(_PIECE):
            break
    writer.close()
    await writer.wait_closed()


async def _until_received(
    sending: Coroutine[Any, Any, None], receiving: Coroutine[Any, Any, None]
) -> None:
    """Send and receive at once. It is over when the server has said all, or sending fails."""
    tasks = [asyncio.ensure_future(sending), asyncio.ensure_future(receiving)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        await tasks[1]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(
    source: asyncio.StreamReader,
    sink: asyncio.StreamWriter,
    heard: Callable[[int], None],
    *,
    close: bool = False,
) -> None:
    while data := await source.read(_PIECE):
        heard(len(data))
        sink.write(data)
        await sink.drain()
    if close:
        sink.write_eof()


async def _body(
    request: Request,
    source: asyncio.StreamReader,
    sink: asyncio.StreamWriter,
    heard: Callable[[int], None],
) -> None:
    """Exactly the body that the head announced: what follows it is not ours to pass on."""
    if request.length is not None:
        await _exactly(request.length, source, sink, heard)
        return
    while True:
        line = _CHUNK.fullmatch(await source.readuntil(b"\r\n"))
        if not line:
            raise ConnectionAbortedError("a chunk has no size")
        size = int(line[1], 16)
        sink.write(b"%x\r\n" % size)
        if not size:
            sink.write(b"\r\n")  # trailers are not passed on
            await sink.drain()
            return
        await _exactly(size, source, sink, heard)
        if await source.readexactly(2) != b"\r\n":
            raise ConnectionAbortedError("a chunk is longer than it says")
        sink.write(b"\r\n")


async def _exactly(
    size: int,
    source: asyncio.StreamReader,
    sink: asyncio.StreamWriter,
    heard: Callable[[int], None],
) -> None:
    while size:
        data = await source.read(min(size, _PIECE))
        if not data:
            raise EOFError
        size -= len(data)
        heard(len(data))
        sink.write(data)
        await sink.drain()


def _say(writer: asyncio.StreamWriter, status: HTTPStatus, text: str, *, reason: str) -> None:
    """An answer of our own."""
    body = f"{text}\n".encode() if text else b""
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nX-AOS-Egress: {reason}\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode() + body)
