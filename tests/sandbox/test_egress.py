"""The way out of a real container: one socket, one proxy, and still no network interface."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from uuid import uuid4

import pytest

from apps.sandboxes.types import EgressMode
from tests.contracts.engine import IMAGE, INSTANCE, required_driver, small_spec
from tests.contracts.sandbox_driver import becomes_true, found_by, python, said, sh
from tests.support.egress import PUBLIC, Server, Stage, head_of
from workers.sandbox.base import Outcome
from workers.sandbox.egress.doors import Doors
from workers.sandbox.egress.policy import Egress, Reason
from workers.sandbox.errors import ImageUnfit, SandboxExists, SandboxLost, SandboxUnavailable

pytestmark = pytest.mark.docker

HOST = "api.example.com"
ALLOW = Egress(mode=EgressMode.ALLOWLIST, allow=(HOST,))
FETCH = (
    "import sys, urllib.request, urllib.error\n"
    "for url in sys.argv[1:]:\n"
    "    try: print(urllib.request.urlopen(url, timeout=20).read().decode())\n"
    "    except urllib.error.HTTPError as error: print(error.code, error.headers['X-AOS-Egress'])\n"
    "    except OSError as error: print(type(error).__name__, error)\n"
)


def answer(line):
    head_of(line)
    line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nhello sandbox")


@pytest.fixture
def server():
    server = Server(answer)
    yield server
    server.close()


@pytest.fixture
def doors(tmp_path, server):
    return Doors(
        tmp_path / "doors",
        internet=Stage({HOST: [PUBLIC], "inside.example.com": ["127.0.0.1"]}, {(PUBLIC, 80): server.port}),
    )  # fmt: skip


@pytest.fixture
def connected(doors, driver):
    """A driver of its own doors; its sandboxes are of the same instance as the suite's."""
    connected = required_driver(doors=doors)
    yield connected
    assert doors.found() == frozenset()
    connected.close()


@pytest.fixture
def box(connected):
    with connected.start(small_spec(egress=ALLOW), sandbox_id=str(uuid4())) as box:
        yield box


def fetched(box, *urls: str) -> list[str]:
    box.put_files({"fetch.py": FETCH.encode()})
    return said(box, sh(f"python3 fetch.py {' '.join(urls)}")).splitlines()


def test_a_listed_host_is_reached_and_no_other(box, server):
    denials = []
    box.watch_egress(denials.append)

    told = fetched(
        box,
        f"http://{HOST}/",
        "http://evil.example.com/",
        "http://169.254.169.254/latest/meta-data",
        "http://2130706433/",
        f"https://{HOST}:8443/",
    )

    assert told[:4] == ["hello sandbox", "403 not_listed", "403 not_listed", "403 odd_spelling"]
    assert "403 Forbidden" in told[4]
    assert [denial.reason for denial in denials] == [
        *(Reason.NOT_LISTED, Reason.NOT_LISTED, Reason.ODD_SPELLING, Reason.NOT_LISTED)
    ]
    assert server.count == 1
    assert box.traffic().connections == 1
    assert box.traffic().refused == 4


def test_there_is_still_no_interface_and_no_name_server(box):
    told = said(
        box,
        python(
            "import json, os, socket\n"
            "def tried(address):\n"
            "    try: socket.create_connection(address, timeout=3)\n"
            "    except OSError as error: return type(error).__name__ + str(error.errno)\n"
            "    return 'connected'\n"
            "print(json.dumps({'links': os.listdir('/sys/class/net'),\n"
            "  'out': tried(('192.0.2.1', 80)), 'host': tried(('172.17.0.1', 22)),\n"
            "  'name': tried(('example.com', 80))}))"
        ),
    )

    found = json.loads(told)
    assert found["links"] == ["lo"]
    assert found["out"] == found["host"] == "OSError101"
    assert found["name"].startswith("gaierror")


def test_the_socket_can_be_spoken_to_and_not_replaced(box):
    socket = "/run/aos-egress/proxy.sock"

    assert said(box, sh(f"test -S {socket} && ls -A /run/aos-egress")) == "proxy.sock\n"
    for attempt in (
        f"rm -f {socket}",
        "touch /run/aos-egress/x",
        f"mv {socket} /tmp/",
        f"chmod 0 {socket}",
    ):
        assert box.run(sh(attempt)).wait().outcome == Outcome.FAILED, attempt


def test_speaking_to_the_socket_past_the_forwarder_changes_nothing(box):
    told = said(
        box,
        python(
            "import socket\n"
            "line = socket.socket(socket.AF_UNIX); line.connect('/run/aos-egress/proxy.sock')\n"
            "line.sendall(b'CONNECT 127.0.0.1:22 HTTP/1.1\\r\\n\\r\\n')\n"
            "print(line.recv(12).decode())"
        ),
    )

    assert told == "HTTP/1.1 403\n"


def test_a_large_answer_comes_through_whole(connected, doors):
    size = 20 * 1024 * 1024
    server = Server(
        lambda line: (
            head_of(line),
            line.sendall(b"HTTP/1.1 200 OK\r\n\r\n"),
            line.sendall(b"x" * size),
        )
    )
    doors._internet.servers[PUBLIC, 80] = server.port
    script = f"import urllib.request; print(len(urllib.request.urlopen('http://{HOST}/').read()))"
    with connected.start(small_spec(egress=ALLOW), sandbox_id=str(uuid4())) as box:
        assert said(box, python(script)) == f"{size}\n"
    server.close()


def test_many_connections_at_once_are_forwarded(box, server):
    script = (
        "import concurrent.futures, urllib.request\n"
        f"get = lambda _: urllib.request.urlopen('http://{HOST}/').read()\n"
        "with concurrent.futures.ThreadPoolExecutor(16) as pool:\n"
        "    print(set(pool.map(get, range(96))))\n"
    )

    assert said(box, python(script)) == "{b'hello sandbox'}\n"
    assert server.count == 96


def test_commands_end_and_the_forwarder_stays(box):
    said(box, sh("sleep 0.05 & sleep 0.05 & true"))

    assert fetched(box, f"http://{HOST}/") == ["hello sandbox"]


def test_a_forwarder_that_its_own_sandbox_kills_ends_the_sandbox_and_nobody_else(connected):
    with (
        connected.start(small_spec(egress=ALLOW), sandbox_id=str(uuid4())) as one,
        connected.start(small_spec(egress=ALLOW), sandbox_id=str(uuid4())) as other,
    ):
        with pytest.raises(SandboxLost):
            one.run(sh("kill -9 -1; sleep 5")).wait()
        assert fetched(other, f"http://{HOST}/") == ["hello sandbox"]


def test_a_sandbox_without_egress_has_no_way_out_at_all(connected):
    with connected.start(small_spec(), sandbox_id=str(uuid4())) as box:
        assert box.traffic() is None
        assert said(box, sh("env | grep -i proxy || ls /run/aos-egress 2>&1 || :")).endswith(
            "No such file or directory\n"
        )


def test_an_id_is_used_once_even_when_only_its_folder_is_left(connected, doors):
    door = doors.open("taken", ALLOW)

    with pytest.raises(SandboxExists):
        connected.start(small_spec(egress=ALLOW), sandbox_id="taken")

    assert door.folder.exists()
    doors.close("taken")


def test_a_driver_without_doors_says_that_it_cannot(driver):
    with pytest.raises(SandboxUnavailable, match="ways out"):
        driver.start(small_spec(egress=ALLOW), sandbox_id=str(uuid4()))


def test_a_killed_worker_leaves_no_socket_behind(connected, doors):
    program = textwrap.dedent(
        f"""
        import os, pathlib, signal
        from apps.sandboxes.types import EgressMode
        from workers.sandbox.base import SandboxSpec
        from workers.sandbox.docker import DockerDriver
        from workers.sandbox.egress.doors import Doors
        from workers.sandbox.egress.policy import Egress
        doors = Doors(pathlib.Path({str(doors._root)!r}))
        driver = DockerDriver(instance={INSTANCE!r}, doors=doors)
        egress = Egress(mode=EgressMode.OPEN)
        driver.start(SandboxSpec(image={IMAGE!r}, egress=egress), sandbox_id="orphan")
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    subprocess.run([sys.executable, "-c", program], check=False, env={**os.environ})

    assert doors.found() == {"orphan"}
    assert connected.reap(lambda _: frozenset()) == 1
    assert doors.found() == frozenset()
    assert becomes_true(lambda: "orphan" not in found_by(connected))


def test_the_reaper_removes_a_folder_whose_container_was_never_made(connected, doors):
    doors._root.mkdir(parents=True)
    (doors._root / "half-made").mkdir()

    assert connected.reap(lambda found: found & {"somebody"}) == 1
    assert doors.found() == frozenset()


def test_an_image_that_cannot_forward_is_unfit_and_leaves_nothing(connected, engine):
    tag = f"aos/deaf-{uuid4().hex[:8]}"
    made = engine.create_container(IMAGE, ["rm", "/opt/aos/forward.py"], user="0")
    try:
        engine.start(made)
        engine.wait(made)
        engine.commit(made, repository=tag)
        with pytest.raises(ImageUnfit):
            connected.start(small_spec(image=tag, egress=ALLOW), sandbox_id="deaf")
    finally:
        engine.remove_container(made, force=True)
        engine.remove_image(tag, force=True)

    assert "deaf" not in found_by(connected)
