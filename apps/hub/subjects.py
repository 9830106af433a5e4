"""Things that records name by id, by their names. The things may be gone, or not for everybody."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from django.db.models import QuerySet
from django.urls import reverse

from apps.agents.models import Agent
from apps.events.models import AuditEntry
from apps.hub.templatetags.aos import short_id
from apps.identity.models import ApiToken, Department, User
from apps.projects.models import Project
from apps.runs.models import Run, Schedule
from apps.sandboxes.models import Environment

Key = tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    name: str
    href: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """How the things of one resource type are found: their rows, their id, and their name."""

    rows: Callable[[User], QuerySet[Any]]
    key: str
    name: str
    page: str = ""


_KINDS: Final[Mapping[str, _Kind]] = {
    "agent": _Kind(rows=Agent.objects.of, key="pk", name="title"),
    "department": _Kind(
        rows=Department.objects.visible_to, key="pk", name="name", page="access_department"
    ),
    "environment": _Kind(
        rows=Environment.objects.visible_to, key="pk", name="name", page="sandbox_environment"
    ),
    "project": _Kind(rows=Project.objects.visible_to, key="pk", name="name"),
    "run": _Kind(rows=Run.objects.visible_to, key="public_id", name="name", page="run"),
    "schedule": _Kind(rows=Schedule.objects.visible_to, key="pk", name="name", page="schedule"),
    "token": _Kind(
        rows=lambda user: ApiToken.objects.filter(user__organization=user.organization_id),
        key="pk",
        name="name",
    ),
    "user": _Kind(rows=User.objects.visible_to, key="pk", name="username", page="access_person"),
}


def find(keys: Iterable[Key], *, to: User) -> dict[Key, Subject]:
    """Those of the things that exist and may be seen, one query for each kind that occurs."""
    wanted: dict[str, set[UUID]] = {}
    for kind, text in keys:
        if kind in _KINDS and (parsed := _uuid(text)):
            wanted.setdefault(kind, set()).add(parsed)
    return {
        (name, str(key)): _subject(_KINDS[name], key, label)
        for name, ids in wanted.items()
        for key, label in _rows(_KINDS[name], ids, to)
    }


def of(entries: Iterable[AuditEntry], *, to: User) -> dict[Key, Subject]:
    """What audit entries are about, and the tokens and runs that they were made through."""
    return find(_mentioned(entries), to=to)


def _mentioned(entries: Iterable[AuditEntry]) -> Iterator[Key]:
    for entry in entries:
        yield entry.resource_type, entry.resource_id
        for kind, chained in _chain(entry):
            if chained:
                yield kind, str(chained)


def _chain(entry: AuditEntry) -> Iterable[tuple[str, UUID | None]]:
    return ("token", entry.token_id), ("agent", entry.agent_id), ("run", entry.run_id)


def _rows(kind: _Kind, keys: Collection[UUID], to: User) -> Iterable[tuple[UUID, str]]:
    rows: Iterable[tuple[UUID, str]] = (
        kind.rows(to).filter(**{f"{kind.key}__in": keys}).values_list(kind.key, kind.name)
    )
    return rows


def _subject(kind: _Kind, key: UUID, name: str) -> Subject:
    return Subject(name=name, href=reverse(kind.page, args=[key]) if kind.page else "")


def named(kind: str, text: str, found: Mapping[Key, Subject]) -> Subject:
    """The thing; by the end of its id when it is gone or has no name."""
    known = found.get((kind, text))
    if known is not None:
        return known
    return Subject(name=f"…{short_id(text)}" if _uuid(text) is not None else text)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
