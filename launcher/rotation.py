"""Keeps logs from filling the disk.

Processes write to their files themselves, so that they outlive the supervisor: a pipe would break
under them. A full log is therefore copied and cut, not renamed; writers append at its new end.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

LARGEST_BYTES: Final = 10 * 1024 * 1024
KEPT: Final = 3


def rotate(log: Path, *, largest: int = LARGEST_BYTES, kept: int = KEPT) -> bool:
    """Move a full log's text to ``<name>.log.1``; say whether it was full."""
    try:
        if log.stat().st_size < largest:
            return False
    except FileNotFoundError:
        return False
    for number in range(kept - 1, 0, -1):
        older = _numbered(log, number)
        if older.exists():
            older.replace(_numbered(log, number + 1))
    with log.open("r+b") as source, _numbered(log, 1).open("wb") as copy:
        os.fchmod(copy.fileno(), 0o600)
        shutil.copyfileobj(source, copy)
        source.truncate(0)
    return True


def _numbered(log: Path, number: int) -> Path:
    return log.with_name(f"{log.name}.{number}")
