"""Parents and children: what a run that is started under another one inherits, and who stands where.

Triggers keep the tree (see migration 0015): whose child a run is, is said once; a run that has ended or is
to be cancelled gets no more children; and its end, however it comes about, dooms those it has. What is left
to do here is to hold a tree within its bounds and to hand down what is inherited.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db.models import Count

from apps.core import sql, tracing
from apps.core.errors import Invalid
from apps.identity.models import User
from apps.runs.errors import LeaseLost, ParentIsOver, TooDeep, TooManyChildren
from apps.runs.kin_models import Budget, ChildRun
from apps.runs.models import Run, RunLease
from apps.runs.services import budgets, lifecycle
from apps.runs.types import MOST_LABELS, LeaseState, OnParentEnd, RunState

# Runs of a tree on a run's page.
_SHOWN: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Bond:
    """What ties a run that is submitted to its parent."""

    parent: Run
    on_parent_end: OnParentEnd = OnParentEnd.CANCEL
    # The parent's name for the child, and what was asked for under it. Empty over the API.
    key: str = ""
    fingerprint: str = ""
    # The lease in whose name the parent's own code asks; ``None`` when a person does.
    token: int | None = None


def lock(bond: Bond, *, also: Sequence[int] = ()) -> ChildRun | None:
    """Hold the parent, the root and the runs of these keys until the commit, and prove the lease.

    Returns the child that the parent has under this key already. Raises ``LeaseLost``, ``ParentIsOver``.
    """
    sql.require_transaction("kin.lock")
    parent_id = bond.parent.pk
    root_id = _root_of(parent_id)
    held = {run.pk: run for run in lifecycle.lock_many([root_id, parent_id, *also])}
    parent = held[parent_id]
    if bond.token is not None and not _holds(parent_id, bond.token):
        raise LeaseLost(run_id=bond.parent.public_id)
    if bond.key:
        earlier = ChildRun.objects.select_related("run").filter(parent=parent_id, key=bond.key)
        if (child := earlier.first()) is not None:
            return child
    _require_open(parent)
    return None


def _require_open(parent: Run) -> None:
    if parent.is_over or parent.state == RunState.CANCELLING:
        raise ParentIsOver(state=parent.state)


def _root_of(parent_id: int) -> int:
    above = ChildRun.objects.filter(run=parent_id).values_list("root", flat=True).first()
    return parent_id if above is None else above


def _holds(run_id: int, token: int) -> bool:
    held = RunLease.objects.filter(run=run_id, token=token, state=LeaseState.RUNNING)
    return held.exists()


def inherit(run: Run, parent: Run) -> None:
    """Give a run that is not stored yet what it has from its parent. Raises ``Invalid``.

    Its labels, unless it has its own; the trace; and the end of its time, which is never later.
    """
    if run.project_id != parent.project_id:
        rule = "must be a run of the same project"
        raise Invalid([{"field": "parent", "rule": rule}])
    run.labels = parent.labels | run.labels
    if len(run.labels) > MOST_LABELS:
        rule = f"must be at most {MOST_LABELS}, with those of the parent"
        raise Invalid([{"field": "labels", "rule": rule}])
    run.trace = parent.trace
    run.trace_id = tracing.trace_id_of(parent.trace)
    run.latest_end = parent.total_deadline
    if run.budget_s is not None:
        rule = "is given to a run that has no parent; its children draw on it"
        raise Invalid([{"field": "budget_s", "rule": rule}])


def draw(run: Run, parent: Run) -> budgets.Draw | None:
    """Take of the budget of the tree for a child that is not stored yet. Raises ``BudgetSpent``."""
    return budgets.take(run, _root_of(parent.pk))


def tie(run: Run, bond: Bond, drawn: budgets.Draw | None) -> None:
    """Make a run that was just stored a child. Raises ``TooDeep`` and ``TooManyChildren``.

    The caller has locked parent and root, so that the count is exact.
    """
    above = ChildRun.objects.filter(run=bond.parent.pk).first()
    root_id, depth = (above.root_id, above.depth + 1) if above else (bond.parent.pk, 1)
    _require_bounds(depth, ChildRun.objects.filter(root=root_id).count())
    ChildRun.objects.create(
        run=run,
        parent=bond.parent,
        root_id=root_id,
        depth=depth,
        key=bond.key,
        fingerprint=bond.fingerprint,
        on_parent_end=bond.on_parent_end,
    )
    if drawn:
        budgets.share(run, drawn)
    run.kin = True


def _require_bounds(depth: int, size: int) -> None:
    if depth > settings.AOS_CHILD_DEPTH:
        raise TooDeep(most=settings.AOS_CHILD_DEPTH)
    if size >= settings.AOS_CHILDREN:
        raise TooManyChildren(most=settings.AOS_CHILDREN)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Adopted:
    run: Run
    bond: Bond
    drawn: budgets.Draw | None


class Brood:
    """Children that people submit together: ``lock``, ``inherit``, ``draw`` and ``tie`` for all of them.

    Parents and roots, and the runs of these keys, are held until the commit, and looked at once.
    """

    def __init__(self, bonds: Sequence[Bond], *, also: Sequence[int] = ()) -> None:
        sql.require_transaction("kin.Brood")
        parents = {bond.parent.pk for bond in bonds}
        self._above = {row.run_id: row for row in ChildRun.objects.filter(run__in=parents)}
        roots = {self._root_of(parent) for parent in parents}
        locked = lifecycle.lock_many([*roots, *parents, *also]) if bonds else []
        self._held = {run.pk: run for run in locked}
        trees = ChildRun.objects.filter(root__in=roots).order_by().values_list("root")
        self._sizes = dict(trees.annotate(size=Count("pk")))
        self._granted = set(Budget.objects.filter(pk__in=roots).values_list("pk", flat=True))
        self._adopted: list[_Adopted] = []

    def adopt(self, run: Run, bond: Bond) -> None:
        """Give a run that is not stored yet what it has from its parent.

        Raises ``Invalid``, ``ParentIsOver``, ``TooDeep``, ``TooManyChildren`` and ``BudgetSpent``.
        """
        parent = self._held[bond.parent.pk]
        inherit(run, parent)
        _require_open(parent)
        root_id = self._root_of(parent.pk)
        size = self._sizes.get(root_id, 0)
        _require_bounds(self._depth_of(parent.pk) + 1, size)
        drawn = budgets.take(run, root_id) if root_id in self._granted else None
        self._sizes[root_id] = size + 1
        self._adopted.append(_Adopted(run=run, bond=bond, drawn=drawn))

    def tie(self) -> None:
        """Make children of those that were adopted, now that they are stored."""
        ChildRun.objects.bulk_create(
            ChildRun(
                run=each.run,
                parent=each.bond.parent,
                root_id=self._root_of(each.bond.parent.pk),
                depth=self._depth_of(each.bond.parent.pk) + 1,
                on_parent_end=each.bond.on_parent_end,
            )
            for each in self._adopted
        )
        for each in self._adopted:
            if each.drawn:
                budgets.share(each.run, each.drawn)
            each.run.kin = True

    @property
    def parents(self) -> dict[UUID, UUID]:
        """Whose child each of them is."""
        return {each.run.public_id: each.bond.parent.public_id for each in self._adopted}

    def _root_of(self, run_id: int) -> int:
        above = self._above.get(run_id)
        return above.root_id if above else run_id

    def _depth_of(self, run_id: int) -> int:
        above = self._above.get(run_id)
        return above.depth if above else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A run below another one: how many steps, and whose child it is."""

    run: Run
    depth: int
    key: str
    on_parent_end: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What is above and below a run, as far as somebody sees it."""

    parent: Run | None
    branches: Sequence[Branch]


def family(run: Run, *, to: User) -> Family:
    """The parent of a run, and the runs below it, each behind its parent."""
    seen = Run.objects.visible_to(to).select_related("lease").defer("spec", "trace", "result")
    mine = ChildRun.objects.filter(run=run).first()
    parent = seen.filter(pk=mine.parent_id).first() if mine else None
    tree = ChildRun.objects.filter(root=mine.root_id if mine else run.pk, run__gt=run.pk)
    rows = list(tree.order_by("run_id")[: int(settings.AOS_CHILDREN)])
    below: dict[int, list[ChildRun]] = {}
    for row in rows:
        below.setdefault(row.parent_id, []).append(row)
    order = _walk(run.pk, below)[:_SHOWN]
    runs = {each.pk: each for each in seen.filter(pk__in=[row.run_id for row in order])}
    base = mine.depth if mine else 0
    return Family(
        parent=parent,
        branches=[
            Branch(
                run=runs[row.run_id],
                depth=row.depth - base,
                key=row.key,
                on_parent_end=row.on_parent_end,
            )
            for row in order
            if row.run_id in runs
        ],
    )


def _walk(run_id: int, below: dict[int, list[ChildRun]]) -> list[ChildRun]:
    found: list[ChildRun] = []
    for row in below.get(run_id, ()):
        found += [row, *_walk(row.run_id, below)]
    return found


def held_by_parent(run: Run) -> str:
    """What those above a waiting run take up that it may be waiting for, as a sentence."""
    above = ChildRun.objects.filter(run=run).first() if run.kin else None
    while above is not None:
        if RunLease.objects.filter(run=above.parent_id, state=LeaseState.RUNNING).exists():
            return (
                "The run that started it, or one above that, runs and keeps a slot and its places "
                "behind limits until it ends: if it waits for this one, there have to be two."
            )
        above = ChildRun.objects.filter(run=above.parent_id).first()
    return ""
