"""The proxy as its sandbox meets it: one socket, checked requests, and an end to everything."""

from __future__ import annotations

import os
import socket
import threading
import time

import pytest

from apps.sandboxes.types import EgressMode
from tests.support.egress import PUBLIC, Server, Stage, ask, connect, head_of, status_of
from workers.sandbox.egress.doors import Doors
from workers.sandbox.egress.policy import Denial, Egress, Reason
from workers.sandbox.egress.proxy import Patience

HOST = "api.example.com"
ALLOW = Egress(mode=EgressMode.ALLOWLIST, allow=(HOST, "tls.example.com:8443"))
SHORT = Patience(head=0.5, dial=0.5, idle=0.5, farewell=0.5)


def echo(line: socket.socket) -> None:
    """Answers with the request it got, as the body."""
    got = head_of(line)
    length = int(dict(fields(got)).get("content-length", "0"))
    while len(got.partition(b"\r\n\r\n")[2]) < length:
        got += line.recv(65536)
    line.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + got)


def fields(head: bytes) -> list[tuple[str, str]]:
    lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
    return [(line.partition(": ")[0].lower(), line.partition(": ")[2]) for line in lines]


@pytest.fixture
def server():
    server = Server(echo)
    yield server
    server.close()


@pytest.fixture
def stage(server):
    return Stage(
        {HOST: [PUBLIC], "tls.example.com": [PUBLIC], "dead.example.com": [PUBLIC]},
        {(PUBLIC, 80): server.port, (PUBLIC, 8443): server.port},
    )


@pytest.fixture
def doors(tmp_path, stage):
    doors = Doors(tmp_path / "doors", internet=stage)
    yield doors
    doors.close_all()


@pytest.fixture
def impatient(tmp_path, stage):
    doors = Doors(tmp_path / "impatient", internet=stage, patience=SHORT)
    yield doors
    doors.close_all()


@pytest.fixture
def denials():
    return []


@pytest.fixture
def door(doors, denials):
    door = doors.open("box", ALLOW)
    door.watch(denials.append)
    return door


def test_a_listed_host_answers(door, server):
    answer = ask(door.folder, b"GET http://api.example.com/a?b=c HTTP/1.1\r\nHost: x\r\n\r\n")

    assert status_of(answer) == 200
    assert b"GET /a?b=c HTTP/1.1\r\nHost: api.example.com\r\n" in answer
    assert (server.count, door.traffic.connections) == (1, 1)
    assert door.traffic.received == len(answer)
    assert 0 < door.traffic.sent < len(answer)


def test_a_tunnel_carries_bytes_both_ways(door):
    with connect(door.folder) as line:
        line.sendall(b"CONNECT tls.example.com:8443 HTTP/1.1\r\nHost: tls.example.com:8443\r\n\r\n")
        assert line.recv(100) == b"HTTP/1.1 200 Connection established\r\n\r\n"
        line.sendall(b"anything at all\r\n\r\n")

        assert line.recv(65536).endswith(b"anything at all\r\n\r\n")
        assert line.recv(1) == b""


def test_an_unlisted_host_is_refused_and_told(door, denials, server, stage):
    answer = ask(door.folder, b"CONNECT evil.example.com:443 HTTP/1.1\r\n\r\n")

    assert status_of(answer) == 403
    assert b"X-AOS-Egress: not_listed" in answer
    assert denials == [Denial(host="evil.example.com", port=443, reason=Reason.NOT_LISTED)]
    assert (server.count, stage.asked, door.traffic.refused) == (0, [], 1)


def test_a_redirect_is_a_request_of_its_own(doors, denials, stage):
    def redirect(line):
        head_of(line)
        line.sendall(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\n\r\n")

    server = Server(redirect)
    stage.servers[PUBLIC, 80] = server.port
    door = doors.open("redirected", ALLOW)
    door.watch(denials.append)

    first = ask(door.folder, b"GET http://api.example.com/ HTTP/1.1\r\n\r\n")
    second = ask(door.folder, b"GET http://127.0.0.1:9/ HTTP/1.1\r\n\r\n")
    server.close()

    assert (status_of(first), status_of(second)) == (302, 403)
    assert [denial.host for denial in denials] == ["127.0.0.1"]


def test_a_second_request_on_the_same_line_is_not_passed_on(door, server):
    two = (
        b"GET http://api.example.com/ HTTP/1.1\r\n\r\nGET http://api.example.com/2 HTTP/1.1\r\n\r\n"
    )

    answer = ask(door.folder, two)

    assert answer.count(b"HTTP/1.1 200 OK") == server.count == 1
    assert b"/2" not in answer


def test_bodies_go_out_exactly_as_announced(door):
    plain = b"POST http://api.example.com/ HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloSMUGGLED"

    assert ask(door.folder, plain).endswith(b"\r\n\r\nhello")


def test_chunks_go_out_and_nothing_behind_them(doors, stage):
    got = []

    def collect(line):
        data = head_of(line)
        while b"0\r\n\r\n" not in data:
            data += line.recv(65536)
        got.append(data)
        line.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    server = Server(collect)
    stage.servers[PUBLIC, 80] = server.port
    door = doors.open("chunks", ALLOW)
    body = b"5;x=y\r\nhello\r\n3\r\nyou\r\n0\r\nTrailer: x\r\n\r\nGET / HTTP/1.1\r\n\r\n"
    head = b"POST http://api.example.com/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"

    answer = ask(door.folder, head + body)
    server.close()

    assert status_of(answer) == 204
    assert got[0].endswith(b"\r\n\r\n5\r\nhello\r\n3\r\nyou\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n",  # no proxy form
        b"GET https://api.example.com/ HTTP/1.1\r\n\r\n",
        b"GET ftp://api.example.com/ HTTP/1.1\r\n\r\n",
        b"GET file:///etc/passwd HTTP/1.1\r\n\r\n",
        b"GET http:/api.example.com/ HTTP/1.1\r\n\r\n",
        b"GET http://api.example.com/a#b HTTP/1.1\r\n\r\n",
        b"GET http://api.example.com\\@evil.com/ HTTP/1.1\r\n\r\n",
        b"GET http://api.example.com/ HTTP/2.0\r\n\r\n",
        b"GET http://api.example.com/ HTTP/1.1 \r\n\r\n",
        b"get http://api.example.com/ HTTP/1.1\r\n\r\n",
        b"GET  http://api.example.com/ HTTP/1.1\r\n\r\n",
        b"GET\thttp://api.example.com/ HTTP/1.1\r\n\r\n",
        b"GET http://api.example.com/ HTTP/1.1\nHost: x\r\n\r\n",
        b"GET http://api.example.com/ HTTP/1.1\r\nA : b\r\n\r\n",
        b"GET http://api.example.com/ HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        b"GET http://api.example.com/ HTTP/1.1\r\nA: b\rC: d\r\n\r\n",
        b"GET http://api.example.com/ HTTP/1.1\r\nA: \x00\r\n\r\n",
        b"POST http://api.example.com/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        b"POST http://api.example.com/ HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\na",
        b"POST http://api.example.com/ HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST http://api.example.com/ HTTP/1.1\r\nContent-Length: 0x1\r\n\r\na",
        b"POST http://api.example.com/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        b"POST http://api.example.com/ HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"POST http://api.example.com/ HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
        b"POST http://api.example.com/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"
        b"Transfer-Encoding: identity\r\n\r\n",
        b"CONNECT api.example.com HTTP/1.1\r\n\r\n",
        b"CONNECT http://api.example.com:443/ HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"\x05\x01\x00\r\n\r\n",
        b"GET http://api.example.com/" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_what_cannot_be_checked_goes_nowhere(door, server, denials, request_):
    answer = ask(door.folder, request_)

    assert status_of(answer) in {400, 403}
    assert server.count == 0
    assert len(denials) == 1


def test_a_broken_chunk_ends_the_line(door):
    head = b"POST http://api.example.com/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"

    for body in (b"zz\r\nab\r\n", b"2\r\nabc\r\n", b"-1\r\n", b"\r\n", b"fffffffff\r\n"):
        ask(door.folder, head + body)

    assert status_of(ask(door.folder, b"GET http://api.example.com/ HTTP/1.1\r\n\r\n")) == 200


def test_what_is_between_client_and_proxy_stays_there(door):
    answer = ask(
        door.folder,
        b"GET http://api.example.com/ HTTP/1.1\r\nHost: internal.example\r\nConnection: X-Hop, close\r\n"
        b"X-Hop: 1\r\nProxy-Authorization: Basic eA==\r\nUpgrade: websocket\r\nAccept: */*\r\n\r\n",
    )
    passed = fields(answer.partition(b"\r\n\r\n")[2])

    assert passed == [("host", HOST), ("accept", "*/*"), ("connection", "close")]


def test_a_length_that_calls_itself_hop_by_hop_is_passed_on_all_the_same(door):
    answer = ask(
        door.folder,
        b"POST http://api.example.com/ HTTP/1.1\r\nConnection: Content-Length\r\nContent-Length: 2\r\n\r\nhi",
    )

    assert ("content-length", "2") in fields(answer.partition(b"\r\n\r\n")[2])
    assert answer.endswith(b"\r\n\r\nhi")


def test_headers_can_be_put_on_outside_the_sandbox(tmp_path, stage):
    seen = []

    def dress(target, headers):
        seen.append((target.host, target.port))
        return [*headers, ("Authorization", "Bearer from-outside")]

    doors = Doors(tmp_path / "dressed", internet=stage, dress=dress)
    door = doors.open("box", ALLOW)
    answer = ask(door.folder, b"GET http://api.example.com/ HTTP/1.1\r\nAccept: x\r\n\r\n")
    refused = ask(door.folder, b"GET http://evil.example.com/ HTTP/1.1\r\n\r\n")
    doors.close_all()

    assert b"Authorization: Bearer from-outside" in answer
    assert b"from-outside" not in refused
    assert seen == [(HOST, 80)]


def test_a_name_that_changes_its_meaning_is_checked_each_time(door, stage, server, denials):
    get = b"GET http://api.example.com/ HTTP/1.1\r\n\r\n"

    before = ask(door.folder, get)
    stage.names[HOST] = ["127.0.0.1"]
    after = ask(door.folder, get)

    assert (status_of(before), status_of(after)) == (200, 403)
    assert server.count == 1
    assert [denial.reason for denial in denials] == [Reason.INTERNAL_ADDRESS]


def test_one_bad_address_among_good_ones_taints_the_name(door, stage, server):
    stage.names[HOST] = [PUBLIC, "10.0.0.1"]

    assert status_of(ask(door.folder, b"GET http://api.example.com/ HTTP/1.1\r\n\r\n")) == 403
    assert (server.count, stage.dialed) == (0, [])


def test_only_addresses_that_were_looked_at_are_dialed(door, stage):
    """A name server that answers differently the second time is never asked a second time."""
    ask(door.folder, b"GET http://api.example.com/ HTTP/1.1\r\n\r\n")

    assert stage.asked == [HOST]
    assert stage.dialed == [(PUBLIC, 80)]


@pytest.mark.parametrize("host", ["unknown.example.com", "dead.example.com"])
def test_a_host_that_does_not_answer_is_no_denial(doors, denials, host):
    door = doors.open("unreachable", Egress(mode=EgressMode.ALLOWLIST, allow=(f"{host}:9",)))
    door.watch(denials.append)
    doors._internet.servers[PUBLIC, 9] = 1  # nobody listens there

    answer = ask(door.folder, f"CONNECT {host}:9 HTTP/1.1\r\n\r\n".encode())

    assert status_of(answer) == 502
    assert denials == []


def test_bytes_are_counted_and_have_an_end(doors, denials, stage):
    def pour(line):
        head_of(line)
        line.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(64):
            line.sendall(b"x" * 65536)

    server = Server(pour)
    stage.servers[PUBLIC, 80] = server.port
    door = doors.open("poured", Egress(mode=EgressMode.ALLOWLIST, allow=(HOST,), in_mb=1))
    door.watch(denials.append)

    first = ask(door.folder, b"GET http://api.example.com/ HTTP/1.1\r\n\r\n")
    second = ask(door.folder, b"GET http://api.example.com/ HTTP/1.1\r\n\r\n")
    server.close()

    assert 900_000 < len(first) <= 1024 * 1024 + 65536
    assert status_of(second) == 403
    assert server.count == 1
    assert {denial.reason for denial in denials} == {Reason.TOO_MANY_BYTES}


def test_what_goes_out_is_counted_over_all_connections(doors, denials, server):
    door = doors.open("sent", Egress(mode=EgressMode.ALLOWLIST, allow=(HOST,), out_mb=1))
    door.watch(denials.append)
    head = b"POST http://api.example.com/ HTTP/1.1\r\nContent-Length: 400000\r\n\r\n"

    answers = [ask(door.folder, head + b"x" * 400_000) for _ in range(4)]

    assert [answer[:15] for answer in answers[:2]] == [b"HTTP/1.1 200 OK"] * 2
    assert status_of(answers[3]) == 403
    assert {denial.reason for denial in denials} == {Reason.TOO_MANY_BYTES}


def test_connections_at_once_have_an_end(doors, denials, stage):
    held = threading.Event()
    server = Server(lambda _: held.wait(10))
    stage.servers[PUBLIC, 8443] = server.port
    door = doors.open("many", Egress(mode=EgressMode.ALLOWLIST, allow=ALLOW.allow, connections=3))
    door.watch(denials.append)
    lines = [connect(door.folder) for _ in range(3)]
    for line in lines:
        line.sendall(b"CONNECT tls.example.com:8443 HTTP/1.1\r\n\r\n")
        assert status_of(line.recv(100)) == 200

    over = ask(door.folder, b"GET http://api.example.com/ HTTP/1.1\r\n\r\n")
    held.set()
    for line in lines:
        line.close()
    server.close()

    assert status_of(over) == 503
    assert [denial.reason for denial in denials] == [Reason.TOO_MANY_CONNECTIONS]


def test_a_silent_client_is_given_up(impatient):
    door = impatient.open("silent", ALLOW)
    with connect(door.folder) as line:
        line.sendall(b"GET http://api.exam")
        assert line.recv(10) == b""


def test_a_silent_tunnel_is_given_up(impatient, stage):
    held = threading.Event()
    server = Server(lambda _: held.wait(10))
    stage.servers[PUBLIC, 8443] = server.port
    door = impatient.open("idle", ALLOW)
    with connect(door.folder) as line:
        line.sendall(b"CONNECT tls.example.com:8443 HTTP/1.1\r\n\r\n")
        assert status_of(line.recv(100)) == 200
        assert line.recv(10) == b""
    held.set()
    server.close()


def test_clients_that_never_take_their_answer_gather_no_descriptors(impatient, stage):
    server = Server(lambda line: (head_of(line), line.sendall(b"x" * 4_000_000)))
    stage.servers[PUBLIC, 80] = server.port
    door = impatient.open("deaf", ALLOW)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count
    lines = [connect(door.folder) for _ in range(20)]
    for line in lines:
        line.sendall(b"GET http://api.example.com/ HTTP/1.1\r\n\r\n")

    until = time.monotonic() + 8
    held = before + 40
    while held > before + 25 and time.monotonic() < until:
        time.sleep(0.1)
        held = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count
    for line in lines:
        line.close()
    server.close()

    assert held <= before + 25  # our own twenty ends, and a few of other threads


def test_denials_are_told_up_to_a_number_and_counted_beyond(door, denials):
    for number in range(130):
        ask(door.folder, f"CONNECT h{number}.evil.com:443 HTTP/1.1\r\n\r\n".encode())

    assert len(denials) == 100
    assert door.traffic.refused == 130
    assert "130 refused" in str(door.traffic)


def test_nothing_is_left_of_a_door(doors, door, tmp_path):
    root = tmp_path / "doors"
    with connect(door.folder) as line:
        line.sendall(b"CONNECT tls.example.com:8443 HTTP/1.1\r\n\r\n")
        assert status_of(line.recv(100)) == 200

        doors.close("box")
        doors.close("box")

        assert line.recv(100) == b""
    assert list(root.iterdir()) == []
    assert doors.found() == frozenset()


def test_what_a_killed_worker_left_is_found_and_removed(tmp_path, doors):
    (tmp_path / "doors").mkdir(exist_ok=True)
    (tmp_path / "doors" / "orphan").mkdir()
    (tmp_path / "doors" / "orphan" / "proxy.sock").touch()

    assert doors.found() == {"orphan"}
    doors.close("orphan")
    assert doors.found() == frozenset()


def test_a_socket_lies_in_a_folder_of_any_length_and_strangers_of_the_host_cannot_reach_it(
    tmp_path, stage
):
    root = tmp_path / ("long" * 40)
    doors = Doors(root, internet=stage)
    door = doors.open("box", ALLOW)

    assert root.stat().st_mode & 0o777 == 0o700
    assert door.folder.stat().st_mode & 0o777 == 0o755
    assert (door.folder / "proxy.sock").is_socket()
    doors.close_all()
