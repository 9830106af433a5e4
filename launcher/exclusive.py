"""One changing command of a clone at a time: `make up`, `stop` and `reset` wait for each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from launcher import locks
from launcher.console import Console
from launcher.home import Home
from launcher.problems import Problem

LOCK_SECONDS: Final = 600.0


@contextmanager
def only_command(home: Home, console: Console) -> Iterator[None]:
    def tell() -> None:
        console.step("another make command is at work in this clone; waiting for it")

    try:
        with locks.held(home.run / "command.lock", seconds=LOCK_SECONDS, on_wait=tell):
            yield
    except locks.Held as error:
        raise Problem(
            f"Another make command has been at work in this clone for {LOCK_SECONDS:.0f} s.",
            step="End it, then run this one again.",
        ) from error
