"""Files that one process at a time may hold. The kernel lets go of them when the holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from launcher.files import append_handle


class Held(Exception):
    """Another process holds the lock, and did not let go in time."""


@contextmanager
def held(
    path: Path, *, seconds: float, on_wait: Callable[[], None] | None = None
) -> Iterator[None]:
    """Hold the lock for the length of the block, or raise ``Held`` after *seconds*."""
    handle = append_handle(path)
    try:
        _take(handle, time.monotonic() + seconds, on_wait)
        yield
    finally:
        os.close(handle)


def is_held(path: Path) -> bool:
    try:
        with held(path, seconds=0):
            return False
    except Held:
        return True


def _take(handle: int, deadline: float, on_wait: Callable[[], None] | None) -> None:
    waited = False
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise Held from error
            if on_wait and not waited:
                waited = True
                on_wait()
            time.sleep(0.1)
        else:
            return
