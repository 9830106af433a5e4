"""Dead letters: runs that ended in a way nobody wanted, and what people do about them.

A final state is final, and a run has one receipt. So requeuing does not revive a run: a new one with the
same input takes its place, and the letter says which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from django.db import transaction
from django.db.models import Case, Count, IntegerField, Value, When
from django.db.models.functions import Now

from apps.core import sql
from apps.events.services import outbox
from apps.identity import policy
from apps.identity.actor import Actor
from apps.projects.models import Project
from apps.runs.errors import LetterSettled, NoDeadLetter
from apps.runs.models import DeadLetter, Run


def settle(taken_over: Mapping[int, int]) -> None:
    """Note which new runs take the places of dead ones, where their letters are still open."""
    rows = DeadLetter.objects.open().filter(run__in=taken_over)
    keys = list(rows.select_for_update(no_key=True).order_by("pk").values_list("pk", flat=True))
    if keys:
        whens = [When(run=key, then=Value(taken_over[key])) for key in keys]
        DeadLetter.objects.filter(run__in=keys).update(
            settled_at=Now(), requeued_as_id=Case(*whens, output_field=IntegerField())
        )


def lock(run: Run) -> DeadLetter:
    """The open letter of a run, until the end of the transaction.

    Raises ``NoDeadLetter`` and ``LetterSettled``.
    """
    sql.require_transaction("letters.lock")
    letter = DeadLetter.objects.select_for_update(no_key=True).filter(run=run).first()
    if letter is None:
        raise NoDeadLetter(state=run.state)
    if letter.settled_at is not None:
        raise LetterSettled(how="requeued" if letter.requeued_as_id else "dismissed")
    return letter


@transaction.atomic
def dismiss(*, by: Actor, run: Run) -> None:
    """Say that nothing shall come of it. Raises ``NoDeadLetter``, ``LetterSettled``, ``NotAllowed``."""
    require(by, run)
    letter = lock(run)
    DeadLetter.objects.filter(pk=letter.pk).update(settled_at=Now())
    outbox.audit(by.ref, "run.dismiss", resource_type="run", resource_id=run.public_id)


def require(by: Actor, run: Run) -> None:
    """Raise ``NotAllowed`` unless the person may settle the letter, here and with this agent."""
    place = run.place
    policy.require(by, "run.requeue", project_id=place["project_id"], agent_id=place["agent_id"])
    # A role over the agent is none in the project: where the new run goes, one has to belong already.
    if not policy.allows(by, "project.read", project_id=run.project_id):
        policy.refuse(by, "run.requeue", project_id=run.project_id)


def open_among(runs: Sequence[Run]) -> set[int]:
    """The keys of the runs whose letters are open, locked."""
    rows = DeadLetter.objects.open().filter(run__in=[run.pk for run in runs]).order_by("pk")
    return set(rows.select_for_update(no_key=True).values_list("pk", flat=True))


def dismiss_many(*, by: Actor, runs: Sequence[Run], act: UUID) -> list[None]:
    """Dismiss locked, open letters in the transaction of the bulk act that names them."""
    DeadLetter.objects.filter(run__in=[run.pk for run in runs]).update(settled_at=Now())
    if runs:
        outbox.audit(
            by.ref,
            "run.dismiss_many",
            resource_type="bulk",
            resource_id=act,
            detail={"count": len(runs), "runs": [str(run.public_id) for run in runs]},
        )
    return [None] * len(runs)


def by_code(project: Project) -> list[tuple[str, int]]:
    """How many letters of the project are open, by the code of their error; the most first."""
    rows = DeadLetter.objects.open().filter(project=project).order_by().values("code")
    counted = rows.annotate(count=Count("pk")).order_by("-count", "code")
    return [(row["code"], row["count"]) for row in counted]
