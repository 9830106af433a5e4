"""Sandboxes that are used now and then: who waits, such as for a person, holds one and lets it rest.

Between two uses the sandbox stands still after a while: it takes no processor time and keeps its memory.
After a longer while its workspace goes to the store of contents and the sandbox is removed; the next use
begins with a fresh one that has the same files. That use may be another worker's, on another host: what
was put away belongs to the run.

Files come back, with contents, modes and times; links, devices and odd names do not. Processes, memory
and what lies outside the workspace are over when the sandbox is removed. Environment and folder come
with each command, so they are as they were.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self
from uuid import UUID

from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection

from apps.core import blobs, failpoints
from apps.core.errors import AosError
from apps.core.failpoints import Place
from apps.sandboxes.services import tracking
from workers.sandbox.base import Sandbox
from workers.sandbox.errors import SandboxKilled, SnapshotTooLarge
from workers.sandbox.snapshots import Contents, SnapshotLimits

logger = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 1.0
_TRY_AGAIN_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """After how many idle seconds a sandbox stands still, and is put away; 0: never."""

    pause_s: float
    snapshot_s: float
    limits: SnapshotLimits

    @classmethod
    def from_settings(cls) -> Self:
        return cls(
            pause_s=settings.AOS_SANDBOX_IDLE_PAUSE_SECONDS,
            snapshot_s=settings.AOS_SANDBOX_SNAPSHOT_SECONDS,
            limits=snapshot_limits(),
        )


def snapshot_limits() -> SnapshotLimits:
    return SnapshotLimits(total_bytes=settings.AOS_SANDBOX_SNAPSHOT_MB * 1024 * 1024)


class Held:
    """One attempt's sandbox, or what was put away of it. One thread uses it; ``kill`` may be another's."""

    def __init__(self, take: Callable[[], tuple[UUID, Sandbox]], *, patience: Patience) -> None:
        self._take = take
        self._patience = patience
        self._using = threading.Lock()
        self._pk: UUID | None = None
        self._sandbox: Sandbox | None = None
        self._is_paused = self._is_killed = False
        self._idle_since = time.monotonic()
        self._again_at = 0.0
        #: Why it was not put away the last time, although it was idle for long enough.
        self.complaint: SnapshotTooLarge | None = None

    @contextmanager
    def awake(self) -> Iterator[Sandbox]:
        """The sandbox, ready for use: as it was, let go on, or made anew with the files it had."""
        with self._using:
            sandbox = self._woken()
            try:
                yield sandbox
            finally:
                self._idle_since = time.monotonic()

    def pause(self) -> None:
        """Stand still now. Raises ``SandboxKilled`` when somebody wrote the sandbox off."""
        with self._using:
            self._pause()

    def put_away(self) -> Contents | None:
        """Keep the workspace and remove the sandbox, now; None when there is nothing to keep.

        Raises ``SnapshotTooLarge``, and what the store raises: then it stands still, and nothing is lost.
        Raises ``SandboxKilled`` when the sandbox is not ours any more.
        """
        with self._using:
            return self._put_away()

    def kill(self) -> None:
        """End everything in it at once, and let nothing begin again."""
        self._is_killed = True
        if sandbox := self._sandbox:
            sandbox.kill()

    def rest(self, now: float) -> None:
        """Do what is due after so long a silence. Called now and then; never waits for a use to end."""
        if now < self._again_at or not self._using.acquire(blocking=False):
            return
        # Unless all goes well, not at once again: it may be large, and the store away.
        self._again_at = now + _TRY_AGAIN_S
        try:
            idle = now - self._idle_since
            if self._patience.pause_s and idle >= self._patience.pause_s:
                self._pause()
            if self._patience.snapshot_s and idle >= self._patience.snapshot_s:
                self._put_away_if_it_fits()
            self._again_at = 0.0
        finally:
            self._using.release()

    def _woken(self) -> Sandbox:
        if self._is_killed:
            raise SandboxKilled
        self.complaint = None
        if self._sandbox is None:
            self._pk, self._sandbox = self._take()
            if self._is_killed:  # meanwhile
                self._sandbox.kill()
        elif self._is_paused and self._pk:
            go_on(self._pk, self._sandbox)
        self._is_paused = False
        return self._sandbox

    def _pause(self) -> None:
        if self._sandbox is None or self._pk is None or self._is_paused:
            return
        stand_still(self._pk, self._sandbox)
        self._is_paused = True
        failpoints.hit(Place.SNAPSHOT_PAUSED)

    def _put_away(self) -> Contents | None:
        self._pause()
        if self._sandbox is None or self._pk is None:
            return None
        contents = _kept(self._pk, self._sandbox, self._patience.limits)
        failpoints.hit(Place.SNAPSHOT_RECORDED)
        self._sandbox.destroy()
        self._pk = self._sandbox = None
        self._is_paused = False
        return contents

    def _put_away_if_it_fits(self) -> None:
        if self.complaint:
            return
        try:
            self._put_away()
        except SnapshotTooLarge as error:
            self.complaint = error
            logger.warning("sandbox stays paused", extra={"sandbox": self._pk, "error": str(error)})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._using:
            if self._sandbox:
                self._sandbox.destroy()
            if self._pk:
                tracking.gone(self._pk)
            self._pk = self._sandbox = None
            self._is_killed = True


def stand_still(pk: UUID, sandbox: Sandbox) -> None:
    """Pause it, and say so. Raises ``SandboxKilled`` when somebody wrote the sandbox off."""
    sandbox.pause()
    if not tracking.paused(pk):
        raise SandboxKilled


def go_on(pk: UUID, sandbox: Sandbox) -> None:
    """Say that it goes on, and let it. Raises ``SandboxKilled`` for one that must not."""
    if not tracking.resumed(pk):
        raise SandboxKilled
    sandbox.resume()


def _kept(pk: UUID, sandbox: Sandbox, limits: SnapshotLimits) -> Contents:
    """Store the workspace, then say that it is there. A crash in between leaves what nobody refers to."""
    writer = blobs.Writer()
    try:
        contents = sandbox.snapshot(writer, limits=limits)
    except BaseException:
        writer.discard()
        raise
    blob = writer.keep()
    failpoints.hit(Place.SNAPSHOT_STORED)
    kept = tracking.Kept(
        sha256=blob.sha256,
        snapshot_size=blob.size,
        snapshot_files=contents.count,
        snapshot_left_out=contents.left_out,
    )
    if not tracking.put_away(pk, kept):
        raise SandboxKilled
    return contents


class Resting:
    """Lets the sandboxes that a process holds rest. Its thread runs while there are any."""

    def __init__(self) -> None:
        self._held: set[Held] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self, held: Held) -> Iterator[None]:
        with self._lock:
            self._held.add(held)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="resting", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._held.discard(held)

    def close(self) -> None:
        self._closing.set()
        if self._thread:
            self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(_LOOK_EVERY_S):
            with self._lock:
                held = list(self._held)
            for each in held:
                self._rest(each)
        connection.close()

    def _rest(self, held: Held) -> None:
        try:
            held.rest(time.monotonic())
        except (AosError, DatabaseError) as error:
            connection.close()
            logger.warning("a sandbox does not rest yet", extra={"error": str(error)})
