"""Ends what a killed supervisor left running, and nothing else.

Ours is what the last supervisor recorded (id and start time, in this boot), what carries our
marker in its environment, and what works in the data folders of our servers.
"""

from __future__ import annotations

import signal
from typing import Final

from launcher import processes, status
from launcher.home import Home
from launcher.processes import Process

SERVERS: Final = ("postgres", "valkey")
SUPERVISOR_GRACE: Final = 120.0
PROCESS_GRACE: Final = 10.0
SERVER_GRACE: Final = 30.0


def find(home: Home) -> list[Process]:
    """Return the processes of this clone. Call it only while no supervisor holds its lock."""
    last = status.read(home.status)
    recorded = {process for process in (last.processes if last else []) if process.is_alive}
    spared = processes.ancestors()
    return sorted(
        process
        for process in processes.everyone()
        if process.pid not in spared and (process in recorded or _is_ours(process, home))
    )


def end(home: Home) -> int:
    """End them in order: a supervisor without its folder, processes, then servers. Return how many."""
    found = find(home)
    supervisors = [process for process in found if _is_supervisor(process)]
    processes.end(supervisors, ask=signal.SIGTERM, grace=SUPERVISOR_GRACE)
    left = [process for process in found if process.is_alive]
    servers = [process for process in left if _works_for_server(process, home)]
    others = [process for process in left if process not in servers]
    processes.end(others, ask=signal.SIGTERM, grace=PROCESS_GRACE)
    # To a postmaster SIGINT means: end now, cleanly. Its backends and Valkey take it likewise.
    processes.end(servers, ask=signal.SIGINT, grace=SERVER_GRACE)
    return len(found)


def _is_ours(process: Process, home: Home) -> bool:
    return processes.carries_marker(process, home.state) or _works_for_server(process, home)


def _works_for_server(process: Process, home: Home) -> bool:
    if not processes.name_of(process.pid).startswith(SERVERS):
        return False
    folders = [home.servers / name for name in SERVERS]
    return any(processes.works_in(process, folder) for folder in folders)


def _is_supervisor(process: Process) -> bool:
    try:
        words = (processes.PROC / str(process.pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"launcher" in words and b"supervise" in words
