"""From the outbox to the log: gives every value event its place in its project's stream.

Why events are moved, and not read where they were written, by ``id > last``: an id is drawn when a
row is inserted, but the row is seen when its transaction commits. A writer that draws 7 and commits
late becomes visible after a reader has gone past 8, and 7 is never read; with eight writers one row
in five was lost that way. So writers put events in a queue, one relay takes whatever is visible, and
the number readers resume from is given there, under the lock of the project's stream row. Numbers
are therefore seen in order and without gaps, and one writer's events keep the order it wrote them in.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Final
from uuid import UUID

from apps.core import sql
from apps.core.postgres import direct
from apps.events import hints

logger = logging.getLogger(__name__)

SQL: Final = sql.load("apps.events.sql", "relay.sql")


def move(limit: int = 500) -> int:
    """Move the oldest waiting events to their projects' logs; return how many left the outbox.

    Runs in the caller's transaction, which has proved that the caller leads. If that transaction
    ends in any way but a commit nothing has happened, and the next call moves the same events. As
    many as ``limit`` means that more may be waiting.
    """
    direct.require_transaction("relay.move")
    rows = direct.fetch(SQL["move"], {"limit": limit})
    if refused := [event for row in rows for event in row["refused"] or ()]:
        # Only a restored backup or a hand-written row can bring this about.
        logger.error("events were in the log already", extra={"event_ids": refused})
    touched = [row["project_id"] for row in rows if row["moved"]]
    direct.on_commit(lambda: _tell(touched))
    return sum(row["taken"] for row in rows)


def _tell(projects: Collection[UUID]) -> None:
    for project_id in projects:
        hints.send(project_id=project_id)
