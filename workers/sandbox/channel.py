"""The line to a supervisor: bytes over a socket, with a deadline on everything.

Whoever waits in here can be woken from another thread by ``cut``; that is how a kill ends a run
that is silent, even when the engine does not answer.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from threading import Lock
from typing import Final

_READ_SIZE: Final = 1 << 18
_COMPLAINT_SIZE: Final = 2000
_HEADER: Final = struct.Struct(">BxxxL")
_STDERR: Final = 2
_WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class LineClosed(Exception):
    """The other end is gone, or the line was cut."""


class Channel:
    """One thread receives, any may send, any may cut."""

    def __init__(self, sock: socket.socket, *, multiplexed: bool) -> None:
        sock.settimeout(0)
        self._sock = sock
        self._sending = Lock()
        # Held for one call that cannot wait: an encrypted connection breaks when two threads are in it.
        self._touching = Lock()
        self._demultiplexer = Demultiplexer() if multiplexed else None

    @property
    def complaint(self) -> str:
        """The last words on standard error, where a supervisor that cannot start says why."""
        return self._demultiplexer.complaint if self._demultiplexer else ""

    def receive(self, timeout: float) -> bytes | None:
        """Some bytes; None when nothing came in time; empty when the line is closed."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                with self._touching:
                    data = self._sock.recv(_READ_SIZE)
            except _WOULD_BLOCK:
                if not self._wait(select.POLLIN, deadline):
                    return None
                continue
            except OSError:
                return b""
            if not data or not self._demultiplexer:
                return data
            if plain := self._demultiplexer.feed(data):
                return plain

    def fileno(self) -> int:
        """For event loops that wait for several."""
        return self._sock.fileno()

    def offer(self, data: memoryview) -> int:
        """Send what is taken at once; return how much that is. Raises ``LineClosed``."""
        try:
            with self._sending:
                return self._send_some(data)
        except _WOULD_BLOCK:
            return 0
        except OSError as error:
            raise LineClosed from error

    def finish(self) -> None:
        """Say that nothing more comes. What the other end still says can be received."""
        if isinstance(self._sock, ssl.SSLSocket):
            return  # it knows no half; closing says it
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            return  # it was closed already

    def send(self, data: bytes, *, timeout: float) -> None:
        """Raises ``LineClosed``, also when the other end does not take the data in time.

        Then the line is cut: what came after half a message would be taken for its other half.
        """
        deadline = time.monotonic() + timeout
        left = memoryview(data)
        with self._sending:
            while left:
                try:
                    left = left[self._send_some(left) :]
                except _WOULD_BLOCK:
                    if not self._wait(select.POLLOUT, deadline):
                        self.cut()
                        raise LineClosed from None
                except OSError as error:
                    raise LineClosed from error

    def _send_some(self, data: memoryview) -> int:
        with self._touching:
            return self._sock.send(data)

    def _wait(self, event: int, deadline: float) -> bool:
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        poll = select.poll()
        try:
            poll.register(self._sock, event)
        except ValueError:
            return True  # closed meanwhile: the next call on the socket says so
        return bool(poll.poll(left * 1000))

    def cut(self) -> None:
        """Wake whoever waits; from now on the line is closed."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it was closed already

    def close(self) -> None:
        """Free the socket. Only when nobody receives any more; ``cut`` first if in doubt."""
        self._sock.close()


class Demultiplexer:
    """Takes an engine's attach stream apart: 8 bytes of header, then standard output or error."""

    def __init__(self) -> None:
        self._header = bytearray()
        self._left = 0
        self._stream = 0
        self._complaint = b""

    @property
    def complaint(self) -> str:
        return self._complaint.decode("utf-8", "replace").strip()

    def feed(self, data: bytes) -> bytes:
        plain = []
        view = memoryview(data)
        while view:
            if not self._left:
                view = self._read_header(view)
                continue
            part, view = view[: self._left], view[self._left :]
            self._left -= len(part)
            if self._stream == _STDERR:
                self._complaint = (self._complaint + bytes(part))[-_COMPLAINT_SIZE:]
            else:
                plain.append(part)
        return b"".join(plain)

    def _read_header(self, view: memoryview) -> memoryview:
        missing = _HEADER.size - len(self._header)
        self._header += view[:missing]
        if len(self._header) == _HEADER.size:
            self._stream, self._left = _HEADER.unpack(self._header)
            self._header.clear()
        return view[missing:]
