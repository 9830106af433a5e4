"""Which runs a person may see, as a condition that stays quick in long tables."""

from __future__ import annotations

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import Q

from apps.agents.models import AgentVersion
from apps.identity.holdings import reach_of
from apps.identity.models import AnyOf, User


def condition(user: User) -> Q:
    """On runs of the person's organization."""
    reach = reach_of(user)
    if reach.everything:
        return Q()
    if reach.only_runs:
        # Very many single runs: the newest are fetched by key, wherever they are.
        return Q(AnyOf("pk", ArraySubquery(reach.run_keys)))
    versions = AgentVersion.objects.filter(agent__in=reach.agents)
    found = Q(project__in=reach.projects)
    found |= Q(agent_version__in=list(versions.values_list("pk", flat=True)))
    found |= Q(public_id__in=reach.runs)
    if reach.run_keys is not None:
        found |= Q(pk__in=reach.run_keys)
    return found
