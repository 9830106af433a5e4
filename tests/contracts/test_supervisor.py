"""The supervisor itself, spoken to line by line."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
import time
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

    def say(self, kind: str, **fields: object) -> None:
        self.raw(json.dumps({"type": kind, **fields}).encode() + b"\n")

    def raw(self, line: bytes) -> None:
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def hear(self, kind: str, ident: str | None = None) -> dict:
        """The next answer of that kind; others are skipped."""
        while True:
            frame = json.loads(self.process.stdout.readline())
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
    talk.say("hello", v=1)
    assert talk.hear("hello")["v"] == 1
    yield talk
    talk.end()


def output_of(talk: Talk, **fields: object) -> str:
    talk.say("exec", id="x", timeout_s=10, **fields)
    text = base64.b64decode(talk.hear("out", "x")["b64"]).decode()
    talk.hear("exit", "x")
    return text


def test_a_worker_of_another_version_is_told_so(tmp_path):
    talk = Talk(tmp_path)

    talk.say("exec", id="1", sh="true", timeout_s=1)
    assert "first line must be hello" in talk.hear("error")["detail"]
    talk.say("hello", v=2)
    assert "version 1, not 2" in talk.hear("error")["detail"]

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
        b'{"type": "tar_out", "id": "1"}\n',
    ],
)
def test_what_it_does_not_understand_is_an_error_and_not_its_end(talk, line):
    talk.raw(line)

    assert talk.hear("error")["detail"]
    talk.say("ping", id="2")
    assert talk.hear("pong", "2")


def test_a_line_without_end_ends_it(talk):
    talk.raw(b"x" * 1_100_000)

    assert talk.process.wait(5) == 1
    assert b"longer than 1 MiB" in talk.process.stderr.read()


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

    frames = [json.loads(talk.process.stdout.readline()) for _ in range(6)]

    assert time.monotonic() - started < 1.7
    codes = {frame["id"]: frame["code"] for frame in frames if frame["type"] == "exit"}
    assert codes == {"1": 1, "2": 2, "3": 3}


def test_a_command_that_ends_leaves_the_others_alone(talk):
    talk.say("exec", id="long", sh="sleep 1; echo alive", timeout_s=10)
    talk.say("exec", id="short", sh="sleep 60 & exit 0", timeout_s=10)

    assert talk.hear("exit", "short")["code"] == 0
    assert talk.hear("out", "long")["b64"] == base64.b64encode(b"alive\n").decode()


def test_too_many_commands_at_once_are_refused(talk):
    for number in range(9):
        talk.say("exec", id=str(number), sh="sleep 60", timeout_s=100)

    assert talk.hear("failed") | {"detail": ""} == {
        "type": "failed",
        "id": "8",
        "code": "busy",
        "detail": "",
    }


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


def test_it_says_when_it_has_nothing_to_say(talk):
    assert talk.hear("heartbeat") == {"type": "heartbeat"}
