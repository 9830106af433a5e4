"""One loop over the worker's line, the commands' output and the clock."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator

from supervisor.archive import Archive, Stream
from supervisor.command import LINGER_S, Command
from supervisor.processes import (
    LIBC,
    PR_SET_CHILD_SUBREAPER,
    PR_SET_DUMPABLE,
    OomWatch,
    become,
    descendants,
    kill_all,
    processes,
)
from supervisor.wire import BACKLOG_LIMIT, Frame, Refused, Wire
from supervisor.workspace import Arrival, Files, parts_of, told

VERSION = 2
HEARTBEAT_S = 5.0
RETRY_KILL_S = 0.02
GIVE_UP_S = 5.0
COMMANDS_AT_ONCE = 8
WORK_S = 0.02  # how long a walk through many files may keep everybody else waiting


class Supervisor:
    """One loop over the worker's line, the commands' output and the clock."""

    def __init__(self, wire: Wire, root: str) -> None:
        self.wire = wire
        self.root = root
        self.files = Files(root)
        self.commands: dict[str, Command] = {}
        self.arrivals: dict[str, Arrival] = {}
        self.jobs: deque[tuple[str, Iterator[None]]] = deque()
        self.env: dict[str, str] = {}
        self.rlimits: dict[str, int] = {}
        self.greeted = False
        self._next_beat = time.monotonic() + HEARTBEAT_S
        self._wake, wake_end = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake_end, False)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        # A handler, not SIG_IGN: an ignored signal would stay ignored in every command.
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        # Commands run as the same user: without this they could read our memory and our wire.
        LIBC.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)

    def serve(self) -> None:
        try:
            while True:
                self._turn()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            pass  # the worker is gone: nobody is left to work for
        finally:
            self._end_everything()

    def _turn(self) -> None:
        until = time.monotonic() + WORK_S
        while self._can_work() and time.monotonic() < until:
            self._work()
        self.wire.flush()
        for fd, _ in self._poll():
            if fd == self.wire.source:
                self._receive()
            elif fd == self._wake:
                os.read(self._wake, 4096)
            else:
                self._serve_pipe(fd)
        self._reap()
        self._tick(time.monotonic())

    def _poll(self) -> list[tuple[int, int]]:
        poll = select.poll()
        poll.register(self.wire.source, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        if self.wire.backlog:
            poll.register(self.wire.sink, select.POLLOUT)
        for command in self.commands.values():
            for fd in command.outputs if self.wire.backlog < BACKLOG_LIMIT else ():
                poll.register(fd, select.POLLIN)
            if command.feed >= 0:
                poll.register(command.feed, select.POLLOUT)
        return poll.poll(0 if self._can_work() else self._patience_ms())

    def _can_work(self) -> bool:
        return bool(self.jobs) and self.wire.backlog < BACKLOG_LIMIT

    def _work(self) -> None:
        """One step of the oldest answer that is sent in pieces."""
        ident, job = self.jobs[0]
        try:
            next(job)
        except StopIteration:
            self.jobs.popleft()
        except (Refused, OSError) as error:
            self.jobs.popleft()
            self._refuse(ident, error if isinstance(error, Refused) else told(error))

    def _patience_ms(self) -> int:
        now = time.monotonic()
        until = self._next_beat
        for command in self.commands.values():
            if command.status is None:
                until = min(until, command.kill_at or command.deadline)
            else:
                until = min(until, max(command.leave_by, now + RETRY_KILL_S))
        return max(0, int((until - now) * 1000) + 1)

    def _serve_pipe(self, fd: int) -> None:
        for command in list(self.commands.values()):
            if fd in command.outputs:
                command.read(fd)
            elif fd == command.feed:
                command.write()

    def _receive(self) -> None:
        for frame in self.wire.frames():
            try:
                self._handle(frame)
            except Refused as refused:
                self._refuse(frame.get("id", ""), refused)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                self.wire.complain(error)

    def _refuse(self, ident: str, refused: Refused) -> None:
        self.wire.send("failed", id=ident, code=refused.code, detail=str(refused)[:500])

    def _handle(self, frame: Frame) -> None:
        kind = frame["type"]
        if not self.greeted and kind != "hello":
            raise ValueError("the first line must be hello")
        handler = self.HANDLERS.get(kind)
        if handler is None:
            raise ValueError(f"no request is called {kind!r}")
        handler(self, frame)

    def _hello(self, frame: Frame) -> None:
        if frame["v"] != VERSION:
            raise ValueError(f"this supervisor speaks version {VERSION}, not {frame['v']}")
        self.env = {**os.environ, **frame.get("env", {})}  # noqa: TID251 - the image's own, no house
        self.rlimits = frame.get("rlimits", {})
        OomWatch.enabled = bool(frame.get("own_cgroup"))
        for folder in frame.get("folders", []):
            os.close(self.files.folder(parts_of(folder), make=True))
        self.greeted = True
        python = ".".join(map(str, sys.version_info[:3]))
        self.wire.send("hello", v=VERSION, pid=os.getpid(), uid=os.getuid(), python=python)

    def _exec(self, frame: Frame) -> None:
        ident = frame["id"]
        if ident in self.commands:
            raise ValueError(f"the command {ident!r} is running")
        if len(self.commands) >= COMMANDS_AT_ONCE:
            raise Refused("busy", f"{COMMANDS_AT_ONCE} commands are running")
        argv = frame["argv"] if "argv" in frame else ["/bin/sh", "-c", frame["sh"]]
        folder = os.path.join(self.root, os.fsdecode(b"/".join(parts_of(frame.get("cwd", "")))))
        env = {**self.env, **frame.get("env", {})}

        try:
            self.commands[ident] = Command(
                self.wire,
                frame,
                lambda *fds: become(argv, folder, env, rlimits=self.rlimits, streams=fds),
            )
        except OSError as error:
            raise Refused("busy", f"cannot start a process: {error.strerror}") from error

    def _signal(self, frame: Frame) -> None:
        names = {"HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "CONT", "STOP"}
        if frame["sig"] not in names:
            raise Refused("refused", f"no signal is called {frame['sig']!r}")
        if command := self.commands.get(frame["id"]):
            command.signal(signal.Signals[f"SIG{frame['sig']}"])

    def _stop(self, frame: Frame) -> None:
        if command := self.commands.get(frame["id"]):
            command.stop(time.monotonic())

    def _put(self, frame: Frame) -> None:
        ident = frame["id"]
        if ident not in self.arrivals:
            self.arrivals[ident] = Arrival(self.files, frame)
        self.arrivals[ident].take(frame["body"])
        if not frame.get("more"):
            self.wire.send("done", id=ident, **self.arrivals.pop(ident).end())

    def _get(self, frame: Frame) -> None:
        ident, limit = frame["id"], int(frame["limit"])
        fd = self.files.open(frame["path"], os.O_RDONLY)
        self.jobs.append((ident, Stream(self.wire, ident).file(fd, limit)))

    def _list(self, frame: Frame) -> None:
        self.wire.send("listing", id=frame["id"], **self.files.listing(frame))

    def _stat(self, frame: Frame) -> None:
        self.wire.send("info", id=frame["id"], entry=self.files.describe(frame["path"]))

    def _tar_out(self, frame: Frame) -> None:
        ident = frame["id"]
        archive = Archive(Stream(self.wire, ident), self.files, frame)
        self.jobs.append((ident, archive.steps()))

    def _ping(self, frame: Frame) -> None:
        self.wire.send("pong", id=frame["id"])

    HANDLERS: dict[str, Callable[[Supervisor, Frame], None]] = {
        "hello": _hello,
        "exec": _exec,
        "signal": _signal,
        "stop": _stop,
        "put": _put,
        "get": _get,
        "list": _list,
        "stat": _stat,
        "tar_out": _tar_out,
        "ping": _ping,
    }

    def _reap(self) -> bool:
        """Collect what has ended, orphans included. False when no child is left at all."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            for command in self.commands.values():
                if command.pid == pid and command.status is None:
                    command.ended(status)

    def _tick(self, now: float) -> None:
        if now >= self._next_beat:
            self._next_beat = now + HEARTBEAT_S
            if not self.wire.backlog:
                self.wire.send("heartbeat")
        for command in list(self.commands.values()):
            if command.status is None:
                self._hurry(command, now)
            else:
                self._conclude(command, now)

    def _hurry(self, command: Command, now: float) -> None:
        if command.kill_at is None and now >= command.deadline:
            command.timed_out = True
            command.stop(now)
        elif command.kill_at is not None and now >= command.kill_at:
            command.kill_at = now + RETRY_KILL_S
            kill_all(self._left_behind(command))
            command.signal(signal.SIGKILL)

    def _conclude(self, command: Command, now: float) -> None:
        """A command that ended is over when nothing of it is left, by force if need be."""
        left = self._left_behind(command) if self._reap() else []
        if left and now >= command.leave_by:
            kill_all(left)
            if now >= command.leave_by + GIVE_UP_S:
                raise SystemExit("a command's processes cannot be ended")
        if left or (command.outputs and now < command.leave_by + LINGER_S):
            return
        del self.commands[command.ident]
        command.report()

    def _left_behind(self, command: Command) -> list[int]:
        """The processes of one command. Those that left its session belong to whoever is last."""
        if len(self.commands) == 1:
            return descendants(os.getpid())
        sessions = processes().items()
        return [pid for pid, (_, session) in sessions if session == command.pid]

    def _end_everything(self) -> None:
        until = time.monotonic() + GIVE_UP_S
        while self._reap() and time.monotonic() < until:
            kill_all(descendants(os.getpid()))
            time.sleep(0.001)
