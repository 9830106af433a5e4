"""Recording who holds which sandbox, so that nothing is left behind unseen and nothing is used twice."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from django.db import transaction
from django.db.models import Case, Count, Min, Value, When

from apps.core import clock, sql, tenancy
from apps.sandboxes.models import OVER, Sandbox, SandboxQuerySet
from apps.sandboxes.types import SandboxState

SQL: Final = sql.load("apps.sandboxes.sql", "warm.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """The worker process that makes a sandbox and holds its line."""

    worker: str
    host: str
    incarnation: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """The one attempt a sandbox is for."""

    organization_id: UUID
    project_id: UUID
    run_id: UUID
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Make:
    """What is known of a sandbox before it exists."""

    driver: str
    isolation: str
    image: str
    profile: str
    #: Equal for sandboxes that are made alike; empty for one that is made for its run only.
    mould: str = ""


def opening(make: Make, holder: Holder, use: Use | None) -> Sandbox:
    """Write the row before the sandbox exists: a crash then leaves a row without a sandbox.

    Without a use it is to wait for one.
    """
    return Sandbox.objects.create(**asdict(make), **asdict(holder), **(asdict(use) if use else {}))


def opened(sandbox: Sandbox, *, container_id: str, image: str) -> bool:
    """Note what was really made: ``image`` is exact now, not a tag.

    False when the row was written off meanwhile: then the sandbox is to be destroyed.
    """
    used = sandbox.run_id is not None
    return bool(
        Sandbox.objects.filter(pk=sandbox.pk, state=SandboxState.CREATING).update(
            state=SandboxState.CLAIMED if used else SandboxState.WARM,
            claimed_at=clock.now() if used else None,
            container_id=container_id,
            image=image,
        )
    )


def serving(sandbox: Sandbox, *, container_id: str, image: str) -> bool:
    """The same for one that serves its process, such as with tools, and no attempt."""
    return bool(
        Sandbox.objects.filter(pk=sandbox.pk, state=SandboxState.CREATING, run_id=None).update(
            state=SandboxState.SERVING, container_id=container_id, image=image
        )
    )


def claim(use: Use, *, mould: str, incarnation: UUID) -> UUID | None:
    """Take the oldest warm sandbox of a kind that this process holds; None when there is none.

    Nobody waits for anybody: a row that another thread looks at is passed over.
    """
    rows = sql.fetch(SQL["claim"], {**asdict(use), "mould": mould, "incarnation": incarnation})
    return rows[0]["id"] if rows else None


@transaction.atomic
def retire(*, incarnation: UUID, keep: Collection[UUID]) -> list[UUID]:
    """Take back warm sandboxes of this process that are not to be kept, before they are destroyed."""
    warm = Sandbox.objects.filter(incarnation=incarnation, state=SandboxState.WARM)
    unwanted = warm.exclude(pk__in=keep).select_for_update(skip_locked=True)
    taken = list(unwanted.values_list("pk", flat=True))
    Sandbox.objects.filter(pk__in=taken).update(state=SandboxState.DESTROYING)
    return taken


def written_off(pks: Collection[UUID]) -> list[UUID]:
    """Which of these are over by somebody else's word: a reaper thought their worker dead."""
    over = Sandbox.objects.filter(pk__in=pks, state__in=[SandboxState.GONE, SandboxState.FAILED])
    return list(over.values_list("pk", flat=True))


def paused(pk: UUID) -> bool:
    """Note that it stands still. False when the row was written off meanwhile."""
    held = Sandbox.objects.filter(pk=pk, state__in=[SandboxState.CLAIMED, SandboxState.SERVING])
    return bool(held.update(state=SandboxState.PAUSED, paused_at=clock.now()))


def resumed(pk: UUID) -> bool:
    """Note that it goes on as what it was. False when the row was written off: then it must not."""
    return bool(
        Sandbox.objects.filter(pk=pk, state=SandboxState.PAUSED).update(
            state=Case(
                When(run_id=None, then=Value(SandboxState.SERVING)),
                default=Value(SandboxState.CLAIMED),
            ),
            paused_at=None,
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What was put away of a sandbox: its archive in the store of contents, and what is in it."""

    sha256: str
    snapshot_size: int
    snapshot_files: int
    snapshot_left_out: int


@transaction.atomic
def put_away(pk: UUID, kept: Kept) -> bool:
    """Note that only the workspace is left of a paused sandbox; what was kept of earlier ones goes.

    False when the sandbox is not ours to keep: it was written off, or a later attempt has begun. One
    that is behind must not leave the run an older workspace than it has.
    """
    row = Sandbox.objects.select_for_update().filter(pk=pk, state=SandboxState.PAUSED).first()
    if row is None or row.run_id is None:
        return False
    of_run = Sandbox.objects.filter(organization_id=row.organization_id, run_id=row.run_id)
    if of_run.filter(attempt__gt=row.attempt).exists():
        return False
    Sandbox.objects.filter(pk=pk).update(state=SandboxState.SNAPSHOTTED, **asdict(kept))
    discard(of_run.exclude(pk=pk))
    return True


def kept_of(use: Use) -> Sandbox | None:
    """The last of a run's sandboxes that was put away, if there is one."""
    of_run = Sandbox.objects.filter(organization_id=use.organization_id, run_id=use.run_id)
    return of_run.put_away().order_by("-attempt", "-id").first()


def restored(pk: UUID, *, kept: Sandbox) -> None:
    """Note whose workspace a sandbox began with. That one stays: this one may be lost."""
    Sandbox.objects.filter(pk=pk).update(restored_from=kept.pk)


@transaction.atomic
def discard(sandboxes: SandboxQuerySet) -> int:
    """Let go of workspaces that were put away; the store removes them when nobody else refers to them.

    What somebody else looks at is passed over.
    """
    found = sandboxes.put_away().select_for_update(skip_locked=True).values("pk")
    return Sandbox.objects.filter(pk__in=found).update(state=SandboxState.GONE, gone_at=clock.now())


def gone(pk: UUID) -> None:
    Sandbox.objects.filter(pk=pk).alive().update(state=SandboxState.GONE, gone_at=clock.now())


def failed(pk: UUID) -> None:
    Sandbox.objects.filter(pk=pk).alive().update(state=SandboxState.FAILED, gone_at=clock.now())


def counts() -> dict[str, int]:
    """How many there are in each state that is not over."""
    found = Sandbox.objects.exclude(state__in=OVER).order_by().values_list("state")
    return dict.fromkeys(set(SandboxState.values) - set(OVER), 0) | dict(
        found.annotate(count=Count("pk"))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """How many sandboxes of a host are alike, of those that are nobody's."""

    host: str
    profile: str
    state: str
    count: int
    oldest: datetime


def nobodys() -> list[Group]:
    """Sandboxes that workers keep for whoever comes, and those that serve a process.

    They belong to no organization, so a web request does not see their rows: this tells as much of them
    as it tells of the workers that hold them.
    """
    with tenancy.platform():
        found = (
            Sandbox.objects.filter(organization_id=None)
            .exclude(state__in=OVER)
            .order_by("host", "profile", "state")
            .values("host", "profile", "state")
            .annotate(count=Count("pk"), oldest=Min("created_at"))
        )
        return [Group(**row) for row in found]


def alive_ids() -> set[str]:
    """Ids of sandboxes that may still be in use, for the reaper to spare."""
    return {str(pk) for pk in Sandbox.objects.alive().values_list("pk", flat=True)}
