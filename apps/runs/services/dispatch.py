"""Moving runs from the queue towards workers. Called by the leader only."""

from __future__ import annotations

from collections.abc import Sequence

from django.conf import settings

from apps.core import sql
from apps.runs.services.leadership import SQL, Seat
from apps.runs.types import Dispatch


def enqueue(
    *, run_id: int, organization_id: object, queue: str, priority: int, dispatches: int = 0
) -> None:
    """Put a run at the end of its lane, making the lane if it is the first."""
    lane_id = find_lane(organization_id=organization_id, queue=queue, priority=priority)
    sql.execute(SQL["make_ready"], {"run_id": run_id, "lane_id": lane_id, "dispatches": dispatches})


def find_lane(*, organization_id: object, queue: str, priority: int) -> int:
    params = {"organization_id": organization_id, "queue": queue, "priority": priority}
    # A lane made by a transaction that commits between the two halves of the statement is seen by
    # neither; the second try sees it.
    rows = sql.fetch(SQL["find_lane"], params) or sql.fetch(SQL["find_lane"], params)
    return int(rows[0]["id"])


def promote(*, limit: int = 1000) -> int:
    """Make runs ready whose time has come; return how many."""
    return sql.execute(SQL["promote"], {"limit": limit})


def free_slots() -> int:
    """How many more runs the living workers can take now."""
    ttl_s = settings.AOS_WORKER_TTL.total_seconds()
    (row,) = sql.fetch(SQL["free_slots"], {"ttl_s": ttl_s})
    return max(0, int(row["slots"]))


def claim(seat: Seat, *, slots: int) -> list[Dispatch]:
    """Lease up to ``slots`` ready runs: strict classes, equal shares among the lanes of a class.

    Nothing is claimed once the seat is lost: the statement checks it.
    """
    taken: list[Dispatch] = []
    lanes = sql.fetch(SQL["waiting_lanes"], {})
    for priority in sorted({lane["priority"] for lane in lanes}):
        ids = [lane["id"] for lane in lanes if lane["priority"] == priority]
        while slots > len(taken):
            batch = _claim(seat, ids, slots - len(taken))
            taken += batch
            if not batch:
                break
    return taken


def _claim(seat: Seat, lanes: Sequence[int], slots: int) -> list[Dispatch]:
    share, extra = divmod(slots, len(lanes))
    shares = [share + (index < extra) for index in range(len(lanes))]
    rows = sql.fetch(
        SQL["claim"],
        seat.params
        | {
            "lanes": list(lanes),
            "shares": shares,
            "deadline_s": settings.AOS_DISPATCH_DEADLINE.total_seconds(),
        },
    )
    return [Dispatch(**row) for row in rows]


def hand_back(dispatches: Sequence[Dispatch]) -> int:
    """Return claims whose message could not be sent. Costs the runs no attempt."""
    tokens = [dispatch.token for dispatch in dispatches]
    return sql.execute(SQL["hand_back"], {"tokens": tokens, "overdue": False})


def hand_back_overdue() -> int:
    """Return claims that no worker took up in time: the message or the worker was lost."""
    return sql.execute(SQL["hand_back"], {"tokens": [], "overdue": True})
