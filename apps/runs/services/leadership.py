"""The leader's seat: one engine dispatches, the others stand by.

The seat has an epoch that grows whenever it changes hands. Every act of a leader proves the epoch
in its own transaction, so an engine that was deposed while it slept can do nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from django.conf import settings

from apps.core import sql
from apps.core.errors import AosError
from apps.core.postgres import direct

SQL = sql.load("apps.runs.sql", "queue.sql")
SHARD: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A claim to lead: who, and in which epoch."""

    holder: str
    epoch: int

    @property
    def params(self) -> dict[str, object]:
        return {"shard": SHARD, "holder": self.holder, "epoch": self.epoch}


class SeatLost(AosError):
    """Another engine leads now: stop at once and stand by."""

    code = "seat_lost"
    template = "{holder} no longer leads (epoch {epoch})."


def take(holder: str) -> Seat | None:
    """Take or renew the seat; ``None`` while another engine holds it."""
    rows = sql.fetch(
        SQL["lead"],
        {"shard": SHARD, "holder": holder, "ttl_s": settings.AOS_LEADER_TTL.total_seconds()},
    )
    return Seat(holder=holder, epoch=rows[0]["epoch"]) if rows else None


def require(seat: Seat) -> None:
    """Prove the seat in the open transaction and keep it until the commit, or raise ``SeatLost``."""
    direct.require_transaction("leadership.require")
    if not direct.fetch(SQL["hold_seat"], seat.params):
        raise SeatLost(holder=seat.holder, epoch=seat.epoch)


def leave(seat: Seat) -> None:
    """Give the seat up, so that a standby need not wait for it to expire."""
    sql.execute(SQL["leave"], seat.params)
