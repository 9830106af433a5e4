"""A sandbox with a supervisor in it: everything that does not depend on who keeps it apart.

A driver adds how its sandbox is ended and removed, and what it has seen of the memory.
"""

from __future__ import annotations

import logging
import tempfile
import time
from abc import abstractmethod
from collections.abc import Collection, Generator, Iterator, Mapping
from threading import Lock
from typing import IO, Final

from workers.sandbox import artifacts, protocol, snapshots
from workers.sandbox.artifacts import ArtifactLimits, ArtifactSink, Collected
from workers.sandbox.base import (
    Command,
    Execution,
    Exit,
    FileEntry,
    Outcome,
    Output,
    Sandbox,
)
from workers.sandbox.errors import SandboxError, SandboxKilled, SandboxLost
from workers.sandbox.session import CommandOverdue, Session
from workers.sandbox.snapshots import Contents, Sink, SnapshotLimits

logger = logging.getLogger(__name__)

OUT_FOLDER: Final = "out"
_SIGKILL: Final = 9


class SupervisedSandbox(Sandbox):
    def __init__(
        self, session: Session, *, sandbox_id: str, workspace: str, image: str, handle: str
    ) -> None:
        self.id = sandbox_id
        self.workspace = workspace
        self.image = image
        self.handle = handle
        self._line = session
        self._ending = Lock()
        self._is_gone = False
        self._is_paused = False

    @property
    def _session(self) -> Session:
        """The line to the supervisor, which answers only while it is not paused."""
        if self._is_paused:
            raise RuntimeError("The sandbox is paused: resume it first.")
        return self._line

    @abstractmethod
    def _end(self) -> None:
        """End every process, whatever the supervisor does. Raises ``SandboxError`` if it cannot."""

    @abstractmethod
    def _remove(self) -> None:
        """Remove every trace. Raises ``SandboxError`` if it cannot."""

    @abstractmethod
    def _freeze(self) -> None:
        """Stop every process where it stands."""

    @abstractmethod
    def _thaw(self) -> None:
        """Let every process go on."""

    @abstractmethod
    def _pack(self) -> Iterator[bytes]:
        """The workspace of a paused sandbox as a tar stream, read from outside, following no link."""

    @abstractmethod
    def _unpack(self, archive: IO[bytes]) -> None:
        """Extract a checked archive into the workspace."""

    @property
    @abstractmethod
    def _owner(self) -> tuple[int, int]:
        """Whose the files of the workspace are, as numbers of user and group."""

    @abstractmethod
    def _saw_out_of_memory(self) -> bool:
        """Whether somebody outside saw the kernel kill for memory in here."""

    def put_files(self, files: Mapping[str, bytes], *, mode: int = 0o644) -> None:
        for path, data in files.items():
            self._session.put(path, data, mode=mode)

    def read_file(self, path: str, *, limit: int = 1024 * 1024) -> bytes:
        return self._session.get(path, limit=limit)

    def list_files(self, path: str = "", *, depth: int = 1) -> list[FileEntry]:
        return [
            FileEntry(name=entry.name, kind=entry.kind, size=entry.size)
            for entry in self._session.listing(path, depth=depth)
        ]

    def ping(self) -> None:
        self._session.ping()

    def run(self, command: Command) -> Execution:
        started = time.monotonic()
        ident, stream = self._session.execute(command)
        return Execution(
            self._watch(stream, command, started), stop=lambda: self._session.stop(ident)
        )

    def _watch(
        self,
        stream: Generator[Output, None, protocol.Ended],
        command: Command,
        started: float,
    ) -> Generator[Output, None, Exit]:
        """The stream, with an end that does not depend on the supervisor's word alone."""
        limit_s = command.timeout.total_seconds()

        def ending(outcome: Outcome) -> Exit:
            wall_ms = int((time.monotonic() - started) * 1000)
            return Exit(outcome=outcome, wall_ms=wall_ms, limit_s=limit_s)

        try:
            ended = yield from stream
        except SandboxKilled:
            return ending(Outcome.KILLED)
        except CommandOverdue:
            self.kill()
            return ending(Outcome.TIMED_OUT)
        except SandboxLost:
            if self._saw_out_of_memory():
                return ending(Outcome.OUT_OF_MEMORY)
            raise
        return Exit(
            outcome=self._outcome(ended),
            code=ended.code,
            signal=ended.signal,
            wall_ms=min(ended.wall_ms, ending(Outcome.SUCCEEDED).wall_ms),
            truncated=ended.truncated,
            dropped=ended.dropped,
            limit_s=limit_s,
        )

    def _outcome(self, ended: protocol.Ended) -> Outcome:
        if ended.timed_out:
            return Outcome.TIMED_OUT
        if ended.code == 0:
            return Outcome.SUCCEEDED
        killed = _SIGKILL in {ended.signal, (ended.code or 0) - 128}
        if ended.oom or (killed and self._saw_out_of_memory()):
            return Outcome.OUT_OF_MEMORY
        return Outcome.FAILED

    def collect(
        self,
        patterns: Collection[str],
        *,
        sink: ArtifactSink,
        limits: ArtifactLimits | None = None,
    ) -> Collected:
        limits = limits or ArtifactLimits()
        regexes = artifacts.as_regexes(patterns)
        pieces = self._session.archive(OUT_FOLDER, list(regexes.values()), limits)
        return artifacts.collect(pieces, regexes=regexes, limits=limits, sink=sink)

    def pause(self) -> None:
        with self._ending:
            if not self._is_paused:
                self._freeze()
                self._is_paused = True

    def resume(self) -> None:
        with self._ending:
            if self._is_paused:
                self._thaw()
                self._is_paused = False

    def snapshot(self, sink: Sink, *, limits: SnapshotLimits | None = None) -> Contents:
        self.pause()
        return snapshots.copy(self._pack(), sink, limits=limits or SnapshotLimits())

    def restore(self, archive: IO[bytes]) -> Contents:
        pieces = iter(lambda: archive.read(snapshots.PIECE), b"")
        # Checked once more, as a whole, before any of it is written: a store is a place others reach.
        with tempfile.TemporaryFile() as checked:
            restored = snapshots.copy(pieces, checked, limits=snapshots.RESTORED, owner=self._owner)
            checked.seek(0)
            self._unpack(checked)
        self.is_restored = True
        return restored

    def kill(self) -> None:
        self._line.cut()
        try:
            self._end()
        except SandboxError as error:
            logger.warning("sandbox not killed", extra={"sandbox": self.id, "error": str(error)})

    def destroy(self) -> None:
        with self._ending:
            if self._is_gone:
                return
            self._line.close()
            try:
                self._remove()
            except SandboxError as error:
                logger.warning(
                    "sandbox left to the reaper", extra={"sandbox": self.id, "error": str(error)}
                )
                return
            self._is_gone = True
