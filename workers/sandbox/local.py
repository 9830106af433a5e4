"""Sandboxes as plain processes, for development only: nothing keeps them from the host.

The same supervisor, spoken to in the same way, in a folder of its own with resource limits and a
clean environment. That is enough to write and test an agent on a laptop without an engine, and not
enough for anything else: every run says ``isolation: none``.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from workers.sandbox.base import Finding, Keep, SandboxDriver, SandboxSpec, checked_id
from workers.sandbox.channel import Channel
from workers.sandbox.egress.policy import Denial
from workers.sandbox.errors import (
    LocalSandboxRefused,
    SandboxExists,
    SandboxUnavailable,
)
from workers.sandbox.session import Session
from workers.sandbox.supervised import OUT_FOLDER, SupervisedSandbox

logger = logging.getLogger(__name__)

SUPERVISOR: Final = Path(__file__).parents[2] / "sandbox_images" / "base" / "sbx.py"

_INTERPRETER: Final = f"{sys.implementation.name} {sys.version.partition(' ')[0]}"
_MIB: Final = 1024 * 1024
_END_TRIES: Final = 200
_END_PAUSE_S: Final = 0.01


class LocalDriver(SandboxDriver):
    """Makes a folder and a supervisor per sandbox, below ``root``."""

    name = "local"
    isolation = "none"

    def __init__(
        self,
        *,
        root: Path,
        allowed: bool,
        silence_s: float = 30.0,
        patience_s: float = 10.0,
    ) -> None:
        if not allowed:
            raise LocalSandboxRefused
        self._root = root
        self._silence_s = silence_s
        self._patience_s = patience_s

    def start(self, spec: SandboxSpec, *, sandbox_id: str) -> LocalSandbox:
        home = self._root / checked_id(sandbox_id)
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            home.mkdir(mode=0o700)
        except FileExistsError as error:
            raise SandboxExists(sandbox_id=sandbox_id) from error
        except OSError as error:
            raise SandboxUnavailable(driver=self.name, detail=str(error)) from error
        ours, theirs = socket.socketpair()
        with theirs:
            process = self._launch(home, theirs)
        session = Session(
            Channel(ours, multiplexed=False),
            silence_s=self._silence_s,
            patience_s=self._patience_s,
        )
        sandbox = LocalSandbox(session, process=process, home=home)
        try:
            session.greet(env={}, rlimits=_rlimits(spec), folders=[OUT_FOLDER], own_cgroup=False)
        except BaseException:
            sandbox.destroy()
            raise
        return sandbox

    def _launch(self, home: Path, line: socket.socket) -> subprocess.Popen[bytes]:
        for folder in ("workspace", "tmp"):
            (home / folder).mkdir(mode=0o700)
        with (home / "supervisor.log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - our own program, no shell, no foreign words
                [sys.executable, "-I", "-S", str(SUPERVISOR)],
                stdin=line.fileno(),
                stdout=line.fileno(),
                stderr=log,
                cwd=home / "workspace",
                env=_clean_environment(home),
                start_new_session=True,
                umask=0o077,
            )
        (home / "supervisor.pid").write_text(f"{process.pid} {_born(process.pid)}")
        return process

    def exact_image(self, image: str) -> str:
        return _INTERPRETER

    def reap(self, keep: Keep) -> int:
        if not self._root.is_dir():
            return 0
        found = frozenset(path.name for path in self._root.iterdir() if path.is_dir())
        orphans = found - frozenset(keep(found))
        for sandbox_id in sorted(orphans):
            home = self._root / sandbox_id
            _end_all(home, _recorded(home))
            _remove_tree(home)
            logger.info("orphan sandbox destroyed", extra={"sandbox": sandbox_id})
        return len(orphans)

    def close(self) -> None:
        """There is no connection to let go of."""

    def check(self, *, image: str) -> list[Finding]:
        return [
            Finding(
                is_error=False,
                code="no_isolation",
                message="Runs are executed on this host without isolation.",
                hint="Start a Docker engine and set AOS_SANDBOX_DRIVER=docker.",
            )
        ]


class LocalSandbox(SupervisedSandbox):
    isolation = "none"

    def __init__(self, session: Session, *, process: subprocess.Popen[bytes], home: Path) -> None:
        super().__init__(
            session,
            sandbox_id=home.name,
            workspace=str(home / "workspace"),
            image=_INTERPRETER,
            handle=str(process.pid),
        )
        self._process = process
        self._home = home

    def watch_egress(self, tell: Callable[[Denial], None]) -> None:
        """There is no proxy: these processes have the host's own network."""

    def traffic(self) -> None:
        return None

    def _end(self) -> None:
        is_alive = self._process.poll() is None
        _end_all(self._home, self._process.pid if is_alive else None)

    def _remove(self) -> None:
        self._end()
        try:
            self._process.wait(timeout=5)
            _remove_tree(self._home)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SandboxUnavailable(driver="local", detail=str(error)) from error

    def _saw_out_of_memory(self) -> bool:
        return False  # a resource limit makes the allocation fail instead


def _clean_environment(home: Path) -> dict[str, str]:
    # The interpreter that stands behind a virtual environment: commands get the standard library,
    # as in the image, and not the packages of the platform.
    interpreter = Path(sys.base_prefix) / "bin"
    return {
        "PATH": f"{interpreter}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home / "workspace"),
        "TMPDIR": str(home / "tmp"),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _rlimits(spec: SandboxSpec) -> dict[str, int]:
    memory = int(spec.memory_mb) * _MIB
    return {
        "as": memory,
        "fsize": memory,
        "core": 0,
        "nofile": int(spec.open_files),
        "cpu": int(spec.lifetime_s),
        # Counted over everything the user runs, so what runs already must not count against it.
        "nproc": _processes_of(os.getuid()) + int(spec.pids),
    }


def _processes_of(user: int) -> int:
    count = 0
    for path in Path("/proc").glob("[0-9]*/task/*"):
        with suppress(OSError):  # it ended while we counted
            count += path.stat().st_uid == user
    return count


def _stat_fields(pid: int) -> list[bytes]:
    """The fields of a process after its name, or none when it is gone."""
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return []
    return line[line.rindex(b")") + 2 :].split()


def _born(pid: int) -> str:
    """When a process started, which tells it from a later one with the same number."""
    fields = _stat_fields(pid)
    return fields[19].decode() if fields else ""


def _recorded(home: Path) -> int | None:
    """The supervisor a folder was made for, if it is still the same process."""
    try:
        pid, born = (home / "supervisor.pid").read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid) if _born(int(pid)) == born else None


def _below(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        pid = int(path.name)
        fields = _stat_fields(pid)
        if fields and fields[0] != b"Z":
            children.setdefault(int(fields[1]), []).append(pid)
    found, queue = [], [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def _strays(home: Path) -> list[int]:
    """Processes that outlived their supervisor, known by the environment they inherited."""
    mark = f"TMPDIR={home / 'tmp'}\0".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended while we looked, or is not ours
            if mark in (path / "environ").read_bytes():  # a dead one has none
                found.append(int(path.name))
    return found


def _end_all(home: Path, supervisor: int | None) -> None:
    """End all that a supervisor started, then itself. It adopts orphans, so few can hide."""
    for _ in range(_END_TRIES):
        below = _below(supervisor) if supervisor else []
        below += [pid for pid in _strays(home) if pid not in {supervisor, *below}]
        if not below:
            break
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in below:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
        time.sleep(_END_PAUSE_S)
    if supervisor:
        with suppress(ProcessLookupError):
            os.kill(supervisor, signal.SIGKILL)


def _remove_tree(home: Path) -> None:
    """Remove a folder although its owner may have locked himself out of parts of it."""
    for folder, names, _ in os.walk(home):
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(0o700)
    with suppress(FileNotFoundError):  # somebody else removed it
        shutil.rmtree(home)
