"""What every store of contents can do.

A store is one file in this folder and one line in ``_KINDS``; every one passes
``tests/contracts/content_store.py``. It knows sums and bytes: no names, no rows, no owners.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One content: its SHA-256 in hex, its bytes, and when it was stored or last asked for again."""

    sha256: str
    size: int
    at: datetime


class ContentStore(Protocol):
    """Each method raises ``StoreUnavailable`` when the place does not take or give."""

    @property
    def name(self) -> str:
        """What logs and reports call it: tells the place, and no secret."""

    def receive(self) -> IO[bytes]:
        """An empty file on this host for content on its way in. ``save`` or ``drop`` ends it."""

    def save(self, file: IO[bytes], sha256: str) -> None:
        """Keep the file's content. Readers see all of it or nothing, also after a crash."""

    def drop(self, file: IO[bytes]) -> None:
        """Leave nothing of a file that was received. Safe after ``save``."""

    def find(self, sha256: str) -> Stored | None: ...

    def refresh(self, sha256: str) -> bool:
        """Count the content's age from now; false when it is not there."""

    def open(self, sha256: str) -> IO[bytes]:
        """Raises ``FileNotFoundError`` when it is not there."""

    def remove(self, sha256: str) -> None:
        """Safe to call twice."""

    def contents(self) -> Iterator[Stored]:
        """All that is kept, in no order."""

    def tidy(self, before: datetime) -> int:
        """Remove what crashes left half received before that moment; return how many."""
