"""Which stored contents are still needed, and the removal of those that are not.

Content is shared: two artifacts with the same bytes are stored once. So it goes when the last row that
refers to it has gone, or when the time that artifacts are kept is over for all of them.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.conf import settings

from apps.core import blobs, clock, sql
from apps.core.blobs import Stored

logger = logging.getLogger(__name__)

SQL: Final = sql.load("apps.runs.sql", "contents.sql")
#: Models whose rows refer to contents by ``sha256``; runs do so in their spec besides.
REFERRERS: Final = frozenset({"runs.Artifact", "projects.WorkspaceFile", "sandboxes.Sandbox"})

_AT_ONCE: Final = 500
_LOOK_EVERY_S: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the store holds, and how much of it nobody refers to."""

    count: int
    size: int
    unreferred_count: int
    unreferred_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    count: int = 0
    size: int = 0


def referred(sums: Collection[str]) -> set[str]:
    """Those of the sums that somebody may still ask for."""
    wanted = {"sums": list(sums), "days": settings.AOS_ARTIFACT_DAYS}
    return {row["sha256"] for row in sql.fetch(SQL["referred"], wanted)}


def usage() -> Usage:
    count = size = free_count = free_size = 0
    for batch in _batches(blobs.configured().contents()):
        needed = referred([each.sha256 for each in batch])
        free = [each for each in batch if each.sha256 not in needed]
        count, size = count + len(batch), size + sum(each.size for each in batch)
        free_count, free_size = free_count + len(free), free_size + sum(each.size for each in free)
    return Usage(count=count, size=size, unreferred_count=free_count, unreferred_size=free_size)


def remove_unreferred(
    *, patience_s: float = 600.0, stop: Callable[[], bool] = lambda: False
) -> Removed:
    """Remove what nobody refers to and is old enough; also what uploads left half received.

    It looks twice. A run takes over the contents of its project's files, so between the file's last
    moment and the run's first a single look could find neither: the second comes after every
    transaction that was under way at the first has ended. Where one does not end within ``patience_s``,
    nothing is removed this time.
    """
    store = blobs.configured()
    before = clock.now() - blobs.SPARED
    store.tidy(before)
    old = (each for each in store.contents() if each.at <= before)
    count = size = 0
    for batch in _batches(old):
        needed = referred([each.sha256 for each in batch])
        doomed = [each for each in batch if each.sha256 not in needed]
        if stop() or (doomed and not _others_have_ended(patience_s, stop)):
            break
        gone = [each for each in doomed if blobs.remove(each.sha256, referred=referred)]
        count, size = count + len(gone), size + sum(each.size for each in gone)
    if count:
        logger.info("contents removed", extra={"count": count, "bytes": size, "store": store.name})
    return Removed(count=count, size=size)


def _others_have_ended(patience_s: float, stop: Callable[[], bool]) -> bool:
    (row,) = sql.fetch(SQL["moment"], {})
    moment: datetime = row["moment"]
    give_up = time.monotonic() + patience_s
    while sql.fetch(SQL["others_since"], {"moment": moment})[0]["others"]:
        if stop() or time.monotonic() >= give_up:
            return False
        time.sleep(_LOOK_EVERY_S)
    return True


def _batches(found: Iterator[Stored]) -> Iterator[list[Stored]]:
    while batch := list(itertools.islice(found, _AT_ONCE)):
        yield batch
