"""A session against supervisors that lie, stall, flood and vanish."""

from __future__ import annotations

import json
import socket
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workers.sandbox.artifacts import ArtifactLimits
from workers.sandbox.base import Command
from workers.sandbox.channel import Channel
from workers.sandbox.errors import (
    FileRefused,
    SandboxError,
    SandboxKilled,
    SandboxLost,
    SandboxProtocolError,
    WorkspaceFull,
)
from workers.sandbox.session import CommandOverdue, Session

HELLO = {"type": "hello", "v": 2, "pid": 1, "uid": 10001, "python": "3.11"}
ENDED = {
    "type": "exit",
    "id": "1",
    "code": 0,
    "signal": None,
    "timed_out": False,
    "oom": False,
    "wall_ms": 1,
    "truncated": False,
    "dropped": 0,
}


class Peer:
    """The other end of a session, saying what a test wants to be said."""

    def __init__(self) -> None:
        self._socket, self.other = socket.socketpair()
        self._socket.settimeout(5)
        self._lines = self._socket.makefile("rb")

    def say(self, *frames: dict | bytes) -> None:
        for frame in frames:
            line = frame if isinstance(frame, bytes) else json.dumps(frame).encode() + b"\n"
            self._socket.sendall(line)

    def hear(self) -> dict:
        """The next request, with the bytes that followed it as ``body``."""
        frame = json.loads(self._lines.readline())
        return frame | {"body": self._lines.read(frame.get("length", 0))}

    def leave(self) -> None:
        self._lines.close()
        self._socket.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.leave()


@pytest.fixture
def session(peer) -> Iterator[Session]:
    session = Session(Channel(peer.other, multiplexed=False), silence_s=0.3, patience_s=0.2)
    yield session
    session.close()


def framed(body: bytes, **fields: object) -> bytes:
    return json.dumps(fields | {"length": len(body)}).encode() + b"\n" + body


def out(seq: int, body: bytes = b"hi\n", ident: str = "1") -> bytes:
    return framed(body, type="out", id=ident, fd=1, seq=seq)


def data(body: bytes, ident: str = "1") -> bytes:
    return framed(body, type="data", id=ident)


def done(*parts: bytes, ident: str = "1", **other: object) -> dict:
    whole = b"".join(parts)
    return {"type": "done", "id": ident, "size": len(whole), "crc32": zlib.crc32(whole)} | other


def command(**bounds) -> Command:
    return Command(argv=("x",), **bounds)


def run(session: Session, **bounds) -> list[bytes]:
    _, stream = session.execute(command(**bounds))
    return [output.data for output in stream]


# A machine that stands still for a moment must not look like a sandbox that does.
_STANDSTILL_S = 5


def in_background(work: Callable[[], object]) -> threading.Thread:
    def until_nobody_listens() -> None:
        with suppress(OSError, ValueError):  # closed, or half a frame
            work()

    thread = threading.Thread(target=until_nobody_listens, daemon=True)
    thread.start()
    return thread


def test_a_command_is_asked_for_and_answered(session, peer):
    peer.say(out(0), {"type": "heartbeat"}, out(1, b"yo"), ENDED)

    assert run(session) == [b"hi\n", b"yo"]
    asked = peer.hear()
    assert (asked["type"], asked["argv"], asked["timeout_s"]) == ("exec", ["x"], 120.0)


def test_a_greeting_of_another_version_is_refused(session, peer):
    peer.say(HELLO | {"v": 1})

    with pytest.raises(SandboxProtocolError, match="version 1, not 2"):
        session.greet(env={}, rlimits={}, folders=[], own_cgroup=False)


def test_a_stranger_that_does_not_greet_is_refused(session, peer):
    peer.say({"type": "pong", "id": "1"})

    with pytest.raises(SandboxProtocolError, match="begin with hello"):
        session.greet(env={}, rlimits={}, folders=[], own_cgroup=False)


@pytest.mark.parametrize(
    "frames",
    [
        [b"not json\n"],
        [b"\n"],
        [out(1)],
        [out(0), out(0)],
        [out(0, ident="2")],
        [HELLO],
        [{"type": "pong", "id": "1"}],
        [done()],
        [data(b"x")],
        [b'{"type":"out","id":"1","fd":1,"seq":0,"length":3}\nlonger\n'],
        [b'{"type":"out","id":"1","fd":1,"seq":0,"length":-3}\nabc'],
        [b'{"type":"out","id":"1","fd":1,"seq":0,"length":262145}\n'],
        [b'{"type":"out","id":"1","fd":1,"seq":0}\nabc'],
        [b'{"type":"pong","id":"1","length":5}\nhello'],
        [ENDED | {"code": 256}],
        [ENDED | {"code": "0"}],
        [{"type": "error", "detail": "what?"}],
        [b"x" * 1_100_000],
        [b"x" * 1_100_000 + b"\n"],
    ],
    ids=str,
)
def test_frames_that_make_no_sense_fail_the_session(session, peer, frames):
    talking = in_background(lambda: peer.say(*frames))

    with pytest.raises(SandboxProtocolError):
        run(session)

    with pytest.raises(SandboxLost, match="unfinished"):
        session.ping()
    session.close()
    talking.join(5)


def test_more_output_than_agreed_fails_the_session(session, peer):
    big = b"A" * 200_000

    def flood() -> None:
        for seq in range(1000):
            peer.say(out(seq, big))

    in_background(flood)

    with pytest.raises(SandboxProtocolError, match="more output"):
        run(session, output_limit=1000)


def test_heartbeats_without_end_fail_the_session(session, peer):
    in_background(lambda: peer.say(*[{"type": "heartbeat"}] * 1000))

    with pytest.raises(SandboxProtocolError, match="heartbeats"):
        run(session)


def test_silence_is_a_loss(session, peer):
    started = time.monotonic()

    with pytest.raises(SandboxLost, match="said nothing"):
        run(session)

    assert 0.2 < time.monotonic() - started < 2


def test_a_dribble_of_bytes_does_not_stretch_time(session, peer):
    def dribble() -> None:
        for _ in range(400):
            peer.say(b"x")
            time.sleep(0.05)

    session._silence_s = _STANDSTILL_S
    in_background(dribble)
    started = time.monotonic()

    with pytest.raises(CommandOverdue):
        run(session, timeout=timedelta(seconds=0.1), grace=timedelta(0))

    assert time.monotonic() - started < 3


def test_the_worker_has_a_clock_of_its_own(session, peer):
    def live_on() -> None:
        for _ in range(20):
            peer.say({"type": "heartbeat"})
            time.sleep(0.05)

    session._silence_s = _STANDSTILL_S
    in_background(live_on)

    with pytest.raises(CommandOverdue):
        run(session, timeout=timedelta(seconds=0.1), grace=timedelta(seconds=0.1))


def test_the_end_of_the_line_is_a_loss(session, peer):
    peer.say(out(0))
    peer.leave()

    with pytest.raises(SandboxLost):
        run(session)


def test_a_supervisor_that_does_not_take_its_work_is_a_loss(session, peer, monkeypatch):
    monkeypatch.setattr("workers.sandbox.session._SEND_S", 0.2)

    with pytest.raises(SandboxLost):
        session.put("big", b"x" * 8_000_000, mode=0o644)


def test_a_cut_wakes_a_silent_wait(session, peer):
    timer = threading.Timer(0.05, session.cut)
    timer.start()

    with pytest.raises(SandboxKilled):
        run(session)

    timer.join()


def test_a_stop_is_passed_on_and_never_raises(session, peer):
    session.execute(command())
    peer.hear()

    session.stop("1")
    assert peer.hear() == {"type": "stop", "id": "1", "body": b""}

    peer.leave()
    session.stop("1")
    session.stop("1")


def test_a_refused_file_does_not_spoil_the_session(session, peer):
    peer.say(
        {"type": "failed", "id": "1", "code": "io", "detail": "Is a directory"},
        {"type": "failed", "id": "2", "code": "no_space", "detail": "No space left"},
        {"type": "pong", "id": "3"},
    )

    with pytest.raises(FileRefused, match="Is a directory"):
        session.put("a", b"", mode=0o644)
    with pytest.raises(WorkspaceFull, match="'b'"):
        session.put("b", b"", mode=0o644)
    session.ping()


def test_a_file_longer_than_asked_for_fails_the_session(session, peer):
    peer.say(data(b"hello"))

    with pytest.raises(SandboxProtocolError, match="more of a file"):
        session.get("a", limit=4)


def test_an_archive_left_half_read_spoils_the_session(session, peer):
    peer.say(data(b"hello"))
    pieces = session.archive("out", [".*"], ArtifactLimits())
    next(pieces)
    pieces.close()

    with pytest.raises(SandboxLost, match="unfinished"):
        session.ping()


def test_a_file_goes_out_in_pieces_and_its_end_is_compared(session, peer):
    content = bytes(range(256)) * 3000
    heard: list[dict] = []

    def take() -> None:
        while not heard or heard[-1]["more"]:
            heard.append(peer.hear())
        peer.say(done(*(each["body"] for each in heard)))

    taking = in_background(take)
    session.put("big", content, mode=0o600)
    taking.join(5)

    assert b"".join(each["body"] for each in heard) == content
    assert [each["length"] for each in heard] == [262_144, 262_144, 243_712]
    assert {(each["type"], each["path"], each["mode"]) for each in heard} == {("put", "big", 0o600)}


@pytest.mark.parametrize(
    "end", [done(b"hello", b"you!"), done(b"hello", b"y0u"), done(b"hello"), done()], ids=str
)
def test_a_file_that_is_not_what_was_sent_fails_the_session(session, peer, end):
    peer.say(data(b"hello"), data(b"you"), end)
    with pytest.raises(SandboxProtocolError, match="lost or changed"):
        session.get("a", limit=100)

    with pytest.raises(SandboxLost, match="unfinished"):
        session.ping()


def test_a_file_that_did_not_arrive_as_sent_fails_the_session(session, peer):
    peer.say(done(b"hullo"))

    with pytest.raises(SandboxProtocolError, match="lost or changed"):
        session.put("a", b"hello", mode=0o644)


def test_a_refusal_in_the_middle_of_a_file_leaves_the_session_usable(session, peer):
    failed = {"type": "failed", "id": "1", "code": "io", "detail": "Input/output error"}
    peer.say(data(b"hello"), failed, {"type": "pong", "id": "2"})

    with pytest.raises(FileRefused, match="Input/output"):
        session.get("a", limit=100)

    session.ping()


def test_bytes_that_look_like_frames_are_bytes(session, peer):
    body = json.dumps(done()).encode() + b"\n" + json.dumps({"type": "heartbeat"}).encode() + b"\n"
    peer.say(data(body), done(body), {"type": "pong", "id": "2"})

    assert session.get("a", limit=1000) == body
    session.ping()


def test_fewer_bytes_than_announced_and_then_silence_is_a_loss(session, peer):
    peer.say(b'{"type":"data","id":"1","length":100}\n' + b"x" * 99)

    with pytest.raises(SandboxLost, match="said nothing"):
        session.get("a", limit=1000)
    with pytest.raises(SandboxLost, match="unfinished"):
        session.ping()


def test_fewer_bytes_than_announced_eat_what_follows_and_fail_the_session(session, peer):
    ending = json.dumps(done(b"hello")).encode() + b"\n"
    short = b'{"type":"data","id":"1","length":10}\nhello'
    peer.say(short + ending)

    with pytest.raises(SandboxProtocolError):
        session.get("a", limit=1000)


def test_another_answer_between_the_pieces_of_a_file_fails_the_session(session, peer):
    peer.say(data(b"hello"), data(b"stray", ident="7"), data(b"you"), done(b"hello", b"you"))

    with pytest.raises(SandboxProtocolError, match="belongs to no request"):
        session.get("a", limit=1000)


def test_a_file_without_end_is_left_at_its_limit(session, peer):
    def flood() -> None:
        while True:
            peer.say(data(b"x" * 200_000))

    in_background(flood)
    tracemalloc.start()
    with pytest.raises(SandboxProtocolError, match="more of a file"):
        session.get("a", limit=1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 8_000_000


def test_a_file_that_dribbles_is_left_in_time(session, peer, monkeypatch):
    monkeypatch.setattr("workers.sandbox.session._ANSWER_S", 0.4)

    def dribble() -> None:
        peer.say(b'{"type":"data","id":"1","length":200}\n')
        for _ in range(400):
            peer.say(b"x")
            time.sleep(0.05)

    session._silence_s = _STANDSTILL_S
    in_background(dribble)
    started = time.monotonic()
    with pytest.raises(SandboxLost, match="in time"):
        session.get("a", limit=1000)

    assert time.monotonic() - started < 2


def test_output_that_stops_half_way_is_overdue_by_the_worker_s_clock(session, peer):
    def live_on() -> None:
        peer.say(b'{"type":"out","id":"1","fd":1,"seq":0,"length":1000}\n')
        for _ in range(100):
            peer.say(b"x")
            time.sleep(0.05)

    session._silence_s = _STANDSTILL_S
    in_background(live_on)

    with pytest.raises(CommandOverdue):
        run(session, timeout=timedelta(seconds=0.1), grace=timedelta(seconds=0.1))


def test_a_file_that_is_taken_too_slowly_is_a_loss(session, peer, monkeypatch):
    monkeypatch.setattr("workers.sandbox.session._TRANSFER_S", 0.3)

    def sip() -> None:
        for _ in range(200):
            peer.hear()
            time.sleep(0.1)

    in_background(sip)
    started = time.monotonic()

    with pytest.raises(SandboxLost, match="in time"):
        session.put("big", b"x" * 50_000_000, mode=0o644)

    assert time.monotonic() - started < 3


def test_a_cut_ends_a_file_that_is_on_its_way_in(session, peer):
    timer = threading.Timer(0.1, session.cut)
    timer.start()

    with pytest.raises(SandboxKilled):
        session.put("big", b"x" * 20_000_000, mode=0o644)

    timer.join()
    with pytest.raises(SandboxKilled):
        session.ping()


def test_a_line_that_stalled_in_the_middle_of_a_frame_is_cut(session, peer, monkeypatch):
    monkeypatch.setattr("workers.sandbox.session._SEND_S", 0.2)
    with pytest.raises(SandboxLost):
        session.put("big", b"x" * 8_000_000, mode=0o644)

    session.stop("1")  # would be taken for bytes of the file

    stream = b""
    while piece := peer._socket.recv(1 << 20):
        stream += piece
    assert b"stop" not in stream


class Interrupted(Channel):
    """Whenever it has sent something, another thread gets to say stop."""

    def send(self, data: bytes, *, timeout: float) -> None:
        super().send(data, timeout=timeout)
        super().send(b'{"type": "stop", "id": "9"}\n', timeout=timeout)


def test_a_stop_from_another_thread_does_not_split_a_frame(peer):
    session = Session(Interrupted(peer.other, multiplexed=False))
    content = bytes(range(256)) * 3000
    heard: list[dict] = []

    def take() -> None:
        while [each.get("more") for each in heard[-2:]] != [False, None]:
            heard.append(peer.hear())
        peer.say(done(content))

    taking = in_background(take)
    session.put("big", content, mode=0o644)
    taking.join(5)

    assert [each["type"] for each in heard] == ["put", "stop"] * 3
    assert b"".join(each["body"] for each in heard) == content
    session.close()


#: Where in a hostile stream something else is said than was announced.
pieces = st.one_of(
    st.builds(data, st.binary(min_size=1, max_size=30), st.sampled_from(["1", "2"])),
    st.builds(out, st.integers(0, 2), st.binary(min_size=1, max_size=30)),
    st.builds(
        lambda said, body: (
            json.dumps({"type": "data", "id": "1", "length": said}).encode() + b"\n" + body
        ),
        st.sampled_from([-1, 0, 1, 5, 40, 262_144, 262_145, 1 << 60, "5", None, 1.5]),
        st.binary(max_size=50),
    ),
)

frames = st.one_of(
    pieces,
    st.binary(max_size=200),
    st.builds(
        lambda frame: json.dumps(frame).encode() + b"\n",
        st.fixed_dictionaries(
            {
                "type": st.sampled_from(
                    ["out", "exit", "data", "done", "failed", "heartbeat", "pong"]
                )
            },
            optional={
                "id": st.sampled_from(["1", "2", ""]) | st.integers(),
                "fd": st.integers(-1, 3),
                "seq": st.integers(-1, 2),
                "length": st.sampled_from([0, 1, 3, 100, -1, "x"]),
                "size": st.sampled_from([0, 3, -1, 1 << 60]),
                "crc32": st.sampled_from([0, 1, 1 << 33]),
                "code": st.sampled_from([None, 0, 1, 300, "x"]),
                "signal": st.sampled_from([None, 9, 99]),
                "detail": st.text(max_size=5),
                "timed_out": st.booleans(),
                "oom": st.booleans(),
                "wall_ms": st.integers(-1, 5),
                "truncated": st.booleans(),
                "dropped": st.integers(-1, 5),
            },
        ),
    ),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(frames, max_size=6), st.sampled_from(["run", "get", "put", "ping", "list", "tar"]))
def test_whatever_is_said_a_call_ends_with_an_answer_or_an_error_of_ours(said, call):
    peer = Peer()
    session = Session(Channel(peer.other, multiplexed=False), silence_s=0.2, patience_s=0.1)
    peer.say(*said)
    peer._socket.shutdown(socket.SHUT_WR)
    calls = {
        "run": lambda: run(session),
        "get": lambda: session.get("x", limit=10),
        "put": lambda: session.put("x", b"y", mode=0o600),
        "ping": session.ping,
        "list": lambda: session.listing("", depth=1),
        "tar": lambda: list(session.archive("out", [".*"], ArtifactLimits())),
    }

    with suppress(SandboxError, CommandOverdue):  # and nothing else
        calls[call]()

    session.close()
    peer.leave()
