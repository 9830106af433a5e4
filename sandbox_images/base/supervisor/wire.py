"""The worker's line: frames in, frames out, and how one request is refused."""

from __future__ import annotations

import binascii
import json
import os
from collections import deque
from typing import Any

LINE_LIMIT = 1 << 20
READ_SIZE = 1 << 16
DATA_SIZE = 192 << 10
BACKLOG_LIMIT = 512 << 10  # more than this unsent: make no more, stop reading what commands print

Frame = dict[str, Any]


def encode(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def shown(name: bytes) -> str:
    """A name that is safe to put in a sentence, whatever bytes it is made of."""
    return name.decode("utf-8", "backslashreplace")[:300]


class Refused(Exception):
    """One request cannot be done; the answer is a ``failed`` frame with this code."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Wire:
    """Lines in and lines out. Neither may ever block the loop."""

    def __init__(self, source: int, sink: int) -> None:
        self.source, self.sink = source, sink
        os.set_blocking(source, False)
        os.set_blocking(sink, False)
        self.backlog = 0
        self._unsent: deque[memoryview] = deque()
        self._partial = bytearray()

    def send(self, kind: str, **fields: Any) -> None:
        line = json.dumps({"type": kind, **fields}, separators=(",", ":")).encode() + b"\n"
        self._unsent.append(memoryview(line))
        self.backlog += len(line)

    def flush(self) -> None:
        while self._unsent:
            try:
                sent = os.write(self.sink, self._unsent[0])
            except BlockingIOError:
                return
            self.backlog -= sent
            if sent == len(self._unsent[0]):
                self._unsent.popleft()
            else:
                self._unsent[0] = self._unsent[0][sent:]

    def lines(self) -> list[bytes]:
        """What has arrived, in whole lines. Raises ``EOFError`` when the worker is gone."""
        try:
            data = os.read(self.source, READ_SIZE)
        except BlockingIOError:
            return []
        if not data:
            raise EOFError
        self._partial += data
        *whole, rest = self._partial.split(b"\n")
        self._partial = bytearray(rest)
        if len(rest) > LINE_LIMIT:
            raise SystemExit("the worker sent a line longer than 1 MiB")
        return [bytes(line) for line in whole]
