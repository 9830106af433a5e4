"""What is kept of a command's output. Cut here, before it can drown a worker."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from supervisor.wire import DATA_SIZE, READ_SIZE, Frame

MARKED_LINE_LIMIT = 16 << 10
MARKED_TOTAL_LIMIT = 1 << 20
TAIL_PIECES = 4096


class Capture:
    """What is kept of one command's output: the first bytes at once, the last bytes at the end.

    Standard output lines that begin with the mark are commands to the platform. They are passed on
    at once even after the head is full, so that a flood of logs cannot hide progress.
    """

    def __init__(self, emit: Callable[[int, bytes, int], None], frame: Frame) -> None:
        self._emit_frame = emit
        self._head = int(frame.get("head", 256 << 10))
        self._tail_limit = int(frame.get("tail", 768 << 10))
        self._mark = str(frame.get("mark", "")).encode()
        self._marked_left = MARKED_TOTAL_LIMIT
        self._line_left = MARKED_LINE_LIMIT
        self._tail: deque[tuple[int, bytearray]] = deque()
        self._tail_size = 0
        self._held = b""
        self._at_line_start = {1: True, 2: True}
        self._said_whole_line = {1: True, 2: True}
        self.dropped = 0

    def feed(self, fd: int, data: bytes) -> None:
        taken = self._head_share(data)
        if taken:
            self._emit(fd, data[:taken])
            self._at_line_start[fd] = data[taken - 1 : taken] == b"\n"
            data = data[taken:]
        if data and fd == 1 and self._mark:
            data = self._without_marked(data)
        if data:
            self._keep(fd, data)

    def finish(self) -> None:
        if self._held:
            self._keep(1, self._held)
        skipped = self.dropped
        for fd, piece in self._tail:
            if skipped and not self._said_whole_line[fd]:
                piece[:0] = b"\n"
            self._emit(fd, bytes(piece), skipped)
            skipped = 0

    def _head_share(self, data: bytes) -> int:
        """How many of these bytes still pass at once: the head, then the end of its last line."""
        taken = min(len(data), self._head)
        self._head -= taken
        if taken < len(data) and self._line_left:
            if taken and data[taken - 1 : taken] == b"\n":
                self._line_left = 0
                return taken
            end = data.find(b"\n", taken, taken + self._line_left)
            more = end + 1 - taken if end >= 0 else min(len(data) - taken, self._line_left)
            self._line_left = 0 if end >= 0 else self._line_left - more
            taken += more
        return taken

    def _without_marked(self, data: bytes) -> bytes:
        """Pass marked lines on; return the rest. A line that may yet be marked is held back."""
        data, self._held = self._held + data, b""
        rest: list[bytes] = []
        at = 0
        while (start := self._find_mark(data, at)) >= 0:
            rest.append(data[at:start])
            end = data.find(b"\n", start) + 1
            if not end and len(data) - start <= MARKED_LINE_LIMIT:
                self._held, self._at_line_start[1] = data[start:], True
                return b"".join(rest)
            end = end or len(data)
            if end - start <= min(MARKED_LINE_LIMIT, self._marked_left):
                self._marked_left -= end - start
                self._emit(1, (b"" if self._said_whole_line[1] else b"\n") + data[start:end])
            else:
                rest.append(data[start:end])
            self._at_line_start[1] = data[end - 1 : end] == b"\n"
            at = end
        return b"".join(rest) + self._hold_back(data, at)

    def _find_mark(self, data: bytes, at: int) -> int:
        if self._at_line_start[1] and data.startswith(self._mark, at):
            return at
        found = data.find(b"\n" + self._mark, at)
        return found + 1 if found >= 0 else -1

    def _hold_back(self, data: bytes, at: int) -> bytes:
        line = data.rfind(b"\n", at) + 1 or at
        starts_line = line > at or self._at_line_start[1]
        if line == len(data):
            self._at_line_start[1] = starts_line
        elif starts_line and self._mark.startswith(data[line:]):
            self._held, self._at_line_start[1] = data[line:], True
        else:
            self._at_line_start[1] = False
            line = len(data)
        return data[at:line]

    def _keep(self, fd: int, data: bytes) -> None:
        if self._tail and self._tail[-1][0] == fd and len(self._tail[-1][1]) < READ_SIZE:
            self._tail[-1][1].extend(data)
        else:
            self._tail.append((fd, bytearray(data)))
        self._tail_size += len(data)
        while self._tail_size > self._tail_limit or len(self._tail) > TAIL_PIECES:
            piece = self._tail[0][1]
            surplus = self._tail_size - self._tail_limit
            cut = surplus if 0 < surplus < len(piece) else len(piece)
            del piece[:cut]
            self._tail_size -= cut
            self.dropped += cut
            if not piece:
                self._tail.popleft()

    def _emit(self, fd: int, data: bytes, skipped: int = 0) -> None:
        self._said_whole_line[fd] = data[-1:] == b"\n"
        for at in range(0, len(data), DATA_SIZE):
            self._emit_frame(fd, data[at : at + DATA_SIZE], skipped)
            skipped = 0
