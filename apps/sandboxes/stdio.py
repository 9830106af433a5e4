"""An MCP server in a sandbox, as the official client wants it: a transport of message streams.

    async with Client(transport(open_line)) as client: ...

A server speaks one line of JSON per message over its standard output. It is a stranger's program: a line
has a longest length, what is no message is handed on as the error it is, and a server that sends nothing
but that is left. Where the line comes from is not known here (``workers.servers`` makes them).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol

import anyio
import mcp_types
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from django.conf import settings
from mcp.client import Transport
from mcp.shared.message import SessionMessage

logger = logging.getLogger(__name__)

#: The longest message a server may send, in bytes.
LINE_LIMIT: Final = 4 * 1024 * 1024
#: Lines in a row that are no messages, after which a server is left.
GARBAGE_LIMIT: Final = 50
#: What was sent just before the end may still take this long to get out.
_FLUSH_S: Final = 0.5

_LOOK_EVERY_S: Final = 0.2
_CANCELLED: Final = "notifications/cancelled"

_Incoming = SessionMessage | Exception
_Gone = (anyio.ClosedResourceError, anyio.BrokenResourceError)


class LineLost(Exception):
    """The server is gone, or does not take what it is sent."""


class ServerUnfit(ValueError):
    """What the server sent cannot be a message."""


class Line(Protocol):
    """Bytes to and from a server's standard input and output."""

    async def receive(self) -> bytes:
        """Some bytes; none when the server has ended."""

    async def send(self, data: bytes, /) -> None:
        """Raises ``LineLost``."""

    async def rest(self) -> None:
        """Let the server stand still: nobody waits for anything of it. Raises ``LineLost``."""

    async def wake(self) -> None:
        """Let it go on. Raises ``LineLost``."""


def transport(
    opening: Callable[[], AbstractAsyncContextManager[Line]], *, idle_s: float | None = None
) -> Transport:
    """A transport that opens a line when it is entered and closes it when it is left.

    After so many seconds in which the server owed no answer and was told nothing, it is let rest, until
    it is told something again. What it would do by itself waits until then. Zero: it never rests; None:
    as the settings say.
    """
    usual: float = settings.AOS_SANDBOX_IDLE_PAUSE_SECONDS
    return _streams(opening, usual if idle_s is None else idle_s)


class _Attention:
    """Whether the server has anything to do: questions it has not answered, and the last word to it."""

    def __init__(self, line: Line, idle_s: float) -> None:
        self._line = line
        self._idle_s = idle_s
        self._open: set[str | int] = set()
        self._told_at = anyio.current_time()
        self._turn = anyio.Lock()
        self._is_resting = False
        self._stirred = anyio.Event()

    async def tell(self, message: SessionMessage) -> None:
        """Send it, to a server that is awake. Raises ``LineLost``."""
        self._note_told(message)
        text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
        async with self._turn:
            if self._is_resting:
                await self._line.wake()
                self._is_resting = False
            self._told_at = anyio.current_time()
            self._stirred.set()
            await self._line.send(f"{text}\n".encode())

    def note_heard(self, incoming: _Incoming) -> None:
        said = incoming.message if isinstance(incoming, SessionMessage) else None
        if isinstance(said, mcp_types.JSONRPCResponse | mcp_types.JSONRPCError):
            # Counted from its answer: it may have taken long over it.
            self._told_at = anyio.current_time()
            if said.id is not None:
                self._open.discard(said.id)

    def _note_told(self, message: SessionMessage) -> None:
        said = message.message
        if isinstance(said, mcp_types.JSONRPCRequest):
            self._open.add(said.id)
        elif isinstance(said, mcp_types.JSONRPCNotification) and said.method == _CANCELLED:
            self._open.discard((said.params or {}).get("requestId", ""))

    async def let_rest(self) -> None:
        """For as long as there is a line: let the server rest whenever it has had nothing to do."""
        while True:
            async with self._turn:
                left = self._told_at + self._idle_s - anyio.current_time()
                is_due = left <= 0 and not self._open
                if is_due:
                    self._stirred = anyio.Event()
                    await self._line.rest()
                    self._is_resting = True
            if is_due:
                await self._stirred.wait()
            else:
                await anyio.sleep(max(left, _LOOK_EVERY_S))


@asynccontextmanager
async def _streams(
    opening: Callable[[], AbstractAsyncContextManager[Line]], idle_s: float
) -> AsyncIterator[
    tuple[MemoryObjectReceiveStream[_Incoming], MemoryObjectSendStream[SessionMessage]]
]:
    async with opening() as line:
        heard, incoming = anyio.create_memory_object_stream[_Incoming](0)
        outgoing, said = anyio.create_memory_object_stream[SessionMessage](0)
        flushed = anyio.Event()
        attention = _Attention(line, idle_s)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_listen, line, heard, attention)
            tasks.start_soon(_speak, attention, said, heard, flushed)
            if idle_s:
                tasks.start_soon(_let_rest, attention, heard)
            try:
                yield incoming, outgoing
            finally:
                outgoing.close()
                with anyio.move_on_after(_FLUSH_S, shield=True):
                    await flushed.wait()
                tasks.cancel_scope.cancel()
                for stream in (heard, incoming, said):
                    stream.close()


async def _let_rest(attention: _Attention, heard: MemoryObjectSendStream[_Incoming]) -> None:
    try:
        await attention.let_rest()
    except LineLost:
        heard.close()


async def _listen(
    line: Line, heard: MemoryObjectSendStream[_Incoming], attention: _Attention
) -> None:
    """Hand on each message. The stream ends with the server, so that nobody waits for an answer."""
    splitter = Splitter()
    async with heard:
        try:
            while data := await line.receive():
                for message in splitter.feed(data):
                    attention.note_heard(message)
                    await heard.send(message)
                if splitter.is_hopeless:
                    logger.warning("an MCP server sends what are no messages, and is left")
                    return
        except _Gone:
            return  # nobody listens any more


async def _speak(
    attention: _Attention,
    said: MemoryObjectReceiveStream[SessionMessage],
    heard: MemoryObjectSendStream[_Incoming],
    flushed: anyio.Event,
) -> None:
    try:
        async for message in said:
            await attention.tell(message)
    except LineLost:
        # Whoever waits for an answer learns that there will be none.
        heard.close()
    except _Gone:
        return
    finally:
        flushed.set()


class Splitter:
    """Bytes in, messages out, one for each line; what is no message comes as ``ServerUnfit``."""

    def __init__(self, *, line_limit: int = LINE_LIMIT) -> None:
        self._limit = line_limit
        self._partial = bytearray()
        self._garbage = 0
        self._overlong = False

    @property
    def is_hopeless(self) -> bool:
        return self._overlong or self._garbage >= GARBAGE_LIMIT

    def feed(self, data: bytes) -> list[_Incoming]:
        found: list[_Incoming] = []
        first, *others = data.split(b"\n")
        self._partial += first
        for other in others:
            if not self.is_hopeless and self._partial.strip():
                found.append(self._message(bytes(self._partial)))
            self._partial = bytearray(other)
        if len(self._partial) > self._limit:
            self._overlong = True
            self._partial.clear()
            found.append(ServerUnfit(f"a message is longer than {self._limit} bytes"))
        return found

    def _message(self, line: bytes) -> _Incoming:
        if len(line) > self._limit:
            self._overlong = True
            return ServerUnfit(f"a message is longer than {self._limit} bytes")
        try:
            message = mcp_types.jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValueError:
            # The error itself would hold what the server said, which may be a secret of its own.
            self._garbage += 1
            return ServerUnfit(f"a line of {len(line)} bytes is no message")
        self._garbage = 0
        return SessionMessage(message)
