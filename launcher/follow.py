"""`make logs`: the ends of all logs, then every new line, each with the name of its process."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Final

from launcher.console import Console
from launcher.home import Home
from launcher.problems import tail

LINES_AT_FIRST: Final = 5
PAUSE_SECONDS: Final = 0.2
CHUNK_BYTES: Final = 256 * 1024
COLOURS: Final = ("cyan", "magenta", "green", "yellow", "blue", "red")


@dataclass(slots=True)
class Source:
    path: Path
    colour: str
    position: int
    rest: bytes = field(default=b"")

    def read(self) -> list[str]:
        """Return whole new lines. A log shorter than before was rotated: its start is new."""
        try:
            size = self.path.stat().st_size
            if size < self.position:
                self.position, self.rest = 0, b""
            if size == self.position:
                return []
            with self.path.open("rb") as file:
                file.seek(self.position)
                chunk = file.read(CHUNK_BYTES)
        except FileNotFoundError:
            return []
        self.position += len(chunk)
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        return [line.decode("utf-8", "replace") for line in lines]


def follow(home: Home, console: Console, *, turns: int | None = None) -> None:
    """Print until interrupted (or for so many turns)."""
    sources = dict[Path, Source]()
    colours = cycle(COLOURS)
    first = True
    while turns is None or turns > 0:
        for path in sorted(home.logs.glob("*.log")):
            if path not in sources:
                position = path.stat().st_size if first else 0
                sources[path] = Source(path, next(colours), position)
                _print(console, sources[path], tail(path, LINES_AT_FIRST) if first else [])
        for source in sources.values():
            _print(console, source, source.read())
        first = False
        turns = None if turns is None else turns - 1
        time.sleep(PAUSE_SECONDS)


def _print(console: Console, source: Source, lines: list[str]) -> None:
    prefix = console.paint(f"{source.path.stem:>12} |", source.colour)
    for line in lines:
        console.line(f"{prefix} {line}")
