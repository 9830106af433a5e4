"""The container's first program where there is a way out: from loopback to the proxy's socket.

It decides nothing and reads nothing: the proxy on the other side of the socket does. It ends by itself
when the sandbox's life is over, even when no worker is left to end it.
"""

from __future__ import annotations

import selectors
import signal
import socket
import sys
from contextlib import suppress

ADDRESS = ("127.0.0.1", 3128)
SOCKET = "/run/aos-egress/proxy.sock"
PIECE = 64 << 10
LINKS_LIMIT = 64


class End:
    """One of the two sockets of a link, with what waits to be written to it."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(0)
        self.sock = sock
        self.waiting = b""
        self.is_read = False
        self.is_shut = False
        self.other = self

    def events(self) -> int:
        reads = 0 if self.is_read or self.other.waiting else selectors.EVENT_READ
        return reads | (selectors.EVENT_WRITE if self.waiting else 0)

    def pull(self) -> None:
        """Read a piece for the other end, or learn that there is no more."""
        data = self.sock.recv(PIECE)
        self.is_read = not data
        self.other.waiting = data
        self.other.push()

    def push(self) -> None:
        with suppress(BlockingIOError):
            while self.waiting:
                self.waiting = self.waiting[self.sock.send(self.waiting) :]
        if self.other.is_read and not self.waiting and not self.is_shut:
            self.is_shut = True
            self.sock.shutdown(socket.SHUT_WR)


class Forwarder:
    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.links = 0
        self.listener = socket.create_server(ADDRESS, backlog=64)
        self.listener.settimeout(0)
        self.selector.register(self.listener, selectors.EVENT_READ)

    def run(self) -> None:
        while True:
            for key, events in self.selector.select():
                if key.fileobj is self.listener:
                    self.accept()
                elif key.data.sock.fileno() >= 0:
                    self.move(key.data, events)

    def accept(self) -> None:
        try:
            near = self.listener.accept()[0]
        except OSError:
            return  # it went away again
        far = socket.socket(socket.AF_UNIX)
        try:
            if self.links >= LINKS_LIMIT:
                raise ConnectionRefusedError
            far.connect(SOCKET)
        except OSError:
            near.close()
            far.close()
            return
        ends = End(near), End(far)
        ends[0].other, ends[1].other = ends[1], ends[0]
        self.links += 1
        for end in ends:
            self.selector.register(end.sock, selectors.EVENT_READ, end)

    def move(self, end: End, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                end.push()
            if events & selectors.EVENT_READ and not end.is_read and not end.other.waiting:
                end.pull()
        except BlockingIOError:
            return
        except OSError:
            self.close(end)
            return
        if end.is_shut and end.other.is_shut:
            self.close(end)
            return
        for each in (end, end.other):
            self.watch(each)

    def watch(self, end: End) -> None:
        known = end.sock in self.selector.get_map()
        if not end.events():
            if known:
                self.selector.unregister(end.sock)
        elif known:
            self.selector.modify(end.sock, end.events(), end)
        else:
            self.selector.register(end.sock, end.events(), end)

    def close(self, end: End) -> None:
        self.links -= 1
        for each in (end, end.other):
            if each.sock in self.selector.get_map():
                self.selector.unregister(each.sock)
            each.sock.close()


def greet() -> None:
    """Tell the proxy that somebody listens now, so that no command starts too early."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(SOCKET)
        line.sendall(b"OPTIONS * HTTP/1.1\r\n\r\n")
        line.recv(PIECE)


def main() -> None:
    signal.alarm(int(sys.argv[1]))
    forwarder = Forwarder()
    greet()
    forwarder.run()


if __name__ == "__main__":
    main()
