from __future__ import annotations

import base64
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.sandbox import protocol
from workers.sandbox.errors import SandboxProtocolError

GOOD = [
    {"type": "hello", "v": 1, "pid": 7, "uid": 10001, "python": "3.11.2"},
    {"type": "out", "id": "1", "fd": 1, "seq": 0, "b64": "aGkK"},
    {"type": "out", "id": "1", "fd": 2, "seq": 9, "b64": "aGkK", "skipped": 5},
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
    {"type": "data", "id": "2", "seq": 0, "b64": "AA=="},
    {"type": "done", "id": "2"},
    {"type": "done", "id": "2", "rejected": [{"name": "x", "reason": "symlink"}]},
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
        b'{"type": "out", "id": "1", "fd": 0, "seq": 0, "b64": "aGkK"}',
        b'{"type": "out", "id": "1", "fd": 1, "seq": -1, "b64": "aGkK"}',
        b'{"type": "out", "id": "1", "fd": 1, "seq": 0, "b64": ""}',
        b'{"type": "out", "id": "1", "fd": 1, "seq": 0, "b64": "a"}',
        b'{"type": "out", "id": "1", "fd": 1, "seq": 0, "b64": "\xc3\xa4aaa"}',
        b'{"type": "out", "id": "1", "fd": true, "seq": 0, "b64": "aGkK"}',
        b'{"type": "out", "id": "1", "fd": 1.0, "seq": 0, "b64": "aGkK"}',
        b'{"type": "exit", "id": "1", "code": 0, "signal": 9, "timed_out": false, "oom": false, '
        b'"wall_ms": 1, "truncated": false, "dropped": 0}',
        b'{"type": "exit", "id": "1", "code": null, "signal": null, "timed_out": false, '
        b'"oom": false, "wall_ms": 1, "truncated": false, "dropped": 0}',
        b'{"type": "exit", "id": "1", "code": NaN, "signal": null}',
        b'{"type": "failed", "id": "1", "code": "x", "detail": "' + b"y" * 2000 + b'"}',
        b'{"type": "done", "id": "1", "rejected": "all"}',
        b'{"type": "done", "id": "1", "rejected": [1]}',
        json.dumps({"type": "done", "id": "1", "rejected": [{}] * 1000}).encode(),
        b"\xff\xfe{\x00}\x00",
    ],
)
def test_lies_are_protocol_errors(line):
    with pytest.raises(SandboxProtocolError):
        protocol.parse(line)


def test_too_much_data_in_one_frame_is_refused():
    b64 = base64.b64encode(b"x" * 600_000).decode()

    with pytest.raises(SandboxProtocolError, match="longer"):
        protocol.parse(json.dumps({"type": "data", "id": "1", "seq": 0, "b64": b64}).encode())


def test_texts_become_storable():
    frame = protocol.parse(b'{"type": "error", "detail": "a\\u0000b\\ud800c"}')

    assert frame.detail == "a?b?c"
