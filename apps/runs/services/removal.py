"""How long ended runs are kept, as each organization decides, and their removal when the time is over.

A run goes with its log, attempts, artifacts, dead letter and the roles over it alone, in batches of a moment
each that prove the leader's seat. What is open stays, however old: a run whose queue is paused, one that
waits, those that it depends on, and the tree it belongs to. Value events and the audit log are records of
their own and stay.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import transaction

from apps.core import clock, sql
from apps.core.errors import Invalid
from apps.events.services import outbox
from apps.events.types import platform
from apps.identity import policy
from apps.identity.actor import Actor
from apps.identity.models import Organization
from apps.runs.retention_models import LONGEST_DAYS, Retention
from apps.runs.services import leadership
from apps.runs.services.leadership import Seat

logger = logging.getLogger(__name__)

SQL: Final = sql.load("apps.runs.sql", "removal.sql")
# Runs that one transaction looks at.
BATCH: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """For how many days an organization keeps its ended runs; 0 is for ever."""

    run_days: int
    # Decided by the organization, or the platform's.
    own: bool

    @property
    def platform_days(self) -> int:
        days: int = settings.AOS_RUN_DAYS
        return days


def kept(organization_id: UUID) -> Kept:
    own = Retention.objects.filter(organization_id=organization_id).first()
    if own is None:
        return Kept(run_days=settings.AOS_RUN_DAYS, own=False)
    return Kept(run_days=own.run_days, own=True)


@transaction.atomic
def keep_for(*, by: Actor, days: int) -> Kept:
    """Decide for how many days the actor's organization keeps its ended runs; 0 is for ever."""
    policy.require(by, "retention.manage")
    if not 0 <= days <= LONGEST_DAYS:
        raise Invalid([{"field": "run_days", "rule": f"must be from 0 to {LONGEST_DAYS}"}])
    home: UUID = by.user.organization_id
    before = _locked(home)
    if before == Kept(run_days=days, own=True):
        return before
    Retention.objects.update_or_create(organization_id=home, defaults={"run_days": days})
    after = Kept(run_days=days, own=True)
    _audit(by, "retention.set", before, after)
    return after


@transaction.atomic
def keep_as_platform(*, by: Actor) -> Kept:
    """Let the platform's time hold for the actor's organization again. Twice is harmless."""
    policy.require(by, "retention.manage")
    before = _locked(by.user.organization_id)
    after = Kept(run_days=settings.AOS_RUN_DAYS, own=False)
    if before.own:
        Retention.objects.filter(organization_id=by.user.organization_id).delete()
        _audit(by, "retention.remove", before, after)
    return after


def _locked(organization_id: UUID) -> Kept:
    """What is decided now; the organization's row serializes those who decide."""
    Organization.objects.select_for_update(no_key=True).get(pk=organization_id)
    return kept(organization_id)


def _audit(by: Actor, action: str, before: Kept, after: Kept) -> None:
    outbox.audit(
        by.ref,
        action,
        resource_type="organization",
        resource_id=by.user.organization_id,
        before={"run_days": before.run_days, "own": before.own},
        after={"run_days": after.run_days, "own": after.own},
    )


# --- the leader's part ----------------------------------------------------------------------------


def remove_ended(seat: Seat, *, stop: Callable[[], bool] = lambda: False) -> int:
    """Remove what is past its organization's time; return how many runs. ``stop`` is asked between batches."""
    removed = 0
    for organization_id in Organization.objects.values_list("pk", flat=True):
        days = kept(organization_id).run_days
        # Again while something goes: a parent follows its children, and whatever took a dead run's place that.
        while days and not stop():
            gone = _remove_of(seat, organization_id, days=days, stop=stop)
            removed += gone
            if not gone:
                break
    if removed:
        logger.warning("ended runs removed", extra={"count": removed})
    return removed


def _remove_of(seat: Seat, organization_id: UUID, *, days: int, stop: Callable[[], bool]) -> int:
    cutoff = clock.now() - timedelta(days=days)
    after = removed = 0
    while not stop():
        look = {"organization": organization_id, "after": after, "cutoff": cutoff, "most": BATCH}
        (window,) = sql.fetch(SQL["window"], look)
        if window["upto"] is None:
            break
        with transaction.atomic():
            leadership.require(seat)
            (gone,) = sql.fetch(SQL["remove"], look | {"upto": window["upto"]})
            if gone["runs"]:
                _record(organization_id, gone, days=days, cutoff=cutoff)
        removed += gone["runs"]
        after = window["upto"]
        if window["is_last"]:
            break
    return removed


def _record(organization_id: UUID, gone: Mapping[str, int], *, days: int, cutoff: datetime) -> None:
    outbox.audit(
        platform("engine", organization_id=organization_id),
        "run.remove_ended",
        resource_type="organization",
        resource_id=organization_id,
        detail={
            "count": gone["runs"],
            "roles": gone["roles"],
            "days": days,
            "ended_before": cutoff.isoformat(),
        },
    )
