"""Content-addressed files: stored once under their SHA-256, never changed.

Content may be removed when nothing refers to it and it is older than ``SPARED``. Storing what is there
already makes it young again, so what is stored may be referred to for half of that time at least.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import IO, Final
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction

from apps.core import clock, mediatypes
from apps.core.blobs.base import ContentStore, Stored
from apps.core.blobs.folder import FolderStore
from apps.core.errors import ContentGone, StoreUnavailable, TooLarge

__all__ = ["SPARED", "Blob", "Stored", "Writer", "configured", "open_blob", "put", "read", "remove"]

#: Between storing content and committing the row that refers to it there is less than half of this.
SPARED: Final = timedelta(days=1)

_LOCK_CLASS: Final = 0x626C6F62  # "blob"; advisory locks are one space for the whole database


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """What was stored: its SHA-256 in hex, its size in bytes, and how it begins."""

    sha256: str
    size: int
    head: bytes = field(default=b"", repr=False, compare=False)


def _bucket(url: str) -> ContentStore:
    # Only for those who use it: the client takes long to import and much memory.
    from apps.core.blobs.bucket import BucketStore

    return BucketStore.at(url)


_KINDS: Final[dict[str, Callable[[str], ContentStore]]] = {"file": FolderStore.at, "s3": _bucket}


def configured() -> ContentStore:
    """The store of ``AOS_ARTIFACT_STORE``. Raises ``ImproperlyConfigured`` naming what is wrong."""
    return _opened(
        settings.AOS_ARTIFACT_STORE,
        str(settings.AOS_DATA_DIR),
        settings.AOS_ARTIFACT_S3_ACCESS_KEY,
        settings.AOS_ARTIFACT_S3_SECRET_KEY,
    )


@cache
def _opened(url: str, *_what_it_depends_on: str) -> ContentStore:
    kind = urlsplit(url).scheme
    if kind not in _KINDS:
        # Not the URL itself: it may hold a password.
        raise ImproperlyConfigured(
            f"AOS_ARTIFACT_STORE: {kind or 'an address without a scheme'} is unknown; "
            f"use one of {', '.join(f'{name}:' for name in _KINDS)}."
        )
    return _KINDS[kind](url)


class Writer:
    """A file on its way into the store. Exactly one of ``keep`` and ``discard`` ends it."""

    def __init__(self) -> None:
        self._store = configured()
        self._file = self._store.receive()
        self._digest = hashlib.sha256()
        self.head = b""
        self.size = 0

    def write(self, data: bytes, /) -> None:
        try:
            self._file.write(data)
        except OSError as error:  # the disk is full
            reason = error.strerror or type(error).__name__
            raise StoreUnavailable(store=self._store.name, reason=reason) from error
        self._digest.update(data)
        self.size += len(data)
        if len(self.head) < mediatypes.HEAD:
            self.head += data[: mediatypes.HEAD - len(self.head)]

    def keep(self, *, sha256: str | None = None) -> Blob:
        """Store the file for good. A sum that somebody else computed is not taken on trust."""
        mine = self._digest.hexdigest()
        try:
            if sha256 not in {None, mine}:
                raise ValueError(f"the content's SHA-256 is {mine}, not {sha256}")
            self._save(mine)
        finally:
            self.discard()
        return Blob(sha256=mine, size=self.size, head=self.head)

    def discard(self) -> None:
        self._store.drop(self._file)

    def _save(self, sha256: str) -> None:
        """Store what is not there; see that what is there stays."""
        found = self._store.find(sha256)
        if found is None or found.size != self.size:
            self._store.save(self._file, sha256)
        elif clock.now() - found.at > SPARED / 2:
            with _lock(sha256, "pg_advisory_xact_lock_shared"):
                if not self._store.refresh(sha256):
                    self._store.save(self._file, sha256)


def put(chunks: Iterable[bytes], *, limit: int, what: str = "The file") -> Blob:
    """Store a stream of bytes; raise ``TooLarge`` past ``limit`` and leave nothing behind."""
    writer = Writer()
    try:
        for chunk in chunks:
            writer.write(chunk)
            _require_room(writer, limit, what)
    except BaseException:
        writer.discard()
        raise
    return writer.keep()


def _require_room(writer: Writer, limit: int, what: str) -> None:
    if writer.size > limit:
        raise TooLarge(what=what, size=f"over {limit}", limit=limit)


def open_blob(sha256: str) -> IO[bytes]:
    """Open a stored file for reading; raise ``ContentGone`` when it is not there any more."""
    try:
        return configured().open(sha256)
    except FileNotFoundError as error:
        raise ContentGone(sha256=sha256) from error


def read(sha256: str) -> bytes:
    with open_blob(sha256) as file:
        return file.read()


def remove(sha256: str, *, referred: Callable[[Collection[str]], Collection[str]]) -> bool:
    """Remove content that is old enough and, asked now, not referred to; whether it was removed."""
    store = configured()
    with _lock(sha256, "pg_try_advisory_xact_lock") as is_ours:
        found = store.find(sha256) if is_ours else None
        if found is None or clock.now() - found.at <= SPARED or referred([sha256]):
            return False
        store.remove(sha256)
    return True


@contextmanager
def _lock(sha256: str, function: str) -> Iterator[bool]:
    """Keep one content from being refreshed and removed at once, in whatever processes."""
    with transaction.atomic(), connection.cursor() as cursor:
        key = int(sha256[:8], 16) - (1 << 31)
        cursor.execute(f"SELECT {function}(%s, %s)", [_LOCK_CLASS, key])
        (told,) = cursor.fetchone()
        yield told is not False
