"""What every place for audit checkpoints must do.

Inherit ``CheckpointSinkContract`` and give it the fixture ``place``: a ``Place`` that knows the sink
and what really arrived. A new sink is done when this passes unchanged.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import pytest

from apps.events.errors import SinkAway, SinkConflict
from apps.events.sinks.base import Checkpoint, CheckpointSink

SECRET = "hunter2-very-secret"  # noqa: S105  # what must show nowhere


class Place(Protocol):
    """A sink with a view from the other side."""

    sink: CheckpointSink

    def kept(self) -> list[str]:
        """What the other side has, in the order of the numbers."""

    def go_away(self) -> None: ...

    def come_back(self) -> None: ...


def checkpoint(number, word="é"):
    body = f'{{"body": {{"number": {number}, "word": "{word}"}}, "signature": "00"}}'
    return Checkpoint(number=number, line=body)


class CheckpointSinkContract:
    def test_what_is_put_is_kept_word_for_word_and_in_order(self, place):
        put = [checkpoint(number) for number in range(1, 13)]

        for each in put:
            place.sink.put(each)

        assert place.kept() == [each.line for each in put]

    def test_what_is_put_again_is_kept_once(self, place):
        for number in (1, 2, 2, 1, 3):
            place.sink.put(checkpoint(number))

        assert place.kept() == [checkpoint(number).line for number in (1, 2, 3)]

    def test_another_checkpoint_under_a_number_is_refused_and_replaces_nothing(self, place):
        for number in (1, 2, 3):
            place.sink.put(checkpoint(number))

        with pytest.raises(SinkConflict) as caught:
            place.sink.put(checkpoint(2, word="forged"))

        assert caught.value.held in {2, 3}
        assert place.kept() == [checkpoint(number).line for number in (1, 2, 3)]

    def test_a_higher_number_is_taken_after_a_conflict(self, place):
        place.sink.put(checkpoint(1))
        with pytest.raises(SinkConflict) as caught:
            place.sink.put(checkpoint(1, word="forged"))

        place.sink.put(checkpoint(caught.value.held + 1))

        assert place.kept() == [checkpoint(1).line, checkpoint(2).line]

    def test_while_it_is_away_it_says_so_and_afterwards_it_takes_all(self, place):
        place.sink.put(checkpoint(1))
        place.go_away()

        with pytest.raises(SinkAway) as caught:
            place.sink.put(checkpoint(2))

        assert str(caught.value).startswith(place.sink.name)
        place.come_back()
        place.sink.put(checkpoint(2))
        assert place.kept() == [checkpoint(1).line, checkpoint(2).line]

    def test_two_that_put_the_same_at_once_keep_it_once(self, place):
        start = threading.Barrier(4)

        def put(_):
            start.wait()
            for number in range(1, 6):
                place.sink.put(checkpoint(number))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(put, range(4)))

        assert place.kept() == [checkpoint(number).line for number in range(1, 6)]

    def test_what_is_read_is_what_was_put(self, place):
        for number in range(1, 4):
            place.sink.put(checkpoint(number))

        if not place.sink.readable:
            with pytest.raises(SinkAway):
                list(place.sink.read())
            return
        assert list(place.sink.read()) == [checkpoint(number).line for number in range(1, 4)]

    def test_an_empty_one_reads_as_empty(self, place):
        if place.sink.readable:
            assert list(place.sink.read()) == []

    def test_its_name_tells_no_secret(self, place):
        assert SECRET not in place.sink.name
        assert SECRET not in repr(place.sink)
