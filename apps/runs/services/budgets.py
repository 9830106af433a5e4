"""Budgets: run seconds that a run may take together with all that descend from it.

Each run of the tree holds a share: as long as its next attempt may take. So what is held and what was used are
together never more than what was granted, which a constraint checks. A trigger charges the end of an attempt
and gives back what an ended run did not use (see migration 0017).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from django.db.models import F

from apps.core import sql
from apps.runs.errors import BudgetSpent
from apps.runs.kin_models import Budget, Share
from apps.runs.models import Run


def grant(runs: Sequence[Run]) -> None:
    """Give runs that were just stored the budgets they were submitted with, and their own shares of them."""
    sql.require_transaction("budgets.grant")
    wanted = [(run, run.budget_s) for run in runs if run.budget_s is not None]
    if not wanted:
        return
    Budget.objects.bulk_create(
        Budget(run=run, granted_s=granted_s, taken_s=run.timeout_s) for run, granted_s in wanted
    )
    Share.objects.bulk_create(
        Share(run=run, budget_id=run.pk, held_s=run.timeout_s, attempt_s=run.timeout_s)
        for run, _ in wanted
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What a child has taken, and how long it wanted an attempt to be."""

    budget: Budget
    attempt_s: int


def take(run: Run, root_id: int) -> Draw | None:
    """Let a child that is not stored yet run no longer than is left, and take that.

    ``None`` when the tree has no budget. Raises ``BudgetSpent``.
    """
    budget = _held(root_id)
    if budget is None:
        return None
    left = math.floor(budget.granted_s - budget.taken_s)
    if left < 1:
        raise BudgetSpent(granted=budget.granted_s)
    draw = Draw(budget=budget, attempt_s=run.timeout_s)
    run.timeout_s = min(run.timeout_s, left)
    _add(budget, Decimal(run.timeout_s))
    return draw


def _held(root_id: int) -> Budget | None:
    """The budget, locked: who reads what is left is the only one to take of it until the commit."""
    return Budget.objects.select_for_update(no_key=True).filter(pk=root_id).first()


def _add(budget: Budget, seconds: Decimal) -> None:
    Budget.objects.filter(pk=budget.pk).update(taken_s=F("taken_s") + seconds)


def share(run: Run, draw: Draw) -> None:
    """Note what a child that was just stored has taken."""
    Share.objects.create(
        run=run, budget=draw.budget, held_s=run.timeout_s, attempt_s=draw.attempt_s
    )


def renew(run: Run) -> bool:
    """Take as much as the next attempt of a locked run may need; false when nothing is left for one."""
    held = Share.objects.filter(run=run).first() if run.kin else None
    if held is None:
        return True
    budget = _held(held.budget_id)
    if budget is None:
        return True
    left = Decimal(budget.granted_s) - budget.taken_s
    more = max(Decimal(0), min(held.used_s + held.attempt_s - held.held_s, left))
    if more:
        _add(budget, more)
        Share.objects.filter(pk=held.pk).update(held_s=F("held_s") + more)
    seconds = min(held.attempt_s, math.floor(held.held_s + more - held.used_s))
    if seconds < 1:
        return False
    Run.objects.filter(pk=run.pk).exclude(timeout_s=seconds).update(timeout_s=seconds)
    return True


def granted(run: Run) -> int | None:
    """What the run was granted when it was submitted; ``None`` for a child and for one without."""
    if not run.kin:
        return None
    return Budget.objects.filter(run=run).values_list("granted_s", flat=True).first()
