"""What a person is told when something is wrong: one sentence and the next step, never a traceback."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

LOG_LINES_SHOWN = 15


class Problem(Exception):
    """Stops a command with exit code 1. Raised by whoever can name both the fault and the cure."""

    def __init__(
        self, sentence: str, *, step: str, lines: Sequence[str] = (), log: Path | None = None
    ) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.step = step
        self.lines = list(lines)
        self.log = log


def with_log(sentence: str, *, step: str, log: Path) -> Problem:
    """Explain a child's failure by the last lines it wrote."""
    return Problem(sentence, step=step, lines=tail(log), log=log)


def tail(log: Path, lines: int = LOG_LINES_SHOWN) -> list[str]:
    """Return the end of a log without reading all of it; a log that is not there has no lines."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 64 * 1024))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    return [line for line in text.splitlines() if line.strip()][-lines:]


def from_os_error(error: OSError) -> Problem:
    """Translate what the operating system refuses into what a person can do about it."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return Problem(
            f"The disk is full{where}.", step="Free some space, then run the same command again."
        )
    if error.errno in {errno.EACCES, errno.EPERM}:
        return Problem(
            f"The operating system refused access{where}.",
            step="Run the command as the user who owns this folder, or move the clone.",
        )
    if error.errno == errno.EROFS:
        return Problem(
            f"The file system is read-only{where}.", step="Move the clone to a writable disk."
        )
    return Problem(
        f"The operating system said: {error.strerror or error}{where}.",
        step="Look at .aos/logs, then run the same command again.",
    )
