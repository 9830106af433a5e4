"""When each job began and ended, written by the worker that did it.

One short line per moment, appended to one file: two microseconds, the same for every system. All
processes are on one machine, so their clocks are one clock.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

PLACE: Final = "AOS_BENCH_STAMPS"
START: Final = "S"
FINISH: Final = "F"
# When the engine claimed the run; told by the latency measurement of our side only.
CLAIM: Final = "C"
_KEY: Final = 36
_LINE: Final = len("S ") + _KEY + len(" 1700000000.000000\n")

# A worker knows where to write from its environment; elsewhere this stays closed.
_path = os.environ.get(PLACE)  # noqa: TID251 - peers run without our settings
_file = os.open(_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) if _path else -1


def note(kind: str, key: str, moment: float | None = None) -> None:
    at = time.time() if moment is None else moment
    os.write(_file, f"{kind} {key:<{_KEY}.{_KEY}} {at:.6f}\n".encode("ascii"))


def count(path: Path) -> int:
    """How many lines there are, without reading them."""
    return path.stat().st_size // _LINE if path.exists() else 0


def read(path: Path) -> dict[str, dict[str, float]]:
    """By kind, the moment of each key; the first one where a job was done twice."""
    moments: dict[str, dict[str, float]] = {START: {}, FINISH: {}, CLAIM: {}}
    for line in path.read_text("ascii").splitlines():
        kind, key, at = line.split()
        moments[kind].setdefault(key, float(at))
    return moments
