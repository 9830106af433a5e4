"""Running one command: its process, its pipes, its clock."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from typing import NoReturn

from supervisor.capture import Capture
from supervisor.processes import oom_kills
from supervisor.wire import READ_SIZE, Frame, Wire

LINGER_S = 0.2  # how long children may hold a command's output open after it ended
LAST_READS = 16  # of a pipe that something still holds open when its command is over


class Command:
    """One command from its fork to its ``exit`` frame."""

    def __init__(self, wire: Wire, frame: Frame, become: Callable[..., NoReturn]) -> None:
        self.ident: str = frame["id"]
        self._wire = wire
        self._seq = 0
        self.capture = Capture(self._out, frame)
        self.started = time.monotonic()
        self.deadline = self.started + float(frame["timeout_s"])
        self.grace = float(frame.get("grace_s", 3.0))
        self.kill_at: float | None = None
        self.leave_by = 0.0
        self.timed_out = False
        self.status: int | None = None
        self.oom_kills = oom_kills()
        self.input = memoryview(frame["body"])
        self.outputs: dict[int, int] = {}
        self._fork(become)

    def _fork(self, become: Callable[..., NoReturn]) -> None:
        source, feed = os.pipe() if self.input else (os.open(os.devnull, os.O_RDONLY), -1)
        out, out_end = os.pipe()
        err, err_end = os.pipe()
        started, started_end = os.pipe()
        self.outputs, self.feed = {out: 1, err: 2}, feed
        try:
            self.pid = os.fork()
            if self.pid == 0:
                become(source, out_end, err_end)
        except OSError:
            os.close(started)
            self.close()
            raise
        finally:
            for fd in (source, out_end, err_end, started_end):
                os.close(fd)
        for fd in [out, err] if feed < 0 else [out, err, feed]:
            os.set_blocking(fd, False)
        # This end closes when the child has become the command. Only then is its entry in /proc
        # ours to write, and the kernel must pick the command, not us, when memory runs out.
        os.read(started, 1)
        os.close(started)
        with contextlib.suppress(OSError), open(f"/proc/{self.pid}/oom_score_adj", "w") as file:
            file.write("1000")

    def _out(self, fd: int, data: bytes, skipped: int) -> None:
        more = {"skipped": skipped} if skipped else {}
        self._wire.send("out", data, id=self.ident, fd=fd, seq=self._seq, **more)
        self._seq += 1

    def read(self, fd: int) -> None:
        try:
            data = os.read(fd, READ_SIZE)
        except BlockingIOError:
            return
        if data:
            self.capture.feed(self.outputs[fd], data)
        else:
            os.close(fd)
            del self.outputs[fd]

    def write(self) -> None:
        try:
            self.input = self.input[os.write(self.feed, self.input[:READ_SIZE]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.input = memoryview(b"")
        if not self.input:
            os.close(self.feed)
            self.feed = -1

    def signal(self, number: int) -> None:
        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def stop(self, now: float) -> None:
        if self.kill_at is None:
            self.signal(signal.SIGTERM)
            self.kill_at = now + self.grace

    def ended(self, status: int) -> None:
        self.status = status
        now = time.monotonic()
        self.leave_by = max(now + LINGER_S, self.kill_at or 0.0)

    def close(self) -> None:
        for fd in [*self.outputs, self.feed]:
            if fd >= 0:
                os.close(fd)
        self.outputs, self.feed = {}, -1

    def report(self) -> None:
        for fd in [fd for fd in self.outputs for _ in range(LAST_READS)]:
            if fd in self.outputs:
                self.read(fd)
        self.close()
        self.capture.finish()
        code = os.waitstatus_to_exitcode(self.status or 0)
        self._wire.send(
            "exit",
            id=self.ident,
            code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            timed_out=self.timed_out,
            oom=oom_kills() > self.oom_kills,
            wall_ms=int((time.monotonic() - self.started) * 1000),
            truncated=self.capture.dropped > 0,
            dropped=self.capture.dropped,
        )
