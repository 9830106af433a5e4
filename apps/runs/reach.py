"""Which runs a person may see, in ways that stay quick in a long table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, TypeVar

from django.contrib.postgres.expressions import ArraySubquery
from django.db import models
from django.db.models import Q

from apps.agents.models import AgentVersion
from apps.identity.holdings import Reach, reach_of
from apps.identity.models import AnyOf, User

Row = TypeVar("Row", bound=models.Model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What makes a run of the person's organization visible to them.

    Of somebody with very many single runs and wider places as well, ``ways`` are two conditions that
    together are the whole. No one index serves both; ``newest`` takes each by its own.
    """

    whole: Q
    ways: tuple[Q, ...] = ()


def of(user: User) -> Sight:
    reach = reach_of(user)
    if reach.everything:
        return Sight(whole=Q())
    if reach.run_keys is None:
        return Sight(whole=_wide(reach))
    # The newest of very many single runs are fetched by key, wherever they are.
    by_key = Q(AnyOf("pk", ArraySubquery(reach.run_keys)))
    if not (reach.projects or reach.agents):
        return Sight(whole=by_key)
    wide = _wide(reach)
    # For single rows the keys are hashed: an array of ten thousand would be searched from its start.
    return Sight(whole=wide | Q(pk__in=reach.run_keys), ways=(wide, by_key))


def _wide(reach: Reach) -> Q:
    versions = AgentVersion.objects.filter(agent__in=reach.agents)
    found = Q(project__in=reach.projects)
    found |= Q(agent_version__in=list(versions.values_list("pk", flat=True)))
    found |= Q(public_id__in=reach.runs)
    return found


class SeenQuerySet(models.QuerySet[Row]):
    """Runs, as far as somebody sees them."""

    # The two ways in which they are seen, where there are two, and the condition of the query that says
    # both.
    ways: tuple[Q, ...] = ()
    both: Any = None

    def visible_to(self, user: User) -> Self:
        sight = of(user)
        found = self.filter(organization_id=user.organization_id).filter(sight.whole)
        if sight.ways:
            found.ways, found.both = sight.ways, found.query.where.children[-1]
        return found

    def newest(self, count: int) -> Self:
        """The newest of these runs, at most so many. What narrows them comes before.

        One walk through the list that looks for both ways passes by all that neither leads to. So each
        way gives its newest by its own index, and the newest of these are the newest of all.
        """
        found = self.order_by("-pk")
        if self.ways:
            one, other = (found.seen_by(way).values("pk")[:count] for way in self.ways)
            keys = ArraySubquery(one.union(other, all=True))
            found = found.seen_by(Q(AnyOf("pk", keys)))
        return found[:count]

    def seen_by(self, way: Q) -> Self:
        """The same, with another condition in the place of the one that says both ways."""
        found = self.all()
        conditions = found.query.where.children
        # Not there any more: refused, so that no way leads past what is visible.
        place = conditions.index(self.both)
        conditions[place] = models.QuerySet(self.model).filter(way).query.where
        return found

    def _clone(self) -> Self:
        clone: Self = super()._clone()  # type: ignore[misc]
        clone.ways, clone.both = self.ways, self.both
        return clone
