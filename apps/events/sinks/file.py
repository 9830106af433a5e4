"""Checkpoints in a file, one line each. Best on another volume or host than the database."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Self
from urllib.parse import unquote, urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from apps.events.errors import SinkAway, SinkConflict
from apps.events.sinks.base import Checkpoint

FILE: Final = "audit-checkpoints.jsonl"


@dataclass(frozen=True, slots=True)
class FileSink:
    folder: Path
    readable = True
    near = True

    @classmethod
    def at(cls, url: str) -> Self:
        """``file:`` is the audit folder, ``file:///mnt/audit`` another one."""
        parts = urlsplit(url)
        if parts.netloc or parts.query or (parts.path and not parts.path.startswith("/")):
            raise ImproperlyConfigured(
                f"AOS_AUDIT_SINKS: {url} must be file: or file:///an/absolute/folder."
            )
        return cls(Path(unquote(parts.path) or settings.AOS_AUDIT_FOLDER))

    @property
    def name(self) -> str:
        return f"file:{self.folder}"

    @property
    def path(self) -> Path:
        return self.folder / FILE

    def put(self, checkpoint: Checkpoint) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self.path.open("a+b") as file:
                # A leader that was deposed may still be writing.
                fcntl.flock(file, fcntl.LOCK_EX)
                self._append(file, checkpoint)
        except OSError as error:
            raise SinkAway(sink=self.name, reason=f"cannot be written: {error.strerror}") from error

    def _append(self, file: BinaryIO, checkpoint: Checkpoint) -> None:
        line = f"{checkpoint.line}\n".encode()
        _drop_torn_end(file, line)
        held = _number(_last_line(file))
        if held >= checkpoint.number:
            if line not in _lines(file):
                raise SinkConflict(sink=self.name, number=checkpoint.number, held=held)
            return
        file.write(line)
        file.flush()
        os.fsync(file.fileno())

    def read(self) -> Iterator[str]:
        try:
            with self.path.open("rb") as file:
                for line in file:
                    yield line.decode("utf-8", "replace").rstrip("\n")
        except FileNotFoundError:
            return
        except OSError as error:
            raise SinkAway(sink=self.name, reason=f"cannot be read: {error.strerror}") from error


def _lines(file: BinaryIO) -> Iterator[bytes]:
    file.seek(0)
    yield from file


def _drop_torn_end(file: BinaryIO, line: bytes) -> None:
    """Remove the beginning of this very line, which a crash left without its end."""
    last = _last_line(file)
    if last.endswith(b"\n") or not last:
        return
    size = file.seek(0, os.SEEK_END)
    if line.startswith(last):
        file.truncate(size - len(last))
    else:
        file.write(b"\n")


def _last_line(file: BinaryIO) -> bytes:
    """Read from the file's end: it grows for years."""
    size = file.seek(0, os.SEEK_END)
    tail, length = b"", 4096
    while len(tail) < size and b"\n" not in tail[:-1]:
        length = min(length * 2, size)
        file.seek(size - length)
        tail = file.read(length)
    return tail[tail.rfind(b"\n", 0, -1) + 1 :]


def _number(line: bytes) -> int:
    """The number in a line; 0 when there is none, so that garbage does not keep evidence out."""
    with suppress(ValueError, KeyError, TypeError):
        return int(json.loads(line)["body"]["number"])
    return 0
