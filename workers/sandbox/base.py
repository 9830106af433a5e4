"""The seam: what a sandbox is and what makes one.

A driver is one file that implements these two classes and passes the conformance suite in
``tests/contracts/sandbox_driver.py`` unchanged. Nothing here, nor in any driver, knows Django.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from math import isfinite
from types import TracebackType
from typing import IO, Final, Self

from workers.sandbox.artifacts import ArtifactLimits, ArtifactSink, Collected
from workers.sandbox.channel import Channel
from workers.sandbox.egress.policy import Denial, Egress
from workers.sandbox.egress.proxy import Traffic
from workers.sandbox.errors import (
    CommandFailed,
    CommandTimedOut,
    OutOfMemory,
    SandboxError,
    SandboxKilled,
    SandboxSpecInvalid,
)
from workers.sandbox.snapshots import Contents, Sink, SnapshotLimits

#: Given the ids of all sandboxes found, those still in use. Asked after looking, because a sandbox
#: that started in between would otherwise look like an orphan.
Keep = Callable[[frozenset[str]], Collection[str]]

#: What an agent version may ask for, with the least and the most it may get.
BOUNDS: Final[Mapping[str, tuple[float, float]]] = {
    "memory_mb": (32, 8192),
    "cpu": (0.1, 4),
    "pids": (16, 1024),
    "workspace_mb": (1, 8192),
    "tmp_mb": (1, 1024),
    "open_files": (64, 65536),
    "lifetime_s": (1, 24 * 3600),
}

NO_EGRESS: Final = Egress()
#: Nobody's user, and the runtimes a profile may name: the kernel's own walls, or gVisor's.
USER: Final = "10001:10001"
RUNTIMES: Final = ("runc", "runsc")

_SANDBOX_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,80}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_COMMAND_LIMIT: Final = 256 * 1024
_STDIN_LIMIT: Final = 512 * 1024
_OUTPUT_LIMIT: Final = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A folder of the host that a profile shows to its sandboxes, to be read."""

    source: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSpec:
    """What one sandbox is made of. Closed on purpose: there is no way to ask for a privilege.

    A version asks for limits and for ways out; the rest comes from its profile.
    """

    image: str
    profile: str = "base"
    user: str = USER
    runtime: str = RUNTIMES[0]
    mounts: tuple[Mount, ...] = ()
    memory_mb: int = 1024
    cpu: float = 1.0
    pids: int = 256
    #: Zero means half of the memory, of which it is a part: the workspace is kept in memory.
    workspace_mb: int = 0
    tmp_mb: int = 64
    open_files: int = 1024
    #: After this it ends by itself, even when no worker is left to end it.
    lifetime_s: int = 1800
    #: What it may reach through the proxy. There is no network interface in any case.
    egress: Egress = NO_EGRESS

    def __post_init__(self) -> None:
        if not self.workspace_mb and _is_number(self.memory_mb):
            object.__setattr__(self, "workspace_mb", max(1, int(self.memory_mb) // 2))
        for name, (least, most) in BOUNDS.items():
            value = getattr(self, name)
            if not _is_number(value) or (name != "cpu" and value != int(value)):
                raise SandboxSpecInvalid(field=name, rule="it must be a number")
            if not least <= value <= most:
                raise SandboxSpecInvalid(field=name, rule=f"it must be {least:g} to {most:g}")
        if self.workspace_mb > self.memory_mb:
            raise SandboxSpecInvalid(
                field="workspace_mb", rule="the workspace is a part of memory_mb"
            )

    @classmethod
    def from_mapping(cls, wanted: Mapping[str, object], *, image: str) -> Self:
        """Read what an agent version asks for; an unknown key is an error."""
        limits = dict(wanted)
        egress = Egress.from_mapping(limits.pop("egress", {"mode": "none"}))
        for name in limits:
            if name not in BOUNDS:
                known = ", ".join([*BOUNDS, "egress"])
                raise SandboxSpecInvalid(field=name, rule=f"it is not one of {known}")
        return cls(image=image, egress=egress, **limits)  # type: ignore[arg-type]  # checked in __post_init__


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def checked_id(sandbox_id: str) -> str:
    """An id names containers, volumes and folders, so it is a plain word."""
    if not _SANDBOX_ID.fullmatch(sandbox_id):
        raise ValueError(f"{sandbox_id!r} cannot be a sandbox id")
    return sandbox_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command line and its bounds."""

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    #: A folder relative to the workspace.
    cwd: str = ""
    stdin: bytes = b""
    timeout: timedelta = timedelta(seconds=120)
    #: Between asking the command to end and ending it.
    grace: timedelta = timedelta(seconds=3)
    #: Bytes of output kept: the first quarter comes live, the last three quarters at the end.
    output_limit: int = 1024 * 1024
    #: Lines of standard output that begin with this come live even after that first quarter.
    mark: str = ""

    def __post_init__(self) -> None:
        words = [*self.argv, *self.env.values(), self.cwd, self.mark]
        if not self.argv or not self.argv[0] or any("\0" in word for word in words):
            raise ValueError("a command needs words without NUL")
        if not all(_ENV_NAME.fullmatch(name) for name in self.env):
            raise ValueError("an environment name is letters, digits and underscores")
        size = sum(len(word.encode()) for word in [*words, *self.env])
        if size > _COMMAND_LIMIT or len(self.stdin) > _STDIN_LIMIT:
            raise ValueError("a command with its environment is at most 256 KiB, its input 512 KiB")
        if not timedelta(0) < self.timeout <= timedelta(days=1):
            raise ValueError("a command's timeout is positive and at most a day")
        if not 0 < self.output_limit <= _OUTPUT_LIMIT:
            raise ValueError("a command's output limit is 1 byte to 10 MiB")

    @property
    def head_limit(self) -> int:
        return self.output_limit // 4

    @property
    def tail_limit(self) -> int:
        return self.output_limit - self.head_limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Some bytes a command printed; 1 is standard output, 2 standard error."""

    fd: int
    data: bytes
    #: How many bytes were left out just before these, because the command printed too much.
    skipped: int = 0


class Outcome(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    KILLED = "killed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a command ended. ``code`` is None when a signal, a kill or the clock ended it."""

    outcome: Outcome
    code: int | None = None
    signal: int | None = None
    wall_ms: int = 0
    truncated: bool = False
    dropped: int = 0
    limit_s: float = 0

    def error(self) -> SandboxError | None:
        """Why this is no success, ready to be raised or stored; None when it is one."""
        match self.outcome:
            case Outcome.SUCCEEDED:
                return None
            case Outcome.TIMED_OUT:
                return CommandTimedOut(limit_s=self.limit_s)
            case Outcome.OUT_OF_MEMORY:
                return OutOfMemory()
            case Outcome.KILLED:
                return SandboxKilled()
            case Outcome.FAILED:
                by_signal = f"signal {self.signal}"
                return CommandFailed(
                    ending=by_signal if self.code is None else f"exit code {self.code}"
                )


class Execution:
    """One command under way: iterate over its output, then read ``exit``.

    The iteration ends promptly when the sandbox is killed, and raises ``SandboxLost`` or
    ``SandboxProtocolError`` when the sandbox fails; then there is no ``exit``.
    """

    def __init__(self, stream: Generator[Output, None, Exit], stop: Callable[[], None]) -> None:
        self._stream = stream
        self._stop = stop
        self._exit: Exit | None = None

    def __iter__(self) -> Iterator[Output]:
        self._exit = yield from self._stream

    @property
    def exit(self) -> Exit:
        if self._exit is None:
            raise RuntimeError("The command has not ended: iterate over its output first.")
        return self._exit

    def wait(self) -> Exit:
        """Drop the output and wait for the end."""
        for _ in self:
            pass
        return self.exit

    def stop(self) -> None:
        """Ask the command to end, from any thread; after its grace it is ended by force.

        Unlike ``Sandbox.kill`` this leaves the sandbox usable, and its files can be collected.
        """
        self._stop()


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """A name in the workspace, as the sandbox tells it. The kind is file, folder, link, special."""

    name: str
    kind: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something the doctor sees: an error stops sandboxes from working, a warning does not."""

    is_error: bool
    code: str
    message: str
    hint: str


class Sandbox(ABC):
    """One isolated place to run one run's commands. Leaving the ``with`` block destroys it.

    One thread uses it; ``kill`` may come from any other.
    """

    id: str
    #: What keeps it apart from the host: "docker", or "none". Shown with every run.
    isolation: str
    #: The absolute path of the workspace, as commands see it. They start there.
    workspace: str
    #: Exactly which image it was made from.
    image: str
    #: How people and engines name it: a container id, or a process id.
    handle: str
    #: Whether its workspace began with what was kept of another.
    is_restored: bool = False

    @abstractmethod
    def put_files(self, files: Mapping[str, bytes], *, mode: int = 0o644) -> None:
        """Write files, by names relative to the workspace. Folders are made as needed."""

    @abstractmethod
    def read_file(self, path: str, *, limit: int = 1024 * 1024) -> bytes: ...

    @abstractmethod
    def list_files(self, path: str = "", *, depth: int = 1) -> list[FileEntry]: ...

    @abstractmethod
    def run(self, command: Command) -> Execution:
        """Start a command. Nothing of it survives its end, whatever it forked."""

    @abstractmethod
    def attach(self, command: Command) -> Channel:
        """Start a program whose standard input and output stay open: a line to it, to be closed.

        It runs beside the supervisor and ends with the sandbox, at the latest. Of the command its
        words, environment and folder count.
        """

    @abstractmethod
    def collect(
        self,
        patterns: Collection[str],
        *,
        sink: ArtifactSink,
        limits: ArtifactLimits | None = None,
    ) -> Collected:
        """Take the files below ``out/`` that match; see ``workers.sandbox.artifacts``."""

    @abstractmethod
    def ping(self) -> None:
        """Return when the supervisor has answered."""

    @abstractmethod
    def watch_egress(self, tell: Callable[[Denial], None]) -> None:
        """Have each refused way out told, from a thread that must not be kept waiting.

        Nothing is ever told where no proxy stands between the sandbox and the network.
        """

    @abstractmethod
    def traffic(self) -> Traffic | None:
        """What went through its way out so far; None where it has none."""

    @abstractmethod
    def pause(self) -> None:
        """Stop everything in it where it stands. It takes no processor time and keeps its memory.

        Clocks go on: a deadline may be over when it goes on. Only ``resume``, ``snapshot``, ``kill`` and
        ``destroy`` are of use to a paused one. Pausing twice is pausing once.
        """

    @abstractmethod
    def resume(self) -> None:
        """Go on where it stood. Does nothing to one that is not paused."""

    @abstractmethod
    def snapshot(self, sink: Sink, *, limits: SnapshotLimits | None = None) -> Contents:
        """Write the workspace as an archive; see ``workers.sandbox.snapshots``.

        It is paused meanwhile and stays so, whatever happens. Raises ``SnapshotTooLarge``.
        """

    @abstractmethod
    def restore(self, archive: IO[bytes]) -> Contents:
        """Fill the workspace with what a snapshot holds, before anything was run in it."""

    @abstractmethod
    def kill(self) -> None:
        """End everything in it at once, from any thread. Whatever was under way ends promptly."""

    @abstractmethod
    def destroy(self) -> None:
        """Remove every trace. Safe to call twice and after a crash; never raises.

        What cannot be removed now, because the engine is gone, is left to the reaper.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.destroy()


class SandboxDriver(ABC):
    """Makes sandboxes. Every driver passes ``tests/contracts/sandbox_driver.py`` unchanged."""

    name: str
    isolation: str
    supports_network_policy: bool = False
    #: Whether sandboxes are worth making ahead of need.
    supports_waiting: bool = False

    @abstractmethod
    def start(self, spec: SandboxSpec, *, sandbox_id: str) -> Sandbox: ...

    @abstractmethod
    def exact_image(self, image: str) -> str:
        """Which image a name means now: what ``Sandbox.image`` says of one made at this moment."""

    @abstractmethod
    def reap(self, keep: Keep) -> int:
        """Destroy the sandboxes of this instance that are not kept; return how many."""

    @abstractmethod
    def check(self, *, image: str) -> list[Finding]:
        """What the doctor should say about this host."""

    @abstractmethod
    def close(self) -> None:
        """Let go of connections. Sandboxes still running are not touched."""
