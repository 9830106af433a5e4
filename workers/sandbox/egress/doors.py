"""The sockets of this process's sandboxes, each with its proxy, on one thread with one event loop.

A door is a folder with one socket in it, mounted read-only into one sandbox. It goes when the sandbox
goes; what a killed worker leaves behind is found by its folder's name and removed by the reaper.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from workers.sandbox.egress.network import Internet
from workers.sandbox.egress.policy import Denial, Egress, Network
from workers.sandbox.egress.proxy import (
    PATIENT,
    Dress,
    Patience,
    Proxy,
    Tell,
    Traffic,
    undressed,
)
from workers.sandbox.egress.request import HEAD_LIMIT
from workers.sandbox.errors import SandboxLost

SOCKET: Final = "proxy.sock"

_T = TypeVar("_T")
_ANSWER_S: Final = 30.0
_LOOKUP_THREADS: Final = 64
_BACKLOG: Final = 64


def unheard(_denial: Denial) -> None:
    """Where denials go before anybody listens: no command runs yet, so there are none."""


class Door:
    """One sandbox's way out. Safe to use from any thread."""

    def __init__(self, proxy: Proxy, server: asyncio.Server, folder: Path) -> None:
        self.folder = folder
        self._proxy = proxy
        self._server = server

    @property
    def traffic(self) -> Traffic:
        return self._proxy.traffic

    def watch(self, tell: Tell) -> None:
        """Have each denial told, from the loop's thread: ``tell`` must not wait for anything."""
        self._proxy.tell = tell

    def await_forwarder(self, *, within: float) -> None:
        """Return when the forwarder inside has said that it listens, or raise ``SandboxLost``."""
        if not self._proxy.greeted.wait(within):
            raise SandboxLost(detail="its forwarder did not start")

    async def close(self) -> None:
        self._server.close()
        await self._proxy.cut()


class Doors:
    """All doors of one process. ``host_root`` is how the engine sees ``root``, if it differs."""

    def __init__(
        self,
        root: Path,
        *,
        host_root: Path | None = None,
        internet: Internet | None = None,
        closed: tuple[Network, ...] = (),
        dress: Dress = undressed,
        patience: Patience = PATIENT,
    ) -> None:
        self._root = root
        self._host_root = host_root or root
        self._internet = internet or Internet()
        self._closed = closed
        self._dress = dress
        self._patience = patience
        self._doors: dict[str, Door] = {}
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, sandbox_id: str, egress: Egress) -> Door:
        """Make a sandbox's folder and socket. Raises ``OSError``, and leaves nothing then."""
        # Nobody of this host may look in from above; the mount shows the sandbox its own folder only.
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = self._root / sandbox_id
        folder.mkdir()
        try:
            folder.chmod(0o755)
            door = self._on_loop(self._serve(folder, egress))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._doors[sandbox_id] = door
        return door

    def mount_of(self, door: Door) -> str:
        """The folder of a door, as the engine finds it."""
        return str(self._host_root / door.folder.name)

    def found(self) -> frozenset[str]:
        """Sandboxes that have a folder here, whoever made it."""
        if not self._root.is_dir():
            return frozenset()
        return frozenset(path.name for path in self._root.iterdir() if path.is_dir())

    def close(self, sandbox_id: str) -> None:
        """End a sandbox's connections and remove its folder. Safe to call twice, and for strangers'."""
        if door := self._doors.pop(sandbox_id, None):
            self._on_loop(door.close())
        shutil.rmtree(self._root / sandbox_id, ignore_errors=True)

    def close_all(self) -> None:
        for sandbox_id in list(self._doors):
            self.close(sandbox_id)
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)

    async def _serve(self, folder: Path, egress: Egress) -> Door:
        proxy = Proxy(
            egress,
            tell=unheard,
            internet=self._internet,
            closed=self._closed,
            patience=self._patience,
            dress=self._dress,
        )
        sock = _listener(folder)
        server = await asyncio.start_unix_server(proxy.serve, sock=sock, limit=HEAD_LIMIT)
        return Door(proxy, server, folder)

    def _on_loop(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._running()).result(_ANSWER_S)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                lookups = ThreadPoolExecutor(_LOOKUP_THREADS, thread_name_prefix="egress-names")
                loop.set_default_executor(lookups)
                threading.Thread(target=_run, args=[loop], name="egress", daemon=True).start()
                self._loop = loop
            return self._loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def _listener(folder: Path) -> socket.socket:
    """A socket bound in the folder, however long its path is: addresses end after 108 bytes."""
    here = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(f"/proc/self/fd/{here}/{SOCKET}")
        (folder / SOCKET).chmod(0o666)  # the sandbox's user is nobody of this host
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    finally:
        os.close(here)
    return sock
