from __future__ import annotations

import socket
import struct
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.sandbox.channel import Channel, Demultiplexer, LineClosed


@pytest.fixture
def ends():
    near, far = socket.socketpair()
    yield near, far
    near.close()
    far.close()


def framed(stream: int, data: bytes) -> bytes:
    return struct.pack(">BxxxL", stream, len(data)) + data


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=30))), st.integers(1, 20))
def test_an_attach_stream_is_taken_apart_however_it_is_cut(parts, size):
    demultiplexer = Demultiplexer()
    stream = b"".join(framed(fd, data) for fd, data in parts)

    received = b"".join(
        demultiplexer.feed(stream[at : at + size]) for at in range(0, len(stream), size)
    )

    complaint = b"".join(data for fd, data in parts if fd == 2)[-2000:]
    assert received == b"".join(data for fd, data in parts if fd == 1)
    assert demultiplexer.complaint == complaint.decode("utf-8", "replace").strip()


def test_a_complaint_without_end_is_kept_short(ends):
    near, far = ends
    channel = Channel(near, multiplexed=True)
    far.sendall(framed(2, b"x" * 50_000) + framed(2, b"the reason") + framed(1, b"end"))

    while channel.receive(1) != b"end":
        pass

    assert channel.complaint.endswith("the reason")
    assert len(channel.complaint) <= 2000


def test_waiting_ends_in_time(ends):
    channel = Channel(ends[0], multiplexed=False)
    started = time.monotonic()

    assert channel.receive(0.1) is None
    assert 0.05 < time.monotonic() - started < 1


def test_a_cut_from_another_thread_wakes_the_reader(ends):
    channel = Channel(ends[0], multiplexed=False)
    timer = threading.Timer(0.1, channel.cut)
    timer.start()

    assert channel.receive(10) == b""

    timer.join()
    channel.cut()


def test_a_reader_that_does_not_read_does_not_hold_the_sender(ends):
    channel = Channel(ends[0], multiplexed=False)

    with pytest.raises(LineClosed):
        channel.send(b"x" * 10_000_000, timeout=0.2)


def test_nothing_can_be_sent_or_received_after_the_end(ends):
    channel = Channel(ends[0], multiplexed=False)
    channel.close()

    assert channel.receive(1) == b""
    with pytest.raises(LineClosed):
        channel.send(b"x", timeout=1)
    channel.cut()


class OneAtATime:
    """A socket that tells whether two threads were in it at once, as an encrypted one must not see."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._inside = threading.Lock()
        self.was_shared = False

    def __getattr__(self, name: str):
        return getattr(self._sock, name)

    def _alone(self, call, *words):
        if not self._inside.acquire(blocking=False):
            self.was_shared = True
            return call(*words)
        try:
            time.sleep(0.0005)  # room for the other thread to come in
            return call(*words)
        finally:
            self._inside.release()

    def recv(self, size: int) -> bytes:
        return self._alone(self._sock.recv, size)

    def send(self, data) -> int:
        return self._alone(self._sock.send, data)


def test_sending_and_receiving_threads_are_never_in_the_socket_at_once(ends):
    near, far = ends
    watched = OneAtATime(near)
    channel = Channel(watched, multiplexed=False)

    times, data = 200, b"x" * 100

    def echo() -> None:
        left = times * len(data)
        while left:
            # What was sent twice may come at once.
            got = far.recv(1 << 16)
            far.sendall(got)
            left -= len(got)

    def send() -> None:
        for _ in range(times):
            channel.send(data, timeout=5)

    threads = [threading.Thread(target=work) for work in (echo, send)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        channel.receive(0.01)
    for thread in threads:
        thread.join()

    assert not watched.was_shared
