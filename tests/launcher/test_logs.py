"""Logs: kept small, shown from their ends, followed across rotation."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import pytest

from launcher import follow, rotation
from launcher.console import Console
from launcher.files import append_handle
from launcher.follow import Source
from launcher.home import Home
from launcher.problems import tail


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "web.log"


def test_a_log_below_its_limit_is_left_alone(log: Path):
    log.write_text("short")

    assert rotation.rotate(log, largest=10) is False
    assert [path.name for path in log.parent.iterdir()] == ["web.log"]


def test_a_full_log_is_kept_under_a_number_and_starts_anew(log: Path):
    for number in range(5):
        log.write_text(f"text {number} " * 10)
        assert rotation.rotate(log, largest=10, kept=3) is True

    assert sorted(path.name for path in log.parent.iterdir()) == [
        "web.log",
        "web.log.1",
        "web.log.2",
        "web.log.3",
    ]
    assert log.read_text() == ""
    assert (log.parent / "web.log.1").read_text().startswith("text 4")
    assert (log.parent / "web.log.3").read_text().startswith("text 2")
    assert stat.S_IMODE((log.parent / "web.log.1").stat().st_mode) == 0o600


def test_a_writer_goes_on_at_the_new_end_after_a_rotation(log: Path):
    writer = append_handle(log)
    os.write(writer, b"before" * 10)
    rotation.rotate(log, largest=10)

    os.write(writer, b"after")
    os.close(writer)

    assert log.read_bytes() == b"after"


def test_a_log_that_is_not_there_is_not_rotated(log: Path):
    assert rotation.rotate(log) is False


def test_the_tail_is_the_last_lines_and_skips_empty_ones(log: Path):
    log.write_text("".join(f"line {number}\n\n" for number in range(100)))

    assert tail(log, 2) == ["line 98", "line 99"]


def test_the_tail_of_a_huge_log_with_broken_characters_is_read_quickly(log: Path):
    with log.open("wb") as file:
        file.truncate(2**30)
        file.seek(0, 2)
        file.write(b"\xff\xfelast\n")

    assert tail(log, 1)[0].endswith("last")


def test_half_a_line_is_shown_when_it_is_whole(log: Path):
    source = Source(log, "red", 0)
    log.write_text("one\ntw")
    assert source.read() == ["one"]

    log.write_text("one\ntwo\n")
    assert source.read() == ["two"]


def test_a_rotated_log_is_followed_from_its_new_start(log: Path):
    source = Source(log, "red", 0)
    log.write_text("a long line of text\n")
    source.read()
    rotation.rotate(log, largest=1)

    log.write_text("new\n")

    assert source.read() == ["new"]


def test_following_shows_the_ends_first_with_the_names_of_processes(tmp_path: Path):
    state = tmp_path / ".aos"
    place = Home(project=tmp_path, state=state, servers=state, sockets=state, account=None)
    place.prepare()
    place.log("web").write_text("".join(f"web {number}\n" for number in range(9)))
    place.log("engine-1").write_text("engine\n")
    out = io.StringIO()

    follow.follow(place, Console(out), turns=1)

    lines = out.getvalue().splitlines()
    assert lines[0] == "    engine-1 | engine"
    assert lines[1:] == [f"         web | web {number}" for number in range(4, 9)]
