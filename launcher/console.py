"""How the launcher speaks: plain lines in a pipe, colours and one moving line on a terminal."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import Final, TextIO

from launcher.problems import Problem

BAR_WIDTH: Final = 24
COLOURS: Final = {
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
    "dim": "2",
    "bold": "1",
}


class Console:
    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stdout
        self.is_terminal = self.stream.isatty()
        self.has_colour = self.is_terminal and not os.environ.get("NO_COLOR")
        self._moving = False

    def paint(self, text: str, colour: str) -> str:
        return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if self.has_colour else text

    def line(self, text: str = "") -> None:
        self.clear()
        self._write(text + "\n")

    def step(self, text: str) -> None:
        self.line(f"{self.paint('>', 'blue')} {text}")

    def done(self, text: str) -> None:
        self.line(f"{self.paint('+', 'green')} {text}")

    def nothing(self, text: str) -> None:
        """Say nothing: for callers of what reports its steps."""

    def warn(self, text: str) -> None:
        self.line(f"{self.paint('! ' + text, 'yellow')}")

    def progress(self, title: str, fraction: float | None, since: float) -> None:
        """Redraw one line in place. A pipe gets nothing: its reader has the events."""
        if not self.is_terminal:
            return
        width = shutil.get_terminal_size().columns - 1
        text = f"{_bar(fraction)} {time.monotonic() - since:5.1f} s  {title}"
        self._write("\r\x1b[2K" + text[:width])
        self._moving = True

    def clear(self) -> None:
        if self._moving:
            self._write("\r\x1b[2K")
            self._moving = False

    def explain(self, problem: Problem) -> None:
        self.clear()
        for line in problem.lines:
            self._write(f"{self.paint('  | ' + line, 'dim')}\n")
        if problem.log is not None:
            self._write(f"  (from {problem.log})\n")
        self._write(f"{self.paint('x', 'red')} {problem.sentence}\n  Next: {problem.step}\n")

    def _write(self, text: str) -> None:
        # Output of others may hold characters a C locale cannot print.
        encoding = self.stream.encoding or "utf-8"
        self.stream.write(text.encode(encoding, "replace").decode(encoding))
        self.stream.flush()


def _bar(fraction: float | None) -> str:
    if fraction is None:
        return "[" + "." * BAR_WIDTH + "]     "
    fraction = min(1.0, max(0.0, fraction))
    filled = round(fraction * BAR_WIDTH)
    return f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] {fraction:4.0%}"
