"""Sandboxes as processes of this host, for development only.

The same supervisor, spoken to in the same way, in a folder of its own with resource limits and a
clean environment. Where bubblewrap is installed it also sees nothing of the host but its programs and
has no network (``isolation: bwrap``). Without it nothing is kept from a script (``isolation: none``).
That is enough to write and test an agent on a laptop without an engine. It is not enough for anything
else: memory and processes are not counted for all of a sandbox together, and production refuses it.
"""

from __future__ import annotations

import io
import logging
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

from apps.sandboxes.types import EgressMode
from workers.sandbox.base import Command, Finding, Keep, SandboxDriver, SandboxSpec, checked_id
from workers.sandbox.channel import Channel
from workers.sandbox.egress.policy import Denial
from workers.sandbox.errors import (
    FileRefused,
    LocalSandboxRefused,
    SandboxExists,
    SandboxLost,
    SandboxUnavailable,
)
from workers.sandbox.session import Session
from workers.sandbox.supervised import OUT_FOLDER, SupervisedSandbox

logger = logging.getLogger(__name__)

SUPERVISOR: Final = Path(__file__).parents[2] / "sandbox_images" / "base" / "sbx.py"

#: Not the virtual environment's: scripts get the standard library and no package of the platform.
_INTERPRETER_PATH: Final = Path(sys.executable).resolve()
_INTERPRETER: Final = f"{sys.implementation.name} {sys.version.partition(' ')[0]}"
_MIB: Final = 1024 * 1024
_WALL: Final = "bwrap"
_WALL_TEST_S: Final = 10
#: The uid and gid a script sees of itself behind the wall: nobody's.
_NOBODY: Final = "10001"
#: What programs need of the host to run, where it has it.
_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_SYSTEM_FILES: Final = ("/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime", "/etc/ssl")
_NETWORK_FILES: Final = ("/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf")
_END_TRIES: Final = 200
_END_PAUSE_S: Final = 0.01


class LocalDriver(SandboxDriver):
    """Makes a folder and a supervisor per sandbox, below ``root``."""

    name = "local"

    def __init__(
        self,
        *,
        root: Path,
        allowed: bool,
        walled: bool | None = None,
        silence_s: float = 30.0,
        patience_s: float = 10.0,
    ) -> None:
        if not allowed:
            raise LocalSandboxRefused
        self._root = root
        self._wall = _found_wall() if walled is not False else ""
        if walled and not self._wall:
            raise SandboxUnavailable(driver=self.name, detail="bubblewrap does not work here.")
        self.isolation = _WALL if self._wall else "none"
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
            process = self._launch(home, spec, theirs)
        session = Session(
            Channel(ours, multiplexed=False),
            silence_s=self._silence_s,
            patience_s=self._patience_s,
        )
        sandbox = LocalSandbox(
            session, process=process, home=home, spec=spec, wall=self._wall_of(home, spec)
        )
        try:
            session.greet(env={}, rlimits=_rlimits(spec), folders=[OUT_FOLDER], own_cgroup=False)
        except BaseException:
            sandbox.destroy()
            raise
        return sandbox

    def _wall_of(self, home: Path, spec: SandboxSpec) -> list[str]:
        return _walled(self._wall, home, spec) if self._wall else []

    def _launch(
        self, home: Path, spec: SandboxSpec, line: socket.socket
    ) -> subprocess.Popen[bytes]:
        for folder in ("workspace", "tmp"):
            (home / folder).mkdir(mode=0o700)
        supervisor = [str(_INTERPRETER_PATH), "-I", "-S", str(SUPERVISOR)]
        with (home / "supervisor.log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - our own program, no shell, no foreign words
                [*self._wall_of(home, spec), *supervisor],
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
        better = "Start a Docker engine and set AOS_SANDBOX_DRIVER=docker."
        if self._wall:
            message = "Runs are executed as processes of this host, behind bubblewrap only."
            return [Finding(is_error=False, code="little_isolation", message=message, hint=better)]
        message = "Runs are executed on this host without isolation."
        hint = f"{better} At the least, install bubblewrap."
        return [Finding(is_error=False, code="no_isolation", message=message, hint=hint)]


class LocalSandbox(SupervisedSandbox):
    def __init__(
        self,
        session: Session,
        *,
        process: subprocess.Popen[bytes],
        home: Path,
        spec: SandboxSpec,
        wall: Sequence[str],
    ) -> None:
        super().__init__(
            session,
            sandbox_id=home.name,
            workspace=str(home / "workspace"),
            image=_INTERPRETER,
            handle=str(process.pid),
        )
        self.isolation = _WALL if wall else "none"
        self._process = process
        self._home = home
        self._spec = spec
        self._wall = list(wall)
        self._attached: list[subprocess.Popen[bytes]] = []

    def attach(self, command: Command) -> Channel:
        ours, theirs = socket.socketpair()
        limits = _rlimits(self._spec)
        with theirs, (self._home / "attached.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - what its caller chose to run, without a shell
                [*self._wall, *_limited(limits), *command.argv],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=log,
                cwd=self._home / "workspace" / command.cwd,
                env={**_clean_environment(self._home), **command.env},
                start_new_session=True,
                umask=0o077,
            )
        self._attached.append(process)
        return Channel(ours, multiplexed=False)

    def watch_egress(self, tell: Callable[[Denial], None]) -> None:
        """There is no proxy: these processes have the host's own network."""

    def traffic(self) -> None:
        return None

    @property
    def _owner(self) -> tuple[int, int]:
        return os.getuid(), os.getgid()

    def _freeze(self) -> None:
        """Stop again until nothing new appears: what was not stopped yet may have forked."""
        stopped: set[int] = set()
        for _ in range(_END_TRIES):
            if self._process.poll() is not None:
                raise SandboxLost(detail="its supervisor ended")
            fresh = set(self._processes()) - stopped
            if not fresh:
                return
            _signal_all(fresh, signal.SIGSTOP)
            stopped |= fresh
        raise SandboxUnavailable(driver="local", detail="its processes cannot be stopped.")

    def _thaw(self) -> None:
        _signal_all(self._processes(), signal.SIGCONT)

    def _processes(self) -> list[int]:
        roots = [process.pid for process in (self._process, *self._attached)]
        return [*roots, *(pid for root in roots for pid in _below(root))]

    def _pack(self) -> Iterator[bytes]:
        return _packed(Path(self.workspace))

    def _unpack(self, archive: IO[bytes]) -> None:
        _unpacked(archive, Path(self.workspace))

    def _end(self) -> None:
        is_alive = self._process.poll() is None
        _end_all(self._home, self._process.pid if is_alive else None)
        for process in self._attached:
            process.kill()

    def _remove(self) -> None:
        self._end()
        try:
            for process in (self._process, *self._attached):
                process.wait(timeout=5)
            _remove_tree(self._home)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SandboxUnavailable(driver="local", detail=str(error)) from error

    def _saw_out_of_memory(self) -> bool:
        return False  # a resource limit makes the allocation fail instead


def _signal_all(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _packed(root: Path) -> Iterator[bytes]:
    """A folder as a tar stream, link as link. Nothing in it moves: its processes are stopped."""
    with tarfile.open(fileobj=io.BytesIO(), mode="w") as describing:
        for path in _walked(root):
            header = describing.gettarinfo(path, arcname=str(path.relative_to(root)))
            if header is None:  # a socket
                header = tarfile.TarInfo(str(path.relative_to(root)))
                header.type = tarfile.FIFOTYPE
            yield header.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
            if header.isreg():
                yield from _content(path, header.size)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _walked(root: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise FileRefused(path=str(error.filename), detail=str(error.strerror)) from error

    for folder, names, files in os.walk(root, onerror=refuse):
        names.sort()
        for name in sorted([*names, *files]):
            yield Path(folder, name)


def _content(path: Path, size: int) -> Iterator[bytes]:
    try:
        file = path.open("rb")
    except PermissionError as error:
        raise FileRefused(path=path.name, detail=str(error.strerror)) from error
    with file:
        left = size
        while left and (data := file.read(min(left, _MIB))):
            left -= len(data)
            yield data
    yield bytes(left + -size % tarfile.BLOCKSIZE)


def _unpacked(archive: IO[bytes], root: Path) -> None:
    """Extract a checked archive: folders and plain files only, each below a folder it brings."""
    folders: list[tuple[Path, int]] = []
    with tarfile.open(fileobj=archive, mode="r:") as members:
        for member in members:
            path = root / member.name
            if member.isdir():
                path.mkdir(exist_ok=True)
                folders.append((path, member.mode))
                continue
            with path.open("xb") as file, members.extractfile(member) or io.BytesIO() as content:
                shutil.copyfileobj(content, file)
                os.fchmod(file.fileno(), member.mode)
            os.utime(path, (member.mtime, member.mtime))
    # Last, because a folder may lock its owner out.
    for path, mode in reversed(folders):
        path.chmod(mode)


def _found_wall() -> str:
    """Bubblewrap, if it is installed and the kernel lets it work; else nothing."""
    found = shutil.which(_WALL, path="/usr/local/bin:/usr/bin:/bin")
    if not found:
        return ""
    system = [word for path in _SYSTEM for word in ("--ro-bind-try", path, path)]
    try:
        tried = subprocess.run(  # noqa: S603 - fixed words
            [found, "--unshare-all", *system, "--proc", "/proc", "--", "/bin/sh", "-c", "true"],
            capture_output=True,
            timeout=_WALL_TEST_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if tried.returncode else found


def _walled(bwrap: str, home: Path, spec: SandboxSpec) -> list[str]:
    """The words before a command that put it behind a wall of namespaces.

    Its folders keep their names, so that both kinds of sandbox find everything in the same place. A
    version that reaches hosts gets the host's whole network: there is no proxy here to choose.
    """
    words = [bwrap, "--unshare-all", "--unshare-user", "--die-with-parent", "--new-session"]
    words += ["--cap-drop", "ALL", "--uid", _NOBODY, "--gid", _NOBODY, "--hostname", "sandbox"]
    shown = [*_SYSTEM, *_SYSTEM_FILES]
    if spec.egress.mode != EgressMode.NONE:
        words.append("--share-net")
        shown += _NETWORK_FILES
    words += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]  # noqa: S108 - its own
    for path in shown:
        words += ["--ro-bind-try", path, path]
    for folder in (_INTERPRETER_PATH.parents[1], SUPERVISOR.parent):
        if not folder.is_relative_to("/usr"):
            words += ["--ro-bind", str(folder), str(folder)]
    for name in ("workspace", "tmp"):
        words += ["--bind", str(home / name), str(home / name)]
    return [*words, "--"]


def _limited(limits: dict[str, int]) -> list[str]:
    """The words before a command that give it limits, set where it starts and before it can fork."""
    program = (
        "import os, resource, sys\n"
        "for each in sys.argv[1].split():\n"
        "    name, most = each.split('=')\n"
        "    resource.setrlimit(int(name), (int(most), int(most)))\n"
        "os.execvp(sys.argv[2], sys.argv[2:])\n"
    )
    told = " ".join(
        f"{getattr(resource, f'RLIMIT_{name.upper()}')}={most}" for name, most in limits.items()
    )
    return [str(_INTERPRETER_PATH), "-I", "-S", "-c", program, told]


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
