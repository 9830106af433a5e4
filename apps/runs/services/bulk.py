"""Acts on many runs at once: asked for by a person, fulfilled by the leader batch by batch.

Each batch is one transaction: what was done to its runs, its audit entry, and how far the act has come.
Whatever is killed in between, the next leader goes on where the last batch was committed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from django.db import transaction
from django.db.models import Count, Max
from django.db.models.functions import Now

from apps.core import doorbell
from apps.core.errors import AosError
from apps.events.services import outbox
from apps.identity import policy
from apps.identity.actor import Actor
from apps.runs.errors import BulkIsOver, NothingMatches
from apps.runs.models import BulkAct, Run, RunQuerySet
from apps.runs.services import control, leadership, letters, lifecycle, submission
from apps.runs.services.leadership import Seat
from apps.runs.types import BulkState, BulkVerb, RunFilter

# Runs dealt with in one transaction of the leader's: some 50 ms, in which nothing is dispatched.
BATCH: Final = 100
_REFUSALS: Final = 20


def preview(*, by: Actor, verb: BulkVerb, wanted: RunFilter) -> dict[str, Any]:
    """How many runs an act would touch: ``{"count", "states", "upto"}``; the newest is ``upto``."""
    policy.require(by, "run.bulk", project_id=wanted.project_id)
    runs = meant(by, verb, wanted)
    counts: Counter[str] = Counter()
    newest = 0
    for row in runs.order_by().values("state").annotate(count=Count("pk"), newest=Max("pk")):
        counts[row["state"]] = row["count"]
        newest = max(newest, row["newest"])
    upto = runs.filter(pk=newest).values_list("public_id", flat=True).first()
    return {"count": counts.total(), "states": dict(counts), "upto": upto}


@transaction.atomic
def begin(
    *,
    by: Actor,
    verb: BulkVerb,
    wanted: RunFilter,
    upto: UUID | None = None,
    canary: int | None = None,
    key: str | None = None,
) -> tuple[BulkAct, bool]:
    """Ask for an act on all runs that match and are no newer than ``upto``; whether it was replayed.

    With ``canary`` it stops after so many, until somebody lets it ``proceed``. Raises
    ``NothingMatches``, ``NotAllowed``, ``KeyReused``, ``KeyBusy``.
    """
    policy.require(by, "run.bulk", project_id=wanted.project_id)
    if key:
        request = (verb, wanted.as_json(), str(upto), canary)
        if (earlier := submission.recall(by, key, request)) is not None:
            return BulkAct.objects.get(pk=earlier["bulk"]), True
    runs = meant(by, verb, wanted)
    if upto is not None:
        runs = runs.filter(pk__lte=Run.objects.filter(public_id=upto).values("pk"))
    found = runs.aggregate(count=Count("pk"), newest=Max("pk"))
    if not found["count"]:
        raise NothingMatches(verb=verb.label)
    act = BulkAct.objects.create(
        organization_id=by.user.organization_id,
        project_id=wanted.project_id,
        asked_by=by.user,
        verb=verb,
        wanted=wanted.as_json(),
        matched=found["count"],
        upto=found["newest"],
        canary=canary if canary and canary < found["count"] else None,
    )
    _audit(by, "run.bulk", act, {"canary": canary, "filter": wanted.as_json()})
    if key:
        submission.answer(by, key, {"bulk": str(act.pk)})
    doorbell.ring_on_commit(doorbell.ENGINE)
    return act, False


@transaction.atomic
def proceed(*, by: Actor, act: BulkAct) -> BulkAct:
    """Go on with the rest after the first few. Twice is harmless; raises ``BulkIsOver``."""
    locked = _locked(by, act, verb="go on with")
    if locked.state == BulkState.TRIED:
        locked.state, locked.canary = BulkState.WORKING, None
        locked.save(update_fields=["state", "canary", "updated_at"])
        _audit(by, "run.bulk_proceed", locked)
        doorbell.ring_on_commit(doorbell.ENGINE)
    return locked


@transaction.atomic
def stop(*, by: Actor, act: BulkAct) -> BulkAct:
    """Leave the rest as it is. What was done stays done. Raises ``BulkIsOver``."""
    locked = _locked(by, act, verb="stop")
    _end(locked, BulkState.STOPPED, reason=f"{by.user.username} stopped it")
    _audit(by, "run.bulk_stop", locked)
    return locked


def _locked(by: Actor, act: BulkAct, *, verb: str) -> BulkAct:
    policy.require(by, "run.bulk", project_id=act.project_id)
    locked = BulkAct.objects.select_for_update(no_key=True).get(pk=act.pk)
    if locked.is_over:
        raise BulkIsOver(state=locked.state, act=verb)
    return locked


def meant(by: Actor, verb: BulkVerb, wanted: RunFilter) -> RunQuerySet:
    """The runs an act would touch now."""
    runs = Run.objects.visible_to(by.user).matching(wanted).filter(state__in=verb.applies_to)
    if verb.is_about_letters:
        # By their own narrow table: it knows them without looking at every run there is.
        runs = runs.filter(letter__isnull=False, letter__settled_at=None)
    return runs


def _audit(by: Actor, action: str, act: BulkAct, more: dict[str, Any] | None = None) -> None:
    outbox.audit(
        by.ref,
        action,
        resource_type="bulk",
        resource_id=act.pk,
        detail={
            "verb": BulkVerb(act.verb).label,
            "count": act.matched,
            "project": act.project.slug if act.project else "all projects",
            **(more or {}),
        },
    )


# --- the leader's part ----------------------------------------------------------------------------


def advance(seat: Seat, *, batch: int = BATCH) -> int:
    """Deal with the next runs of the act that was looked at longest ago; return how many."""
    # Proving the seat writes: not while nobody has asked for anything.
    if not BulkAct.objects.filter(state=BulkState.WORKING).exists():
        return 0
    return _advance(seat, batch)


@transaction.atomic
def _advance(seat: Seat, batch: int) -> int:
    leadership.require(seat)
    acts = BulkAct.objects.filter(state=BulkState.WORKING).order_by("updated_at")
    act = (
        acts.select_for_update(of=("self",), skip_locked=True, no_key=True)
        .select_related("asked_by")
        .first()
    )
    if act is None:
        return 0
    by = Actor(user=act.asked_by)
    allowed = by.user.is_active and policy.allows(by, "run.bulk", project_id=act.project_id)
    if not allowed:
        _end(act, BulkState.STOPPED, reason=f"{by.user.username} may no longer do this")
        return 0
    most = batch if act.canary is None else min(batch, act.canary - act.treated)
    keys = list(_next(act, by)[:most])
    results = _treat(act, by, lifecycle.lock_many(keys)) if keys else []
    _note(act, keys, results)
    if len(keys) < most:
        _end(act, BulkState.DONE)
    elif act.canary is not None and act.treated >= act.canary:
        act.state = BulkState.TRIED
        act.save(update_fields=["state"])
    return len(keys)


def _next(act: BulkAct, by: Actor) -> Any:
    runs = meant(by, BulkVerb(act.verb), RunFilter.from_json(act.wanted))
    runs = runs.filter(pk__gt=act.after, pk__lte=act.upto)
    return runs.order_by("pk").values_list("pk", flat=True)


def _treat(act: BulkAct, by: Actor, runs: Sequence[Run]) -> list[tuple[Run, AosError | None]]:
    results: Sequence[Run | AosError | None]
    if act.verb == BulkVerb.CANCEL:
        results = control.cancel_many(by=by, runs=runs, act=act.pk)
    elif act.verb == BulkVerb.RERUN:
        results = submission.rerun_many(by=by, runs=runs, act=act.pk)
    else:
        # Somebody may have settled one since it was looked for.
        still = letters.open_among(runs)
        runs = [run for run in runs if run.pk in still]
        if act.verb == BulkVerb.REQUEUE:
            results = submission.rerun_many(by=by, runs=runs, act=act.pk)
        else:
            results = letters.dismiss_many(by=by, runs=runs, act=act.pk)
    return [
        (run, result if isinstance(result, AosError) else None)
        for run, result in zip(runs, results, strict=True)
    ]


def _note(
    act: BulkAct, keys: Sequence[int], results: Sequence[tuple[Run, AosError | None]]
) -> None:
    """Say on the act how far it has come."""
    refusals = [
        {"run": str(run.public_id), "name": run.name, "reason": str(error)}
        for run, error in results
        if error is not None
    ]
    act.refused += len(refusals)
    act.done += len(results) - len(refusals)
    act.refusals = [*act.refusals, *refusals][:_REFUSALS]
    act.after = keys[-1] if keys else act.after
    act.save(update_fields=["refused", "done", "refusals", "after", "updated_at"])


def _end(act: BulkAct, state: BulkState, *, reason: str = "") -> None:
    BulkAct.objects.filter(pk=act.pk).update(state=state, stop_reason=reason, finished_at=Now())
    act.refresh_from_db(fields=["state", "stop_reason", "finished_at"])
