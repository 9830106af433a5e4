"""What processes cost, read from /proc: CPU time and memory, for a process and all below it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_TICKS: Final = os.sysconf("SC_CLK_TCK")


def cpu_s(roots: Iterable[int], *, with_children: bool = True) -> float:
    """Seconds of CPU used so far by these processes, their children, and children that ended."""
    ticks = 0
    for root in roots:
        own, reaped = _ticks(root)
        ticks += own
        if with_children:
            ticks += reaped + sum(_ticks(child)[0] for child in below(root))
    return ticks / _TICKS


def pss_mb(roots: Iterable[int], *, with_children: bool = True) -> float:
    """Proportional set size in MiB: memory shared with others counts by its share."""
    pids = set(roots)
    if with_children:
        pids |= {child for root in tuple(pids) for child in below(root)}
    return sum(_pss_kb(pid) for pid in pids) / 1024


def parent(pid: int) -> int:
    fields = _stat(pid)
    if not fields:
        raise ProcessLookupError(pid)
    return int(fields[1])


def below(root: int) -> list[int]:
    """The living descendants of a process."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = list(children.get(root, ()))
    for pid in found:
        found += children.get(pid, ())
    return found


def _ticks(pid: int) -> tuple[int, int]:
    """Clock ticks of the process itself, and of children it has waited for."""
    fields = _stat(pid)
    if not fields:
        return 0, 0
    return int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])


def _stat(pid: int) -> list[str]:
    try:
        text = (_PROC / str(pid) / "stat").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    # The second field is the name in brackets, and a name may hold brackets and spaces.
    return text[text.rindex(")") + 2 :].split()


def _pss_kb(pid: int) -> int:
    try:
        text = (_PROC / str(pid) / "smaps_rollup").read_text("ascii")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
