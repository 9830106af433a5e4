"""Naming a process for certain, and signalling exactly that one.

A process id alone proves nothing: the kernel hands it out again. Id and start time together name one
process of this boot, and a pidfd holds on to it while we look, so that a signal cannot reach another.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
# Every process the launcher starts carries this variable; its value is the state folder.
MARKER: Final = "AOS_LAUNCHER_HOME"


@dataclass(frozen=True, slots=True, order=True)
class Process:
    """One process of this boot: its id, and when it started (in clock ticks since the boot)."""

    pid: int
    started: int

    @property
    def is_alive(self) -> bool:
        return look(self.pid) == self

    def send(self, number: signal.Signals) -> bool:
        """Signal this process and no other; say whether it was there."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if not self.is_alive:
                return False
            signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return True


def boot_id() -> str:
    return (PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()


def look(pid: int) -> Process | None:
    """Return the living process with this id. A zombie is dead: it only waits for its parent."""
    try:
        text = (PROC / str(pid) / "stat").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the name in brackets, and a name may hold brackets and spaces.
    fields = text[text.rindex(")") + 2 :].split()
    if fields[0] in {"Z", "X"}:
        return None
    return Process(pid, int(fields[19]))


def this_process() -> Process:
    process = look(os.getpid())
    if process is None:
        raise ProcessLookupError(os.getpid())
    return process


def everyone() -> Iterator[Process]:
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (process := look(int(entry.name))) is not None:
            yield process


def carries_marker(process: Process, home: Path) -> bool:
    wanted = f"{MARKER}={home}".encode()
    try:
        return wanted in (PROC / str(process.pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        # It ended, or belongs to another user: not ours to judge.
        return False


def works_in(process: Process, folder: Path) -> bool:
    try:
        place = Path(PROC / str(process.pid) / "cwd").readlink()
    except OSError:
        return False
    return place == folder or folder in place.parents


def name_of(pid: int) -> str:
    try:
        return (PROC / str(pid) / "comm").read_text("utf-8", "replace").strip()
    except OSError:
        return "?"


def ancestors() -> set[int]:
    """The ids of this process and of those above it, which no clean-up may ever end."""
    pid, found = os.getpid(), set[int]()
    while pid > 1 and pid not in found:
        found.add(pid)
        try:
            text = (PROC / str(pid) / "stat").read_text("utf-8", "replace")
        except FileNotFoundError:
            break
        pid = int(text[text.rindex(")") + 2 :].split()[1])
    return found


def end(
    processes: Iterable[Process],
    *,
    ask: signal.Signals,
    grace: float,
    watch: Callable[[float], None] = time.sleep,
) -> None:
    """Ask each process to end, wait up to *grace* seconds for all of them, then kill what is left."""
    waiting = [process for process in processes if process.send(ask)]
    deadline = time.monotonic() + grace
    while waiting and time.monotonic() < deadline:
        watch(0.02)
        waiting = [process for process in waiting if process.is_alive]
    for process in waiting:
        process.send(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while any(process.is_alive for process in waiting) and time.monotonic() < deadline:
        watch(0.02)
