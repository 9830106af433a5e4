"""What leaves the workspace: a file, or the artifacts of a run as a tar stream."""

from __future__ import annotations

import os
import re
import stat
import zlib
from collections.abc import Iterator
from typing import Any

from supervisor.wire import DATA_SIZE, Frame, Refused, Wire, shown
from supervisor.workspace import DEPTH_LIMIT, Files, parts_of

REJECTED_LIMIT = 100


class Stream:
    """The bytes of one answer, sent in pieces of one size, counted and summed for its end."""

    def __init__(self, wire: Wire, ident: str) -> None:
        self._wire, self._ident = wire, ident
        self._size = self._sum = 0
        self._parts: list[bytes] = []
        self.room = DATA_SIZE  # in the piece that is being filled

    def add(self, data: bytes) -> None:
        """Data that is as large as the room passes without being copied."""
        while data:
            part, data = data[: self.room], data[self.room :]
            self._parts.append(part)
            self.room -= len(part)
            if not self.room:
                self._flush()

    def end(self, **fields: Any) -> None:
        self._flush()
        self._wire.send("done", id=self._ident, size=self._size, crc32=self._sum, **fields)

    def file(self, fd: int, asked: int) -> Iterator[None]:
        """All of one file, if it is no larger than what was asked for."""
        limit = asked
        with open(fd, "rb", buffering=0) as file:
            too_large = os.fstat(fd).st_size > limit
            while not too_large and (data := file.read(self.room)):
                limit -= len(data)
                too_large = limit < 0  # a command made it longer meanwhile
                if not too_large:
                    self.add(data)
                yield
        if too_large:
            raise Refused("too_large", f"the file is larger than {asked} bytes")
        self.end()

    def _flush(self) -> None:
        data = b"".join(self._parts)
        self._parts, self.room = [], DATA_SIZE
        if data:
            self._size += len(data)
            self._sum = zlib.crc32(data, self._sum)
            self._wire.send("data", data, id=self._ident)


class Archive:
    """The plain files below a folder whose names match, as a tar stream.

    What is not a plain file with one name is told by name and reason instead. The worker checks
    all of it again.
    """

    def __init__(self, stream: Stream, files: Files, frame: Frame) -> None:
        self._stream, self._files = stream, files
        self._base: str = frame["base"]
        self._patterns = [re.compile(pattern, re.DOTALL) for pattern in frame["patterns"]]
        self._file_limit, self._total_left = int(frame["file_limit"]), int(frame["total_limit"])
        self._count_left = int(frame["count_limit"])
        self._rejected: list[dict[str, str]] = []

    def steps(self) -> Iterator[None]:
        """Work step by step; the loop goes on between the steps."""
        try:
            for names, status in self._files.walk(parts_of(self._base)):
                name = os.fsdecode(b"/".join(names))
                if status is None:
                    self._reject(name, "unreadable")
                elif stat.S_ISDIR(status.st_mode):
                    if len(names) >= DEPTH_LIMIT:
                        self._reject(name, "too_deep")
                elif any(pattern.fullmatch(name) for pattern in self._patterns):
                    yield from self._file(name, status)
                yield
        except Refused as refused:
            if refused.code not in ("not_found", "too_many"):
                self._reject(self._base, "unreadable")
            elif refused.code == "too_many":
                self._reject(self._base, "too_many_files")
        self._stream.add(bytes(1024))
        self._stream.end(rejected=self._rejected)

    def _reject(self, name: str, reason: str) -> None:
        if len(self._rejected) < REJECTED_LIMIT:
            self._rejected.append({"name": shown(os.fsencode(name)), "reason": reason})

    def _refusal(self, status: os.stat_result) -> str:
        """Why an entry cannot be an artifact; empty when it can."""
        if stat.S_ISLNK(status.st_mode):
            return "symlink"
        if not stat.S_ISREG(status.st_mode):
            return "special_file"
        return "hard_link" if status.st_nlink != 1 else self._over_limit(status.st_size)

    def _over_limit(self, size: int) -> str:
        if size > self._file_limit:
            return "file_too_large"
        if size > self._total_left:
            return "total_too_large"
        return "" if self._count_left else "too_many_files"

    def _file(self, name: str, status: os.stat_result) -> Iterator[None]:
        if reason := self._refusal(status):
            self._reject(name, reason)
            return
        try:
            fd = self._files.open(f"{self._base}/{name}", os.O_RDONLY)
        except Refused:
            self._reject(name, "unreadable")
            return
        with open(fd, "rb", buffering=0) as file:
            # What was opened may not be what was listed: a command may still be running.
            status = os.fstat(fd)
            if reason := self._refusal(status):
                self._reject(name, reason)
                return
            yield from self._content(name, file, status.st_size)

    def _content(self, name: str, file: Any, size: int) -> Iterator[None]:
        import tarfile  # only here: it costs a cold start ten milliseconds

        self._count_left -= 1
        self._total_left -= size
        header = tarfile.TarInfo(name)
        header.size = size
        self._stream.add(header.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
        left, changed = size, False
        while left:
            most = min(left, self._stream.room)
            data = b"" if changed else file.read(most)
            if not data:
                if not changed:
                    self._reject(name, "changed_while_read")
                changed, data = True, bytes(most)
            left -= len(data)
            self._stream.add(data)
            yield
        self._stream.add(bytes(-size % tarfile.BLOCKSIZE))
