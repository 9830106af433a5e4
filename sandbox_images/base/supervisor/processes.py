"""The processes of the sandbox: who descends from whom, ending them, limits, kills for memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from typing import NoReturn

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 1, 4, 36
LIBC = ctypes.CDLL(None, use_errno=True)


class OomWatch:
    """Where this sandbox's own cgroup counts the processes the kernel killed for memory."""

    PLACES = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")
    enabled = False


def oom_kills() -> int:
    for place in OomWatch.PLACES if OomWatch.enabled else ():
        with contextlib.suppress(OSError), open(place, encoding="ascii") as file:
            for line in file:
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    return 0


def processes() -> dict[int, tuple[int, int]]:
    """Every process one can see that has not ended: pid -> (parent, session)."""
    table: dict[int, tuple[int, int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                line = file.read()
        except OSError:
            continue  # it ended while we looked
        state, parent, _, session = line[line.rindex(b")") + 2 :].split()[:4]
        if state not in (b"Z", b"X"):
            table[int(name)] = int(parent), int(session)
    return table


def descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in processes().items():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def kill_all(pids: list[int]) -> None:
    """Stop every one before killing any, so that a fork bomb cannot refill what was emptied."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)


def become(
    argv: list[str],
    folder: str,
    env: dict[str, str],
    *,
    rlimits: dict[str, int],
    streams: tuple[int, ...],
) -> NoReturn:
    """In a forked child: turn into the command. Says why and leaves when that is impossible."""
    code = 126
    try:
        os.setsid()
        for target, source in enumerate(streams):
            os.dup2(source, target)
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        signal.set_wakeup_fd(-1)
        # Python ignores these two, and what is ignored stays ignored in the command.
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        limit_resources(rlimits)
        os.chdir(folder)
        os.execvpe(argv[0], argv, env)  # noqa: S606 - running what we are told is the job
    except (OSError, ValueError, TypeError) as error:
        code = 127 if isinstance(error, FileNotFoundError) else 126
        reason = error.strerror if isinstance(error, OSError) else str(error)
        os.write(2, f"{argv[0]}: {reason}\n".encode())
    finally:
        os._exit(code)


def limit_resources(limits: dict[str, int]) -> None:
    if not limits:
        return
    import resource  # the container has limits of its own: only the local driver sends any

    for name, wanted in limits.items():
        kind = getattr(resource, f"RLIMIT_{name.upper()}")
        hard = resource.getrlimit(kind)[1]
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (value, value))
