"""Content-addressed files: stored once under their SHA-256, never changed."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from django.conf import settings

from apps.core.errors import NotFound, TooLarge


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """What was stored: its SHA-256 in hex and its size in bytes."""

    sha256: str
    size: int


def _root() -> Path:
    return Path(settings.AOS_DATA_DIR) / "artifacts"


def _path(sha256: str) -> Path:
    return _root() / sha256[:2] / sha256[2:4] / sha256


class Writer:
    """A file on its way into the store. Exactly one of ``keep`` and ``discard`` ends it."""

    def __init__(self) -> None:
        root = _root()
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=root, prefix=".incoming-")
        self._name = Path(name)
        self._file = os.fdopen(descriptor, "wb")
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes, /) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)

    def keep(self, *, sha256: str | None = None) -> Blob:
        """Store the file for good. A sum that somebody else computed is not taken on trust."""
        mine = self._digest.hexdigest()
        if sha256 not in {None, mine}:
            self.discard()
            raise ValueError(f"the content's SHA-256 is {mine}, not {sha256}")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        path = _path(mine)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._name.replace(path)
        return Blob(sha256=mine, size=self.size)

    def discard(self) -> None:
        self._file.close()
        self._name.unlink(missing_ok=True)


def put(chunks: Iterable[bytes], *, limit: int, what: str = "The file") -> Blob:
    """Store a stream of bytes; raise ``TooLarge`` past ``limit`` and leave nothing behind."""
    writer = Writer()
    try:
        for chunk in chunks:
            writer.write(chunk)
            _require_room(writer, limit, what)
    except BaseException:
        writer.discard()
        raise
    return writer.keep()


def _require_room(writer: Writer, limit: int, what: str) -> None:
    if writer.size > limit:
        raise TooLarge(what=what, size=f"over {limit}", limit=limit)


def open_blob(sha256: str) -> IO[bytes]:
    """Open a stored file for reading; raise ``NotFound`` when it is gone."""
    try:
        return _path(sha256).open("rb")
    except FileNotFoundError as error:
        raise NotFound(what="stored file", ref=sha256) from error


def read(sha256: str) -> bytes:
    with open_blob(sha256) as file:
        return file.read()
