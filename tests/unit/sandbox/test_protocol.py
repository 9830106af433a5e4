from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.sandbox import protocol
from workers.sandbox.errors import SandboxProtocolError

GOOD = [
    {"type": "hello", "v": 2, "pid": 7, "uid": 10001, "python": "3.11.2"},
    {"type": "out", "id": "1", "fd": 1, "seq": 0, "length": 3},
    {"type": "out", "id": "1", "fd": 2, "seq": 9, "length": 3, "skipped": 5},
    {
        "type": "exit",
        "id": "1",
        "code": 0,
        "signal": None,
        "timed_out": False,
        "oom": False,
        "wall_ms": 3,
        "truncated": False,
        "dropped": 0,
    },
    {"type": "data", "id": "2", "length": 262144},
    {"type": "done", "id": "2", "size": 0, "crc32": 0},
    {
        "type": "done",
        "id": "2",
        "size": 1 << 40,
        "crc32": 0xFFFFFFFF,
        "rejected": [{"name": "x", "reason": "symlink"}],
    },
    {"type": "failed", "id": "2", "code": "not_found", "detail": "No such file"},
    {
        "type": "listing",
        "id": "3",
        "entries": [{"name": "a", "kind": "file", "size": 1}],
        "truncated": False,
    },
    {"type": "info", "id": "3", "entry": {"name": "a", "kind": "file", "size": 1}},
    {"type": "pong", "id": "4"},
    {"type": "heartbeat"},
    {"type": "error", "detail": "what?"},
]

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.just("A" * 2000),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("frame", GOOD, ids=lambda frame: frame["type"])
def test_each_good_frame_is_read(frame):
    assert protocol.parse(json.dumps(frame).encode())


@pytest.mark.parametrize("frame", GOOD, ids=lambda frame: frame["type"])
def test_fields_of_a_newer_supervisor_are_ignored(frame):
    assert protocol.parse(json.dumps(frame | {"new": [1]}).encode()) == protocol.parse(
        json.dumps(frame).encode()
    )


@given(st.binary(max_size=300))
def test_any_bytes_are_a_frame_or_a_protocol_error(line):
    with suppress(SandboxProtocolError):  # and nothing else
        protocol.parse(line)


@given(st.sampled_from(GOOD), st.data())
def test_any_wrong_field_is_a_frame_or_a_protocol_error(frame, data):
    name = data.draw(st.sampled_from(sorted(frame)))
    if data.draw(st.booleans()):
        broken = {key: value for key, value in frame.items() if key != name}
    else:
        broken = frame | {name: data.draw(anything)}

    with suppress(SandboxProtocolError):
        protocol.parse(json.dumps(broken).encode())


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b'"hello"',
        b'{"type": "unknown"}',
        b'{"type": ["out"]}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"type": "pong", "id": ' + b"9" * 5000 + b"}",
        b'{"type": "out", "id": "1", "fd": 0, "seq": 0, "length": 3}',
        b'{"type": "out", "id": "1", "fd": 1, "seq": -1, "length": 3}',
        b'{"type": "out", "id": "1", "fd": 1, "seq": 0}',
        b'{"type": "out", "id": "1", "fd": 1, "seq": 0, "b64": "aGkK"}',
        b'{"type": "out", "id": "1", "fd": true, "seq": 0, "length": 3}',
        b'{"type": "out", "id": "1", "fd": 1.0, "seq": 0, "length": 3}',
        b'{"type": "done", "id": "1", "size": 1}',
        b'{"type": "done", "id": "1", "size": 1, "crc32": 4294967296}',
        b'{"type": "done", "id": "1", "size": -1, "crc32": 0}',
        b'{"type": "exit", "id": "1", "code": 0, "signal": 9, "timed_out": false, "oom": false, '
        b'"wall_ms": 1, "truncated": false, "dropped": 0}',
        b'{"type": "exit", "id": "1", "code": null, "signal": null, "timed_out": false, '
        b'"oom": false, "wall_ms": 1, "truncated": false, "dropped": 0}',
        b'{"type": "exit", "id": "1", "code": NaN, "signal": null}',
        b'{"type": "failed", "id": "1", "code": "x", "detail": "' + b"y" * 2000 + b'"}',
        b'{"type": "done", "id": "1", "size": 0, "crc32": 0, "rejected": "all"}',
        b'{"type": "done", "id": "1", "size": 0, "crc32": 0, "rejected": [1]}',
        json.dumps(
            {"type": "done", "id": "1", "size": 0, "crc32": 0, "rejected": [{}] * 1000}
        ).encode(),
        b"\xff\xfe{\x00}\x00",
    ],
)
def test_lies_are_protocol_errors(line):
    with pytest.raises(SandboxProtocolError):
        protocol.parse(line)


@pytest.mark.parametrize(
    "length", [0, -1, 262_145, 1 << 62, 10**400, 2.0, True, None, "3", [3], float("inf")], ids=repr
)
def test_a_length_that_cannot_be_is_a_protocol_error(length):
    for frame in (
        {"type": "data", "id": "1"},
        {"type": "out", "id": "1", "fd": 1, "seq": 0},
    ):
        with pytest.raises(SandboxProtocolError):
            protocol.parse(json.dumps(frame | {"length": length}).encode())


@given(
    st.lists(st.binary(min_size=1, max_size=40) | st.integers(0, 3), max_size=12),
    st.integers(1, 30),
)
def test_lines_and_bytes_are_told_apart_however_they_are_cut(sent, size):
    """Bytes stand for themselves after a line that says how many they are; a number is a line alone."""
    wanted = [each if isinstance(each, bytes) else b"%d" % each for each in sent]
    stream = b"".join(
        b"%d:\n%s" % (len(each), each) if isinstance(each, bytes) else b"%d\n" % each
        for each in sent
    )
    cut = iter([stream[at : at + size] for at in range(0, len(stream), size)])
    inbox = protocol.Inbox()

    def taken(ask):
        while (found := ask()) is None:
            inbox.feed(next(cut))
        return found

    read = []
    for _ in sent:
        line = taken(inbox.line)
        length = int(line[:-1]) if line.endswith(b":") else 0
        read.append(taken(lambda n=length: inbox.exactly(n)) if length else line)

    assert read == wanted
    assert next(cut, None) is None


def test_a_line_without_end_is_refused_before_it_fills_the_memory():
    inbox = protocol.Inbox()
    inbox.feed(b"x" * protocol.LINE_LIMIT)
    assert inbox.line() is None

    inbox.feed(b"x")
    with pytest.raises(SandboxProtocolError, match="longer than 1 MiB"):
        inbox.line()


def test_texts_become_storable():
    frame = protocol.parse(b'{"type": "error", "detail": "a\\u0000b\\ud800c"}')

    assert frame.detail == "a?b?c"
