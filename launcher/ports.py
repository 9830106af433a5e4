"""TCP ports: finding a free one, and saying who holds one that is not."""

from __future__ import annotations

import errno
import random
import socket
from pathlib import Path
from typing import Final

from launcher import processes
from launcher.problems import Problem

# Below the kernel's range for outgoing connections, which would otherwise take a server's port
# while it restarts.
RANGE: Final = range(20_000, 32_000)
LISTENING: Final = "0A"


def number(name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65_535:
        raise Problem(
            f"{name}={text} is not a port.", step=f"Give a number from 1 to 65535: {name}=8001"
        )
    return int(text)


def is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Connections of an earlier server that linger must not count as a server.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def pick(preferred: int | None = None, *, taken: frozenset[int] = frozenset()) -> int:
    """Return a free port on the loopback address, the preferred one if it can be had."""
    if preferred is not None and preferred not in taken and is_free("127.0.0.1", preferred):
        return preferred
    for port in random.sample(RANGE, 200):
        if port not in taken and is_free("127.0.0.1", port):
            return port
    raise Problem(
        f"None of 200 ports tried between {RANGE.start} and {RANGE.stop} is free.",
        step="Look at who listens: ss -ltnp",
    )


def require(host: str, port: int) -> None:
    """Raise the problem of a port the web process could not listen on."""
    try:
        free = is_free(host, port)
    except OSError as error:
        raise Problem(
            f"AOS cannot listen on {host}:{port}: {error.strerror or error}.",
            step="Choose another address or port: AOS_HOST=127.0.0.1 AOS_PORT=8001 make demo",
        ) from error
    if not free:
        who = holder(port)
        by = f" by {who}" if who else ""
        raise Problem(
            f"Port {port} is taken{by}.",
            step=f"End that program, or choose another port: AOS_PORT={port + 1} make demo",
        )


def holder(port: int) -> str | None:
    """Name the process that listens on a port, as far as this user may know."""
    listeners = _listeners(port)
    for process in processes.everyone():
        if _holds(process.pid, listeners):
            return f"{processes.name_of(process.pid)} (process {process.pid}{_place(process.pid)})"
    return None


def is_held_by(pid: int, port: int) -> bool:
    """Whether this process listens on the port; one of another user is not known to."""
    return _holds(pid, _listeners(port))


def _holds(pid: int, sockets: set[str]) -> bool:
    try:
        handles = list((processes.PROC / str(pid) / "fd").iterdir())
    except OSError:
        return False
    return any(_target(handle) in sockets for handle in handles)


def _place(pid: int) -> str:
    """Return the folder it runs in: it may be another clone's platform."""
    folder = _target(processes.PROC / str(pid) / "cwd")
    return f" in {folder}" if folder else ""


def _listeners(port: int) -> set[str]:
    """What handles of a socket point to that listens on the port."""
    found = set[str]()
    for name in ("tcp", "tcp6"):
        table = processes.PROC / "net" / name
        if not table.exists():
            continue
        for line in table.read_text("ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{fields[9]}]")
    return found


def _target(handle: Path) -> str:
    try:
        return str(handle.readlink())
    except OSError:
        return ""
