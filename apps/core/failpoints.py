"""Places on a run's path where a test makes the process crash, stall or fail.

A place does nothing unless the settings name a folder, and no settings of the product do: those of the
tests in ``tests/chaos`` do. A file in the folder, called as the place, arms it for one hit and says what
happens there. Whoever renames the file is hit, so one process is, and the test sees that it was.
"""

from __future__ import annotations

import os
import signal
from enum import StrEnum
from pathlib import Path

from django.conf import settings
from django.db import OperationalError


class Place(StrEnum):
    """In the order of a run's path."""

    STORED = "submit.stored"
    PROMOTED = "engine.promoted"
    CLAIMED = "engine.claimed"
    PUBLISHED = "engine.published"
    RECEIVED = "worker.received"
    STARTED = "worker.started"
    SANDBOX_READY = "worker.sandbox_ready"
    LOGGING = "worker.logging"
    WORKED = "worker.worked"
    SNAPSHOT_PAUSED = "snapshot.paused"
    SNAPSHOT_STORED = "snapshot.stored"
    SNAPSHOT_RECORDED = "snapshot.recorded"
    FAILING = "worker.failing"
    FINISHING = "worker.finishing"
    FINISHED = "worker.finished"
    RELAYING = "engine.relaying"
    RECLAIMING = "engine.reclaiming"


class Action(StrEnum):
    # As by SIGKILL or a power cut: nothing is cleaned up.
    CRASH = "crash"
    # The whole process stands still until somebody sends it SIGCONT.
    STALL = "stall"
    # The database goes away at this moment, as far as the process can tell.
    ERROR = "error"


def hit(place: Place) -> None:
    """Do here what the place is armed with. Raises ``OperationalError`` when that is an error."""
    if settings.AOS_FAILPOINTS is not None:
        _hit(Path(settings.AOS_FAILPOINTS), place)


def _hit(folder: Path, place: Place) -> None:
    mark = folder / f"{place}.{os.getpid()}.hit"
    try:
        (folder / place).rename(mark)
    except FileNotFoundError:
        return
    action = Action(mark.read_text("ascii"))
    if action is Action.ERROR:
        raise OperationalError(f"failpoint {place}")
    os.kill(os.getpid(), signal.SIGKILL if action is Action.CRASH else signal.SIGSTOP)
