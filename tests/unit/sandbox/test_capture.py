"""What the supervisor keeps of a command's output."""

from __future__ import annotations

import importlib
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.sandbox.images import IMAGES_FOLDER

MARK = b"::aos "


@pytest.fixture(scope="module")
def capture_of():
    """Makes a capture and the list of what it passes on, as (fd, data, skipped)."""
    sys.path.insert(0, str(IMAGES_FOLDER / "base"))
    try:
        kind = importlib.import_module("supervisor.capture").Capture
    finally:
        sys.path.pop(0)

    def make(head: int, tail: int, mark: bytes = b""):
        passed: list[tuple[int, bytes, int]] = []
        frame = {"head": head, "tail": tail, "mark": mark.decode()}
        capture = kind(lambda *piece: passed.append(piece), frame)
        return capture, passed

    return make


def text(passed, fd: int = 1) -> bytes:
    return b"".join(data for stream, data, _ in passed if stream == fd)


def lines_of(data: bytes) -> list[bytes]:
    return [line for line in data.split(b"\n") if line.startswith(MARK)]


chunks = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from(
            [b"\n", b"::aos {}\n", b"::a", b"os ", b"::aos x", b"word\n", b":", b"\n:"]
        ),
    ),
    max_size=30,
)


@given(chunks, st.sampled_from([b"", MARK]))
def test_output_within_the_limit_passes_unchanged(capture_of, said, mark):
    capture, passed = capture_of(100_000, 100_000, mark)

    for chunk in said:
        capture.feed(1, chunk)
    capture.finish()

    assert text(passed) == b"".join(said)
    assert capture.dropped == 0


@given(chunks, st.integers(0, 50), st.integers(1, 50))
def test_what_is_kept_and_what_is_dropped_add_up(capture_of, said, head, tail):
    capture, passed = capture_of(head, tail)

    for chunk in said:
        capture.feed(1, chunk)
    capture.finish()

    whole, kept = b"".join(said), text(passed)
    skipped = sum(skip for _, _, skip in passed)
    assert skipped == capture.dropped
    # At most the one line end that a cut needs is added.
    assert len(kept) + capture.dropped - len(whole) in {0, 1}
    assert whole.startswith(kept[: min(head, len(whole))])
    assert kept.endswith(whole[-min(tail, len(whole)) :] if whole else b"")


@given(chunks, st.integers(0, 50))
def test_marked_lines_come_once_and_in_order_however_they_are_cut(capture_of, said, head):
    capture, passed = capture_of(head, 30, MARK)

    for chunk in said:
        capture.feed(1, chunk)
    capture.finish()

    complete = b"".join(said).rpartition(b"\n")[0]
    assert lines_of(text(passed))[: len(lines_of(complete))] == lines_of(complete)


def test_a_marked_line_passes_at_once_in_a_flood(capture_of):
    capture, passed = capture_of(10, 100, MARK)
    capture.feed(1, b"x" * 100_000 + b"\n")
    capture.feed(1, b"noise\n::aos one\nnoise\n::ao")
    before = text(passed)
    capture.feed(1, b"s two\nnoise")

    assert lines_of(before) == [b"::aos one"]
    assert lines_of(text(passed)) == [b"::aos one", b"::aos two"]


def test_marks_on_standard_error_and_within_lines_are_no_marks(capture_of):
    capture, passed = capture_of(0, 10, MARK)
    capture.feed(1, b"begin\n" * 5000)
    passed.clear()

    capture.feed(2, b"::aos no\n")
    capture.feed(1, b"not here ::aos no\n")

    assert passed == []


def test_marked_lines_have_a_limit_each_and_together(capture_of):
    capture, passed = capture_of(0, 10, MARK)
    capture.feed(1, b"begin\n" * 5000)
    passed.clear()

    capture.feed(1, MARK + b"x" * 20_000 + b"\n")
    assert passed == []

    for _ in range(200):
        capture.feed(1, MARK + b"x" * 10_000 + b"\n")
    assert 1_000_000 < len(text(passed)) <= 1 << 20


def test_tiny_pieces_do_not_pile_up(capture_of):
    capture, _ = capture_of(0, 1 << 20)

    for _ in range(30_000):
        capture.feed(1, b"a")
        capture.feed(2, b"b")

    assert len(capture._tail) <= 4096
