"""What the server in front of us lets pass, over plain sockets: heads without end, slow bodies, forged hosts."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from launcher import procfile
from tests.support.servers import PROJECT

pytestmark = [pytest.mark.processes, pytest.mark.slow]


@pytest.fixture
def web(platform):
    platform.overrides["AOS_BODY_SECONDS"] = "1"
    url = platform.web()
    return urlsplit(url).port, platform.processes[-1].pid


def say(port, *pieces, timeout=10.0):
    """Send these bytes and return what comes back until the server closes or is done."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as line:
        try:
            for piece in pieces:
                line.sendall(piece)
            answer = b""
            while chunk := line.recv(65536):
                answer += chunk
                if b"\r\n\r\n" in answer and b"connection: close" not in answer.lower():
                    break
        except (ConnectionResetError, BrokenPipeError):
            return b"closed"
    return answer


def peak_kb(pid):
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


def test_a_head_without_end_is_cut_off_and_costs_no_memory(web):
    port, pid = web
    before = peak_kb(pid)
    line = b"X-Long: " + b"a" * 8_000 + b"\r\n"

    answer = say(port, b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n", *[line] * 10_000)

    assert answer == b"closed" or b" 400 " in answer.splitlines()[0]
    assert peak_kb(pid) - before < 20_000


REFUSED = [
        (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b" 414 "),
        (b"GET /?" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b" 414 "),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X-A: b\r\n" * 101 + b"\r\n", b" 431 "),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: " + b"a" * 40_000 + b"\r\n\r\n", b" 431 "),
        (b"GET /api/me HTTP/1.1\r\nHost: evil.example\r\n\r\n", b" 400 "),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n\r\n", b" 400 "),
        (b"GET / HTTP/1.1\r\n\r\n", b" 400 "),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX A: b\r\n\r\n", b" 400 "),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-A: a\rb\r\n\r\n", b" 400 "),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", b" 400 "),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n", b" 400 "),
        (b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked, x\r\n\r\n", b" 400 ", b" 501 "),
        (b"POST /api/run HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999\r\n\r\n", b" 413 "),
        (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + b"\x00" * 64 + b"\r\n\r\n", b" 400 "),
]  # fmt: skip


def test_a_head_that_says_too_much_or_two_things_is_refused(web):
    firsts = [say(web[0], head).splitlines()[0] for head, *_ in REFUSED]

    wrong = {
        first: head[:80]
        for first, (head, *told) in zip(firsts, REFUSED, strict=True)
        if not any(word in first for word in told)
    }
    assert wrong == {}


def test_a_body_that_does_not_come_is_not_waited_for(web):
    head = b"POST /api/run HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{"

    answer = say(web[0], head)

    assert b" 408 " in answer.splitlines()[0]
    assert b"body_too_slow" in answer


def test_the_procfile_starts_the_server_that_was_tested():
    words = procfile.read(PROJECT / "Procfile")["web"]

    assert "--http h11 --h11-max-incomplete-event-size 65536" in words
