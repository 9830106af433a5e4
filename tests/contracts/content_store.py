"""What every store of contents must do.

Inherit ``ContentStoreContract`` and give it the fixture ``place``: a ``Place`` that knows the store and
can take it away. A new store is done when this passes unchanged.
"""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Protocol

import pytest

from apps.core import clock
from apps.core.blobs.base import ContentStore
from apps.core.errors import StoreUnavailable

SECRET = "hunter2-very-secret"  # noqa: S105  # what must show nowhere
ABSENT = "0" * 64


class Place(Protocol):
    """A store with a view from the other side."""

    store: ContentStore

    def go_away(self) -> None: ...

    def come_back(self) -> None: ...

    def age(self, sha256: str, by: timedelta) -> None:
        """Make a content look as if it had been stored that long ago, where that can be done."""


def save(store, content):
    sha256 = hashlib.sha256(content).hexdigest()
    file = store.receive()
    try:
        file.write(content)
        store.save(file, sha256)
    finally:
        store.drop(file)
    return sha256


def read(store, sha256):
    with store.open(sha256) as file:
        return file.read()


class ContentStoreContract:
    @pytest.mark.parametrize("size", [0, 1, 70_000, 9_000_000], ids=["empty", "1", "70k", "9M"])
    def test_what_is_saved_is_read_byte_for_byte(self, place, size):
        content = (bytes(range(256)) * (size // 256 + 1))[:size]

        sha256 = save(place.store, content)

        assert read(place.store, sha256) == content
        found = place.store.find(sha256)
        assert (found.sha256, found.size) == (sha256, size)
        assert abs(clock.now() - found.at) < timedelta(minutes=1)

    def test_a_part_is_read_without_the_rest(self, place):
        sha256 = save(place.store, b"a" * 3_000_000 + b"b" * 3_000_000)

        with place.store.open(sha256) as file:
            assert file.read(10) == b"a" * 10
            assert file.read(3_000_000) == b"a" * 2_999_990 + b"b" * 10

    def test_the_same_content_is_kept_once(self, place):
        sums = {save(place.store, b"same") for _ in range(3)}

        assert [each.sha256 for each in place.store.contents()] == list(sums)

    def test_many_that_save_the_same_at_once_keep_it_whole(self, place):
        start = threading.Barrier(6)
        content = b"racing" * 100_000

        def saved(_):
            start.wait()
            return save(place.store, content)

        with ThreadPoolExecutor(6) as pool:
            (sha256,) = set(pool.map(saved, range(6)))

        assert read(place.store, sha256) == content
        assert len(list(place.store.contents())) == 1

    def test_what_is_not_there_is_said_so(self, place):
        assert place.store.find(ABSENT) is None
        assert place.store.refresh(ABSENT) is False
        with pytest.raises(FileNotFoundError):
            place.store.open(ABSENT)

    def test_what_is_removed_is_gone_and_may_be_removed_again(self, place):
        kept, removed = save(place.store, b"kept"), save(place.store, b"removed")

        place.store.remove(removed)
        place.store.remove(removed)

        assert place.store.find(removed) is None
        assert [each.sha256 for each in place.store.contents()] == [kept]

    def test_what_was_removed_can_be_saved_again(self, place):
        sha256 = save(place.store, b"again")
        place.store.remove(sha256)

        assert save(place.store, b"again") == sha256
        assert read(place.store, sha256) == b"again"

    def test_a_reader_who_began_reads_to_the_end_though_it_is_removed(self, place):
        sha256 = save(place.store, b"x" * 200_000)

        with place.store.open(sha256) as file:
            begun = file.read(1000)
            place.store.remove(sha256)
            rest = file.read()

        assert len(begun + rest) == 200_000

    def test_all_contents_are_told_with_their_sizes(self, place):
        saved = {save(place.store, bytes([number]) * number): number for number in range(1, 30)}

        assert {each.sha256: each.size for each in place.store.contents()} == saved

    def test_refreshing_makes_a_content_young_again_and_changes_nothing_else(self, place):
        sha256 = save(place.store, b"old")
        place.age(sha256, timedelta(days=3))
        before = place.store.find(sha256)

        assert place.store.refresh(sha256) is True

        after = place.store.find(sha256)
        assert after.at >= before.at
        assert clock.now() - after.at < timedelta(minutes=1)
        assert read(place.store, sha256) == b"old"

    def test_a_file_that_is_dropped_leaves_nothing(self, place):
        file = place.store.receive()
        file.write(b"half a file")
        place.store.drop(file)
        place.store.drop(file)

        assert list(place.store.contents()) == []
        assert place.store.tidy(clock.now() + timedelta(days=1)) == 0

    def test_while_it_is_away_it_says_so_and_afterwards_it_works(self, place):
        sha256 = save(place.store, b"before")
        place.go_away()

        for act in (
            lambda: save(place.store, b"new"),
            lambda: place.store.find(sha256),
            lambda: list(place.store.contents()),
        ):
            with pytest.raises(StoreUnavailable) as caught:
                act()
            assert place.store.name in str(caught.value)

        place.come_back()
        assert read(place.store, sha256) == b"before"

    def test_its_name_tells_no_secret(self, place):
        assert SECRET not in place.store.name
        assert SECRET not in repr(place.store)
