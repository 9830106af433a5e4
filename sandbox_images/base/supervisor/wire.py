"""The worker's line: frames in, frames out, and how one request is refused."""

from __future__ import annotations

import json
import operator
import os
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Any

LINE_LIMIT = 2 << 20
BODY_LIMIT = 512 << 10
READ_SIZE = 1 << 16
DATA_SIZE = 256 << 10
BACKLOG_LIMIT = 512 << 10  # more than this unsent: make no more, stop reading what commands print
PARTS_AT_ONCE = 64

Frame = dict[str, Any]


def shown(name: bytes) -> str:
    """A name that is safe to put in a sentence, whatever bytes it is made of."""
    return name.decode("utf-8", "backslashreplace")[:300]


class Refused(Exception):
    """One request cannot be done; the answer is a ``failed`` frame with this code."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Wire:
    """Frames in and frames out: a line each, and the bytes it announces. Neither may ever block."""

    def __init__(self, source: int, sink: int) -> None:
        self.source, self.sink = source, sink
        os.set_blocking(source, False)
        os.set_blocking(sink, False)
        self.backlog = 0
        self._unsent: deque[memoryview] = deque()
        self._line = bytearray()
        self._frame: Frame | None = None
        self._body = bytearray()
        self._missing = 0

    def send(self, kind: str, body: bytes = b"", **fields: Any) -> None:
        if body:
            fields["length"] = len(body)
        line = json.dumps({"type": kind, **fields}, separators=(",", ":")).encode() + b"\n"
        self._unsent += [memoryview(part) for part in (line, body) if part]
        self.backlog += len(line) + len(body)

    def flush(self) -> None:
        while self._unsent:
            try:
                sent = os.writev(self.sink, list(islice(self._unsent, PARTS_AT_ONCE)))
            except BlockingIOError:
                return
            self.backlog -= sent
            while sent:
                part = self._unsent.popleft()
                if sent < len(part):
                    self._unsent.appendleft(part[sent:])
                sent -= min(sent, len(part))

    def frames(self) -> Iterator[Frame]:
        """The frames that are whole now, each with the bytes it announced as ``body``.

        Raises ``EOFError`` when the worker is gone.
        """
        try:
            data = os.read(self.source, READ_SIZE)
        except BlockingIOError:
            return
        if not data:
            raise EOFError
        at = 0
        while at < len(data):
            at = self._take_body(data, at) if self._missing else self._take_line(data, at)
            if self._frame is not None and not self._missing:
                frame, self._frame = self._frame, None
                frame["body"], self._body = self._body, bytearray()
                yield frame

    def _take_body(self, data: bytes, at: int) -> int:
        part = data[at : at + self._missing]
        self._body += part
        self._missing -= len(part)
        return at + len(part)

    def _take_line(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at)
        self._line += data[at : end if end >= 0 else len(data)]
        if len(self._line) > LINE_LIMIT:
            raise SystemExit("the worker sent a line longer than 2 MiB")
        if end < 0:
            return len(data)
        line, self._line = self._line, bytearray()
        self._announced(line)
        return end + 1

    def _announced(self, line: bytearray) -> None:
        """Begin a frame. One that is not understood is told and left out."""
        try:
            frame = json.loads(line)
            length = operator.index(frame.get("length", 0))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            self.complain(error)
            return
        if not 0 <= length <= BODY_LIMIT:
            raise SystemExit("the worker announced more than 512 KiB at once")
        self._frame, self._missing = frame, length

    def complain(self, error: Exception) -> None:
        self.send("error", detail=f"{type(error).__name__}: {error}"[:500])
