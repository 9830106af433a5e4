"""What a person reads, on a terminal and in a pipe."""

from __future__ import annotations

import errno
import io
import time

import pytest

from launcher.console import Console
from launcher.problems import Problem, from_os_error


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_plain_lines_and_no_moving_one():
    out = io.StringIO()
    console = Console(out)

    console.progress("working", 0.5, time.monotonic())
    console.done("ready")

    assert out.getvalue() == "+ ready\n"


def test_a_terminal_gets_one_line_redrawn_in_place_and_cleared(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Terminal()
    console = Console(out)

    console.progress("working", 0.25, time.monotonic())
    console.progress("working", 0.75, time.monotonic())
    console.line("event")

    assert out.getvalue().count("\n") == 1
    assert "######..................]  25%" in out.getvalue()
    assert out.getvalue().endswith("\r\x1b[2Kevent\n")


def test_colours_can_be_switched_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")

    assert Console(Terminal()).paint("text", "red") == "text"


def test_characters_the_terminal_cannot_show_do_not_stop_the_launcher():
    raw = io.BytesIO()
    console = Console(io.TextIOWrapper(raw, encoding="ascii"))

    console.line("Größe 数")

    assert raw.getvalue() == b"Gr??e ?\n"


def test_a_problem_is_lines_then_a_sentence_then_a_step():
    out = io.StringIO()

    Console(out).explain(Problem("It broke.", step="Mend it.", lines=["a", "b"]))

    assert out.getvalue() == "  | a\n  | b\nx It broke.\n  Next: Mend it.\n"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "The disk is full (/data/x)."),
        (errno.EACCES, "refused access (/data/x)"),
        (errno.EROFS, "read-only (/data/x)"),
        (errno.EIO, "Input/output error (/data/x)"),
    ],
)
def test_what_the_operating_system_refuses_is_a_sentence(number: int, words: str):
    import os

    error = OSError(number, os.strerror(number), "/data/x")

    assert words in from_os_error(error).sentence
