"""What part of the audit log a page asks for: read from its address, and written back into one."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

from django.core.exceptions import BadRequest
from django.db.models import Q
from django.http import QueryDict

from apps.core import clock
from apps.events.models import AuditEntry, AuditEntryQuerySet

PERIODS: Final = {
    "1h": timedelta(hours=1),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}
BETWEEN: Final = "between"
_LONGEST: Final = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A filter. Empty parts ask for everything."""

    actor: str = ""
    # An action, or all actions of one kind: ``run.*``.
    action: str = ""
    resource: str = ""
    # The id of a resource or of a trace: people paste either.
    id: str = ""
    period: str = ""
    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_everything(self) -> bool:
        return not self.words()

    def words(self) -> dict[str, str]:
        """The parts that are given, as an address says them."""
        given = {name: value for name, value in asdict(self).items() if value}
        return {
            name: _zulu(value) if isinstance(value, datetime) else value
            for name, value in given.items()
        }

    def query(self, **more: object) -> str:
        """The address's query, with ``more`` after it."""
        return urlencode(self.words() | more)

    def entries(self, organization_id: UUID) -> AuditEntryQuerySet:
        """What is asked for, newest first."""
        conditions = Q()
        if self.actor:
            conditions &= Q(actor_name=self.actor)
        if self.action:
            conditions &= _of_action(self.action)
        if self.resource:
            conditions &= Q(resource_type=self.resource)
        if self.id:
            conditions &= Q(resource_id=self.id) | Q(trace_id=self.id)
        if self.since:
            conditions &= Q(at__gte=self.since)
        if self.until:
            conditions &= Q(at__lt=self.until)
        if self.period in PERIODS:
            conditions &= Q(at__gte=clock.now() - PERIODS[self.period])
        return AuditEntry.objects.visible_to(organization_id).filter(conditions).order_by("-id")


def _of_action(action: str) -> Q:
    if action.endswith(".*"):
        return Q(action__startswith=action.removesuffix("*"))
    return Q(action=action)


def read(query: QueryDict) -> Asked:
    """The filter that an address asks for; raises ``BadRequest`` for what no page of ours makes."""
    period = query.get("period", "")
    if period and period != BETWEEN and period not in PERIODS:
        raise BadRequest("period is not one of the known ones")
    is_between = period == BETWEEN
    return Asked(
        actor=_text(query, "actor"),
        action=_text(query, "action"),
        resource=_text(query, "resource"),
        id=_text(query, "id"),
        period=period,
        since=_moment(query, "since") if is_between else None,
        until=_moment(query, "until") if is_between else None,
    )


def _text(query: QueryDict, name: str) -> str:
    text = query.get(name, "").strip()
    if len(text) > _LONGEST or "\0" in text:
        raise BadRequest(f"{name} is too long, or no text")
    return text


def _moment(query: QueryDict, name: str) -> datetime | None:
    """A moment; without an offset it is meant in UTC, which is what a page without script sends."""
    text = query.get(name, "").strip()
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise BadRequest(f"{name} is not a time") from error


def _zulu(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
