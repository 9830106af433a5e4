"""MCP servers in sandboxes: started for a session, spoken to over a line, and gone without a trace.

A server is a program that speaks over its standard input and output. It runs in a sandbox of its own,
with the walls every sandbox has, never on the host. ``Servers.line`` is what
``apps.sandboxes.stdio.transport`` wants:

    transport(lambda: servers.line(wanted))
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar
from uuid import UUID

import anyio
import anyio.to_thread
from anyio.abc import AsyncResource
from django.db import connection

from apps.sandboxes.models import Sandbox as Row
from apps.sandboxes.services import tracking
from apps.sandboxes.stdio import LineLost
from workers.held import go_on, stand_still
from workers.sandbox.base import Command, Sandbox, SandboxDriver, SandboxSpec
from workers.sandbox.channel import Channel, LineClosed
from workers.sandbox.errors import SandboxError, SandboxKilled

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

#: How long a server may take to end by itself once its standard input is closed.
_FAREWELL_S: Final = 0.5
#: How long a server may take to read what it is sent.
_SEND_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A server: the sandbox it gets and the command that starts it. Secrets go into ``command.env``."""

    spec: SandboxSpec
    command: Command


class Servers:
    """Starts servers and ends them, on record: the reaper finds what a crash leaves behind."""

    def __init__(self, driver: SandboxDriver, *, holder: tracking.Holder) -> None:
        self._driver = driver
        self._holder = holder

    @asynccontextmanager
    async def line(self, wanted: Wanted) -> AsyncIterator[ServerLine]:
        """A server's line. When the block ends, by whatever way, nothing is left of the server.

        Raises ``SandboxError`` when it cannot be started.
        """
        # Shielded: a start that is cancelled halfway would leave what it made.
        with anyio.CancelScope(shield=True):
            row, sandbox, channel = await _in_thread(partial(self._start, wanted))
        line = ServerLine(channel, row, sandbox)
        try:
            yield line
        finally:
            with anyio.CancelScope(shield=True):
                await line.aclose()
                await _in_thread(partial(self._end, row, sandbox))

    def _start(self, wanted: Wanted) -> tuple[Row, Sandbox, Channel]:
        make = tracking.Make(
            driver=self._driver.name,
            isolation=self._driver.isolation,
            image=wanted.spec.image,
            profile=wanted.spec.profile,
        )
        row = tracking.opening(make, self._holder, None)
        try:
            sandbox = self._driver.start(wanted.spec, sandbox_id=str(row.pk))
        except BaseException:
            tracking.gone(row.pk)
            raise
        try:
            self._require_row(row, sandbox)
            return row, sandbox, sandbox.attach(wanted.command)
        except BaseException:
            self._end(row, sandbox)
            raise

    def _require_row(self, row: Row, sandbox: Sandbox) -> None:
        """Say what was made. Somebody may have thought us dead meanwhile and written it off."""
        if not tracking.serving(row, container_id=sandbox.handle, image=sandbox.image):
            raise SandboxKilled

    def _end(self, row: Row, sandbox: Sandbox) -> None:
        sandbox.destroy()
        tracking.gone(row.pk)


class ChannelLine(AsyncResource):
    """A channel for an event loop: no thread waits while nothing is said."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    @property
    def complaint(self) -> str:
        """The server's last words on standard error."""
        return self._channel.complaint

    async def receive(self) -> bytes:
        while True:
            data = self._channel.receive(0)
            if data is not None:
                return data
            await anyio.wait_readable(self._channel)

    async def send(self, data: bytes, /) -> None:
        left = memoryview(data)
        try:
            with anyio.fail_after(_SEND_S):
                while left:
                    taken = self._channel.offer(left)
                    left = left[taken:]
                    if not taken:
                        await anyio.wait_writable(self._channel)
        except (LineClosed, TimeoutError) as error:
            raise LineLost from error

    async def aclose(self) -> None:
        """Let the server end by itself for a moment, as the protocol asks, then hang up."""
        self._channel.finish()
        with anyio.move_on_after(_FAREWELL_S):
            while await self.receive():
                pass
        self._channel.close()


class ServerLine(ChannelLine):
    """The line of a server in a sandbox, which can stand still while nobody wants anything of it."""

    def __init__(self, channel: Channel, row: Row, sandbox: Sandbox) -> None:
        super().__init__(channel)
        self._row = row
        self._sandbox = sandbox

    async def rest(self) -> None:
        await self._shielded(stand_still)

    async def wake(self) -> None:
        await self._shielded(go_on)

    async def _shielded(self, act: Callable[[UUID, Sandbox], None]) -> None:
        # Cancelled halfway, the row would say something else than the engine.
        with anyio.CancelScope(shield=True):
            try:
                await _in_thread(partial(act, self._row.pk, self._sandbox))
            except SandboxError as error:
                raise LineLost from error


async def _in_thread(act: partial[_T]) -> _T:
    """Work with the engine and the database apart from the loop, on a connection that ends with it."""

    def work() -> _T:
        try:
            return act()
        finally:
            connection.close()

    return await anyio.to_thread.run_sync(work)
