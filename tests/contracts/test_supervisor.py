"""The supervisor itself, spoken to frame by frame."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.sandbox.local import SUPERVISOR


class Talk:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(SUPERVISOR)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
        )
        # An answer that does not come fails a test instead of holding the suite.
        self.watchdog = threading.Timer(20, self.process.kill)
        self.watchdog.start()

    def say(self, kind: str, body: bytes = b"", **fields: object) -> None:
        if body:
            fields["length"] = len(body)
        self.raw(json.dumps({"type": kind, **fields}).encode() + b"\n" + body)

    def raw(self, line: bytes) -> None:
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def next(self) -> dict:
        """The next answer, with the bytes that followed it as ``body``."""
        frame = json.loads(self.process.stdout.readline())
        return frame | {"body": self.process.stdout.read(frame.get("length", 0))}

    def hear(self, kind: str, ident: str | None = None) -> dict:
        """The next answer of that kind; others are skipped."""
        while True:
            frame = self.next()
            if frame["type"] == kind and ident in {None, frame.get("id")}:
                return frame

    def end(self) -> None:
        self.watchdog.cancel()
        if not self.process.stdin.closed:
            self.process.stdin.close()
        self.process.wait(5)
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture
def talk(tmp_path) -> Iterator[Talk]:
    talk = Talk(tmp_path)
    talk.say("hello", v=2)
    assert talk.hear("hello")["v"] == 2
    yield talk
    talk.end()


def output_of(talk: Talk, **fields: object) -> str:
    talk.say("exec", id="x", timeout_s=10, **fields)
    text = talk.hear("out", "x")["body"].decode()
    talk.hear("exit", "x")
    return text


def test_a_worker_of_another_version_is_told_so(tmp_path):
    talk = Talk(tmp_path)

    talk.say("exec", id="1", sh="true", timeout_s=1)
    assert "first line must be hello" in talk.hear("error")["detail"]
    talk.say("hello", v=1)
    assert "version 2, not 1" in talk.hear("error")["detail"]

    talk.end()


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense\n",
        b"\n",
        b"[]\n",
        b'"x"\n',
        b"{}\n",
        b'{"type": "explode"}\n',
        b'{"type": "exec"}\n',
        b'{"type": "exec", "id": "1", "argv": ["true"]}\n',
        b'{"type": "exec", "id": "1", "argv": ["true"], "timeout_s": "soon"}\n',
        b'{"type": "put", "id": "1", "path": 7}\n',
        b'{"type": "put", "id": "1", "path": "x", "length": "3"}\n',
        b'{"type": "put", "id": "1", "path": "x", "length": 1e999}\n',
        b'{"type": "tar_out", "id": "1"}\n',
    ],
)
def test_what_it_does_not_understand_is_an_error_and_not_its_end(talk, line):
    talk.raw(line)

    assert talk.hear("error")["detail"]
    talk.say("ping", id="2")
    assert talk.hear("pong", "2")


def test_a_line_without_end_ends_it(talk):
    talk.raw(b"x" * 2_200_000)

    assert talk.process.wait(5) == 1
    assert b"longer than 2 MiB" in talk.process.stderr.read()


def test_the_end_of_the_line_ends_it_and_its_commands(talk, tmp_path):
    talk.say("exec", id="1", sh="trap '' TERM; touch started; sleep 60", timeout_s=100)
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    started = time.monotonic()

    talk.process.stdin.close()

    assert talk.process.wait(5) == 0
    assert time.monotonic() - started < 2


def test_words_or_a_shell_line_can_be_run(talk):
    assert output_of(talk, argv=["echo", "a  b"]) == "a  b\n"
    assert output_of(talk, sh="echo $((1 + 1))") == "2\n"


def test_commands_run_side_by_side_and_are_told_apart(talk):
    for ident in ("1", "2", "3"):
        talk.say("exec", id=ident, sh=f"sleep 0.6; echo {ident}; exit {ident}", timeout_s=10)
    started = time.monotonic()

    frames = [talk.next() for _ in range(6)]

    assert time.monotonic() - started < 1.7
    codes = {frame["id"]: frame["code"] for frame in frames if frame["type"] == "exit"}
    assert codes == {"1": 1, "2": 2, "3": 3}


def test_a_command_that_ends_leaves_the_others_alone(talk):
    talk.say("exec", id="long", sh="sleep 1; echo alive", timeout_s=10)
    talk.say("exec", id="short", sh="sleep 60 & exit 0", timeout_s=10)

    assert talk.hear("exit", "short")["code"] == 0
    assert talk.hear("out", "long")["body"] == b"alive\n"


def test_too_many_commands_at_once_are_refused(talk):
    for number in range(9):
        talk.say("exec", id=str(number), sh="sleep 60", timeout_s=100)

    failed = talk.hear("failed")

    assert (failed["id"], failed["code"]) == ("8", "busy")


def test_one_id_is_one_command(talk):
    talk.say("exec", id="1", sh="sleep 60", timeout_s=100)
    talk.say("exec", id="1", sh="true", timeout_s=100)

    assert "is running" in talk.hear("error")["detail"]


def test_a_signal_reaches_the_command_and_what_it_started(talk):
    talk.say("exec", id="1", sh="trap 'exit 7' INT; echo ready; sleep 60 & wait", timeout_s=100)
    talk.hear("out", "1")

    talk.say("signal", id="1", sig="INT")

    assert talk.hear("exit", "1")["code"] == 7
    talk.say("signal", id="1", sig="INT")
    talk.say("signal", id="1", sig="SEGV")
    assert talk.hear("failed", "1")["code"] == "refused"


def test_a_name_is_described(talk, tmp_path):
    (tmp_path / "file").write_bytes(b"12345")

    talk.say("stat", id="1", path="file")
    entry = talk.hear("info", "1")["entry"]

    assert (entry["name"], entry["kind"], entry["size"]) == ("file", "file", 5)
    talk.say("stat", id="2", path="nothing")
    assert talk.hear("failed", "2")["code"] == "not_found"


def test_a_long_listing_is_cut(talk, tmp_path):
    for number in range(8000):
        (tmp_path / f"{number:05}-{'x' * 40}").touch()

    talk.say("list", id="1", depth=2)
    listing = talk.hear("listing", "1")

    assert listing["truncated"]
    assert 1000 < len(listing["entries"]) < 8000


def test_a_tree_without_end_is_refused_at_its_depth(talk, tmp_path):
    deep = tmp_path / "out" / "/".join("d" * 20)
    deep.mkdir(parents=True)
    (deep / "file").touch()

    limits = {"file_limit": 100, "total_limit": 100, "count_limit": 10}
    talk.say("tar_out", id="1", base="out", patterns=[".*"], **limits)

    assert [item["reason"] for item in talk.hear("done", "1")["rejected"]] == ["too_deep"]


def test_a_file_that_shrinks_while_it_is_read_is_told(talk, tmp_path):
    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / "shrinking").open("wb") as file:
        file.truncate(300_000_000)
        limits = {"file_limit": 1 << 30, "total_limit": 1 << 30, "count_limit": 10}
        talk.say("tar_out", id="1", base="out", patterns=[".*"], **limits)
        talk.hear("data", "1")
        file.truncate(100)

    told = talk.hear("done", "1")["rejected"]

    assert told == [{"name": "shrinking", "reason": "changed_while_read"}]


@pytest.mark.parametrize("length", [-1, 524_289, 1 << 40])
def test_an_announcement_that_cannot_be_ends_it(talk, length):
    talk.raw(b'{"type": "put", "id": "1", "path": "x", "length": %d}\n' % length)

    assert talk.process.wait(5) == 1
    assert b"more than 512 KiB" in talk.process.stderr.read()


def test_bytes_are_taken_as_they_are_however_they_are_cut(talk, tmp_path):
    content = b'{"type": "ping", "id": "9"}\n\0\xff' * 20
    frame = b'{"type": "put", "id": "1", "path": "x", "length": %d}\n' % len(content) + content

    for at in range(0, len(frame), 7):
        talk.raw(frame[at : at + 7])
    end = talk.next()

    assert (tmp_path / "x").read_bytes() == content
    assert (end["type"], end["size"], end["crc32"]) == ("done", len(content), zlib.crc32(content))


def test_a_file_that_does_not_fit_is_told_at_its_end(talk, tmp_path):
    (tmp_path / "x").mkdir()
    for more in (True, True, False):
        talk.say("put", b"y" * 262_144, id="1", path="x", more=more)

    assert talk.hear("failed", "1")["code"] == "io"
    talk.say("put", b"fine", id="2", path="y")
    assert talk.hear("done", "2")["size"] == 4


def test_a_file_comes_in_pieces_and_is_not_read_ahead(talk, tmp_path):
    content = os.urandom(30_000_000)
    (tmp_path / "big").write_bytes(content)
    talk.say("get", id="1", path="big", limit=len(content))
    time.sleep(0.3)  # as long as it likes: nobody takes what it reads
    resident = int((Path("/proc") / str(talk.process.pid) / "statm").read_text().split()[1])

    read = bytearray()
    while (frame := talk.next())["type"] == "data":
        read += frame["body"]

    assert read == content
    assert (frame["size"], frame["crc32"]) == (len(content), zlib.crc32(content))
    assert resident * os.sysconf("SC_PAGE_SIZE") < 25_000_000


def test_a_ping_is_answered_while_a_file_is_on_its_way_out(talk, tmp_path):
    (tmp_path / "big").write_bytes(bytes(30_000_000))
    talk.say("get", id="1", path="big", limit=1 << 30)
    talk.hear("data", "1")

    talk.say("ping", id="2")
    kinds = []
    while not kinds or kinds[-1] != "done":
        kinds.append(talk.next()["type"])

    assert "pong" in kinds[:-2]


def test_a_ping_is_answered_while_many_files_are_looked_at(talk, tmp_path):
    (tmp_path / "out").mkdir()
    for number in range(20_000):
        (tmp_path / "out" / f"{number}").touch()
    limits = {"file_limit": 100, "total_limit": 100, "count_limit": 10}

    talk.say("tar_out", id="1", base="out", patterns=["none"], **limits)
    talk.say("ping", id="2")

    assert [talk.next()["type"] for _ in range(2)] == ["pong", "data"]


def test_a_file_that_grows_beyond_what_was_asked_for_is_refused(talk, tmp_path):
    with (tmp_path / "growing").open("wb") as file:
        file.truncate(30_000_000)
        talk.say("get", id="1", path="growing", limit=30_000_000)
        talk.hear("data", "1")
        file.truncate(60_000_000)
        sent = 0
        while (frame := talk.next())["type"] == "data":
            sent += frame["length"]

    assert frame["code"] == "too_large"
    assert sent <= 30_000_000


def test_it_says_when_it_has_nothing_to_say(talk):
    assert talk.hear("heartbeat") == {"type": "heartbeat", "body": b""}
