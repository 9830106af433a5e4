"""Refused acts, on record: who tried what, and why it was refused.

A refusal is noted where it is decided and written when the request is over, in a transaction of its
own: the one that was refused is rolled back. The same refusal of the same actor is written once a
minute, with how often it came in between, so that nobody can fill the log by knocking.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from django.db import DatabaseError, transaction

from apps.core import tenancy
from apps.events.services import outbox
from apps.events.types import ActorRef

logger = logging.getLogger(__name__)

ACTION: Final = "access.denied"
_WINDOW_S: Final = 60.0
_REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    by: ActorRef
    action: str
    reason: str
    project_id: UUID | None = None


_found: ContextVar[list[Denial] | None] = ContextVar("aos_denials", default=None)


def note(by: ActorRef, action: str, *, reason: str, project_id: UUID | None = None) -> None:
    """Remember a refusal until the request is over. Outside a request nobody has to be told."""
    found = _found.get()
    if found is not None:
        found.append(Denial(by=by, action=action, reason=reason, project_id=project_id))


@contextmanager
def collected() -> Iterator[Sequence[Denial]]:
    """Collect what is refused inside, for ``write`` afterwards."""
    found: list[Denial] = []
    before = _found.set(found)
    try:
        yield found
    finally:
        _found.reset(before)


@contextmanager
def recorded() -> Iterator[None]:
    """Collect what is refused inside, and write it however the inside ends."""
    with collected() as found:
        try:
            yield
        finally:
            write(found)


def write(found: Sequence[Denial]) -> None:
    """Put refusals on record. An answer that was made already does not fail for it."""
    for denial in found:
        repeated = _memory.due(denial)
        if repeated is None:
            continue
        try:
            with tenancy.organization(denial.by.organization_id), transaction.atomic():
                _write(denial, repeated)
        except DatabaseError as error:
            logger.error(  # noqa: TRY400  # the trace would say nothing more
                "a refusal could not be recorded",
                extra={"action": denial.action, "actor": denial.by.name, "error": str(error)},
            )


def _write(denial: Denial, repeated: int) -> None:
    detail: dict[str, object] = {"reason": denial.reason}
    if denial.project_id is not None:
        detail["project"] = denial.project_id
    if repeated:
        detail["repeated"] = repeated
    outbox.audit(
        denial.by, ACTION, resource_type="action", resource_id=denial.action, detail=detail
    )


class _Memory:
    """When each refusal was last written, and how often it came since. One for the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[tuple[object, ...], tuple[float, int]] = {}

    def due(self, denial: Denial) -> int | None:
        """How many went unwritten before this one; ``None`` when this one is not written either."""
        by = denial.by
        key = (by.organization_id, by.id, by.token_id, denial.action, denial.reason)
        now = time.monotonic()
        with self._lock:
            at, missed = self._last.get(key, (now - _WINDOW_S, 0))
            if now - at < _WINDOW_S:
                self._last[key] = (at, missed + 1)
                return None
            if len(self._last) >= _REMEMBERED:
                self._last.clear()
            self._last[key] = (now, 0)
            return missed

    def forget(self) -> None:
        with self._lock:
            self._last.clear()


_memory: Final = _Memory()
forget: Final = _memory.forget
