"""How many runs of an organization may wait. What comes on top is refused before it is stored.

Counting is dear where much waits, so a count is good for some of the room it found, or for a second.
Where little room is left each submission counts, one after the other, and the limit is exact; before that
several web processes together may go beyond it by a few runs in a hundred.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import connection

from apps.core import sql, tenancy
from apps.runs.errors import QueueFull
from apps.runs.limit_models import Limit
from apps.runs.services.figures import SQL

# Of the room that a count found, the share that may be filled without another.
_SHARE: Final = 20
_GOOD_FOR_S: Final = 1.0
# A count may take one part in so many of a process's time.
_RARE: Final = 50
_RETRY_AFTER_S: Final = 10


@dataclass(slots=True)
class _Allowance:
    runs: int
    until: float


_allowances: dict[UUID, _Allowance] = {}
_lock = threading.Lock()


def require_room(organization_id: UUID, *, more: int) -> None:
    """Raise ``QueueFull`` unless so many more runs may wait. In the transaction that submits them."""
    with _lock:
        allowance = _allowances.get(organization_id)
        if allowance and allowance.runs >= more and time.monotonic() < allowance.until:
            allowance.runs -= more
            return
    began = time.monotonic()
    with tenancy.platform():
        limit = _limit(organization_id)
        room = limit - _waiting(organization_id, most=limit + 1) - more
        if room < _SHARE:
            _one_after_the_other(organization_id)
            room = limit - _waiting(organization_id, most=limit + 1) - more
    now = time.monotonic()
    until = now + max(_GOOD_FOR_S, _RARE * (now - began))
    with _lock:
        _allowances[organization_id] = _Allowance(runs=max(0, room) // _SHARE, until=until)
    if room < 0:
        raise QueueFull(limit=limit, retry_after=_RETRY_AFTER_S)


def forget() -> None:
    """Count anew, as after a changed limit."""
    with _lock:
        _allowances.clear()


def _limit(organization_id: UUID) -> int:
    rows = Limit.objects.filter(gate=organization_id).values_list("queue_limit", flat=True)
    return rows.first() or int(settings.AOS_QUEUE_LIMIT)


def _waiting(organization_id: UUID, *, most: int) -> int:
    params = {"organization_id": organization_id, "most": most}
    return int(sql.fetch(SQL["backlog"], params)[0]["waiting"])


def _one_after_the_other(organization_id: UUID) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"backlog {organization_id}"]
        )
